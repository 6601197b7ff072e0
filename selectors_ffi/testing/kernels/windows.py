"""Winsock's select: counted arrays of sockets, an error for three empty ones, errors of its own.

S1 a set is a count and so many sockets, the answer is written over it; S2 three
sets that are NULL or empty are WSAEINVAL; S3 what is no open socket is
WSAENOTSOCK; S4 a failed connect is an exception, and not readiness to write;
S5 errno stays as it is, WSAGetLastError tells; S6 no signal ends the wait; S7 out-of-band data is
an exception, too.

Not modelled: FD_SETSIZE, and handles that are no descriptors.

https://learn.microsoft.com/en-us/windows/win32/api/winsock2/nf-winsock2-select
"""

from __future__ import annotations

import stat
import struct
from typing import Any, Callable

from . import host
from .base import SimulatedKernel

__all__ = ["SimulatedWindows"]

WSAEINVAL = 10022
WSAENOTSOCK = 10038
SOCKET_ERROR = -1

_TIMEVAL = struct.Struct("=ii")
_COUNT = struct.Struct("=I")
_SOCKET = struct.Struct("@N")  # at the first multiple of its size behind the count


class SimulatedWindows(SimulatedKernel):
    """select and WSAGetLastError of ws2_32.dll, over the sockets of this host."""

    def __init__(self, *, ffi: Any = None) -> None:
        super().__init__("windows", "windows", ffi)
        self.last_error: int = 0

    def functions(self) -> dict[str, Callable[..., int]]:
        return {"select": self.select, "WSAGetLastError": self.WSAGetLastError}

    def WSAGetLastError(self) -> int:
        """Return the error of the last call."""
        return self.last_error

    def failed(self, result: int) -> int:
        self.last_error = -result  # S5
        return SOCKET_ERROR

    def select(self, nfds: int, reads: Any, writes: Any, excepts: Any, timeout: Any) -> int:
        """select of winsock2.h; ``nfds`` is ignored."""
        sets = [self._set(pointer) for pointer in (reads, writes, excepts)]
        if not any(sets):
            return self.fail(WSAEINVAL)  # S2
        for number in {number for one in sets for number in one}:
            file = host.file_of(number)
            if file is None or file.kind != stat.S_IFSOCK:
                return self.fail(WSAENOTSOCK)  # S3
        nanoseconds = None
        if timeout != self.ffi.NULL:
            seconds, fraction = _TIMEVAL.unpack(bytes(self.memory(timeout, _TIMEVAL.size)))
            if seconds < 0 or fraction < 0:
                return self.fail(WSAEINVAL)
            nanoseconds = seconds * 10**9 + fraction * 1000
        found = self._wait(sets, nanoseconds)
        for pointer, ready in zip((reads, writes, excepts), found):
            self._write(pointer, ready)
        return sum(map(len, found))

    def _wait(self, sets: list[list[int]], nanoseconds: int | None) -> list[list[int]]:
        """Return the sockets of each set that are ready; empty when the time is over."""
        deadline = host.Deadline(nanoseconds)
        wanted: dict[int, int] = {}
        for one, flags in zip(sets, (host.IN, host.OUT, host.PRI)):
            for number in one:
                wanted[number] = wanted.get(number, 0) | flags
        while True:
            found = self._ready(sets, host.examine(wanted))
            left = deadline.left()
            if any(found) or left == 0:
                return found
            host.sleep(wanted, left)  # S6

    def _ready(self, sets: list[list[int]], revents: dict[int, int]) -> list[list[int]]:
        reads, writes, excepts = sets
        failed = {number for number, flags in revents.items() if flags & host.ERR}
        return [
            [number for number in reads if revents[number] & (host.IN | host.HUP | host.ERR)],
            [number for number in writes if revents[number] & host.OUT and number not in failed],
            [n for n in excepts if n in failed or revents[n] & host.PRI],  # S4, S7
        ]

    def _array(self) -> int:
        """Where the sockets begin: S1."""
        return max(_COUNT.size, _SOCKET.size)

    def _set(self, pointer: Any) -> list[int]:
        if pointer == self.ffi.NULL:
            return []
        (count,) = _COUNT.unpack(bytes(self.memory(pointer, _COUNT.size)))
        memory = bytes(self.memory(pointer, self._array() + count * _SOCKET.size))
        return [number for (number,) in _SOCKET.iter_unpack(memory[self._array() :])]

    def _write(self, pointer: Any, ready: list[int]) -> None:
        if pointer == self.ffi.NULL:
            return
        size = self._array() + len(ready) * _SOCKET.size
        memory = self.memory(pointer, size)
        memory[: _COUNT.size] = _COUNT.pack(len(ready))
        memory[self._array() : size] = b"".join(map(_SOCKET.pack, ready))

    def watched(self, fd: int) -> dict[int, int]:
        raise NotImplementedError("the kernel keeps no list")
