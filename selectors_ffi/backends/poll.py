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
from itertools import compress, repeat
from struct import Struct

from ..binding import INT_MAX, REFUSALS, milliseconds, nanoseconds
from .base import BOTH, EVENT_READ, SelectorKey
from .beyond import Interest, PollBits
from .table import TableSelector
from .tables import LONGEST, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..binding import Binding
    from .native import Pair
    from .tables import Found

__all__ = ["PollSelector"]

_SPARSE = 8  # with fewer than one ready entry in so many, searching beats filtering
# struct pollfd is int, short, short on every system. It is written as two ints: the second holds events
# and revents.
_SIZE = 8
_LOW = 6 + (sys.byteorder == "big")  # where the lower byte of revents is
_FIRST = _SIZE + _LOW  # the same of the first entry after the waker's
_EVENTS = 16 if sys.byteorder == "big" else 0  # where the bits of events begin in the second int
_WAKER: tuple[int, Pair | None] = (_LOW, None)  # that byte of the waker's, and its result
_pack = Struct("=ii").pack_into
_revents = Struct("=6xH").iter_unpack
_INTEREST = 1 << 40  # added to the number of keys with both directions, so that it is never 0


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        ffi = binding.ffi
        self.table = _Array
        self.pool: list[Table] = []
        self.steps, self.errno, self.error = binding.steps, binding.errno, binding.error
        self.poll = binding.function("poll")
        self.precise = binding.function("ppoll") if binding.has("ppoll") else None
        self.NULL, self.new, self.from_buffer = ffi.NULL, ffi.new, ffi.from_buffer
        self.pollfds = ffi.typeof("struct pollfd *")
        self.bits: PollBits = binding.facts(PollBits)
        self.flags = tuple(flags << _EVENTS for flags in self.bits.flags)
        self.directions = self.bits.directions
        self.events = self.bits.events


