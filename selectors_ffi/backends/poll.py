"""poll(2): every Unix.

Facts. The kernel is handed an array of all descriptors and writes ``revents`` into it. It skips
an entry whose ``fd`` is negative. The time goes to the kernel, which asks every file (25 to 50 ns
each on Linux); what is left to win is to find the ready entries without looking at each in Python.

Decision. The array is the table (see ``table``); what leaves makes a hole, which the next comer
fills. The array's memory is a ``bytearray``, because a slice of that with a step copies one byte
of each ``revents`` at C speed (0.4 ns an entry; a ``memoryview`` needs 8 ns). It is the lower one,
which holds every bit that comes unasked (ERR, HUP, NVAL) and every bit that we ask for. A regular
expression then runs over the zeros (0.4 ns); where many are ready, ``compress`` is faster.

Cost. A copy of one byte per watched descriptor and call.

https://man7.org/linux/man-pages/man2/poll.2.html
"""

from __future__ import annotations

import sys
from array import array
from errno import EINTR, ENOSYS, EPERM
from itertools import compress
from time import monotonic

from ..binding import INT_MAX, milliseconds, nanoseconds
from .base import NativeEvent, SelectorKey, deadline_of
from .directions import BOTH, Directions
from .table import TableSelector, zeros

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..binding import Binding
    from .directions import Pair

__all__ = ["PollSelector"]

_MS_MAX = INT_MAX * 1_000_000  # the longest poll in nanoseconds: one limit on every kernel
_PAGE = 256  # descriptors
_NO_PLACES = array("i", [-1]) * _PAGE
_LOOPS = int(sys.implementation.name == "pypy")  # see ``_decode_loop``
_SPARSE = 8  # with fewer than one ready entry in so many, searching beats filtering


class PollSelector(TableSelector):
    """Poll-based selector."""

    _mechanism = "poll"

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__(binding=binding, debug=debug)
        constant = self._binding.constant
        self._directions = Directions(constant("POLLIN"), constant("POLLOUT"))

    def _new_table(self) -> _Array:
        return _Array(self._binding)

    def select(self, timeout: float | None = None) -> list[Pair]:
        idle = self._idle
        try:
            table = idle.pop()
        except IndexError:
            return self._select_apart(timeout)
        try:
            if self._changed:
                self._update(table)
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
                return self._sift(table)
            if n == 1 and not table.duplex:
                ready = table.memory[table.lower_bytes]
                i = ready.find(table.usual)
                if i < 0:
                    i = zeros()(ready).end()
                return [table.pairs[i] or table.pair(i)]
            return self._decode(table, n)
        except BaseException:
            table.bind()  # a call that has failed is spent, see ``Binding.calls``
            raise
        finally:
            idle.append(table)

    def _decode_bytes(self, table: _Array, n: int) -> list[Pair]:
        """CPython: see the top."""
        ready = table.memory[table.lower_bytes]
        if table.duplex:
            keys: Any = table.keys
            directions = self._directions
            return [
                (key, events)
                for key, flags in zip(compress(keys, ready), compress(ready, ready))
                if (events := directions[flags] & key.events)
            ]
        pairs: Any = table.pairs
        if n * _SPARSE >= len(ready):
            found = list(compress(pairs, ready))
            if not table.unmade or all(found):
                return found
            return [pairs[i] or table.pair(i) for i in compress(range(len(ready)), ready)]
        result, match, i = [], zeros(), -1
        for _ in range(n):
            i = match(ready, i + 1).end()
            result.append(pairs[i] or table.pair(i))
        return result

    def _decode_loop(self, table: _Array, n: int) -> list[Pair]:
        """PyPy: its compiler removes the objects of a plain loop."""
        array, keys, directions = table.array, table.keys, self._directions
        result: list[Any] = []
        for i in range(len(keys)):  # pragma: no branch: the last of n ends it
            flags = array[i].revents
            if flags:
                key: Any = keys[i]
                events = directions[flags] & key.events
                if events:
                    result.append((key, events))
                n -= 1
                if not n:
                    break
        return result

    _decode = _decode_loop if sys.implementation.name == "pypy" else _decode_bytes

    # Everything below is cold.

    def _select_apart(self, timeout: float | None) -> list[Pair]:
        """Wait with a table for this call alone, while another call is using the table."""
        table = self._own_table()
        self._wait_on(table, -1, EINTR, timeout, deadline_of(timeout))
        return self._sift(table)

    def _wait_on(
        self, table: _Array, n: int, errno: int, timeout: float | None, deadline: float | None
    ) -> int:
        """Deal with a failed wait; return how many entries are ready after all."""
        while True:
            if n < -1:
                errno = -n
            if errno in (ENOSYS, EPERM) and deadline is not None and table.timed:
                table.precise = False  # an old kernel, or a seccomp filter
            elif errno != EINTR:
                raise self._binding.error(errno)
            if self._changed and table is self._table:
                self._update(table)  # by the signal handler, that what it registered is heard
            table.bind()
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

    def _sift(self, table: _Array) -> list[Pair]:
        """Decode when registrations have changed during the call; leave out those that have."""
        result = []
        for key, _, flags in self._events(table):
            events = self._directions[flags] & key.events if key else 0
            if key and events:
                result.append((key, events))
        return result

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        table = self._own_table()
        self._wait_on(table, -1, EINTR, timeout, deadline_of(timeout))
        return [NativeEvent(key, fd, flags) for key, fd, flags in self._events(table)]

    def _events(self, table: _Array) -> list[tuple[SelectorKey | None, int, int]]:
        events = []
        for key, entry in zip(table.keys, table.array):
            fd, flags = entry.fd, entry.revents
            if flags and key:
                events.append((key if self._fd_to_key.get(fd) is key else None, fd, flags))
        return events


