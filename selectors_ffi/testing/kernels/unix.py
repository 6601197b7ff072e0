"""poll(2) and select(2), which every Unix has beside its own mechanism.

U1 poll passes over an entry whose descriptor is negative; U2 it reports a closed one as POLLNVAL; U3
ERR, HUP and NVAL come unasked; U4 select with a closed descriptor in a set is EBADF; U5 its sets are
bitmaps of ``fd_mask`` words, and the answer is written over them; U6 select reports a hang-up as
readable and an error as both, urgent data is in the third set (Solaris differs); U7 a negative time
is EINVAL, in poll it is for ever; U8 POLLRDHUP, of Linux and FreeBSD 13: the peer will send no more;
U9 an epoll or kqueue is readable while it has something to report (/dev/poll differs).

Not modelled: limits on the number of descriptors (OPEN_MAX, FD_SETSIZE), signal masks, and devices
that a system cannot poll (terminals on old releases of macOS). Readiness is this host's.

Sources: poll(2), select(2) of each system; POSIX.1-2024.
"""

from __future__ import annotations

import errno
import struct
import sys
from typing import Any, Callable

from . import host
from .base import SimulatedKernel

__all__ = ["SimulatedUnix"]

_POLLFD = struct.Struct("=ihh")
_NAMES = (
    *("POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL", "POLLRDNORM"),
    "POLLRDHUP",  # U8
)
_HOSTS = (host.IN, host.PRI, host.OUT, host.ERR, host.HUP, host.NVAL, host.IN, host.RDHUP)


