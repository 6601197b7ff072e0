"""epoll(7): Linux.

What the kernel does
--------------------
The kernel keys a registration by (descriptor, open file) and returns 64 bits of ours, the *token*,
with each event. What makes the standard library slow is its Python loop that turns events into
``(key, events)``; the call itself costs 200 to 300 ns more here than there. So no Python code runs per
event: ``_pairs`` maps tokens to results, and ``itemgetter`` looks up a whole batch.

A key with one direction always yields the same pair. While a key with both directions exists, whole
event records are looked up in ``_records`` instead, since their flags matter. Both tables are caches:
a change of a key invalidates its entries, and only its first event fills them. So idle descriptors
cost no memory.

Tokens
------
Normally the token is just the descriptor. Once an old registration might still be reported, its
upper half becomes a new serial: when the kernel refused to delete it, or when another thread is in a
call that may hold an event for the old interest.

Stale registrations
-------------------
A *stale registration* is one that the kernel still reports although its number was closed, because a
duplicate keeps the file open::

    register(5); copy = dup(5); close(5)    # EPOLL_CTL_DEL of 5 is now EBADF, or hits another file

No call can delete it. So when a token is reported again after the kernel was told what the registry
says, the set is replaced: a new one is made from the registry and takes the number of the old one,
dup3(2). Threads that wait on the old set are woken and go over to the new one.

The set is not ours alone once the caller has asked for ``fileno()`` or the process has forked. From
then on nothing is replaced, and an event of no registration gives ``[]``, as in the standard library.

https://man7.org/linux/man-pages/man7/epoll.7.html (Questions and answers, 6)
"""

from __future__ import annotations

import os
import sys
from _thread import _count as other_threads
from _thread import allocate_lock
from errno import EBADF, EEXIST, EINTR, ENOENT
from functools import cache, partial
from itertools import count, islice
from math import ceil
from operator import itemgetter
from struct import Struct

from ..binding import INT64_MAX, REFUSALS, milliseconds
from . import forks
from .base import BOTH, CLOSED, Descriptor, NativeEvent, SelectorKey, _BaseSelectorImpl
from .clock import Deadline, clock
from .directions import Directions
from .wake import Waker, give_back, lend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..binding import Binding
    from .directions import Pair

    _Unpackers = list[Callable[..., tuple[Any, ...]]]

__all__ = ["EpollSelector"]

_FD_MASK = 0xFFFF_FFFF  # the part of a token that is the descriptor
_SERIAL_SHIFT = 32
_WAKE = _FD_MASK  # the waker's token: no descriptor is as large
_CAPACITY = 16  # events in the first buffer of a selector
_CHUNK = 256  # events per struct format; formats are kept, so there must be few
_LARGE_STEPS = 256  # calls after which a buffer of more than _CHUNK events must grow anew
_LOOPS = sys.implementation.name == "pypy"  # see ``_Buffer.look_up``
_NOTHING: Any = object()  # a key that no registry holds
_serials = count()
_rebuilding = allocate_lock()


class _Unknown(Exception):
    """A cache lacks what the kernel reported. A signal handler cannot raise it, as it can KeyError."""


class _Cache(dict):  # type: ignore[type-arg] # dict[...] as a base is slower to look up on 3.9
    __slots__ = ()

    def __missing__(self, _key: object) -> Any:
        raise _Unknown


