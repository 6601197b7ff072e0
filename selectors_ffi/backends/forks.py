"""Forks: how often this process has forked, and how often it was the child.

A selector compares these counts with what they were when it was made: after a fork, parent and
child share an epoll set, and a kqueue is gone in the child.
"""

from __future__ import annotations

import os

as_child: int = 0  #: fork(2) calls that this process came out of as the child
#: All in which it took part, as parent or child, and ``as_child``; another object after each.
history: tuple[int, int] = (0, as_child)


def _before() -> None:
    global history
    history = history[0] + 1, as_child


def _in_child() -> None:
    global as_child, history
    as_child += 1
    history = history[0], as_child


if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(before=_before, after_in_child=_in_child)
