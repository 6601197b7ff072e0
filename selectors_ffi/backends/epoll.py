"""epoll(7): Linux.

Facts.  The kernel keys a registration by (descriptor, open file) and hands back 64 bits of ours
with each event.  A file that is open elsewhere (dup, fork) keeps its registration after close(2)
and goes on being reported under a number that may by now name another file.  What makes the
standard library slow is its Python loop that turns events into ``(key, events)``; the system call
itself costs more here than there (150 to 250 ns on CPython).

Consequence.  What comes back must tell old from new, and no Python code may run per event.

Decision.  The 64 bits are a token that never comes twice for a descriptor: the bare number at
first, with a serial in the upper half once anything has been unregistered or modified.  A key with
one direction yields the same pair whatever bits arrive, so a dict from token to pair (see ``pairs``)
and ``map()`` build the result.  Only while a key with both directions exists are masks read too.  ``select`` steps an iterator with its arguments bound (see ``binding``) and an
output buffer that belongs to one call at a time: two threads in ``select`` take different ones.
There is no lock (330 ns for a register and unregister): a change draws a serial first and, if
another thread or a signal handler has drawn one meanwhile, writes registry and kernel once more.

Cost.  A change of interest takes a new token, so an event in flight for the old interest is
dropped; readiness is level-triggered and comes again with the next call.  A handler that clobbers
``ffi.errno`` in the instant between a *failing* epoll_ctl and the read of its errno can change which
OSError is raised; waits are safe from that.

https://man7.org/linux/man-pages/man7/epoll.7.html
"""

from __future__ import annotations

import sys
from errno import EBADF, EEXIST, EINTR, ENOENT, ENOSYS, EPERM
from itertools import count
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..binding import INT_MAX, milliseconds, nanoseconds
from .base import INVALID_EVENTS, SelectorKey, _BaseSelectorImpl
from .pairs import BOTH, FD_MASK, SERIAL_SHIFT, Directions, Keys, Outcomes, Pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import FileDescriptorLike

    from ..binding import Binding
    from .pairs import Pair

__all__ = ["EpollSelector"]

_CHUNK = 128  # events per format; formats are cached, so there must be few
_MS_MAX = INT_MAX * 1_000_000  # the longest epoll_wait in nanoseconds: one limit on every kernel
_make_key = tuple.__new__  # what SelectorKey(...), a Python function, calls


