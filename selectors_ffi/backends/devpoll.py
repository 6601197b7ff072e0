"""/dev/poll: illumos and Oracle Solaris.

What the kernel does
--------------------
write(2) of struct pollfd changes a set that the kernel keeps. The kernel ORs a mask into the old one,
so every change is a removal and an addition, in one write. The driver accepts a closed descriptor
without a word, so each is looked at first. One that is closed later is reported as POLLNVAL by every
call: it is removed, and never returned. The ``events`` of a result are stale. More room than
RLIMIT_NOFILE is refused. The set belongs to the process that first used it; any other gets EACCES.

Threads
-------
On Oracle's line a write waits until no call sleeps. So a call that sleeps while Python knows of a second
thread watches a waker, too, and a change rings it::

    thread 1: DP_POLL sleeps
    thread 2: takes the lock, rings, write(2) waits for thread 1
    thread 1: DP_POLL returns; it wants to drain the waker, and waits for the lock
    thread 2: write(2) returns; it gives the lock back

The waker stays rung until the write is through, so no call can sleep meanwhile. Each call notes the
descriptors that change while it is in flight: an event of one may be of its old registration, and is
left out.

A signal handler may call ``wakeup()`` just before the call of its own thread, where there is no waker.
It writes 0 to ``dp_timeout``, which the kernel reads when the call begins.

https://illumos.org/man/4D/poll
"""

from __future__ import annotations

import os
from _thread import RLock
from _thread import _count as other_threads
from errno import EACCES, EBADF, EIO

from ..binding import INT_MAX, milliseconds
from . import process
from .base import ANY, EVENT_READ, TOO_LARGE, NativeEvent
from .beyond import LEVEL, ONESHOT, Interest, PollBits, lack, watched
from .errors import from_outside, is_open, of_handler
from .process import PATIENCE
from .waits import Buffer, Owned, WaitingSelector
from .wake import give_back, lend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .base import SelectorKey
    from .native import Pair

__all__ = ["DevpollSelector"]

_SLICE = 0.05  # seconds that a call sleeps at most where it needs a waker and can have none


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.ffi = binding.ffi
        function, constant = binding.function, binding.constant
        self.ask = binding.ask
        self.write, self.ioctl = function("write"), function("ioctl")
        # Not before: Windows has neither these functions nor this module.
        from resource import RLIMIT_NOFILE, getrlimit

        self._getrlimit, self._RLIMIT_NOFILE = getrlimit, RLIMIT_NOFILE
        self.DP_POLL, self.REMOVE = constant("DP_POLL"), constant("POLLREMOVE")
        self.NVAL = constant("POLLNVAL")
        self.bits: PollBits = binding.facts(PollBits)
        self.flags, self.directions = self.bits.flags, self.bits.directions

    def room(self, capacity: int) -> int:
        """Return how many results to ask for; as many as RLIMIT_NOFILE is refused, or more."""
        soft, _ = self._getrlimit(self._RLIMIT_NOFILE)
        return capacity if soft < 0 else max(1, min(capacity, soft - 1))

    def create(self) -> int:
        """Return the descriptor of a new set, which exec(2) closes."""
        binding = self._binding
        return binding.call(binding.function("open"), b"/dev/poll", os.O_RDWR | os.O_CLOEXEC)