class _Array(Table):
    """The array of struct pollfd, and the result that belongs to each entry; see ``Table``."""

    __slots__ = (
        "_beyond", "_duplex", "_end", "_forever", "_last", "_memory", "_pairs",
        "_places", "_poked", "_pollfds", "_precise", "_reader", "_timed", "_timeout", "_timespec",
    )  # fmt: skip

    def __init__(self, facts: _Facts) -> None:
        super().__init__(facts)
        self._memory = bytearray()
        self._pollfds: Any = None
        self._reader: int | None = None  # what entry 0 says
        self._poked = False
        self._timespec: Any = None
        self._timeout: float | None = None  # that of the last call that waited for a time
        self._forever: Iterator[int] | None
        self._timed: Iterator[int] | None
        self._precise: Iterator[int] | None  # those of them that take nanoseconds

    def fill(self, keys: list[SelectorKey], beyond: bool) -> None:
        self._pairs: list[Any] = []  # of the entries from 1 on
        self._places: dict[int, int] | None = None  # descriptor -> its place there, see ``_by_fd``
        self._duplex = 0  # how many keys have both directions
        self._last = _WAKER
        self._beyond = False  # there is, or was, a key with an ``Interest``
        size = _SIZE * (len(keys) + 1)
        if self._pollfds is None or not size <= len(self._memory) < 8 * size + 128:
            self._allocate(bytearray(2 * size))
        if self._poked or self._reader != (-1 if self.waker is None else self.waker.reader):
            self._watch_waker()
        if beyond:
            for key in keys:
                self.put(key)
            return
        memory, pairs, flags, start = self._memory, self._pairs, self.facts.flags, 0
        for key in keys:  # as ``put`` does, and faster
            events = key[2]
            if events == BOTH:
                self._duplex += 1
            pairs.append((key, events))
            start += _SIZE
            _pack(memory, start, key[1], flags[events])

    def empty(self) -> None:
        self.log = self.latest = None
        self._pairs, self._last = [], _WAKER

    def _allocate(self, memory: bytearray) -> None:
        self._pollfds = None  # until the end: after an exception ``fill`` comes here again
        self._reader = None
        self._memory = memory
        self._end = 0  # where the entries end that the bound calls have
        self._pollfds = self.facts.from_buffer(self.facts.pollfds, memory)

    def _watch_waker(self) -> None:
        self._poked, self._reader = False, None
        reader = -1 if self.waker is None else self.waker.reader
        _pack(self._memory, 0, reader, self.facts.flags[EVENT_READ])
        self._reader = reader

    def put(self, key: SelectorKey) -> None:
        fd, events, pairs = key[1], key[2], self._pairs
        self._last = _WAKER
        places = self._by_fd()
        i = places.get(fd)
        if i is None:
            i = len(pairs)
            if _SIZE * (i + 1) == len(self._memory):
                self._allocate(self._memory * 2)
            places[fd] = i
            pairs.append((key, events))
        else:
            if pairs[i][1] == BOTH:
                self._duplex -= 1
            pairs[i] = key, events
        if events == BOTH:
            self._duplex += 1
        if type(events) is Interest:
            self._put_interest(i, fd, events)
        else:
            _pack(self._memory, _SIZE * (i + 1), fd, self.facts.flags[events])

    def _by_fd(self) -> dict[int, int]:
        """Return the place of each descriptor; many tables are filled once and never changed."""
        places = self._places
        if places is None:
            places = self._places = {pair[0][1]: i for i, pair in enumerate(self._pairs)}
        return places

    def _put_interest(self, i: int, fd: int, interest: Interest) -> None:
        if not self._beyond:
            self._beyond = True
            self._duplex += _INTEREST
        flags = self.facts.bits[interest] << _EVENTS
        _pack(self._memory, _SIZE * (i + 1), fd if interest.armed else -1, flags)

    def drop(self, fd: int) -> None:
        places = self._by_fd()
        i = places.pop(fd, None)
        if i is None:
            return
        self._last = _WAKER
        pairs = self._pairs
        if pairs[i][1] == BOTH:
            self._duplex -= 1
        last = pairs.pop()
        if i < len(pairs):  # the last entry takes the place
            pairs[i] = last
            fd = last[0][1]
            places[fd] = i
            if type(last[1]) is Interest:
                self._put_interest(i, fd, last[1])
            else:
                _pack(self._memory, _SIZE * (i + 1), fd, self.facts.flags[last[1]])

    def bind(self) -> None:
        used = len(self._pairs) + 1
        if _SIZE * used != self._end:
            if 8 * _SIZE * used + 128 <= len(self._memory):
                self._allocate(self._memory[: 2 * _SIZE * used])
            self.now = self._forever = self._timed = self._precise = None
            self._end = _SIZE * used  # last: after an exception they are bound anew

    def unbind(self) -> None:
        self.now = self._forever = self._timed = self._precise = None

    def bind_now(self) -> Iterator[int]:
        facts = self.facts
        self.now = steps = facts.steps(facts.poll, repeat((self._pollfds, self._end // _SIZE, 0)))
        return steps  # type: ignore[no-any-return]

    def arm(self, timeout: float | None) -> Iterator[int]:
        facts = self.facts
        if self._poked:
            self._watch_waker()
        if timeout is None:
            steps = self._forever
            if steps is None:
                arguments: tuple[Any, ...] = (self._pollfds, self._end // _SIZE, -1)
                steps = self._forever = facts.steps(facts.poll, repeat(arguments))
            return steps
        if not timeout:
            return self.now or self.bind_now()
        steps = self._timed
        return self._bind_timed(timeout) if steps is None or timeout != self._timeout else steps

    def _bind_timed(self, timeout: float) -> Iterator[int]:
        """Return the same, bound anew; whole milliseconds need no struct, which takes longer."""
        facts, ns = self.facts, min(nanoseconds(timeout), LONGEST)
        self._timed = None  # until the end, so that an exception leaves no half of it
        if facts.precise is None or not ns % 1_000_000:
            arguments: tuple[Any, ...] = (self._pollfds, self._end // _SIZE, milliseconds(timeout))
            steps = facts.steps(facts.poll, repeat(arguments))
        else:
            if self._timespec is None:
                self._timespec = facts.new("struct timespec *")
            self._timespec.tv_sec, self._timespec.tv_nsec = divmod(ns, 1_000_000_000)
            arguments = (self._pollfds, self._end // _SIZE, self._timespec, facts.NULL)
            steps = self._precise or facts.steps(facts.precise, repeat(arguments))
            self._precise = steps
        self._timeout, self._timed = timeout, steps
        return steps  # type: ignore[no-any-return]

    def refused(self, errno: int, timeout: float | None) -> bool:
        if errno not in REFUSALS or not timeout or self._timed is not self._precise:
            return False
        self.facts.precise = None
        return True

    def poke(self) -> None:
        pollfds = self._pollfds
        if pollfds is not None:  # else there is no call yet
            # Not by ``_pack``: two threads that take a bytearray's buffer at once, without the lock of
            # the interpreter, spoil its count of them.
            pollfds.fd = INT_MAX
        self._poked = True

    def woken(self) -> bool:
        return self._memory[_LOW] != 0

    def ready(self, n: int) -> list[Pair]:
        if self._duplex:
            if self._beyond:
                return []
            found = [] if self.woken() else self.found()
            return [(key, events) for key, _, events in found if events]
        low, last = self._last
        if n == 1 and self._memory[low]:  # the same as the last time
            return [last] if last else []
        lows, pairs = self._memory[_FIRST : self._end : _SIZE], self._pairs
        if n == 1:
            i = len(lows.rstrip(b"\0")) - 1
            if i < 0:
                return []
            self._last = _SIZE * i + _FIRST, pairs[i]
            return [pairs[i]]
        if n * _SPARSE >= len(lows):
            result = [*compress(pairs, lows)]
        else:
            result, i = [], -1
            for low in lows.translate(None, b"\0"):
                i = lows.find(low, i + 1)
                result.append(pairs[i])
        return result if len(result) == n else []

    def found(self) -> list[Found]:
        if self._beyond:  # POLLRDHUP is in the upper byte
            ready, revents = self.facts.bits.ready, _revents(self._memory[_SIZE : self._end])
            return [
                (key, flags, ready(flags, events))
                for (key, events), (flags,) in zip(self._pairs, revents)
                if flags
            ]
        lows, directions = self._memory[_FIRST : self._end : _SIZE], self.facts.directions
        return [
            (key, flags, directions[flags] & events)
            for (key, events), flags in zip(compress(self._pairs, lows), compress(lows, lows))
        ]


class PollSelector(TableSelector):
    """Poll-based selector."""

    _mechanism = "poll"
    _make_facts = _Facts
