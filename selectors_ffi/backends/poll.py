"""poll(2): every Unix.

Facts.  The kernel is handed an array of all descriptors and writes ``revents`` into it.  It skips an
entry whose ``fd`` is negative.

Decision.  The array is the table (see ``table``); what leaves makes a hole, and holes are closed when
the array would have to grow.  Ready entries are found in a strided copy of one byte of each
``revents``: the lower one, which holds every bit that comes unasked (ERR, HUP, NVAL) and every bit
that we ask for.  ``re`` and ``compress`` search it without running Python per entry.

https://man7.org/linux/man-pages/man2/poll.2.html
"""

from __future__ import annotations

import re
import sys
from errno import EINTR, ENOSYS, EPERM
from itertools import compress
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..binding import INT_MAX, milliseconds, nanoseconds
from .base import SelectorKey
from .directions import BOTH, Directions
from .table import TableSelector

if TYPE_CHECKING:
    from ..binding import Binding
    from .directions import Pair

__all__ = ["PollSelector"]

_MS_MAX = INT_MAX * 1_000_000  # the longest poll in nanoseconds: one limit on every kernel
_NONZERO = re.compile(rb"[^\0]").finditer
_SPARSE = 8  # with fewer than one ready entry in so many, searching beats filtering


class PollSelector(TableSelector["_Array"]):
    """Poll-based selector."""

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        self._binding = binding = self._bind(binding)
        self._ffi = binding.ffi
        self._poll = binding.function("poll")
        self._ppoll = binding.function("ppoll") if binding.has("ppoll") else None
        read, write = binding.constant("POLLIN"), binding.constant("POLLOUT")
        self._flags = (0, read, write, read | write)
        self._directions = Directions(read, write)
        super().__init__()

    def _add(self, fd: int, events: int) -> None:
        if fd > INT_MAX:
            raise OverflowError("Python int too large to convert to C int")

    def _new_table(self) -> _Array:
        return _Array(self._ffi, self._flags)

    def select(self, timeout: float | None = None) -> list[Pair]:
        table = self._take()
        try:
            n = self._wait(table, timeout)
            if not n:
                return []
            if self._changed:
                return self._sift(table)
            return self._decode(table, n)
        finally:
            self._put_back(table)

    def _wait(self, table: _Array, timeout: float | None) -> int:
        """Call, until it is not a signal that ends the wait; return how many are ready."""
        deadline = None
        if timeout is None:
            ms = -1
        elif timeout <= 0:
            ms = 0
        else:
            ms = milliseconds(timeout)
            deadline = monotonic() + timeout
        arguments: tuple[Any, ...]
        while True:
            if ms > 0 and self._ppoll:
                timespec = self._ffi.new("struct timespec *")
                nanosecond = nanoseconds(timeout, _MS_MAX)  # type: ignore[arg-type] # > 0 here
                timespec.tv_sec, timespec.tv_nsec = divmod(nanosecond, 1_000_000_000)
                arguments = (self._ppoll, table.array, table.used, timespec, self._ffi.NULL)
            else:
                arguments = (self._poll, table.array, table.used, ms)
            for n in self._binding.calls(*arguments):
                break
            if n >= 0:
                return n
            errno = self._ffi.errno if n == -1 else -n
            if errno in (ENOSYS, EPERM) and ms > 0 and self._ppoll:
                self._ppoll = None  # an old kernel, or a seccomp filter
            elif errno != EINTR:
                raise self._binding.error(errno)
            if deadline is not None:
                timeout = deadline - monotonic()
                ms = milliseconds(timeout) if timeout > 0 else 0

    def _decode_bytes(self, table: _Array, n: int) -> list[Pair]:
        """CPython: see the top."""
        ready = bytes(table.low_bytes[: table.used])
        if not table.duplex:
            if n * _SPARSE < table.used:
                pairs = table.pairs
                return [pairs[match.start()] for match in _NONZERO(ready)]  # type: ignore[misc]
            return list(compress(table.pairs, ready))  # type: ignore[arg-type] # no holes are ready
        array, keys, directions = table.array, table.keys, self._directions
        return [
            (key, events)  # type: ignore[misc] # no holes are ready
            for i in compress(range(table.used), ready)
            if (events := directions[array[i].revents] & (key := keys[i]).events)  # type: ignore[union-attr]
        ]

    def _decode_loop(self, table: _Array, n: int) -> list[Pair]:
        """PyPy: its compiler removes the objects of a plain loop."""
        array, keys, directions = table.array, table.keys, self._directions
        result = []
        for i in range(table.used):
            flags = array[i].revents
            if flags:
                key = keys[i]
                events = directions[flags] & key.events  # type: ignore[union-attr]
                if events:
                    result.append((key, events))
                n -= 1
                if not n:
                    break
        return result  # type: ignore[return-value]

    _decode = _decode_loop if sys.implementation.name == "pypy" else _decode_bytes

    # Everything below is cold.

    def _sift(self, table: _Array) -> list[Pair]:
        """Decode when registrations have changed during the call; leave out those that have."""
        result = []
        for key, _, flags in self._events(table):
            events = self._directions[flags] & key.events if key else 0
            if key and events:
                result.append((key, events))
        return result

    def _raw(self, timeout: float | None) -> list[tuple[Any, ...]]:
        table = self._take()
        try:
            self._wait(table, timeout)
            return [(key, fd, flags, 0, 0) for key, fd, flags in self._events(table)]
        finally:
            self._put_back(table)

    def _events(self, table: _Array) -> list[tuple[SelectorKey | None, int, int]]:
        events = []
        for i in range(table.used):
            fd, flags, key = table.array[i].fd, table.array[i].revents, table.keys[i]
            if flags and key:
                events.append((key if self._fd_to_key.get(fd) is key else None, fd, flags))
        return events