class DevpollSelector(WaitingSelector):
    """Solaris /dev/poll selector."""

    _mechanism = "devpoll"
    _make_facts = _Facts
    _facts: _Facts

    def _create(self) -> Owned:
        self._locks: dict[int, RLock] = {}
        return Owned(self._binding, self._facts.create())

    @property
    def _lock(self) -> RLock:
        """Held while writing, so that no call starts to sleep. A forked child has one of its own.

        A thread that stayed in the parent process may have held the other for ever.
        """
        return self._locks.setdefault(process.forks_as_child, RLock())

    def _watch(self, fd: int, events: int, was: int) -> None:
        self._check_open()
        for wait in {*self._waits}:
            wait.changed.add(fd)
        if fd > INT_MAX:
            raise OverflowError(TOO_LARGE)
        if events and not is_open(fd):
            raise self._binding.error(EBADF)
        try:
            self._write(fd, events)
        except OSError as error:
            if events or from_outside(error):
                raise

    def _interrupt(self) -> None:
        waits = {*self._waits}
        for wait in waits:
            wait.dvpoll.dp_timeout = 0
        if waits:
            self._ring()

    def _write(self, fd: int, events: int) -> None:
        """Replace the mask of a descriptor; write(2)."""
        facts, events = self._facts, watched(events)
        flags = facts.bits[events] if self._beyond else facts.flags[events]
        entries = [(fd, facts.REMOVE, 0), (fd, flags, 0)]
        array = facts.ffi.new("struct pollfd[]", entries if events else entries[:1])
        size = facts.ffi.sizeof(array)
        with self._lock:
            if self._waits:
                self._ring()
            for tries in range(PATIENCE):
                try:
                    written = self._binding.call(facts.write, self._descriptor.fd, array, size)
                except InterruptedError as error:
                    if from_outside(error) or tries == PATIENCE - 1:
                        raise
                    continue  # nothing has been applied
                except OSError as error:
                    if from_outside(error):
                        raise
                    self._check_open()
                    raise self._error(error.errno or 0) from None
                break
        if written != size:
            raise OSError(EIO, f"{os.strerror(EIO)}: wrote {written} of {size} bytes to /dev/poll")

    def _error(self, errno: int) -> OSError:
        if errno != EACCES:
            return super()._error(errno)
        return OSError(EACCES, f"{os.strerror(EACCES)}: /dev/poll was opened in another process")

    def _buffer(self) -> _Buffer:
        return _Buffer(self._facts.ffi)

    def _begin(self, buffer: _Buffer) -> None:
        buffer.changed.clear()
        with self._lock:  # a change that does not know of this call ends before it
            self._waits.add(buffer)

    def _call(self, buffer: _Buffer, timeout: float | None) -> int:
        if timeout != 0 and other_threads() and not (self._waker or self._add_waker()):
            timeout = _SLICE if timeout is None else min(timeout, _SLICE)
        facts, dvpoll = self._facts, buffer.dvpoll
        dvpoll.dp_fds = buffer.array
        dvpoll.dp_nfds = facts.room(buffer.capacity)
        dvpoll.dp_timeout = -1 if timeout is None else milliseconds(timeout)
        # A wake-up that comes after this look writes to ``dp_timeout`` itself.
        if self._woken or self._closed:
            dvpoll.dp_timeout = 0
        return facts.ask(facts.ioctl, self._descriptor.fd, facts.DP_POLL, dvpoll)

    def _decode(
        self, buffer: _Buffer, n: int, native: list[NativeEvent] | None
    ) -> tuple[dict[int, Pair], set[tuple[int, int]], bool]:
        facts, waker, rung = self._facts, self._waker, False
        found: dict[int, Pair] = {}
        unknown = set()
        for i in range(n):
            entry = buffer.array[i]
            fd, flags = entry.fd, entry.revents
            if waker is not None and fd == waker.reader:
                rung = True
                continue
            key = self._fd_to_key.get(fd)
            changed = fd in buffer.changed
            if native is not None:
                native.append(NativeEvent(None if changed else key, fd, flags))
            if changed:
                continue
            events = 0
            if key is not None and not flags & facts.NVAL:
                events = facts.directions[flags] & key.events
                if self._beyond:
                    events = self._report(flags, key, buffer.fired)
            if key is not None and events:
                found[fd] = key, events
            else:
                unknown.add((fd, 0))
        buffer.changed.clear()
        return found, unknown, rung

    def _lacks(self, interest: Interest) -> str:
        return lack(interest, self._facts.bits.events, (LEVEL, ONESHOT))

    def _report(self, flags: int, key: SelectorKey, fired: list[Interest]) -> int:
        """Return what of ``key`` is ready. With ``ONESHOT`` it is taken out of the set."""
        found, interest = self._facts.bits.ready(flags, key.events), key.events
        if not found or not isinstance(interest, Interest) or interest.trigger is not ONESHOT:
            return found
        first = interest.fire(fired)
        self._renew(key.fd, interest)
        self._settle(key.fd, key)
        return found if first else 0

    def _renew(self, fd: int, events: int) -> None:
        try:
            self._watch(fd, events if is_open(fd) else 0, ANY)
        except (OSError, ValueError) as error:
            if from_outside(error):
                raise
            # Refused, so it may be reported again; or the selector is closed

    def _ring(self) -> None:
        if self._waker is not None:
            self._waker.ring()

    def _drain(self) -> None:
        with self._lock:
            super()._drain()
            waker = self._waker
            if waker is not None and not waker.intact():
                # The program has closed its descriptors, and its number may be another file's.
                self._waker = None
                key = self._fd_to_key.get(waker.reader)
                self._renew(waker.reader, key.events if key else 0)

    def _add_waker(self) -> bool:
        """Have the set watch a waker; return whether that was possible."""
        with self._lock:
            if self._waker is None:
                try:
                    waker = lend(registered=self._fd_to_key)
                except OSError as error:
                    if of_handler(error):
                        raise
                    return False  # no descriptor is left
                try:
                    self._write(waker.reader, EVENT_READ)
                except (OSError, ValueError) as error:
                    give_back(waker)
                    if from_outside(error):
                        raise
                    return False
                self._waker = waker
        return True


class _Buffer(Buffer):
    """A buffer, and the argument of its call."""

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi, "struct pollfd[]")
        self.dvpoll = ffi.new("struct dvpoll *")
        self.changed: set[int] = set()  # descriptors whose events may be out of date