class EpollSelector(_BaseSelectorImpl):
    """Epoll-based selector."""

    _mechanism = "epoll"
    _waker: Waker | None = None
    _retired: tuple[Waker, ...] = ()  # of sets that were replaced, while threads may wait on them

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__(debug=debug)
        self._binding = binding = self._bind(binding)
        self._facts: _Facts = binding.facts(_Facts)
        self._forks = forks.seen
        self._tokens: dict[int, int] = {}  # of the descriptors whose token is not the bare number
        self._suspects: dict[int, int] = {}  # descriptor -> token that was reported unregistered
        self._pairs: dict[int, Pair] = _Cache()
        self._duplex: dict[int, None] = {}  # descriptors registered for both directions
        self._records: dict[bytes, Pair] = _NO_RECORDS
        self._records_of: dict[int, list[bytes]] = {}  # by token
        self._made: list[None] = []  # as long as there are buffers, idle or in use
        self._idle: list[_Buffer] = []  # buffers that no call is using
        self._descriptor = Descriptor(binding, self._facts.create())

    def fileno(self) -> int:
        """Return the epoll descriptor. From then on stale registrations stay, as in the stdlib.

        Raises:
            ValueError: the selector is closed.
        """
        self._check_open()
        self._shared = True
        return self._descriptor.fd

    def _check_open(self) -> None:
        if self._descriptor.fd < 0:
            raise ValueError(CLOSED)

    def _watch(self, fd: int, events: int, was: int) -> None:
        facts = self._facts
        token = self._tokens.get(fd, fd) if self._tokens else fd
        if was:
            self._pairs.pop(token, None)
            if self._duplex:
                self._forget_duplex(fd, token)
            if len(self._idle) < len(self._made):  # another thread may hold an event
                token = self._new_token(fd)
        if not events:
            refused = facts.epoll_ctl(self._descriptor.fd, facts.DEL, fd, facts.NULL)
            if refused or len(self._idle) < len(self._made):
                self._new_token(fd)
            return
        if events == BOTH:
            self._duplex[fd] = None
        event = facts.pack(facts.flags[events], token)
        control = (self._descriptor.fd, facts.MOD if was else facts.ADD, fd, event)
        for refused in facts.attempts(facts.epoll_ctl, (control,)):
            break
        if refused:
            self._insist(fd, events, facts.errno(refused))

    def _forget(self, fd: int) -> None:
        token = self._tokens.get(fd, fd)
        self._pairs.pop(token, None)
        self._forget_duplex(fd, token)
        key = self._fd_to_key.get(fd)
        if key is not None and key.events == BOTH:
            self._duplex[fd] = None

    def select(self, timeout: float | None = None) -> list[Pair]:
        idle = self._idle
        try:
            buffer = idle.pop()
        except IndexError:
            buffer = self._new_buffer()
        try:
            start = 0.0
            if timeout is None:
                steps = buffer.forever or buffer.bind_forever()
            elif timeout <= 0:
                steps = buffer.now or buffer.bind_now()
            else:
                start = clock.now()
                steps = buffer.until(timeout)
            for n in steps:
                break
            else:  # of a large buffer: see whether it must be as large
                buffer = buffer.sized(_CHUNK)
                n = buffer.step(timeout)
                if n < 0:
                    return self._wait_on(buffer, n, timeout, start)
            try:
                if n == 1 and not self._duplex:
                    pair = self._pairs.get(buffer.token[0])
                    if pair is not None:
                        return [pair]
                elif n == 0:
                    return []
                elif 1 < n <= buffer.batch and not self._duplex:
                    return [*itemgetter(*buffer.tokens[n](buffer.view))(self._pairs)]
                elif n < 0:
                    return self._wait_on(buffer, -self._facts.errno(n), timeout, start)
                if n == buffer.capacity:
                    buffer, n = buffer.grown(n)
                if self._duplex:
                    return buffer.look_up_records(self._records, n)
                return buffer.look_up(self._pairs, n)
            except _Unknown:
                return self._wait_on(buffer, n, timeout, start)
        except BaseException:
            buffer.bind()  # a call that has failed is spent, see ``Binding.calls``
            raise
        finally:
            idle.append(buffer)

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        found: list[NativeEvent] = []
        try:
            buffer = self._idle.pop()
        except IndexError:
            buffer = self._new_buffer()
        try:
            start = clock.now()
            self._wait_on(buffer, -EINTR, None if timeout is None else float(timeout), start, found)
            return found
        finally:
            buffer.bind()
            self._idle.append(buffer)

    def _interrupt(self) -> None:
        waker = self._waker or self._add_waker()
        waker.renew()
        waker.ring()

    def _release(self) -> None:
        busy = len(self._idle) < len(self._made)
        self._pairs.clear()
        self._records = _NO_RECORDS
        self._records_of = {}
        self._duplex = {}
        idle, self._idle, self._made = self._idle, [], []
        idle.clear()  # a copy of this selector shares it
        if busy:
            # The waker stays rung until the last thread has left; it goes with the selector.
            self._interrupt()
        elif self._waker is not None:
            give_back(self.__dict__.pop("_waker"))
        self._descriptor.close()

    # Everything below is cold.

    def _new_buffer(self) -> _Buffer:
        self._check_open()
        buffer = _Buffer(self._facts, self._descriptor.fd, _CAPACITY)
        self._made.append(None)
        return buffer

    def _new_token(self, fd: int) -> int:
        token = self._tokens[fd] = fd | (next(_serials) % _FD_MASK + 1) << _SERIAL_SHIFT
        return token

    def _forget_duplex(self, fd: int, token: int) -> None:
        self._duplex.pop(fd, None)
        for record in self._records_of.pop(token, ()):
            self._records.pop(record, None)

    def _insist(self, fd: int, events: int, errno: int) -> None:
        """Go on where the kernel has more, or less, than was expected.

        EEXIST: an interrupted call, or a thread or signal handler that adds the descriptor, too, was
        first. ENOENT: the number was reused, and the new file has never been added.
        """
        facts = self._facts
        for _ in range(16):
            if errno == EEXIST and not self._is_shared():
                op, token = facts.MOD, self._tokens.get(fd, fd)
            elif errno == ENOENT:
                op, token = facts.ADD, self._new_token(fd)
            else:
                break
            control = (self._descriptor.fd, op, fd, facts.pack(facts.flags[events], token))
            for refused in facts.attempts(facts.epoll_ctl, (control,)):
                break
            if not refused:
                return
            errno = facts.errno(refused)
        self._check_open()
        raise self._binding.error(errno)

    def _is_shared(self) -> bool:
        """Tell whether the set may hold registrations that are not ours."""
        if self._forks != forks.seen:
            self._shared = True
        return self._shared

    def _wait_on(
        self,
        buffer: _Buffer,
        n: int,
        timeout: float | None,
        start: float,
        native: list[NativeEvent] | None = None,
    ) -> list[Pair]:
        """Decode ``n`` events one by one; wait on while there is nothing to return.

        Args:
            n: events in the buffer; negative is -errno of a failed call.
            timeout: as given to ``select``.
            start: when a wait with a timeout > 0 began.
            native: takes every event as the kernel reported it, if given.
        """
        deadline = Deadline(timeout, start)
        while True:
            if n < 0:
                self._recover(buffer, -n)
            result, go_on = self._sift(buffer, n, native) if n > 0 else ([], not self._closed)
            if result or native or not go_on:
                return result
            remaining = deadline.remaining()
            if remaining == 0 and n >= 0:
                return result
            n = buffer.step(remaining)

    def _recover(self, buffer: _Buffer, errno: int) -> None:
        """Prepare for another call after one has failed, or raise."""
        buffer.bind()
        if self._closed or errno == EINTR:
            return
        if errno in REFUSALS and buffer.precise and self._facts.precise:
            self._facts.precise = None  # an old kernel, or a sandbox: epoll_wait will do
            return
        self._check_open()
        raise self._binding.error(errno)

    def _sift(
        self, buffer: _Buffer, n: int, native: list[NativeEvent] | None
    ) -> tuple[list[Pair], bool]:
        """Return what ``n`` events are for the caller, and whether to wait on if it is nothing."""
        result, unknown, go_on = [], [], True
        for i in range(n):
            flags, token = buffer.event(i)
            fd = token & _FD_MASK
            if fd == _WAKE:
                go_on = self._woken_up() and go_on
                continue
            key = self._fd_to_key.get(fd)
            if token != self._tokens.get(fd, fd) and not (token == fd and self._is_shared()):
                key = None
            if native is not None:
                native.append(NativeEvent(key, fd, flags))
            if key is None:
                unknown.append((fd, token))
                continue
            events = self._facts.directions[flags] & key.events
            if events:
                result.append((key, events))
                self._remember(buffer, i, token, result[-1])
            elif not self._is_shared():
                self._settle(fd, _NOTHING)  # the kernel has another interest
        if unknown and not self._closed:
            go_on = self._heal(unknown) and go_on
        return result, go_on and not self._closed

    def _remember(self, buffer: _Buffer, i: int, token: int, pair: Pair) -> None:
        """Cache the result of event ``i``.

        Only while no other call is in flight: such a call may hold an event for an older interest under
        the same token, and would be given this pair.
        """
        key = pair[0]
        if len(self._idle) + 1 < len(self._made):
            return
        if key.events != BOTH:
            self._pairs[token] = pair
        if self._duplex:
            record = buffer.record(i)
            if self._records is _NO_RECORDS:
                self._records = _Cache()
            self._records[record] = pair
            self._records_of.setdefault(token, []).append(record)
        # A change writes the registry first and forgets then: one of the two calls sees the other.
        if self._fd_to_key.get(key.fd) is not key:
            self._forget(key.fd)
            self._pairs.pop(token, None)
            for record in self._records_of.pop(token, ()):
                self._records.pop(record, None)

    def _woken_up(self) -> bool:
        """Take a wake-up; return whether to wait on: it was for another call, or for a change."""
        waker = self._waker
        if waker is not None and not self._closed:
            waker.drain()  # first: a wake-up that comes after the look at the flag must stay
        woken, self._woken = self._woken, False
        return not woken

    def _heal(self, unknown: list[tuple[int, int]]) -> bool:
        """Make the kernel agree with the registry about what it should not have reported.

        Returns:
            Whether to wait on; if not, the kernel will go on reporting it.
        """
        if self._is_shared():
            return False
        stale = False
        for fd, token in unknown:
            stale = stale or self._suspects.get(fd) == token
            self._suspects[fd] = token
            self._settle(fd, _NOTHING)
        return not stale or self._rebuild()

    def _add_waker(self) -> Waker:
        """Have the set watch a waker; this wakes the threads that wait already."""
        lent = lend()
        waker: Waker = self.__dict__.setdefault("_waker", lent)
        if waker is not lent:
            give_back(lent)
        self._watch_waker(self._descriptor.fd, waker)
        return waker

    def _watch_waker(self, epfd: int, waker: Waker) -> None:
        facts = self._facts
        event = facts.pack(facts.flags[1], _WAKE)
        try:
            self._binding.call(facts.epoll_ctl, epfd, facts.ADD, waker.reader, event)
        except FileExistsError:
            pass

    def _rebuild(self) -> bool:
        """Replace the set by one made from the registry; return whether that was possible."""
        if not self._facts.dup3 or not _rebuilding.acquire(blocking=False):
            return False
        try:
            new = Descriptor(self._binding, self._facts.create())
            try:
                made = self._move_to(new.fd)
            finally:
                new.close()
        except OSError:
            return False  # no descriptor or no memory is left
        finally:
            _rebuilding.release()
        self._suspects.clear()
        for fd in {*made, *self._fd_to_key.copy()}:  # changes that went to the old set meanwhile
            if self._fd_to_key.get(fd) is not made.get(fd):
                self._settle(fd, made.get(fd))
        return True

    def _move_to(self, new: int) -> dict[int, SelectorKey]:
        """Fill the set ``new``, give it our number, and wake the threads that wait on the old one."""
        facts, epfd, old_waker = self._facts, self._descriptor.fd, self._waker
        made = self._fd_to_key.copy()
        for fd, key in made.items():
            event = facts.pack(facts.flags[key.events], self._tokens.get(fd, fd))
            try:
                self._binding.call(facts.epoll_ctl, new, facts.ADD, fd, event)
            except OSError as error:
                if error.errno != EBADF:
                    raise
        if other_threads():
            # The old waker stays rung, so that every thread that waits on the old set leaves it.
            old_waker = old_waker or self._add_waker()
            waker = lend()
            self._watch_waker(new, waker)
            self._binding.call(facts.dup3, new, epfd, os.O_CLOEXEC)
            self._waker = waker
            old_waker.ring()
            if len(self._idle) + 1 == len(self._made):
                self._retired = ()
            else:
                self._retired = (*self._retired, old_waker)
        else:
            if old_waker:
                self._watch_waker(new, old_waker)
            self._binding.call(facts.dup3, new, epfd, os.O_CLOEXEC)
        return made


