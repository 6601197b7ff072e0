"""The output buffer of epoll_wait(2): the calls that are bound to it, and what reads it fast."""

from __future__ import annotations

import sys
from _weakref import ref
from itertools import islice, repeat
from operator import itemgetter
from struct import Struct

from ..binding import INT_MAX, milliseconds, nanoseconds
from .beyond import EpollBits
from .errors import of_handler, take
from .process import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any

    from ..binding import Binding
    from .native import Directions, Pair

    _Unpackers = list[Callable[..., tuple[Any, ...]]]

__all__ = ["CHUNK", "LOOPS", "Buffer", "Facts", "Records", "forget"]

_CAPACITY = 16  # events in the first buffer of a selector
_POOL_SIZE = 8
_NO_TOKEN = (-1,)
CHUNK = 256  # events per struct format; formats are kept, so there must be few
_LARGE_STEPS = 256  # calls after which a buffer of more than CHUNK events must grow anew
#: PyPy removes the objects of a plain loop, not those of ``struct``. There 64 bits without a sign are
#: a long integer, so a token is put together from words.
LOOPS = sys.implementation.name == "pypy"


#: Field of an event -> n -> a function from (buffer, offset) to that field of n successive events.
#: Lists: a dict that makes what is missing is looked up five times slower. All bindings share
#: them, since a buffer goes from one to another, also in the middle of a call.
_unpackers: dict[str, _Unpackers] = {}


class Facts:
    """What depends on the binding alone; its selectors share it."""

    steps: Callable[..., Iterator[int]]
    errno: Callable[[int], int]
    epoll_ctl: Callable[..., int]
    epoll_wait: Callable[..., int]
    ADD: int
    MOD: int
    DEL: int
    NULL: Any

    def __init__(self, binding: Binding) -> None:
        ffi = binding.ffi
        self.ffi: Any = ffi
        function, constant = binding.function, binding.constant
        self.opened: bool = binding.opened
        self.steps, self.errno = binding.steps, binding.errno
        self.epoll_ctl, self.epoll_wait = function("epoll_ctl"), function("epoll_wait")
        self.precise: Any = function("epoll_pwait2") if binding.has("epoll_pwait2") else None
        self.dup3: Any = function("dup3") if binding.has("dup3") else None
        self.ADD, self.MOD = constant("EPOLL_CTL_ADD"), constant("EPOLL_CTL_MOD")
        self.DEL, self.NULL = constant("EPOLL_CTL_DEL"), ffi.NULL
        self.bits: EpollBits = binding.facts(EpollBits)
        self.flags: tuple[int, int, int, int] = self.bits.flags
        self.directions: Directions = self.bits.directions
        self._create = function("epoll_create1"), constant("EPOLL_CLOEXEC")
        self._binding = binding
        self.pool: list[Buffer] = []  # lent to one selector after another
        self.array: Any = ffi.typeof("struct epoll_event[]")
        self.size: Any = ffi.sizeof("struct epoll_event")
        self.offset: Any = ffi.offsetof("struct epoll_event", "data")
        event = Struct(f"=I{self.offset - 4}xQ")
        self.pack: Callable[..., bytes] = event.pack
        self.events: Callable[..., Iterator[Any]] = event.iter_unpack
        self.tokens: _Unpackers = _unpackers.setdefault(f"{self.offset}xQ", [])
        self.records: _Unpackers = _unpackers.setdefault(f"{self.size}s", [])

    def create(self) -> int:
        """Return the descriptor of a new set."""
        create, flags = self._create
        fd = create(flags) if self.opened else -1  # a plain call, as in ``EpollSelector._watch``
        return fd if fd >= 0 else self._binding.call(create, flags)

    def expect(self, n: int) -> None:
        """Make what unpacks up to ``n`` events; each is compiled by its first call."""

        def lengthen(functions: _Unpackers, field: str) -> None:
            def make(n: int, buffer: Any, offset: int) -> tuple[Any, ...]:
                unpack = functions[n] = Struct("=" + field * n).unpack_from
                return unpack(buffer, offset)

            start, stop = len(functions), min(n, CHUNK) + 1
            functions[start:stop] = [  # which does not cut what another thread has made longer meanwhile
                lambda buffer, offset=0, n=n: make(n, buffer, offset) for n in range(start, stop)
            ]

        lengthen(self.tokens, f"{self.offset}xQ")
        lengthen(self.records, f"{self.size}s")

    def lend(self, epfd: int, made: list[ref[Buffer]]) -> Buffer:
        """Return a buffer for the set ``epfd``, noted in ``made``."""
        buffer = take(self.pool)
        if buffer is None:
            return Buffer(self, epfd, _CAPACITY, made)
        buffer.belong(epfd, made)
        if buffer.token is _NO_TOKEN:
            buffer.make_views()
        return buffer

    def give_back(self, buffer: Buffer) -> None:
        """Take a buffer of a selector that was closed."""
        forget(buffer._reference, buffer._made)
        if buffer.capacity <= CHUNK and len(self.pool) < _POOL_SIZE:
            self.pool.append(buffer)


