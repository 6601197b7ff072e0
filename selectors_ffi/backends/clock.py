"""Clock: time that cannot be taken away from a wait.

Libraries that freeze time replace ``time.monotonic`` under every name that a module has for it. A wait
that asked such a clock would never end. So ``clock`` is another object, which calls the real one, also
if this package is imported while time is frozen. If the clock stands still even so, the wait ends after
``PATIENCE`` looks; a call that has slept counts for half of them.
"""

from __future__ import annotations

import time
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PATIENCE", "Deadline", "clock"]

PATIENCE = 100  # system calls; between two of them a real clock advances, and no signal storm is as long

#: Return seconds from some fixed point.
clock: Callable[[], float] = partial(time.monotonic)
if not isinstance(time.monotonic, type(len)) and hasattr(time, "clock_gettime"):
    # A replacement. This one is left alone.
    clock = partial(time.clock_gettime, time.CLOCK_MONOTONIC)

#: Sleep for seconds.
sleep: Callable[[float], None] = partial(time.sleep)


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
