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
from typing import TYPE_CHECKING, Any

from ..binding import INT_MAX, load, nanoseconds
from .base import EVENT_READ, EVENT_WRITE, SelectorKey
from .table import TableSelector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..binding import Binding
    from .pairs import Pair

__all__ = ["SelectSelector"]


class SelectSelector(TableSelector["_Bitmaps | _SocketArrays"]):
    """Select-based selector."""

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        self._binding = binding = load() if binding is None else binding
        self._ffi = binding.ffi
        self._select = binding.function("select")
        super().__init__()

    def _new_table(self) -> _Bitmaps | _SocketArrays:
        return (_SocketArrays if self._binding.target == "windows" else _Bitmaps)(self._binding)

    def select(self, timeout: float | None = None) -> list[Pair]:
        table = self._take()
        try:
            if not self._wait(table, timeout):
                return []
            fd_to_key = self._fd_to_key
            if self._changed:
                return self._sift(table)
            result = []
            for fd, ready in table.ready():
                key = fd_to_key[fd]
                events = ready & key.events
                if events:
                    result.append((key, events))
            return result
        finally:
            self._put_back(table)

    def _wait(self, table: _Bitmaps | _SocketArrays, timeout: float | None) -> int:
        """Call, until it is not a signal that ends the wait; return how many bits are set."""
        timeval, deadline = self._ffi.NULL, None
        if timeout is not None:
            timeval = self._ffi.new("struct timeval *")
            if not timeout <= 0:
                nanoseconds(timeout)  # refuses what cannot be waited for
                deadline = monotonic() + timeout
        while True:
            if deadline is not None:
                microseconds = -(-nanoseconds(max(timeout or 0, 0)) // 1000)
                timeval.tv_sec, timeval.tv_usec = divmod(microseconds, 1_000_000)
            if table.nothing:
                sleep(0)
            for n in self._binding.calls(self._select, *table.arguments(), timeval):
                break
            if n >= 0:
                return n
            errno = self._ffi.errno if n == -1 else -n
            if errno != EINTR:
                raise self._binding.error(errno)
            if deadline is not None:
                timeout = deadline - monotonic()