def forget(reference: ref[Buffer], made: list[ref[Buffer]]) -> None:
    """Take a reference out of a list that other threads take from, too."""
    try:
        made.remove(reference)
    except ValueError as error:
        if of_handler(error):
            raise


class Records:
    """Whole events, as bytes -> results in ``pairs``; ``of`` says which there are of a token."""

    def __init__(self) -> None:
        self.pairs: dict[bytes, Pair] = {}
        self.of: dict[int, list[bytes]] = {}

    def forget(self, token: int) -> None:
        """Forget the events of a token."""
        for record in self.of.pop(token, ()):
            self.pairs.pop(record, None)


class Buffer:
    """An output buffer that belongs to one call at a time, and the calls bound to it.

    What reads it fast is made when it is used a second time, because many selectors are used once. The
    next selector takes it over, and the bound calls, too, if its set has the same number.
    """

    __slots__ = (
        "__weakref__", "_epfd", "_facts", "_made", "_reference", "_timeout", "_timespec", "_uses",
        "array", "batch", "began", "capacity", "cut", "flags", "forever", "layout", "now", "precise",
        "timed", "token", "tokens", "unknown", "view",
    )  # fmt: skip

    now: Iterator[int] | None
    forever: Iterator[int] | None
    timed: Iterator[int] | None
    precise: Iterator[int] | None  # those of them that take nanoseconds
    layout: tuple[Any, int, int, int]

    def __init__(self, facts: Facts, epfd: int, capacity: int, made: list[ref[Buffer]]) -> None:
        self._facts = facts
        self._reference = ref(self)
        self.capacity: int = capacity
        self._epfd = epfd
        self.array: Any = facts.ffi.new(facts.array, capacity)
        self._timespec: Any = None  # until a wait has a timeout
        self._timeout: float | None = None  # that of the last call that waited for a time
        self.token: Any = _NO_TOKEN  # that of the first event, if there are views; it comes last
        self.flags: Any = None  # its flags
        self.bind()
        self.view: Any = None
        self.tokens: _Unpackers = facts.tokens
        self.began: float = 0.0  # when the last wait with a timeout > 0 began
        self.cut: bool = False  # whether that was longer than a call can wait
        self.belong(epfd, made)

    def belong(self, epfd: int, made: list[ref[Buffer]]) -> None:
        """Belong to the set ``epfd`` from now on."""
        if epfd != self._epfd:
            self.bind()
            self._epfd = epfd
        self._uses = 0
        self.unknown: Collection[int] = ()  # tokens of no registration that were last in it
        # Up to how many events one look-up is for, if ``prepare`` has been here. Not for a full buffer.
        self.batch: int = 0
        self._made = made
        made.append(self._reference)

    def prepare(self) -> bool:
        """Make what reads the buffer fast; return whether it is there."""
        self._uses += 1
        if self._uses > 1 and not self.batch:  # the second time, and after one that an exception ended
            if self.token is _NO_TOKEN:
                self.make_views()
            self.batch = -1 if LOOPS else min(CHUNK, self.capacity - 1)
        return self._uses > 1

    def make_views(self) -> None:
        """Make what reads the events fast."""
        ffi, offset = self._facts.ffi, self._facts.offset
        if LOOPS:
            # The words of the array, words per event, and which are the halves of the token.
            low = offset // 4
            halves = (low, low + 1) if sys.byteorder == "little" else (low + 1, low)
            words = ffi.cast("uint32_t *", self.array)
            self.layout = words, self._facts.size // 4, *halves
            self.flags = words
            self.token = ffi.cast("int64_t *", ffi.addressof(self.array[0], "data"))
        else:
            self._facts.expect(self.capacity)
            self.view = memoryview(ffi.buffer(self.array))
            self.flags = self.view[:4].cast("I")
            self.token = self.view[offset : offset + 8].cast("Q")  # last: it says that the rest is there

    def bind(self) -> None:
        """Have the calls bound anew when they are next made."""
        self.now = self.forever = self.timed = self.precise = None

    def rebind(self, facts: Facts) -> None:
        """Have later calls made through the library of ``facts``."""
        self._facts = facts
        self.bind()

    def _calls(self, function: Callable[..., int], *timeout: object) -> Iterator[int]:
        """Return the calls of ``function``; with a large buffer they come to an end, see ``select``."""
        arguments = (self._epfd, self.array, self.capacity, *timeout)
        calls = self._facts.steps(function, repeat(arguments))
        return calls if self.capacity <= CHUNK else islice(calls, _LARGE_STEPS)

    def bind_now(self) -> Iterator[int]:
        """Return the calls that do not wait."""
        self.now = steps = self._calls(self._facts.epoll_wait, 0)
        return steps

    def bind_forever(self) -> Iterator[int]:
        """Return the calls that wait without end."""
        self.forever = steps = self._calls(self._facts.epoll_wait, -1)
        return steps

    def until(self, timeout: float) -> Iterator[int]:
        """Return the calls that wait ``timeout`` seconds > 0."""
        self.began = clock()
        steps = self.timed
        return self._bind_timed(timeout) if steps is None or timeout != self._timeout else steps

    def _bind_timed(self, timeout: float) -> Iterator[int]:
        """Return the same, bound anew; whole milliseconds need no struct, which takes longer.

        With one, the calls are bound once, so that a large buffer's come to an end.
        """
        facts, ns = self._facts, nanoseconds(timeout)
        self.timed = None  # until the end, so that an exception leaves no half of it
        if facts.precise is None or (not ns % 1_000_000 and self.capacity <= CHUNK):
            ms = milliseconds(timeout)
            self.cut = ms == INT_MAX
            steps = self._calls(facts.epoll_wait, ms)
        else:
            self.cut = False
            if self._timespec is None:
                self._timespec = facts.ffi.new("struct timespec *")
            self._timespec.tv_sec, self._timespec.tv_nsec = divmod(ns, 1_000_000_000)
            steps = self.precise or self._calls(facts.precise, self._timespec, facts.NULL)
            self.precise = steps
        self._timeout, self.timed = float(timeout), steps  # a number of another type may change
        return steps

    def step(self, timeout: float | None) -> int:
        """Call once; return the number of events, or -errno; then ``bind`` is to follow."""
        self.bind()
        if timeout is None:
            steps = self.bind_forever()
        else:
            steps = self.bind_now() if timeout <= 0 else self.until(timeout)
        for n in steps:
            break
        return n if n >= 0 else -self._facts.errno(n)

    def resized(self, capacity: int) -> Buffer:
        """Make room for so many events; what is in the buffer is gone. Return the buffer."""
        array = self._facts.ffi.new(self._facts.array, capacity)
        self.bind()
        self.batch, self.token, self.flags, self.view = 0, _NO_TOKEN, None, None
        self.capacity = min(capacity, self.capacity)  # never more than there is, if an exception comes
        self.array = array
        self.capacity = capacity
        return self

    def events(self, n: int) -> Iterable[tuple[int, int]]:
        """Return (native flags, token) of ``n`` events."""
        if self.view is not None:
            return self._facts.events(self.view[: n * self._facts.size])
        return [(event.events, event.data) for event in self.array[0:n]]

    def fields(self, n: int, records: bool) -> list[Any]:
        """Return the tokens of ``n`` events, or the whole records as bytes."""
        if LOOPS:
            words, step, low, high = self.layout
            return [words[i + low] | words[i + high] << 32 for i in range(0, n * step, step)]
        unpackers = self._facts.records if records else self.tokens
        fields: list[Any] = []
        for start in range(0, n, CHUNK):
            fields += unpackers[min(n - start, CHUNK)](self.view, start * self._facts.size)
        return fields

    def look_up(self, table: dict[Any, Pair], n: int, records: bool) -> list[Pair] | None:
        """Return the pair of each of ``n`` events; None if one is missing."""
        result: list[Pair] = []
        if LOOPS:
            words, step, low, high = self.layout
            for i in range(0, n * step, step):
                pair = table.get(words[i + low] | words[i + high] << 32)
                if pair is None:
                    return None
                result.append(pair)
            return result
        unpackers = self._facts.records if records else self.tokens
        try:
            for start in range(0, n, CHUNK):
                fields = unpackers[min(n - start, CHUNK)](self.view, start * self._facts.size)
                result += itemgetter(*fields)(table) if len(fields) > 1 else [table[fields[0]]]
        except KeyError as error:
            if of_handler(error):
                raise
            return None
        return result
