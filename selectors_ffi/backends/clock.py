"""Clock: time that cannot be taken away from a wait.

Libraries that freeze time put a function of their own wherever a module has a name for
``time.monotonic``. A wait that asked such a clock would never end. So the real one is kept where they
do not look, in an object; and a clock that stands still ends the wait after ``_PATIENCE`` looks.
"""

from __future__ import annotations

import time

__all__ = ["Deadline", "clock"]

_PATIENCE = 100  # looks; two system calls lie between two of them


class _Clock:
    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


clock = _Clock()


class Deadline:
    """When a wait is over.

    Args:
        timeout: seconds; None never, <= 0 at once.
        start: when the wait began, by ``clock.now()``.
    """

    def __init__(self, timeout: float | None, start: float) -> None:
        self._timeout = timeout
        self._start = self._last = start
        self._stopped = 0  # looks at which the clock had not advanced

    def remaining(self) -> float | None:
        """Return the seconds that are left, 0 if none are; None if it never ends."""
        if self._timeout is None:
            return None
        if self._timeout <= 0:
            return 0
        now = clock.now()
        self._stopped = self._stopped + 1 if now == self._last else 0
        self._last = now
        if self._stopped > _PATIENCE:
            return 0
        return max(self._start + self._timeout - now, 0)
