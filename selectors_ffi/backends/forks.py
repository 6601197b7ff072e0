"""Forks: how often this process has forked, and how often it was the child.

A selector compares these counts with what they were when it was made: after a fork, parent and
child share an epoll set, and a kqueue is gone in the child.
"""

from __future__ import annotations

import os

seen = 0  #: fork(2) calls in which this process took part, as parent or child
as_child = 0  #: those of them that this process came out of as the child


def _before() -> None:
    global seen
    seen += 1


def _in_child() -> None:
    global as_child
    as_child += 1


if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(before=_before, after_in_child=_in_child)
