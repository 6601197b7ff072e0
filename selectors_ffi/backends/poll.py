"""poll(2): every Unix.

What the kernel does
--------------------
It is handed an array of all descriptors, asks each file (25 to 50 ns each on Linux), and writes
``revents`` into the array. It skips an entry whose ``fd`` is negative. What is left to win is to find
the ready entries without looking at each in Python.

The array
---------
The array is the table, see ``table``. Its memory is a ``bytearray``, because a slice of that with a
step copies one byte of each ``revents`` at C speed (0.4 ns an entry). It is the lower byte, which has
every bit that we ask for, and ERR, HUP and NVAL, which come unasked. ``find`` then jumps from one
ready entry to the next; where many are ready, ``compress`` is faster.

Entry 0 is the waker's. Its ``fd`` is -1 while there is none. ``poke`` writes a number there that is
never open, and the kernel reports that at once (POLLNVAL).

https://man7.org/linux/man-pages/man2/poll.2.html
"""

from __future__ import annotations

import sys
from itertools import compress
from struct import Struct

from ..binding import INT_MAX, REFUSALS, milliseconds, nanoseconds
from .base import BOTH, SelectorKey
from .directions import Directions
from .table import LONGEST, Table, TableSelector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..binding import Binding
    from .directions import Pair
    from .table import Found

__all__ = ["PollSelector"]

_SPARSE = 8  # with fewer than one ready entry in so many, searching beats filtering
_SIZE = 8  # of struct pollfd, which is int, short, short on every system
_pack = Struct("=ihh").pack_into
_pack_fd = Struct("=i").pack_into
_LOWER = 6 + (sys.byteorder == "big")  # where the lower byte of revents is


class PollSelector(TableSelector):
    """Poll-based selector."""

    _mechanism = "poll"

    def _make_facts(self, binding: Binding) -> _Facts:
        facts: _Facts = binding.facts(_Facts)
        return facts


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        ffi, constant = binding.ffi, binding.constant
        self.table = _Array
        self.calls, self.errno, self.error = binding.calls, binding.errno, binding.error
        self.poll = binding.function("poll")
        self.precise = binding.function("ppoll") if binding.has("ppoll") else None
        self.NULL, self.new, self.from_buffer = ffi.NULL, ffi.new, ffi.from_buffer
        self.pollfds = ffi.typeof("struct pollfd[]")
        read, write = constant("POLLIN"), constant("POLLOUT")
        self.flags = (0, read, write, read | write)
        self.directions = Directions(read, write)


