"""select(2): every Unix; the sockets of Windows.

What the kernel does
--------------------
It is handed three sets, asks each file in them (25 to 50 ns each on Linux), and overwrites them with
its answer. On Unix a set is a bitmap of words, 64 or 32 bits wide by system; the kernel reads as many
as the highest descriptor needs, FD_SETSIZE is only the size of a C type. On Windows it is a counted
array of sockets, see ``windows``.

The bitmaps
-----------
The table, see ``table``, has the readers and the writers as two integers, in which a bit is set and
cleared at C speed however large the highest descriptor is. Their bytes are the bitmaps. A call works
on a copy, and ``bin`` spells its answer so that ``find`` jumps from one ready descriptor to the next.

The timeout is memory that the kernel reads when the call begins. So ``poke`` sets it to zero, and a
wait without end is a long one that is repeated.

https://man7.org/linux/man-pages/man2/select.2.html
"""

from __future__ import annotations

import os
import sys
from itertools import repeat

from ..binding import nanoseconds
from .base import EVENT_READ, EVENT_WRITE, SelectorKey
from .beyond import EVENT_PRIORITY, Interest, watched
from .table import TableSelector
from .tables import LONGEST, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..binding import Binding
    from .native import Pair
    from .tables import Found

__all__ = ["SelectSelector"]

_MANY = 8  # bits from which on it is faster to spell a bitmap than to take bit by bit
_USUAL = 1 << 16  # descriptors that need not be looked at before bitmaps are made for them


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        ffi = binding.ffi
        self.table = _Bitmaps
        self.pool: list[Table] = []
        self.steps, self.errno, self.error = binding.steps, binding.errno, binding.error
        self.select = binding.function("select")
        self.NULL, self.new, self.buffer = ffi.NULL, ffi.new, ffi.buffer
        self.words, self.timeval = ffi.typeof("fd_mask[]"), ffi.typeof("struct timeval *")
        self.zero = ffi.new(self.timeval)
        self.word = ffi.sizeof("fd_mask")
        self.events = EVENT_READ | EVENT_WRITE | EVENT_PRIORITY
        # In pairs, since the kernel copies words of 8 bytes for an x32 process with words of 4.
        self.width = 2 * self.word
        # A descriptor's place among the bits in memory is fd ^ swap: big endian has a word's bytes
        # in reverse order.
        self.swap = 4 * self.width - 8 if sys.byteorder == "big" else 0


