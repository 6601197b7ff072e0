"""The arguments of select on Windows, where it takes sockets only.

Facts. A set is a counted array of sockets, not a bitmap. Three empty ones are an error, and a
failed connect is reported as an exception. The reason of a failure is not in errno.

https://learn.microsoft.com/en-us/windows/win32/api/winsock2/nf-winsock2-select
"""

from __future__ import annotations

from itertools import repeat
from time import sleep

from ..binding import nanoseconds
from .base import EVENT_READ, EVENT_WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..binding import Binding
    from .base import SelectorKey
    from .directions import Pair

__all__ = ["Sockets"]

_DAY = 86400.0


class Sockets:
    """Three counted arrays of sockets; see ``Table``."""

    now: Iterator[int]
    forever: Iterator[int]
    bound = True  # by ``arm``, each time

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._ffi = binding.ffi
        self._select = binding.function("select")
        self.fill([])
        self._timeval = self._ffi.new("struct timeval *")

    def fill(self, keys: list[SelectorKey]) -> None:
        self.keys = {key.fd: key for key in keys}

    def put(self, key: SelectorKey) -> None:
        self.keys[key.fd] = key

    def drop(self, fd: int) -> None:
        self.keys.pop(fd, None)

    def bind(self) -> None:
        """Nothing: ``arm`` makes the calls."""

    def arm(self) -> None:
        """Make new sets, and the calls with them; that sleep where nothing is watched."""
        keys = self.keys.values()
        readers = [key.fd for key in keys if key.events & EVENT_READ]
        writers = [key.fd for key in keys if key.events & EVENT_WRITE]
        self._answer = [
            self._ffi.new("fd_set *", {"fd_count": len(fds), "fd_array": fds})
            for fds in (readers, writers, writers)
        ]
        if keys:
            zero, calls = self._ffi.new("struct timeval *"), self._binding.calls
            self.now = calls(self._select, 0, *self._answer, zero)
            self.forever = calls(self._select, 0, *self._answer, self._ffi.NULL)
        else:
            self.now = repeat(0)
            self.forever = map(_sleep, repeat(None))

    def reason(self, errno: int) -> int:
        """Return why a call has failed: Winsock leaves errno alone, and is never interrupted."""
        return self._binding.function("WSAGetLastError")()

    def until(self, timeout: float) -> Iterator[int]:
        microseconds = -(-nanoseconds(timeout) // 1000)
        if not self.keys:
            return map(_sleep, (timeout,))
        self._timeval.tv_sec, self._timeval.tv_usec = divmod(microseconds, 1_000_000)
        return self._binding.calls(self._select, 0, *self._answer, self._timeval)

    def ready(self, n: int) -> list[Pair]:
        """Decode ``n`` sockets; an exception is for the writer."""
        events: dict[int, int] = {}
        for fd_set, event in zip(self._answer, (EVENT_READ, EVENT_WRITE, EVENT_WRITE)):
            for i in range(fd_set.fd_count) if n else ():
                fd = fd_set.fd_array[i]
                events[fd] = events.get(fd, 0) | event
        keys = self.keys
        return [(keys[fd], ready & keys[fd].events) for fd, ready in events.items()]


def _sleep(timeout: float | None) -> int:
    """Wait with nothing to wait for, as select(2) does on Unix; None is for ever."""
    while timeout is None:
        sleep(_DAY)
    sleep(timeout)
    return 0
