"""Locking: locks that a forked child may use although another thread held them.

fork(2) copies a lock as it is, but not the thread that would release it.
"""

from __future__ import annotations

import os
from threading import RLock
from weakref import WeakSet

__all__ = ["Locked"]


class Locked:
    """Has a ``_lock``, which is a new one in a forked child."""

    def __init__(self) -> None:
        self._lock = RLock()
        _all.add(self)


def _renew() -> None:
    for locked in list(_all):
        locked._lock = RLock()


_all: WeakSet[Locked] = WeakSet()

if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(after_in_child=_renew)
