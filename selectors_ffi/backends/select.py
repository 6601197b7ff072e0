"""select(2): every Unix; the sockets of Windows.

Facts.  The kernel is handed three sets, and overwrites them with its answer.  On Unix a set is a
bitmap of words, 64 or 32 bits wide by system; the kernel reads as many as the highest descriptor
needs, FD_SETSIZE is only the size of a C type.  On Windows it is a counted array, see ``sockets``.
As with poll(2) the time goes to the kernel, which asks every file.

Decision.  The table (see ``table``) holds one ``bytearray`` with a bitmap for each direction, as
long as they must be; a call works on a copy.  A regular expression runs over the zero bytes of the
answer, and a dict tells the bits of the others.  Which descriptor a byte begins with is looked up
too, so that big endian needs no code of its own.

https://man7.org/linux/man-pages/man2/select.2.html
"""

from __future__ import annotations

import os
import sys
from errno import EBADF, EINTR
from time import monotonic

from ..binding import nanoseconds
from .base import EVENT_READ, EVENT_WRITE, SelectorKey, deadline_of
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
            if self._changed or table.duplex:
                return self._sift(table)
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
        return self._sift(table) if self._wait_on(table, 0, EINTR, timeout, deadline_of(timeout)) else []

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

    def _sift(self, table: _Sets) -> list[Pair]:
        """Decode where a key has both directions, or where some have changed during the call."""
        result = []
        fd_to_key, keys = self._fd_to_key, table.keys
        for fd, ready in table.events().items():
            key = fd_to_key.get(fd)
            if key is not None and key is keys[fd]:
                result.append((key, ready & key.events))
        return result

    def _raw(self, timeout: float | None) -> list[tuple[Any, ...]]:
        table = self._own_table()
        self._wait_on(table, 0, EINTR, timeout, deadline_of(timeout))
        events = table.events().items()
        return [(self._fd_to_key.get(fd), fd, ready, 0, 0) for fd, ready in events]


class _Offsets(dict):  # type: ignore[type-arg] # dict[...] as a base is slower to look up on 3.9
    """Byte -> the numbers of its bits that are set."""

    def __missing__(self, byte: int) -> tuple[int, ...]:
        offsets = self[byte] = tuple(bit for bit in range(8) if byte >> bit & 1)
        return offsets


_offsets = _Offsets()


class _Bitmaps:
    """A bitmap of words for each direction; see ``Table``."""

    now: Iterator[int]
    forever: Iterator[int]

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._ffi = ffi = binding.ffi
        self._select = binding.function("select")
        self._width = ffi.sizeof("fd_mask")  # bytes in a word
        self._zero = ffi.new("struct timeval *")
        self._timeval = ffi.new("struct timeval *")
        self.fill([])
        self.bind()

    def fill(self, keys: list[SelectorKey]) -> None:
        self.keys: list[Any] = []  # by descriptor; None where none is watched
        self.duplex = 0  # how many keys have both directions
        self._nfds = 0
        self._allocate(16)
        for key in keys:
            self.put(key)

    def _allocate(self, words: int) -> None:
        self._words = words
        self.keys += [None] * (8 * self._width * words - len(self.keys))
        self._interest = bytearray(2 * words * self._width)
        self._bitmaps = self._ffi.from_buffer("fd_mask[]", self._interest)
        self._answer = bytearray(2 * words * self._width)
        bytes_ = range(self._width) if sys.byteorder == "little" else range(self._width)[::-1]
        #: The descriptor that the lowest bit of each byte stands for.
        self._first = [8 * (self._width * i + j) for i in range(words) for j in bytes_] * 2
        for key in filter(None, self.keys):
            self._mark(key.fd, key.events)

    def _mark(self, fd: int, events: int) -> None:
        word, bit = divmod(fd, 8 * self._width)
        for i, event in ((word, EVENT_READ), (self._words + word, EVENT_WRITE)):
            if events & event:
                self._bitmaps[i] |= 1 << bit
            else:
                self._bitmaps[i] &= ~(1 << bit)

    def bind(self) -> None:
        answer = self._ffi.from_buffer("fd_mask[]", self._answer)
        self._arguments = (
            self._select, self._nfds, answer, answer + self._words, self._ffi.NULL,
        )  # fmt: skip
        calls = self._binding.calls
        self.now = calls(*self._arguments, self._zero)
        self.forever = calls(*self._arguments, self._ffi.NULL)
        self._timed = calls(*self._arguments, self._timeval)

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
        self.keys[fd] = key
        if key.events == BOTH:
            self.duplex += 1
        self._mark(fd, key.events)
        self._nfds = max(self._nfds, fd + 1)

    def drop(self, fd: int) -> None:
        keys = self.keys
        key = keys[fd] if 0 <= fd < self._nfds else None
        if key is None:
            return
        keys[fd] = None
        self.duplex -= key.events == BOTH
        self._mark(fd, 0)
        while self._nfds and keys[self._nfds - 1] is None:
            self._nfds -= 1

    def ready(self, n: int) -> list[Pair]:
        """Decode ``n`` bits, none of which is of a key with both directions."""
        answer, first, keys = self._answer, self._first, self.keys
        result: list[Pair] = []
        match, i = zeros(), -1
        while len(result) < n:
            i = match(answer, i + 1).end()
            fd = first[i]
            for offset in _offsets[answer[i]]:
                key = keys[fd + offset]
                result.append((key, key.events))
        return result

    def events(self) -> dict[int, int]:
        """Return fd -> what is ready."""
        events: dict[int, int] = {}
        answer, first = self._answer, self._first
        size = len(answer)
        match = zeros()
        i = match(answer).end()
        while i < size:
            event = EVENT_READ if 2 * i < size else EVENT_WRITE
            fd = first[i]
            for offset in _offsets[answer[i]]:
                events[fd + offset] = events.get(fd + offset, 0) | event
            i = match(answer, i + 1).end()
        return events


if TYPE_CHECKING:
    _Sets = Union[_Bitmaps, Sockets]
