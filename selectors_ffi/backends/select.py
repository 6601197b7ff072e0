"""select(2): every Unix; the sockets of Windows.

Facts. The kernel is handed three sets, and overwrites them with its answer. On Unix a set is a
bitmap of words, 64 or 32 bits wide by system; the kernel reads as many as the highest descriptor
needs, FD_SETSIZE is only the size of a C type. On Windows it is a counted array, see ``sockets``.
As with poll(2) the time goes to the kernel, which asks every file.

Decision. The table (see ``table``) holds one ``bytearray`` with a bitmap for each direction, as
long as they must be; a call works on a copy. A regular expression runs over the zero bytes of the
answer, and a dict tells the bits of the others. Which descriptor a byte begins with is looked up
too, so that big endian needs no code of its own.

https://man7.org/linux/man-pages/man2/select.2.html
"""

from __future__ import annotations

import os
import sys
from errno import EBADF, EINTR
from time import monotonic

from ..binding import nanoseconds
from .base import EVENT_READ, EVENT_WRITE, NativeEvent, SelectorKey, deadline_of
from .directions import BOTH
from .sockets import Sockets
from .table import TableSelector, zeros

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Union

    from ..binding import Binding
    from .directions import Pair

__all__ = ["SelectSelector"]


class SelectSelector(TableSelector):
    """Select-based selector."""

    _mechanism = "select"

    def _new_table(self) -> _Sets:
        return (Sockets if self._binding.target == "windows" else _Bitmaps)(self._binding)

    def select(self, timeout: float | None = None) -> list[Pair]:
        idle = self._idle
        try:
            table = idle.pop()
        except IndexError:
            return self._select_apart(timeout)
        try:
            if self._changed:
                self._update(table)
            table.arm()
            deadline = None
            if timeout is None:
                steps = table.forever
            elif timeout <= 0:
                steps = table.now
            else:
                deadline = monotonic() + timeout
                steps = table.until(timeout)
            for n in steps:
                break
            if n <= 0:
                if n:
                    n = self._wait_on(table, n, self._ffi.errno, timeout, deadline)
                if not n:
                    return []
            if self._changed:
                return self._sift(table, n)
            result: list[Pair] = table.ready(n)
            return result
        except BaseException:
            table.bind()  # a call that has failed is spent, see ``Binding.calls``
            raise
        finally:
            idle.append(table)

    # Everything below is cold.

    def _select_apart(self, timeout: float | None) -> list[Pair]:
        """Wait with a table for this call alone, while another call is using the table."""
        table = self._own_table()
        return self._sift(table, self._wait_on(table, 0, EINTR, timeout, deadline_of(timeout)))

    def _wait_on(
        self, table: _Sets, n: int, errno: int, timeout: float | None, deadline: float | None
    ) -> int:
        """Deal with a failed wait; return how many bits are set after all.

        Args:
            n: what the call returned, 0 if none has been made yet; ``errno`` is as in
                ``Binding.calls``.
        """
        while True:
            if n < 0:
                errno = table.reason(-n if n < -1 else errno)
            changed = self._changed and table is self._table
            # EBADF: perhaps of a descriptor that another thread has unregistered, then closed.
            if errno != EINTR and not (errno == EBADF and changed):
                raise self._binding.error(errno)
            if changed:
                self._update(table)  # what a signal handler has registered is heard, too
            table.bind()
            table.arm()
            remaining = 0.0 if deadline is None else deadline - monotonic()
            if not remaining <= 0:  # NaN, too, which is refused
                steps = table.until(remaining)
            else:
                steps = table.forever if timeout is None else table.now
            for n in steps:
                break
            if n >= 0:
                return n
            errno = self._ffi.errno

    def _sift(self, table: _Sets, n: int) -> list[Pair]:
        """Decode when registrations have changed during the call; leave out those that have."""
        return [pair for pair in table.ready(n) if self._fd_to_key.get(pair[0].fd) is pair[0]]

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        table = self._own_table()
        n = self._wait_on(table, 0, EINTR, timeout, deadline_of(timeout))
        ready = ((key.fd, events) for key, events in table.ready(n))
        return [NativeEvent(self._fd_to_key.get(fd), fd, events) for fd, events in ready]


class _Bits(dict):  # type: ignore[type-arg] # dict[...] as a base is slower to look up on 3.9
    """Byte of the readers | byte of the writers << 8 -> (number, EVENT_* mask) of each bit set."""

    def __missing__(self, bytes_: int) -> tuple[tuple[int, int], ...]:
        masks = [
            EVENT_READ * (bytes_ >> bit & 1) | EVENT_WRITE * (bytes_ >> bit + 8 & 1) for bit in range(8)
        ]
        bits = self[bytes_] = tuple((bit, events) for bit, events in enumerate(masks) if events)
        return bits


_bits = _Bits()