_NO_RECORDS: dict[bytes, Any] = _Cache()


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        self.ffi = ffi = binding.ffi
        function, constant = binding.function, binding.constant
        self.calls, self.attempts, self.errno = binding.calls, binding.attempts, binding.errno
        self.epoll_ctl, self.epoll_wait = function("epoll_ctl"), function("epoll_wait")
        self.precise = function("epoll_pwait2") if binding.has("epoll_pwait2") else None
        self.dup3 = function("dup3") if binding.has("dup3") else None
        self.ADD, self.MOD = constant("EPOLL_CTL_ADD"), constant("EPOLL_CTL_MOD")
        self.DEL, self.NULL = constant("EPOLL_CTL_DEL"), ffi.NULL
        read, write = constant("EPOLLIN"), constant("EPOLLOUT")
        self.flags = (0, read, write, read | write)
        self.directions = Directions(read, write)
        self._create = binding.call, function("epoll_create1"), constant("EPOLL_CLOEXEC")
        self.stride = ffi.sizeof("struct epoll_event")
        self.offset = ffi.offsetof("struct epoll_event", "data")
        padding = self.offset - ffi.sizeof("uint32_t")
        self.pack = Struct(f"=I{padding}xQ").pack
        self.unpack = Struct(f"=I{padding}xQ").unpack_from
        self.tokens = _unpackers(f"{self.offset}xQ")
        self.records = _unpackers(f"{self.stride}s")

    def create(self) -> int:
        """Return the descriptor of a new set."""
        call, epoll_create1, flags = self._create
        return call(epoll_create1, flags)


