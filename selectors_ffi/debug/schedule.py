"""Schedule: how long threads had a processor, and how long they waited for one.

Linux says it in a file for each thread, see schedstat in proc(5). The file stays open at a high number.
Opened for each look, it would get a number that the program has just closed, and a ``select()`` on that
number would not fail as it should.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import get_native_id
from typing import TYPE_CHECKING

from .output import Held

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["follow", "keep", "leave", "times_of"]

_UNKNOWN = (0, 0, 0)
#: More than three numbers of 64 bits and the blanks between them.
_SIZE = 80


class _Schedule(Held):
    """The file of one thread; closed if it cannot be opened at a high number."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        with suppress(OSError):
            self.take_high(os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY))

    def times(self) -> tuple[int, int, int]:
        if self.ours():
            with suppress(OSError, ValueError):  # the thread has ended
                had, lacked, slices = map(int, os.pread(self.fd, _SIZE, 0).split())
                return had, lacked, slices
        self.close()
        return _UNKNOWN


_schedules: dict[int, _Schedule] = {}


def follow() -> None:
    """Have the times of the calling thread known; the thread itself opens the file.

    A thread of ours would take the number while the program runs.
    """
    thread = get_native_id()
    known = _schedules.get(thread)
    if known is None or known.fd < 0:
        _schedules[thread] = _Schedule(thread)


def keep(threads: Collection[int]) -> None:
    """Close the files of all threads but these."""
    for thread in [one for one in list(_schedules) if one not in threads]:
        leave(thread)


def leave(thread: int) -> None:
    """Close the file of a thread."""
    gone = _schedules.pop(thread, None)
    if gone is not None:
        gone.close()


def times_of(thread: int) -> tuple[int, int, int]:
    """Return how long a thread had a processor and waited for one, in ns, and how often it got one.

    All are 0 where that is not known.
    """
    known = _schedules.get(thread)
    return _UNKNOWN if known is None else known.times()