class EpollSelector(_BaseSelectorImpl):
    """Epoll-based selector."""

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__()
        self._epfd = -1
        self._binding = binding = self._bind(binding)
        self._ffi = ffi = binding.ffi
        constant = binding.constant
        self._epoll_ctl = binding.function("epoll_ctl")
        self._epoll_wait = binding.function("epoll_wait")
        # Where long is 32 bits, so may be the C library's timespec: 1 ms will do there.
        precise = ffi.sizeof("long") == ffi.sizeof("int64_t") and binding.has("epoll_pwait2")
        self._epoll_pwait2 = binding.function("epoll_pwait2") if precise else None
        self._ADD = constant("EPOLL_CTL_ADD")
        self._MOD = constant("EPOLL_CTL_MOD")
        self._DEL = constant("EPOLL_CTL_DEL")
        self._NULL = ffi.NULL
        read, write = constant("EPOLLIN"), constant("EPOLLOUT")
        self._flags = (0, read, write, read | write)
        self._directions = Directions(read, write)

        self._size = ffi.sizeof("struct epoll_event")
        record = "IQ" if ffi.offsetof("struct epoll_event", "data") == 4 else "I4xQ"
        self._pack = Struct("=" + record).pack
        self._iter_unpack = Struct("=" + record).iter_unpack
        self._unpackers = _Unpackers("=", record.replace("I", "4x"))

        self._serials = count(1)
        self._serial = 0  # the last one drawn; 0 while every token is a bare number
        self._tokens: dict[int, int] = {}
        self._keys = Keys(self._fd_to_key, self._tokens)
        self._pairs = Pairs(self._keys)
        self._outcomes = Outcomes(self._keys)
        self._duplex: set[int] = set()  # descriptors registered for both directions: a hint
        self._capacity = 64
        self._idle: list[_Wait] = []
        self._epfd = binding.call(binding.function("epoll_create1"), constant("EPOLL_CLOEXEC"))

    def fileno(self) -> int:
        """Return the epoll descriptor.

        Raises:
            ValueError: the selector is closed.
        """
        if self._epfd < 0:
            raise ValueError("I/O operation on closed selector")
        return self._epfd

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        fd = fileobj if type(fileobj) is int and fileobj >= 0 else self._fileobj_lookup(fileobj)
        fd_to_key = self._fd_to_key
        if fd in fd_to_key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        token = fd | next(self._serials) << SERIAL_SHIFT if self._serial else fd
        event = self._pack(self._flags[events], token)
        if self._epoll_ctl(self._epfd, self._ADD, fd, event):
            self._refused(self._ffi.errno, EEXIST, self._MOD, fd, event)
        if token != fd:
            self._tokens[fd] = token
        if events == BOTH:
            self._duplex.add(fd)
        key: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        if fd_to_key.setdefault(fd, key) is not key:
            self._settle(fd)
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        if len(fd_to_key) > self._capacity:
            self._grow()
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        try:
            fd = fileobj if type(fileobj) is int and fileobj >= 0 else self._fileobj_lookup(fileobj)
            key = self._fd_to_key[fd]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None
        self._serial = next(self._serials)
        # Refused if the descriptor is closed or its number reused: nothing is registered then.
        self._epoll_ctl(self._epfd, self._DEL, fd, self._NULL)
        if self._fd_to_key.pop(fd, None) is None:
            raise KeyError(f"{fileobj!r} is not registered")
        self._forget(key, self._tokens.get(fd, fd))
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        try:
            fd = fileobj if type(fileobj) is int and fileobj >= 0 else self._fileobj_lookup(fileobj)
            key = self._fd_to_key[fd]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        old = self._tokens.get(fd, fd)
        if events != key.events or self._replaced(key, fileobj):
            self._serial = serial = next(self._serials)
            token = fd | serial << SERIAL_SHIFT
            event = self._pack(self._flags[events], token)
            if self._epoll_ctl(self._epfd, self._MOD, fd, event):
                errno = self._ffi.errno
                if errno == EBADF and self._fd_to_key.pop(fd, None):
                    self._forget(key, old)
                self._refused(errno, ENOENT, self._ADD, fd, event)
            if events == BOTH:
                self._duplex.add(fd)
            self._tokens[fd] = token
        elif data != key.data:
            serial = self._serial
        else:
            return key
        new: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        self._fd_to_key[fd] = new
        self._forget(key, old, events)
        if self._serial != serial:
            self._settle(fd)
        return new

    def select(self, timeout: float | None = None) -> list[Pair]:
        idle = self._idle
        try:
            wait = idle.pop()
        except IndexError:
            wait = _Wait(self)
        deadline = None
        if timeout is None:
            steps = wait.forever
        elif timeout <= 0:
            steps = wait.now
        else:
            deadline = monotonic() + timeout
            steps = wait.until(self, timeout)
        for n in steps:
            break
        if n < 0:
            wait, n = self._wait(self._ffi.errno if n == -1 else -n, timeout, deadline)
        try:
            if self._duplex:
                result = self._decode_masks(wait, n)
            elif n == 1:
                result = [self._pairs[wait.first.data]]
            elif n:
                result = self._decode(wait, n)
            else:
                result = []
        except KeyError:
            result = self._sift(wait, n)
        idle.append(wait)
        return result

    def close(self) -> None:
        epfd, self._epfd = self._epfd, -1
        self._idle = []  # a new list: a call in progress puts its buffer back into the old one
        super().close()
        self._pairs.clear()
        self._outcomes.clear()
        if epfd >= 0:
            self._binding.close(epfd)

    def __del__(self) -> None:
        # As the C object does that the stdlib's selector owns.  A failed __init__ has no _epfd.
        if getattr(self, "_epfd", -1) >= 0:
            EpollSelector.close(self)

    # The fast decoders.  Each raises KeyError for a token that is of no current registration.

    def _decode_struct(self, wait: _Wait, n: int) -> list[Pair]:
        """CPython: one C call unpacks up to ``_CHUNK`` tokens, another looks them up."""
        pair = self._pairs.__getitem__
        if n <= _CHUNK:
            return list(map(pair, self._unpackers[n](wait.view)))
        result: list[Pair] = []
        for start in range(0, n, _CHUNK):
            unpack = self._unpackers[min(n - start, _CHUNK)]
            result += map(pair, unpack(wait.view, start * self._size))
        return result

    def _decode_masks_struct(self, wait: _Wait, n: int) -> list[Pair]:
        outcomes, directions = self._outcomes, self._directions
        records = self._iter_unpack(wait.view[: n * self._size])
        return [
            pair for flags, token in records if (pair := outcomes[token][directions[flags]])
        ]

    def _decode_loop(self, wait: _Wait, n: int) -> list[Pair]:
        """PyPy: its compiler removes the objects of a plain loop, not those of ``struct``."""
        pairs, buffer = self._pairs, wait.buffer
        return [pairs[buffer[i].data] for i in range(n)]

    def _decode_masks_loop(self, wait: _Wait, n: int) -> list[Pair]:
        outcomes, directions, buffer = self._outcomes, self._directions, wait.buffer
        result = []
        for i in range(n):
            event = buffer[i]
            pair = outcomes[event.data][directions[event.events]]
            if pair:
                result.append(pair)
        return result

    if sys.implementation.name == "pypy":
        _decode, _decode_masks = _decode_loop, _decode_masks_loop
    else:
        _decode, _decode_masks = _decode_struct, _decode_masks_struct

    # Everything below is cold.

    def _sift(self, wait: _Wait, n: int) -> list[Pair]:
        """Decode events of which some are of no current registration; leave those out."""
        result = []
        for key, _, flags in self._events(wait, n):
            events = self._directions[flags] & key.events if key else 0
            if key and events:
                result.append((key, events))
        return result

    def _raw(self, timeout: float | None) -> list[tuple[Any, ...]]:
        deadline = monotonic() + timeout if timeout is not None and timeout > 0 else None
        wait, n = self._wait(EINTR, timeout, deadline)
        return [(key, fd, flags, 0, 0) for key, fd, flags in self._events(wait, n)]

    def _events(self, wait: _Wait, n: int) -> Iterator[tuple[SelectorKey | None, int, int]]:
        """Yield (key or None, fd, flags) per event; mend what an unknown token betrays."""
        unknown = set()
        for i in range(n):
            event = wait.buffer[i]
            fd = event.data & FD_MASK
            key = None
            try:
                key = self._keys[event.data]
            except KeyError:
                unknown.add(fd)
            yield key, fd, event.events
        # Not before: a new token would make strangers of the events that are still to come.
        for fd in unknown.intersection(self._fd_to_key):
            self._settle(fd)

    def _wait(
        self, errno: int, timeout: float | None, deadline: float | None
    ) -> tuple[_Wait, int]:
        """Wait on, after ``errno`` has ended a wait, for the time that remains."""
        while True:
            self.fileno()
            if errno in (ENOSYS, EPERM) and deadline is not None and self._epoll_pwait2:
                self._epoll_pwait2 = None  # before Linux 5.11, or refused by a seccomp filter
                self._idle = []
            elif errno != EINTR:
                raise self._binding.error(errno)
            wait = _Wait(self)
            steps = wait.forever if timeout is None else wait.now
            remaining = 0.0 if deadline is None else deadline - monotonic()
            if remaining > 0:
                steps = wait.until(self, remaining)
            for n in steps:
                break
            if n >= 0:
                return wait, n
            errno = self._ffi.errno if n == -1 else -n

    def _refused(self, errno: int, cure: int, op: int, fd: int, event: bytes) -> None:
        """Raise for a refused epoll_ctl, unless errno is ``cure`` and ``op`` does what was wanted.

        EEXIST: what a call that an exception interrupted has left, or a closed duplicate.
        ENOENT: the number was reused; the new file was never added.
        """
        self.fileno()
        if errno != cure or self._epoll_ctl(self._epfd, op, fd, event):
            raise self._binding.error(errno)

    def _settle(self, fd: int) -> None:
        """Make the kernel agree with the registry about ``fd``.

        Due when two threads, or a thread and its signal handler, have changed the descriptor at
        the same time: whichever comes last sees that a serial was drawn meanwhile.
        """
        serial = -1
        while self._serial != serial:
            self._serial = serial = next(self._serials)
            key = self._fd_to_key.get(fd)
            if key is None:
                return
            token = self._tokens[fd] = fd | serial << SERIAL_SHIFT
            event = self._pack(self._flags[key.events], token)
            if self._epoll_ctl(self._epfd, self._MOD, fd, event):
                self._epoll_ctl(self._epfd, self._ADD, fd, event)
            if key.events == BOTH:
                self._duplex.add(fd)

    def _forget(self, key: SelectorKey, token: int, events: int = 0) -> None:
        """Drop what was made of ``key``, now that the registry has another one, or none."""
        self._pairs.pop(token, None)
        if self._outcomes:
            self._outcomes.pop(token, None)
        if key.events == BOTH != events:
            self._duplex.discard(key.fd)

    def _grow(self) -> None:
        self._capacity *= 2
        self._idle = []


