"""select(2): every Unix; the sockets of Windows.

Facts.  The kernel is handed three sets, and overwrites them with its answer.  On Unix a set is a bitmap
of words, 64 or 32 bits wide by system; the kernel reads as many as the highest descriptor needs,
FD_SETSIZE is only the size of a C type.  On Windows it is a counted array of sockets, three empty
ones are an error, and a failed connect is reported as an exception.

Decision.  The table (see ``table``) holds a bitmap per direction, as long as it must be; a call works
on copies.  Words are read as whole words, which is right on big endian too.

https://man7.org/linux/man-pages/man2/select.2.html
https://learn.microsoft.com/en-us/windows/win32/api/winsock2/nf-winsock2-select
"""

from __future__ import annotations

import os
from errno import EINTR
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Union

from ..binding import INT_MAX, nanoseconds
from .base import EVENT_READ, EVENT_WRITE, SelectorKey
from .table import TableSelector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..binding import Binding
    from .directions import Pair

__all__ = ["SelectSelector"]


class SelectSelector(TableSelector["_Sets"]):
    """Select-based selector."""

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        self._binding = binding = self._bind(binding)
        self._ffi = binding.ffi
        self._select = binding.function("select")
        super().__init__()

    def _new_table(self) -> _Sets:
        return (_SocketArrays if self._binding.target == "windows" else _Bitmaps)(self._ffi)

    def select(self, timeout: float | None = None) -> list[Pair]:
        table = self._take()
        try:
            sets = self._wait(table, timeout)
            fd_to_key = self._fd_to_key
            result = []
            for fd, ready in table.ready(sets):
                key = fd_to_key.get(fd)
                events = ready & key.events if key else 0
                if events:
                    result.append((key, events))
            return result  # type: ignore[return-value] # without a key there are no events
        finally:
            self._put_back(table)

    def _wait(self, table: _Sets, timeout: float | None) -> tuple[Any, ...]:
        """Call, until it is not a signal that ends the wait; return the sets of what is ready."""
        timeval, deadline = self._ffi.NULL, None
        if timeout is not None:
            timeval = self._ffi.new("struct timeval *")
            if not timeout <= 0:
                microseconds = -(-nanoseconds(timeout) // 1000)
                timeval.tv_sec, timeval.tv_usec = divmod(microseconds, 1_000_000)
                deadline = monotonic() + timeout
        while True:
            nfds, sets = table.arguments()
            if sets is None:
                _sleep(timeout)
                return ()
            for n in self._binding.calls(self._select, nfds, *sets, timeval):
                break
            if n > 0:
                return sets
            if n == 0:
                return ()
            errno = self._ffi.errno if n == -1 else -n
            if errno != EINTR:
                raise self._binding.error(errno)
            if deadline is not None:
                microseconds = -(-nanoseconds(max(deadline - monotonic(), 0)) // 1000)
                timeval.tv_sec, timeval.tv_usec = divmod(microseconds, 1_000_000)

    def _raw(self, timeout: float | None) -> list[tuple[Any, ...]]:
        table = self._take()
        try:
            sets = self._wait(table, timeout)
            return [(self._fd_to_key.get(fd), fd, ready, 0, 0) for fd, ready in table.ready(sets)]
        finally:
            self._put_back(table)


class _Bitmaps:
    """Two bitmaps of words; see ``Table``."""

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        self._bits = 8 * ffi.sizeof("fd_mask")
        self._interest: dict[int, int] = {}
        self._nfds = 0
        self._allocate(16)

    def _allocate(self, words: int) -> None:
        old = getattr(self, "_sets", ())
        self._words = words
        self._size = words * self._ffi.sizeof("fd_mask")
        self._sets = tuple(self._ffi.new("fd_mask[]", words) for _ in range(2))
        self._results = tuple(self._ffi.new("fd_mask[]", words) for _ in range(2))
        self._null = self._ffi.NULL
        for new, bitmap in zip(self._sets, old):
            self._ffi.memmove(new, bitmap, self._ffi.sizeof(bitmap))

    def put(self, key: SelectorKey) -> None:
        fd = key.fd
        if fd > INT_MAX:
            raise OverflowError("Python int too large to convert to C int")
        word, bit = divmod(fd, self._bits)
        if word >= self._words:
            os.fstat(fd)  # a number that is not open is no reason to allocate a giant bitmap
            self._allocate(max(word + 1, 2 * self._words))
        for bitmap, event in zip(self._sets, (EVENT_READ, EVENT_WRITE)):
            if key.events & event:
                bitmap[word] |= 1 << bit
            else:
                bitmap[word] &= ~(1 << bit)
        self._interest[fd] = key.events
        self._nfds = max(self._nfds, fd + 1)

    def drop(self, fd: int) -> None:
        if self._interest.pop(fd, None) is None:
            return
        word, bit = divmod(fd, self._bits)
        for bitmap in self._sets:
            bitmap[word] &= ~(1 << bit)
        if fd + 1 == self._nfds:
            self._nfds = max(self._interest, default=-1) + 1

    def arguments(self) -> tuple[int, tuple[Any, ...]]:
        """Return nfds and the three sets, which the call may overwrite."""
        for result, bitmap in zip(self._results, self._sets):
            self._ffi.memmove(result, bitmap, self._size)
        return self._nfds, (*self._results, self._null)

    def ready(self, sets: tuple[Any, ...]) -> Iterator[tuple[int, int]]:
        """Yield (fd, events) per descriptor of the overwritten sets, by number."""
        if not sets:
            return
        words = -(-self._nfds // self._bits)
        unpack = self._ffi.unpack
        readers, writers = unpack(sets[0], words), unpack(sets[1], words)
        for i, (read, write) in enumerate(zip(readers, writers)):
            either = read | write
            while either:
                bit = either & -either
                either ^= bit
                fd = i * self._bits + bit.bit_length() - 1
                yield fd, EVENT_READ * bool(read & bit) | EVENT_WRITE * bool(write & bit)


class _SocketArrays:
    """Three counted arrays of sockets; see ``Table``."""

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        self._interest: dict[int, int] = {}

    def put(self, key: SelectorKey) -> None:
        self._interest[key.fd] = key.events

    def drop(self, fd: int) -> None:
        self._interest.pop(fd, None)

    def arguments(self) -> tuple[int, tuple[Any, ...] | None]:
        """Return nfds, which is ignored, and the sets; None for the sets if all are empty."""
        if not self._interest:
            return 0, None
        readers = [fd for fd, events in self._interest.items() if events & EVENT_READ]
        writers = [fd for fd, events in self._interest.items() if events & EVENT_WRITE]
        return 0, tuple(
            self._ffi.new("fd_set *", {"fd_count": len(fds), "fd_array": fds})
            for fds in (readers, writers, writers)
        )

    def ready(self, sets: tuple[Any, ...]) -> Iterator[tuple[int, int]]:
        """Yield (fd, events) per socket of the overwritten sets; an exception is for the writer."""
        ready: dict[int, int] = {}
        for fd_set, event in zip(sets, (EVENT_READ, EVENT_WRITE, EVENT_WRITE)):
            for i in range(fd_set.fd_count):
                fd = fd_set.fd_array[i]
                ready[fd] = ready.get(fd, 0) | event
        yield from ready.items()


_Sets = Union[_Bitmaps, _SocketArrays]
_DAY = 86400.0


def _sleep(timeout: float | None) -> None:
    """Wait with nothing to wait for, as select(2) does on Unix; None is for ever."""
    while timeout is None:
        sleep(_DAY)
    sleep(max(timeout, 0))