class SimulatedUnix(SimulatedKernel):
    """poll(2), ppoll(2) and select(2)."""

    #: Link symbols under which a system has them; see ``selectors_ffi._abi.target``.
    poll_symbols: tuple[str, ...] = ("poll", "ppoll")
    select_symbol = "select"
    #: U6: what of the host counts in each of the three sets.
    select_counts: tuple[int, ...] = (host.IN | host.HUP | host.ERR, host.OUT | host.ERR, host.PRI)

    def functions(self) -> dict[str, Callable[..., int]]:
        found: dict[str, Callable[..., int]] = {self.select_symbol: self.select}
        found.update({name: getattr(self, name) for name in self.poll_symbols})
        return found

    def poll(self, fds: Any, nfds: int, timeout: int) -> int:
        """Wait for an array of descriptors; ``timeout`` in milliseconds; poll(2)."""
        return self._poll(fds, nfds, None if timeout < 0 else timeout * 1_000_000)

    def ppoll(self, fds: Any, nfds: int, timeout: Any, sigmask: Any) -> int:
        """Wait for an array of descriptors, for a struct timespec; ppoll(2)."""
        try:
            nanoseconds = self._time(timeout, "struct timespec *", "tv_nsec", 1)
        except ValueError:
            return self.fail(errno.EINVAL)  # U7
        return self._poll(fds, nfds, nanoseconds)

    def select(self, nfds: int, reads: Any, writes: Any, excepts: Any, timeout: Any) -> int:
        """Wait for three sets of descriptors; select(2)."""
        if nfds < 0:
            return self.fail(errno.EINVAL)
        try:
            nanoseconds = self._time(timeout, "struct timeval *", "tv_usec", 1000)
        except ValueError:
            return self.fail(errno.EINVAL)  # U7
        pointers = (reads, writes, excepts)
        sets = [self._set(pointer, nfds) for pointer in pointers]
        asked = (host.IN, host.OUT, host.PRI)
        counts = self.select_counts
        wanted: dict[int, int] = {}
        relevant: dict[int, int] = {}
        for numbers, events, bits in zip(sets, asked, counts):
            for number in numbers:
                wanted[number] = wanted.get(number, 0) | events
                relevant[number] = relevant.get(number, 0) | bits | host.NVAL
        revents, interrupted = self._wait(wanted, nanoseconds, relevant)
        if interrupted:
            return self.fail(errno.EINTR)
        if any(bits & host.NVAL for bits in revents.values()):
            return self.fail(errno.EBADF)  # U4
        count = 0
        for pointer, numbers, bits in zip(pointers, sets, counts):
            ready = [number for number in numbers if revents[number] & bits]
            self._put_set(pointer, nfds, ready)
            count += len(ready)
        return count

    def _poll(self, fds: Any, nfds: int, nanoseconds: int | None) -> int:
        size = nfds * _POLLFD.size
        memory = self.memory(fds, size) if nfds else bytearray()
        if memory is None:
            return self.fail(errno.EFAULT)
        to_host = self._flags()
        records = list(_POLLFD.iter_unpack(bytes(memory[:size])))
        wanted: dict[int, int] = {}
        for fd, events, _ in records:
            if fd >= 0:  # U1
                native = _translate(events, to_host)
                wanted[fd] = wanted.get(fd, 0) | native
        revents, interrupted = self._wait(wanted, nanoseconds)
        if interrupted:
            return self.fail(errno.EINTR)
        unasked = host.ERR | host.HUP | host.NVAL  # U2, U3
        from_host = [(native, flag) for flag, native in to_host]
        count = 0
        for index, (fd, events, _) in enumerate(records):
            bits = revents.get(fd, 0) if fd >= 0 else 0
            found = _translate(bits & unasked, from_host) | (_translate(bits, from_host) & events)
            count += bool(found)
            start = index * _POLLFD.size
            memory[start : start + _POLLFD.size] = _POLLFD.pack(fd, events, found)
        return count

    def _wait(
        self,
        wanted: dict[int, int],
        nanoseconds: int | None,
        relevant: dict[int, int] | None = None,
    ) -> tuple[dict[int, int], bool]:
        """Return what is ready, and whether a signal ended the wait before anything was.

        Args:
            wanted: {descriptor: events}.
            nanoseconds: None waits for ever.
            relevant: which of the host's flags count, by descriptor; None: all do.
        """
        deadline = host.Deadline(nanoseconds)
        while True:
            found, inner = self.examine(wanted), self._inner(wanted)
            for fd, asked in inner.items():
                found[fd] = wanted[fd] & host.IN if asked is None else 0  # U9
            revents = found
            if relevant is not None:
                revents = {fd: bits & relevant[fd] for fd, bits in found.items()}
            left = deadline.left()
            if left == 0 or any(revents.values()):
                return revents, False
            # What has hung up, which does not count here, would end every sleep at once.
            idle = {fd: events for fd, events in wanted.items() if not found[fd]}
            for asked in inner.values():
                idle.update(asked or {})
            if len(idle) < len(wanted) or inner:
                left = host.soon(left)
            if not host.sleep(idle, left):
                return revents, True

    def examine(self, wanted: dict[int, int]) -> dict[int, int]:
        """``host.examine``, with what this system reports otherwise, in the host's flags."""
        return host.examine(wanted)

    def _inner(self, wanted: dict[int, int]) -> dict[int, dict[int, int] | None]:
        """Return, for each handle, what its set waits for; None if it has something to report."""
        with self.lock:
            handles = {fd: self.handle(fd) for fd in wanted if fd in self.handles}
            return {fd: self.unready(handle) for fd, handle in handles.items() if handle is not None}

    def unready(self, handle: Any) -> dict[int, int] | None:
        """Return what the set of ``handle`` waits for; None if it has something to report, U9."""
        return {}

    def _flags(self) -> list[tuple[int, int]]:
        """Return (flag of this system, flag of the host)."""
        return [
            (self.ffi.integer_const(name), native)
            for name, native in zip(_NAMES, _HOSTS)
            if self._has(name)
        ]

    def _has(self, name: str) -> bool:
        try:
            self.ffi.integer_const(name)
        except AttributeError:
            return False
        return True

    def _time(self, pointer: Any, kind: str, fraction: str, unit: int) -> int | None:
        """Return a time struct in nanoseconds, None for NULL; ValueError when it is no time."""
        if pointer == self.ffi.NULL:
            return None
        time = self.ffi.cast(kind, pointer)
        seconds, part = time.tv_sec, getattr(time, fraction)
        if seconds < 0 or not 0 <= part * unit < 10**9:
            raise ValueError(f"{seconds}, {part}")
        return int(seconds * 10**9 + part * unit)

    def _words(self, pointer: Any, nfds: int) -> tuple[Any, int, int]:
        """Return (memory, words, bits of a word) of a set, U5."""
        width = self.ffi.sizeof("fd_mask")
        words = -(-nfds // (8 * width))
        return self.memory(pointer, words * width), words, width

    def _set(self, pointer: Any, nfds: int) -> list[int]:
        if pointer == self.ffi.NULL or not nfds:
            return []
        memory, words, width = self._words(pointer, nfds)
        numbers = []
        for index in range(words):
            word = int.from_bytes(bytes(memory[index * width : (index + 1) * width]), sys.byteorder)
            first = 8 * width * index
            while word:
                bit = (word & -word).bit_length() - 1
                word &= word - 1
                if first + bit < nfds:
                    numbers.append(first + bit)
        return numbers

    def _put_set(self, pointer: Any, nfds: int, ready: list[int]) -> None:
        if pointer == self.ffi.NULL or not nfds:
            return
        memory, words, width = self._words(pointer, nfds)
        masks = [0] * words
        for number in ready:
            word, bit = divmod(number, 8 * width)
            masks[word] |= 1 << bit
        for index, mask in enumerate(masks):
            memory[index * width : (index + 1) * width] = mask.to_bytes(width, sys.byteorder)


def _translate(events: int, flags: list[tuple[int, int]]) -> int:
    """Return ``events`` in the flags of another system, by (from, to)."""
    found = 0
    for one, other in flags:
        if events & one:
            found |= other
    return found
