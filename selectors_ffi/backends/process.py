"""The process: a clock that cannot be taken away from a wait, how often it has forked, its threads.

Libraries that freeze time replace ``time.monotonic`` under every name that a module has for it. A wait
that asked such a clock would never end. So ``clock`` is another object, which calls the real one, also
if this package is imported while time is frozen. If the clock stands still even so, the wait ends after
``PATIENCE`` looks; a call that has slept counts for half of them.

A selector compares the counts of forks with what they were when it was made: after a fork, parent and
child share an epoll set, and a kqueue is gone in the child.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from _thread import _count

from ..binding import unpatched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["PATIENCE", "Deadline", "alone", "clock", "forks", "forks_as_child", "frames", "sleep"]

PATIENCE = 100  # system calls; between two of them a real clock advances, and no signal storm is as long

#: Return seconds from some fixed point.
clock = unpatched(time.monotonic)
if not isinstance(time.monotonic, type(len)) and hasattr(time, "clock_gettime"):
    _gettime = unpatched(time.clock_gettime)  # that one was replaced; this is left alone

    def clock() -> float:
        """Return seconds from some fixed point."""
        return _gettime(time.CLOCK_MONOTONIC)


#: Sleep for seconds.
sleep = unpatched(time.sleep)


class Deadline:
    """When a wait is over.

    Args:
        timeout: seconds; None never, <= 0 at once.
        start: when the wait began, by ``clock()``.
    """

    def __init__(self, timeout: float | None, start: float) -> None:
        self._timeout = timeout
        self._start = self._last = start
        self._stopped = 0  # looks at which the clock had not advanced
        self._late = 0  # calls since nothing was left

    def remaining(self, slept: bool = False) -> float | None:
        """Return the seconds that are left, 0 if none are; None if the wait never ends.

        Args:
            slept: whether the last call ended by its timeout, so that a clock must have advanced.
        """
        if self._timeout is None:
            return None
        if self._timeout <= 0:
            return 0
        now = clock()
        advanced, self._last = now > self._last, now
        self._stopped = 0 if advanced else self._stopped + (PATIENCE // 2 if slept else 1)
        if self._stopped > PATIENCE:
            return 0
        timeout = float(self._timeout)
        return max(min(self._start + timeout - now, timeout), 0)  # not longer, if the clock goes back

    def over(self, again: bool) -> bool:
        """Tell whether to give up once nothing is left.

        A call that was interrupted is made ``again``, as what it would have reported may be there. But
        calls that are always interrupted must not make the wait endless.
        """
        self._late += 1
        return not again or self._late > PATIENCE


forks_as_child: int = 0  #: fork(2) calls that this process came out of as the child
#: All in which it took part, as parent or child, and ``forks_as_child``; another object after each.
forks: tuple[int, int] = (0, forks_as_child)


def _before() -> None:
    global forks
    forks = forks[0] + 1, forks_as_child


def _in_child() -> None:
    global forks, forks_as_child
    forks_as_child += 1
    forks = forks[0], forks_as_child


if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(before=_before, after_in_child=_in_child)


def frames() -> dict[int, FrameType]:
    """Return the frame of each thread; in a forked child, which ``_thread`` miscounts, of its own.

    No garbage is collected meanwhile: CPython 3.11 holds a lock of its own then, which the end of a
    ``threading.local`` takes, too, and waits for itself.
    """
    enabled = gc.isenabled()
    try:
        gc.disable()
        return sys._current_frames()
    finally:
        if enabled:
            gc.enable()


def alone() -> bool:
    """Tell whether this is the only thread.

    PyPy crashes when a thread looks at frames that another thread's compiled code is running. There
    the count must do, which may be too large in a forked child: then a waker is rung for no thread.
    """
    return not _count() if sys.implementation.name == "pypy" else len(frames()) == 1