class _Buffer:
    """An output buffer that belongs to one call at a time, and the calls bound to it."""

    __slots__ = (
        "_arguments", "_facts", "_timespec", "_words",
        "array", "batch", "capacity", "forever", "now", "timed", "token", "tokens", "view",
    )  # fmt: skip

    def __init__(self, facts: _Facts, epfd: int, capacity: int) -> None:
        ffi = facts.ffi
        self._facts = facts
        self.capacity = capacity
        self.array = ffi.new("struct epoll_event[]", capacity)
        self._arguments = (epfd, self.array, capacity)
        self._timespec: Any = None
        self.tokens = facts.tokens
        if _LOOPS:
            self.batch = 0
            self.token = ffi.cast("int64_t *", ffi.addressof(self.array[0], "data"))
            self._words = ffi.cast("uint32_t *", self.array)
        else:
            # Up to how many events ``tokens`` is for; more, or a full buffer, take more than one step.
            self.batch = min(_CHUNK, capacity - 1)
            self.view = memoryview(ffi.buffer(self.array))
            # The token of the first event, as an array of one.
            self.token = self.view[facts.offset : facts.offset + 8].cast("Q")
        self.bind()

    def bind(self) -> None:
        """Have the calls bound anew when they are next made."""
        self.now: Iterator[int] | None = None
        self.forever: Iterator[int] | None = None
        self.timed: Iterator[int] | None = None

    def _calls(self, function: Callable[..., int], *timeout: object) -> Iterator[int]:
        """Return the calls of ``function``; with a large buffer they come to an end, see ``select``."""
        if self.capacity <= _CHUNK:
            return self._facts.calls(function, *self._arguments, *timeout)
        return islice(self._facts.calls(function, *self._arguments, *timeout), _LARGE_STEPS)

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
        facts = self._facts
        if facts.precise is None:
            return facts.calls(facts.epoll_wait, *self._arguments, milliseconds(timeout))
        nanoseconds = ceil(timeout * 1e9) if type(timeout) is float else ceil(float(timeout) * 1e9)
        if nanoseconds > INT64_MAX:
            raise OverflowError("timeout is too large")
        timespec = self._timespec
        if timespec is None:
            timespec = self._timespec = facts.ffi.new("struct timespec *")
        timespec.tv_sec, timespec.tv_nsec = divmod(nanoseconds, 1_000_000_000)
        steps = self.timed
        if steps is None:
            steps = self.timed = self._calls(facts.precise, timespec, facts.NULL)
        return steps

    def step(self, timeout: float | None) -> int:
        """Call once; return the number of events, or -errno."""
        self.bind()
        if timeout is None:
            steps = self.bind_forever()
        else:
            steps = self.until(timeout) if not timeout <= 0 else self.bind_now()
        for n in steps:
            break
        return n if n >= 0 else -self._facts.errno(n)

    def sized(self, capacity: int) -> _Buffer:
        """Return another buffer for the same set."""
        return _Buffer(self._facts, self._arguments[0], capacity)

    def grown(self, n: int) -> tuple[_Buffer, int]:
        """Return a buffer that is not full, and how many events are in it.

        More may be ready than this one holds, and what is ready stays ready: ask for all of it.
        """
        buffer = self
        while n == buffer.capacity:
            larger = self.sized(max(2 * n, _CHUNK))
            more = larger.step(0)
            if more <= 0:
                break  # it failed, or another thread has taken all
            buffer, n = larger, more
        return buffer, n

    def event(self, i: int) -> tuple[int, int]:
        """Return flags and token of event ``i``."""
        if _LOOPS:
            event = self.array[i]
            return event.events, event.data
        flags, token = self._facts.unpack(self.view, i * self._facts.stride)
        return flags, token

    def record(self, i: int) -> bytes:
        """Return event ``i`` as the bytes that it has in the buffer."""
        return bytes(self._facts.ffi.buffer(self.array + i, self._facts.stride))

    def look_up(self, pairs: dict[int, Pair], n: int) -> list[Pair]:
        """Return the pair of each of ``n`` tokens.

        PyPy removes the objects of a plain loop, not those of ``struct``. There 64 bits without a sign
        are a long integer, so a token is put together from words.

        Raises:
            _Unknown: a pair is missing.
        """
        if _LOOPS:
            words, step, low = self._words, self._facts.stride // 4, self._facts.offset // 4
            high = low + 1
            if sys.byteorder == "big":
                low, high = high, low
            return [pairs[words[i + low] | words[i + high] << 32] for i in range(0, n * step, step)]
        return self._look_up(self._facts.tokens, pairs, n)

    def look_up_records(self, records: dict[bytes, Pair], n: int) -> list[Pair]:
        """Return the pair of each of ``n`` records.

        Raises:
            _Unknown: a pair is missing.
        """
        return self._look_up(self._facts.records, records, n)

    def _look_up(self, unpackers: _Unpackers, table: dict[Any, Pair], n: int) -> list[Pair]:
        view = self.view if not _LOOPS else self._facts.ffi.buffer(self.array)
        result: list[Pair] = []
        for start in range(0, n, _CHUNK):
            size = min(n - start, _CHUNK)
            fields = unpackers[size](view, start * self._facts.stride)
            if size == 1:
                result.append(table[fields[0]])
            else:
                result += itemgetter(*fields)(table)
        return result


@cache
def _unpackers(field: str) -> _Unpackers:
    """Return n -> a function from (buffer, offset) to a field of each of n successive events.

    Each is made by its first call. A list, because a dict that makes what is missing is looked up
    five times slower.
    """

    def make(n: int, *arguments: Any) -> tuple[Any, ...]:
        unpack = functions[n] = Struct("=" + field * n).unpack_from
        return unpack(*arguments)

    functions: _Unpackers = [partial(make, n) for n in range(_CHUNK + 1)]
    return functions
