"""Complaints: what this package says of itself on standard error, if that is still standard error.

A daemon closes descriptors that it does not know, 2 among them. The next file or socket that the program
opens gets the number. A line for standard error would then be written into it.
"""

from __future__ import annotations

import os
import sys

__all__ = ["complain", "given_out_again"]


def given_out_again(file: object) -> bool:
    """Tell whether the descriptor of Python's standard error has become another file's.

    What Python opens is not inherited by other programs. Standard error is, and so is what ``dup2()``
    puts in its place.
    """
    own = sys.__stderr__
    if own is None or file is not own or os.name != "posix":
        return False
    try:
        return not os.get_inheritable(own.fileno())
    except (OSError, ValueError):  # closed
        return False


def complain(text: str) -> None:
    """Write a line to ``sys.stderr``; do nothing where that is not possible."""
    try:
        if not given_out_again(sys.stderr):
            sys.stderr.write(f"{text}\n")
    except Exception:  # None under pythonw, or closed at exit
        pass