class _Array:
    """The array of struct pollfd, and what belongs to each entry; see ``Table``."""

    now: Iterator[int]
    forever: Iterator[int]
    bound: bool

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._ffi = ffi = binding.ffi
        read, write = binding.constant("POLLIN"), binding.constant("POLLOUT")
        self._flags = (0, read, write, read | write)
        self._poll = binding.function("poll")
        self.precise = binding.has("ppoll")
        self._timespec = ffi.new("struct timespec *") if self.precise else None
        self._size = ffi.sizeof("struct pollfd")
        self._lower = ffi.offsetof("struct pollfd", "revents") + (sys.byteorder == "big")
        self.duplex = _LOOPS  # how many keys have both directions, and one for PyPy's loop
        self.usual = read & 0xFF  # the byte that most calls find, at the speed of memchr(3)
        self.fill([])
        self.bind()

    def fill(self, keys: list[SelectorKey]) -> None:
        """Move to a new array, with room for as many again."""
        self.bound = False
        self._capacity = 2 * len(keys) + 16
        self.memory = bytearray(self._size * self._capacity)
        self.array = self._ffi.from_buffer("struct pollfd[]", self.memory)
        self.keys: list[SelectorKey | None] = []
        self.pairs: list[Pair | None] = []  # what a key with one direction yields, once it has
        self.unmade = 0  # how many such keys have not yet
        self._places: dict[int, array[int]] = {}  # page of descriptors -> their indexes
        self._holes: list[int] = []
        self.duplex = _LOOPS
        for key in keys:
            self.put(key)

    def bind(self) -> None:
        used = len(self.keys)
        self.lower_bytes = slice(self._lower, self._size * used, self._size)
        calls, poll = self._binding.calls, self._poll
        array = self._ffi.cast("struct pollfd *", self.array)  # passed 15 ns faster than an array
        self.now = calls(poll, array, used, 0)
        self.forever = calls(poll, array, used, -1)
        self.timed = None
        if self.precise:
            ppoll = self._binding.function("ppoll")
            self.timed = calls(ppoll, array, used, self._timespec, self._ffi.NULL)
        self.bound = True

    def until(self, timeout: float) -> Iterator[int]:
        if self.timed is None:
            ms = milliseconds(timeout)
            return self._binding.calls(self._poll, self.array, len(self.keys), ms)
        timespec: Any = self._timespec
        timespec.tv_sec, timespec.tv_nsec = divmod(nanoseconds(timeout, _MS_MAX), 1_000_000_000)
        return self.timed

    def put(self, key: SelectorKey) -> None:
        if len(self.keys) == self._capacity and not self._holes:
            self.fill([key for key in self.keys if key])
        page, place = divmod(key.fd, _PAGE)
        places = self._places.get(page) or self._places.setdefault(page, _NO_PLACES[:])
        i = places[place]
        if i >= 0:
            self._clear(i)
        elif self._holes:
            i = self._holes.pop()
        else:
            i = len(self.keys)
            self.bound = False
            self.keys.append(None)
            self.pairs.append(None)
        places[place] = i
        self.keys[i] = key
        if key.events == BOTH:
            self.duplex += 1
        else:
            self.unmade += 1
        entry = self.array[i]
        entry.fd = key.fd
        entry.events = self._flags[key.events]

    def pair(self, i: int) -> Pair:
        """Return the new pair of an entry; descriptors that stay idle need no memory for one."""
        key: Any = self.keys[i]
        pair = self.pairs[i] = key, key.events
        self.unmade -= 1
        return pair

    def _clear(self, i: int) -> None:
        key: Any = self.keys[i]
        if key.events == BOTH:
            self.duplex -= 1
        elif self.pairs[i] is None:
            self.unmade -= 1
        self.keys[i] = self.pairs[i] = None

    def drop(self, fd: int) -> None:
        page, place = divmod(fd, _PAGE)
        places = self._places.get(page, _NO_PLACES)
        i = places[place]
        if i < 0:
            return
        places[place] = -1
        self._clear(i)
        entry = self.array[i]
        entry.fd = -1
        entry.events = entry.revents = 0
        self._holes.append(i)
        if 2 * len(self._holes) > len(self.keys) + 16:
            self.fill([key for key in self.keys if key])
