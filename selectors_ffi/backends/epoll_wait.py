"""One epoll_wait(2) at a time: its output buffer, its bound calls, its decoding."""

from __future__ import annotations

import sys
from errno import EINTR, ENOSYS, EPERM
from functools import cache, partial
from operator import itemgetter
from struct import Struct
from time import monotonic

from ..binding import INT_MAX, milliseconds, nanoseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..binding import Binding
    from .directions import Pair
    from .epoll import EpollSelector

    _Unpackers = list[Callable[..., tuple[Any, ...]]]

FD_MASK = 0xFFFF_FFFF  # the part of a token that is the descriptor
_CAPACITY = 256  # events; doubled by a call that fills the buffer
_CHUNK = 256  # events per struct format; formats are kept, so there must be few
_MS_MAX = INT_MAX * 1_000_000  # the longest epoll_wait, in nanoseconds: one limit on every kernel


class Wait:
    """An output buffer that belongs to one call at a time, and the calls bound to it."""

    __slots__ = (
        "_arguments",
        "_binding",
        "_event",
        "_precise",
        "_timespec",
        "batch",
        "buffer",
        "capacity",
        "forever",
        "layout",
        "loops",
        "now",
        "records",
        "stride",
        "timed",
        "token",
        "tokens",
        "view",
        "words",
    )

    def __init__(self, binding: Binding, epfd: int, capacity: int = _CAPACITY) -> None:
        self._binding = binding
        ffi = binding.ffi
        self.capacity = capacity
        self.buffer = ffi.new("struct epoll_event[]", capacity)
        self.view = memoryview(ffi.buffer(self.buffer))
        self._arguments = (epfd, self.buffer, capacity)
        self._timespec = ffi.new("struct timespec *")
        self._precise = binding.has("epoll_pwait2")
        self.stride = ffi.sizeof("struct epoll_event")
        # The token of the first event, as an array of one.
        offset, size = ffi.offsetof("struct epoll_event", "data"), ffi.sizeof("uint64_t")
        # Up to how many events ``tokens`` is for; more, or a full buffer, take more than one step.
        self.batch = min(_CHUNK, capacity - 1)
        self.token: Any = self.view[offset : offset + size].cast("Q")
        self.loops = sys.implementation.name == "pypy"  # see ``EpollSelector._decode_loop``
        if self.loops:
            self.token = ffi.cast("int64_t *", ffi.addressof(self.buffer[0], "data"))
            self.batch = 0
        self.words = ffi.cast("uint32_t *", self.buffer)
        # Words of an event, and which of them are the lower and the higher half of the token.
        low, high = sorted((offset // 4, offset // 4 + 1), reverse=sys.byteorder == "big")
        self.layout = self.stride // 4, low, high
        self._event = Struct("=" + event_format(ffi)).unpack_from
        self.tokens = _unpackers("=" + event_format(ffi).replace("I", "4x"))
        self.records = _unpackers(f"={self.stride}s")
        self.bind()

    def bind(self) -> None:
        """Bind the calls, for the first time or after a failure."""
        calls, function = self._binding.calls, self._binding.function
        epoll_wait = function("epoll_wait")
        self.now = calls(epoll_wait, *self._arguments, 0)
        self.forever = calls(epoll_wait, *self._arguments, -1)
        self.timed = None
        if self._precise:
            timeout = (self._timespec, self._binding.ffi.NULL)
            self.timed = calls(function("epoll_pwait2"), *self._arguments, *timeout)

    def until(self, timeout: float) -> Iterator[int]:
        """Return the call that waits ``timeout`` seconds > 0."""
        if self.timed is None:
            epoll_wait = self._binding.function("epoll_wait")
            return self._binding.calls(epoll_wait, *self._arguments, milliseconds(timeout))
        timespec = self._timespec
        timespec.tv_sec, timespec.tv_nsec = divmod(nanoseconds(timeout, _MS_MAX), 1_000_000_000)
        return self.timed

    def go_on(
        self,
        selector: EpollSelector,
        n: int,
        errno: int,
        timeout: float | None,
        deadline: float | None,
    ) -> int:
        """Deal with a failed call, or a full buffer; return how many events there are.

        Args:
            selector: tells whether it has been closed meanwhile.
            n: what the call returned; ``errno`` and the iterator are as in ``Binding.calls``.
            timeout: as given to ``select``.
            deadline: by ``monotonic()``, if ``timeout`` is neither None nor <= 0.
        """
        if n < -1:
            errno = -n
        while n < 0:
            self.bind()
            selector.fileno()
            if errno in (ENOSYS, EPERM) and deadline is not None and self.timed:
                self._precise = False  # before Linux 5.11, or refused by a seccomp filter
                self.timed = None
            elif errno != EINTR:
                raise self._binding.error(errno)
            remaining = 0.0 if deadline is None else deadline - monotonic()
            if not remaining <= 0:  # NaN, too, which is refused
                steps = self.until(remaining)
            else:
                steps = self.forever if timeout is None else self.now
            for n in steps:
                break
            if n < 0:
                errno = self._binding.ffi.errno if n == -1 else -n
        while n == self.capacity:
            # More may be ready. What is ready stays ready: ask for all of it.
            larger = Wait(self._binding, self._arguments[0], 2 * n)
            for n in larger.now:
                break
            if n <= 0:  # failed; or another thread has emptied all
                return self.capacity
            self._adopt(larger)
        return n

    def _adopt(self, other: Wait) -> None:
        """Become ``other``, which has a larger buffer."""
        for name in Wait.__slots__:
            setattr(self, name, getattr(other, name))

    def event(self, i: int) -> tuple[int, int]:
        """Return flags and token of event ``i``."""
        if self.loops:
            words, (step, low, high) = self.words, self.layout
            i *= step
            return words[i], words[i + low] | words[i + high] << 32
        return self._event(self.view, i * self.stride)

    def all_tokens(self, n: int) -> list[int]:
        """Return the tokens of ``n`` events."""
        if self.loops:
            words, (step, low, high) = self.words, self.layout
            return [words[i + low] | words[i + high] << 32 for i in range(0, n * step, step)]
        return self._fields(self.tokens, n)

    def all_records(self, n: int) -> list[bytes]:
        """Return ``n`` events, each as the bytes that it has in the buffer."""
        return self._fields(self.records, n)

    def _fields(self, unpackers: _Unpackers, n: int) -> list[Any]:
        fields: list[Any] = []
        for start in range(0, n, _CHUNK):
            fields += unpackers[min(n - start, _CHUNK)](self.view, start * self.stride)
        return fields


def event_format(ffi: Any) -> str:
    """Return the struct format of one event, its byte order left out."""
    packed = ffi.offsetof("struct epoll_event", "data") == ffi.sizeof("uint32_t")
    return "IQ" if packed else "I4xQ"


@cache
def _unpackers(event: str) -> _Unpackers:
    """Return n -> a function from (buffer, offset) to n fields of n successive events.

    All selectors share them. Each is made by its first call. A list, because a dict that makes
    what is missing is looked up five times slower.
    """
    order, event = event[:1], event[1:]

    def make(n: int, *arguments: Any) -> tuple[Any, ...]:
        unpack = functions[n] = Struct(order + event * n).unpack_from
        return unpack(*arguments)

    functions: _Unpackers = [partial(make, n) for n in range(_CHUNK + 1)]
    return functions


def look_up(table: Mapping[Any, Pair], unpackers: _Unpackers, wait: Wait, n: int) -> list[Pair]:
    """Return ``[table[field] for each of n events]``, all but a few per chunk in C."""
    result: list[Pair] = []
    for start in range(0, n, _CHUNK):
        size = min(n - start, _CHUNK)
        fields = unpackers[size](wait.view, start * wait.stride)
        result += map(table.__getitem__, fields) if size == 1 else itemgetter(*fields)(table)
    return result