class _Bitmaps(Table):
    """A bitmap for each direction; see ``Table``."""

    __slots__ = (
        "_arguments", "_bell", "_beyond", "_excepts", "_half", "_nfds", "_readers", "_swap",
        "_timed", "_timeval", "_writers", "keys",
    )  # fmt: skip

    def __init__(self, facts: _Facts) -> None:
        super().__init__(facts)
        self._swap = facts.swap
        self._nfds = -1
        self._half = 0
        self._beyond = False
        self._arguments: tuple[Any, ...]
        self._timeval: Any = None  # until a call waits for a time
        self._timed: Iterator[int] | None

    def fill(self, keys: list[SelectorKey], beyond: bool) -> None:
        self._readers = self._writers = self._excepts = 0
        if self._beyond:
            self._half, self._nfds = 0, -1  # there were three bitmaps
        self._beyond = False  # there is, or was, a key with an ``Interest``
        self._bell = 0 if self.waker is None else 1 << (self.waker.reader ^ self._swap)
        self.keys: dict[int, Any] = {}  # by place
        if beyond:
            for key in keys:
                self.put(key)
            return
        by_place, swap, readers, writers = self.keys, self._swap, 0, 0
        for key in keys:  # as ``put`` does, and faster
            fd, events = key[1], key[2]
            if fd >= _USUAL:
                os.fstat(fd)
            place = fd ^ swap
            by_place[place] = key
            if events & EVENT_READ:
                readers |= 1 << place
            if events & EVENT_WRITE:
                writers |= 1 << place
        self._readers, self._writers = readers, writers

    def empty(self) -> None:
        self.log = self.latest = None
        self.keys = {}

    def put(self, key: SelectorKey) -> None:
        fd, events = key[1], key[2]
        if fd >= _USUAL:
            os.fstat(fd)  # a number that is not open is no reason to make giant bitmaps
        place = fd ^ self._swap
        if place in self.keys:
            self.drop(fd)
        self.keys[place] = key
        if type(events) is Interest:
            self._beyond = True
            events = watched(events)
            if events & EVENT_PRIORITY:
                self._excepts |= 1 << place
        if events & EVENT_READ:
            self._readers |= 1 << place
        if events & EVENT_WRITE:
            self._writers |= 1 << place

    def drop(self, fd: int) -> None:
        place = fd ^ self._swap
        if self.keys.pop(place, None) is not None:
            others = ~(1 << place)
            self._readers &= others
            self._writers &= others
            if self._beyond:
                self._excepts &= others

    def bind(self) -> None:
        readers = self._readers | self._bell
        nfds = (readers | self._writers | self._excepts).bit_length()
        if nfds != self._nfds or self._beyond:
            # Bitmaps stay as large as they are, within reason: a high number may come and go.
            if not nfds < self._half <= 8 * nfds + 1024 or self._beyond:
                self._make_sets(nfds)
            self._nfds = -1
            # On big endian the last place is not the highest descriptor, so whole words are asked for.
            self._arguments = (self._half if self._swap else nfds, *self._arguments[1:])
            self.unbind()
            self._nfds = nfds  # last: after an exception they are bound anew
        interest = readers | self._writers << self._half
        if self._beyond:
            interest |= self._excepts << 2 * self._half
        self.interest = interest.to_bytes(len(self.answer), "little")

    def _make_sets(self, nfds: int) -> None:
        facts = self.facts
        words = (nfds // (8 * facts.width) + 1) * (facts.width // facts.word)
        self._half = 0
        readers = facts.new(facts.words, (2 + self._beyond) * words)
        self.answer = facts.buffer(readers)
        writers = readers + words
        excepts = writers + words if self._beyond else facts.NULL
        self._arguments = (0, readers, writers, excepts, facts.zero)
        self._half = 8 * words * facts.word  # bits of a set; last: after an exception all is made anew

    def unbind(self) -> None:
        self.now = self._timed = None

    def bind_now(self) -> Iterator[int]:
        facts = self.facts
        self.now = steps = facts.steps(facts.select, repeat(self._arguments))
        return steps  # type: ignore[no-any-return]

    def arm(self, timeout: float | None) -> Iterator[int]:
        if timeout is not None and timeout <= 0:
            return self.now or self.bind_now()
        timeval = self._timeval
        if timeval is None:
            timeval = self._timeval = self.facts.new(self.facts.timeval)
        # Linux writes the time that remained, so it must be written for each call.
        ns = LONGEST if timeout is None else min(nanoseconds(timeout), LONGEST)
        timeval.tv_sec, timeval.tv_usec = divmod(-(-ns // 1000), 1_000_000)
        steps = self._timed
        if steps is None:
            facts = self.facts
            arguments = (*self._arguments[:4], timeval)
            steps = self._timed = facts.steps(facts.select, repeat(arguments))
        return steps

    def poke(self) -> None:
        timeval = self._timeval
        if timeval is not None:
            timeval.tv_sec = timeval.tv_usec = 0

    def woken(self) -> bool:
        return self._bell & int.from_bytes(self.answer, "little") != 0

    def ready(self, n: int) -> list[Pair]:
        answer = int.from_bytes(self.answer, "little")
        if answer & self._bell or self._beyond:
            return []
        if n == 1:
            place = answer.bit_length() - 1
            if place < self._half:
                return [(self.keys[place], EVENT_READ)]
            return [(self.keys[place - self._half], EVENT_WRITE)]
        return self._decode(answer, n)

    def found(self) -> list[Found]:
        answer = int.from_bytes(self.answer, "little")
        excepts = answer >> 2 * self._half
        answer &= ~(excepts << 2 * self._half | self._bell)
        found = {key[1]: (key, events, events) for key, events in self._decode(answer, _MANY)}
        while excepts:
            place = excepts.bit_length() - 1
            excepts &= ~(1 << place)
            key = self.keys[place]
            events = EVENT_PRIORITY | found.get(key[1], (key, 0, 0))[1]
            found[key[1]] = key, events, events
        return list(found.values())

    def _decode(self, answer: int, n: int) -> list[Pair]:
        """Return the results of both sets, in which about ``n`` bits are set."""
        writers = answer >> self._half
        readers = answer ^ writers << self._half
        both = readers & writers
        keys, result = self.keys, []
        if n < _MANY:
            ready = readers | writers
            while ready:
                place = ready.bit_length() - 1
                bit = 1 << place
                ready ^= bit
                events = (EVENT_READ if readers & bit else 0) | (EVENT_WRITE if writers & bit else 0)
                result.append((keys[place], events))
            return result[::-1]
        for events, places in (
            (EVENT_READ, readers ^ both),
            (EVENT_WRITE, writers ^ both),
            (EVENT_READ | EVENT_WRITE, both),
        ):
            digits = bin(places)[:1:-1]  # the lowest place first
            i = digits.find("1")
            while i >= 0:
                result.append((keys[i], events))
                i = digits.find("1", i + 1)
        return result


def _make_facts(binding: Binding) -> Any:
    if binding.target == "windows":
        from . import windows

        return windows.Facts(binding)
    return _Facts(binding)


class SelectSelector(TableSelector):
    """Select-based selector."""

    _mechanism = "select"
    _make_facts = staticmethod(_make_facts)