class _Wait:
    """An output buffer that belongs to one call at a time, and the calls bound to it."""

    __slots__ = ("_timespec", "buffer", "first", "forever", "now", "timed", "view")

    def __init__(self, selector: EpollSelector) -> None:
        epfd, capacity = selector.fileno(), selector._capacity
        ffi, calls = selector._ffi, selector._binding.calls
        self.buffer = ffi.new("struct epoll_event[]", capacity)
        self.first = self.buffer[0]
        self.view = memoryview(ffi.buffer(self.buffer))
        self.now = calls(selector._epoll_wait, epfd, self.buffer, capacity, 0)
        self.forever = calls(selector._epoll_wait, epfd, self.buffer, capacity, -1)
        self.timed = None
        if selector._epoll_pwait2:
            self._timespec = ffi.new("struct timespec *")
            self.timed = calls(
                selector._epoll_pwait2, epfd, self.buffer, capacity, self._timespec, ffi.NULL
            )

    def until(self, selector: EpollSelector, timeout: float) -> Iterator[int]:
        """Return the call that waits ``timeout`` seconds > 0."""
        if self.timed is None:
            epfd, capacity, ms = selector.fileno(), len(self.buffer), milliseconds(timeout)
            return selector._binding.calls(selector._epoll_wait, epfd, self.buffer, capacity, ms)
        timespec = self._timespec
        timespec.tv_sec, timespec.tv_nsec = divmod(nanoseconds(timeout, _MS_MAX), 1_000_000_000)
        return self.timed


class _Unpackers(dict):  # type: ignore[type-arg] # dict[...] as a base is slower to look up on 3.9
    """n -> a function from (buffer, offset) to the tokens of n events."""

    def __init__(self, order: str, token: str) -> None:
        self._order = order
        self._token = token

    def __missing__(self, n: int) -> Callable[..., tuple[int, ...]]:
        unpack = self[n] = Struct(self._order + self._token * n).unpack_from
        return unpack