class _Bitmaps:
    """A bitmap of words for each direction; see ``Table``."""

    now: Iterator[int]
    forever: Iterator[int]
    bound: bool

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._ffi = ffi = binding.ffi
        self._select = binding.function("select")
        self._width = ffi.sizeof("fd_mask")  # bytes in a word
        # A descriptor's place among the bits in memory is fd ^ swap: big endian has a word's bytes
        # in reverse order.
        self._swap = 8 * (self._width - 1) if sys.byteorder == "big" else 0
        self._zero = ffi.new("struct timeval *")
        self._timeval = ffi.new("struct timeval *")
        self.fill([])
        self.bind()

    def fill(self, keys: list[SelectorKey]) -> None:
        self.keys: list[Any] = []  # in the order of the bits in memory; None where none is watched
        self._duplex = 0  # how many keys have both directions
        self._nfds = 0
        self._allocate(4)
        for key in keys:
            self.put(key)

    def _allocate(self, words: int) -> None:
        self.bound = False
        self._words = words
        self._size = words * self._width
        self.keys += [None] * (8 * self._size - len(self.keys))
        self._interest = bytearray(2 * self._size)
        self._answer = bytearray(2 * self._size)
        for key in filter(None, self.keys):
            self._mark(key.fd, key.events)

    def _mark(self, fd: int, events: int) -> None:
        byte, bit = divmod(fd ^ self._swap, 8)
        for i, event in ((byte, EVENT_READ), (self._size + byte, EVENT_WRITE)):
            if events & event:
                self._interest[i] |= 1 << bit
            else:
                self._interest[i] &= ~(1 << bit)

    def bind(self) -> None:
        answer = self._ffi.from_buffer("fd_mask[]", self._answer)
        self._arguments = (
            self._select, self._nfds, answer, answer + self._words, self._ffi.NULL,
        )  # fmt: skip
        calls = self._binding.calls
        self.now = calls(*self._arguments, self._zero)
        self.forever = calls(*self._arguments, self._ffi.NULL)
        self._timed = calls(*self._arguments, self._timeval)
        self.bound = True

    def arm(self) -> None:
        """Write the interest over the answer."""
        self._answer[:] = self._interest

    @staticmethod
    def reason(errno: int) -> int:
        """Return why a call has failed, ``errno``."""
        return errno

    def until(self, timeout: float) -> Iterator[int]:
        # Linux writes the time that remained; so it must be written for each call.
        microseconds = -(-nanoseconds(timeout) // 1000)
        self._timeval.tv_sec, self._timeval.tv_usec = divmod(microseconds, 1_000_000)
        return self._timed

    def put(self, key: SelectorKey) -> None:
        fd = key.fd
        # In pairs, since the kernel copies words of 8 bytes for an x32 process with words of 4.
        words = 2 * (fd // (16 * self._width) + 1)
        if words > self._words:
            os.fstat(fd)  # a number that is not open is no reason to allocate a giant bitmap
            self._allocate(max(words, 2 * self._words))
        self.drop(fd)
        self.keys[fd ^ self._swap] = key
        self._duplex += key.events == BOTH
        self._mark(fd, key.events)
        if fd >= self._nfds:
            self.bound = False
            self._nfds = fd + 1

    def drop(self, fd: int) -> None:
        keys, swap = self.keys, self._swap
        key = keys[fd ^ swap] if 0 <= fd < self._nfds else None
        if key is None:
            return
        keys[fd ^ swap] = None
        self._duplex -= key.events == BOTH
        self._mark(fd, 0)
        while self._nfds and keys[(self._nfds - 1) ^ swap] is None:
            self.bound = False
            self._nfds -= 1

    def ready(self, n: int) -> list[Pair]:
        """Decode ``n`` bits."""
        if self._duplex:
            return self._ready_either()
        answer, keys, size, match = self._answer, self.keys, self._size, zeros()
        result: list[Pair] = []
        i = -1
        while len(result) < n:
            i = match(answer, i + 1).end()
            if i < size:
                first, bits = 8 * i, _bits[answer[i]]
            else:
                first, bits = 8 * (i - size), _bits[answer[i] << 8]
            for bit, events in bits:
                result.append((keys[first + bit], events))
        return result

    def _ready_either(self) -> list[Pair]:
        """Decode where a key may have a bit in both bitmaps."""
        readers, writers = self._answer[: self._size], self._answer[self._size :]
        either = int.from_bytes(readers, "little") | int.from_bytes(writers, "little")
        answer, keys, match = either.to_bytes(self._size, "little"), self.keys, zeros()
        result: list[Pair] = []
        i = match(answer).end()
        while i < self._size:
            for bit, events in _bits[readers[i] | writers[i] << 8]:
                result.append((keys[8 * i + bit], events))
            i = match(answer, i + 1).end()
        return result


if TYPE_CHECKING:
    _Sets = Union[_Bitmaps, Sockets]