class _Array:
    """The array of struct pollfd, and what belongs to each entry; see ``Table``."""

    def __init__(self, ffi: Any, flags: tuple[int, ...]) -> None:
        self._ffi = ffi
        self._flags = flags
        self._index: dict[int, int] = {}
        self._capacity = 0
        self._allocate(16)

    def _allocate(self, capacity: int) -> None:
        """Move what is watched to a new array, without holes."""
        old = [key for key in getattr(self, "keys", ()) if key is not None]
        self._capacity = capacity
        self.array = self._ffi.new("struct pollfd[]", capacity)
        self.used = 0
        self.keys: list[SelectorKey | None] = []
        self.pairs: list[Pair | None] = []  # where the key has one direction
        self.duplex = 0  # how many have both
        self._index.clear()
        size = self._ffi.sizeof("struct pollfd")
        low = self._ffi.offsetof("struct pollfd", "revents") + (sys.byteorder == "big")
        self.low_bytes = memoryview(self._ffi.buffer(self.array)).cast("B")[low::size]
        for key in old:
            self.put(key)

    def put(self, key: SelectorKey) -> None:
        i = self._index.get(key.fd)
        if i is None:
            if self.used == self._capacity:
                self._allocate(2 * (len(self._index) + 1) + 14)
            i = self._index[key.fd] = self.used
            self.used += 1
            self.keys.append(None)
            self.pairs.append(None)
        else:
            self._clear(i)
        duplex = key.events == BOTH
        self.duplex += duplex
        self.keys[i] = key
        self.pairs[i] = None if duplex else (key, key.events)
        entry = self.array[i]
        entry.fd = key.fd
        entry.events = self._flags[key.events]

    def drop(self, fd: int) -> None:
        i = self._index.pop(fd, None)
        if i is not None:
            self._clear(i)

    def _clear(self, i: int) -> None:
        key = self.keys[i]
        self.duplex -= key is not None and key.events == BOTH
        self.keys[i] = self.pairs[i] = None
        entry = self.array[i]
        entry.fd = -1
        entry.events = entry.revents = 0