class _Array(Table):
    """The array of struct pollfd, and the result that belongs to each entry; see ``Table``."""

    __slots__ = (
        "_capacity",
        "_flags",
        "_forever",
        "_lower_bytes",
        "_places",
        "_timed",
        "_timespec",
        "_used",
        "_usual",
        "array",
        "duplex",
        "memory",
        "pairs",
    )  # fmt: skip

    def __init__(self, facts: _Facts) -> None:
        super().__init__(facts)
        self._flags = facts.flags
        self._usual = facts.flags[1] & 0xFF  # the byte that most calls find, by memchr(3)
        self._timespec: Any = None

    def fill(self, keys: list[SelectorKey]) -> None:
        self._used = 0  # entries that the bound calls have
        self._capacity = 2 * len(keys) + 4
        self.memory = bytearray(_SIZE * self._capacity)
        self.array = self.facts.from_buffer(self.facts.pollfds, self.memory)
        self.pairs: list[Any] = []  # of the entries from 1 on
        self._places: dict[int, int] = {}  # descriptor -> its index
        self.duplex = 0  # how many keys have both directions
        self._watch_waker()
        for key in keys:
            self.put(key)

    def put(self, key: SelectorKey) -> None:
        _, fd, events, _ = key
        i = self._places.get(fd)
        if i is None:
            i = len(self.pairs)
            if i + 1 == self._capacity:
                self._grow()
            self.pairs.append(None)
            self._places[fd] = i
        elif self.pairs[i][1] == BOTH:
            self.duplex -= 1
        self.pairs[i] = key, events
        if events == BOTH:
            self.duplex += 1
        _pack(self.memory, _SIZE * (i + 1), fd, self._flags[events], 0)

    def _grow(self) -> None:
        """Move to an array of twice the size; the old one stays where a call may be using it."""
        self._capacity *= 2
        self.memory = self.memory.ljust(_SIZE * self._capacity, b"\0")
        self.array = self.facts.from_buffer(self.facts.pollfds, self.memory)
        self._used = 0

    def drop(self, fd: int) -> None:
        i = self._places.pop(fd, None)
        if i is None:
            return
        pairs = self.pairs
        if pairs[i][1] == BOTH:
            self.duplex -= 1
        last = pairs.pop()
        if i < len(pairs):  # the last entry takes the place
            pairs[i] = last
            fd = last[0].fd
            self._places[fd] = i
            _pack(self.memory, _SIZE * (i + 1), fd, self._flags[last[1]], 0)

    def bind(self) -> None:
        used = len(self.pairs) + 1
        if used != self._used:
            if 8 * used + 16 < self._capacity:
                self.fill([key for key, _ in self.pairs])
            self._used = used
            self._lower_bytes = slice(_SIZE + _LOWER, _SIZE * used, _SIZE)
            self.unbind()

    def unbind(self) -> None:
        self.now = None
        self._forever: Iterator[int] | None = None
        self._timed: Iterator[int] | None = None

    def _calls(self, function: Callable[..., int], *timeout: object) -> Iterator[int]:
        # A pointer is passed 15 ns faster than an array.
        calls: Iterator[int] = self.facts.calls(function, self.array + 0, self._used, *timeout)
        return calls

    def bind_now(self) -> Iterator[int]:
        self.now = steps = self._calls(self.facts.poll, 0)
        return steps

    def arm(self, timeout: float | None) -> Iterator[int]:
        facts = self.facts
        self._watch_waker()
        if timeout is None:
            steps = self._forever
            if steps is None:
                steps = self._forever = self._calls(facts.poll, -1)
            return steps
        if timeout <= 0:
            return self.now or self.bind_now()
        if facts.precise is None:
            return self._calls(facts.poll, milliseconds(timeout))
        if self._timespec is None:
            self._timespec = facts.new("struct timespec *")
        timespec = self._timespec
        timespec.tv_sec, timespec.tv_nsec = divmod(min(nanoseconds(timeout), LONGEST), 1_000_000_000)
        steps = self._timed
        if steps is None:
            steps = self._timed = self._calls(facts.precise, timespec, facts.NULL)
        return steps

    def refused(self, errno: int, timeout: float | None) -> bool:
        facts = self.facts
        precise = timeout is not None and timeout > 0 and facts.precise is not None
        if errno not in REFUSALS or not precise:
            return False
        facts.precise = None
        return True

    def _watch_waker(self) -> None:
        reader = -1 if self.waker is None else self.waker.reader
        _pack(self.memory, 0, reader, self._flags[1], 0)

    def poke(self) -> None:
        _pack_fd(self.memory, 0, INT_MAX)

    def woken(self) -> bool:
        return self.memory[_LOWER] != 0

    def ready(self, n: int) -> list[Pair]:
        if self.duplex:
            found = [] if self.woken() else self.found()
            return [(key, events) for key, _, events in found if events]
        ready, pairs = self.memory[self._lower_bytes], self.pairs
        if n == 1:
            i = ready.find(self._usual)
            if i < 0:
                i = ready.find(ready.translate(None, b"\0") or b"?")
            return [] if i < 0 else [pairs[i]]
        if n * _SPARSE >= len(ready):
            result = [*compress(pairs, ready)]
        else:
            result, i = [], -1
            for value in ready.translate(None, b"\0"):
                i = ready.find(value, i + 1)
                result.append(pairs[i])
        return result if len(result) == n else []

    def found(self) -> list[Found]:
        ready, directions = self.memory[self._lower_bytes], self.facts.directions
        return [
            (key, flags, directions[flags] & events)
            for (key, events), flags in zip(compress(self.pairs, ready), compress(ready, ready))
        ]
