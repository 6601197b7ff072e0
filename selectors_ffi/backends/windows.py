"""The table of select on Windows, where it takes sockets only.

What Winsock does
-----------------
A set is a counted array of sockets, not a bitmap, and the answer is written over it. Three empty sets
are an error, so a wait for nothing watches the waker, a pair of sockets. A failed connect is reported
as an exception, which is readiness to write. No signal ends a wait.

https://learn.microsoft.com/en-us/windows/win32/api/winsock2/nf-winsock2-select
"""

from __future__ import annotations

import os
from itertools import repeat

from ..binding import nanoseconds
from .base import EVENT_READ, EVENT_WRITE
from .beyond import EVENT_PRIORITY, Interest, watched
from .tables import LONGEST, Table
from .wake import SocketWaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..binding import Binding
    from .base import SelectorKey
    from .native import Pair
    from .tables import Found

__all__ = ["OLD", "Facts"]

_EVENTS = EVENT_READ, EVENT_WRITE, EVENT_WRITE | EVENT_PRIORITY
_WSABASE = 10000  # of Winsock's error numbers
#: Those that C has had under another number, which the standard library gives.
OLD = {number: number - _WSABASE for number in (10004, 10009, 10013, 10014, 10022, 10024)}


class Facts:
    """What depends on the binding alone, shared by its selectors."""

    select: Callable[..., int]
    new: Any

    def __init__(self, binding: Binding) -> None:
        self.table = _Sockets
        self.pool: list[Table] = []
        self.events = EVENT_READ | EVENT_WRITE | EVENT_PRIORITY
        self.calls: Callable[..., Iterator[int]] = binding.calls
        self._last_error = binding.function("WSAGetLastError")
        self.select, self.new = binding.function("select"), binding.ffi.new
        self.text: Any = getattr(binding.ffi, "getwinerror", None)  # Windows only

    def errno(self, _step: int) -> int:
        """Return why a step failed: Winsock leaves errno alone. No signal handler runs here."""
        return self._last_error()

    def error(self, errno: int) -> OSError:
        """Return what the standard library raises: Winsock's number, and its errno and text."""
        if os.name == "nt":
            return OSError(0, self.text(errno)[1], None, errno)
        number = OLD.get(errno, errno)
        error = OSError(number, os.strerror(number))
        error.winerror = errno  # type: ignore[attr-defined] # a simulated Winsock
        return error


class _Sockets(Table):
    """Counted arrays of sockets, made for each call; see ``Table``."""

    __slots__ = ("_answer", "_timeval", "keys")

    kind = SocketWaker
    not_open = 10038  # WSAENOTSOCK
    interrupted = 10004  # WSAEINTR

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._timeval: Any = facts.new("struct timeval *")
        self._answer: tuple[Any, ...] = ()
        self.now: Iterator[int] | None = None  # each call has sets of its own

    def fill(self, keys: list[SelectorKey], beyond: bool) -> None:
        self.keys: dict[int, Any] = {key.fd: key for key in keys}

    def empty(self) -> None:
        self.log: list[int] | None = None
        self.latest: object = None
        self.keys = {}

    def put(self, key: SelectorKey) -> None:
        self.keys[key.fd] = key

    def drop(self, fd: int) -> None:
        self.keys.pop(fd, None)

    def bind(self) -> None:
        """Nothing."""

    unbind = bind

    def _select(self, timeval: Any) -> Iterator[int]:
        new, keys = self.facts.new, [(key[1], watched(key[2])) for key in self.keys.values()]
        readers = [fd for fd, events in keys if events & EVENT_READ]
        writers = [fd for fd, events in keys if events & EVENT_WRITE]
        excepts = [fd for fd, events in keys if events & (EVENT_WRITE | EVENT_PRIORITY)]
        if self.waker is not None:
            readers.append(self.waker.reader)
        self._answer = tuple(
            new("fd_set *", {"fd_count": len(fds), "fd_array": fds})
            for fds in (readers, writers, excepts)
        )
        if not readers and not excepts:
            return repeat(0)
        steps: Iterator[int] = self.facts.calls(self.facts.select, 0, *self._answer, timeval)
        return steps

    def bind_now(self) -> Iterator[int]:
        return self._select(self.facts.new("struct timeval *"))

    def arm(self, timeout: float | None) -> Iterator[int]:
        if timeout is not None and timeout <= 0:
            return self.bind_now()
        if not self.keys and self.waker is None:
            self.lend()
        ns = LONGEST if timeout is None else min(nanoseconds(timeout), LONGEST)
        self._timeval.tv_sec, self._timeval.tv_usec = divmod(-(-ns // 1000), 1_000_000)
        return self._select(self._timeval)

    def poke(self) -> None:
        self._timeval.tv_sec = self._timeval.tv_usec = 0

    def woken(self) -> bool:
        return self.waker is not None and self.waker.reader in self._ready()

    def ready(self, n: int) -> list[Pair]:
        found = [] if self.woken() else self.found()
        if any(type(key[2]) is Interest for key, _, _ in found):
            return []
        return [(key, events) for key, _, events in found]

    def found(self) -> list[Found]:
        keys = self.keys
        return [
            (keys[fd], events, events & keys[fd][2])
            for fd, events in self._ready().items()
            if fd in keys
        ]

    def _ready(self) -> dict[int, int]:
        """Return socket -> events; an exception is urgent data, or for the writer a failed connect."""
        ready: dict[int, int] = {}
        for fd_set, event in zip(self._answer, _EVENTS):
            for i in range(fd_set.fd_count):
                fd = fd_set.fd_array[i]
                ready[fd] = ready.get(fd, 0) | event
        return ready
