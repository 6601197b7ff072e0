"""kqueue(2): macOS and the BSDs; on Linux libkqueue.

What the kernel does
--------------------
A registration is keyed by (descriptor, filter): reading and writing are two, and either may be refused
alone. Without room for events, kevent(2) applies its changes in order and stops at the first that
fails; those before it stay applied. Interrupted by a signal, it has applied them all. close(2) of a
descriptor removes its registrations. So every change is one call. What a refused call has half applied
is taken back, when the base puts the old entry back and looks again.

Each registration carries a number of ours in ``udata``, the *serial*, which is new with every change::

    thread 1: kevent() returns (5, read)       # not looked at yet
    thread 2: unregister(5); close(5); register(5, EVENT_READ)      # another file
    thread 1: the event has the serial of the old registration: it is left out

The two events of one descriptor become one result. libkqueue refuses to add what it has. It also goes
on reporting a closed descriptor while a duplicate is open, whatever it is told. Such a registration
cannot be removed, so a wait that hears of nothing else looks again only now and then.

A kqueue is not inherited by fork(2): in the child its number is free, or names another file. There
every method but ``close`` and ``reopen`` raises ValueError, and ``close`` leaves the number alone.

https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
"""

from __future__ import annotations

import os
from errno import EINTR, ENOENT
from itertools import count

from ..binding import INT_MAX, nanoseconds
from .base import ANY, EVENT_READ, EVENT_WRITE, TOO_LARGE, NativeEvent
from .beyond import Interest, watched
from .kqueue_beyond import BeyondKqueue
from .refusal import leaving_nothing
from .waits import Buffer, Owned
from .wake import Waker, give_back, lend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..binding import Binding
    from .directions import Pair
    from .kqueue_beyond import Changes

__all__ = ["KqueueSelector"]

_LONGEST = 1_000_000 * 10**9  # ns; macOS refuses a longer wait, so it is made of several
_REST = ((), (), (0, 0), (0,))  # fflags and data, by how much of a change is there
_WAKE = 0  # the serial of the waker
_serials = count()


class KqueueSelector(BeyondKqueue):
    """Kqueue-based selector."""

    _mechanism = "kqueue"

    def __init__(
        self,
        *,
        binding: Binding | None = None,
        debug: object = None,
        regular_files: str | None = None,
    ) -> None:
        super().__init__(binding=binding, debug=debug, regular_files=regular_files)
        self._facts: _Facts = self._binding.facts(_Facts)
        self._serials: dict[int, int] = {}  # of the current registration of each descriptor
        self._descriptor = self._create()

    def _create(self) -> _Kqueue:
        return _Kqueue(self._binding, self._facts.create())

    def _check_open(self) -> None:
        if self._descriptor.left_behind():
            self._descriptor.close()
        super()._check_open()

    def _watch(self, fd: int, events: int, was: int) -> None:
        self._check_open()
        if fd > INT_MAX:
            raise OverflowError(TOO_LARGE)
        facts, serial, wide = self._facts, 0, self._beyond
        if wide:
            events = watched(events)
        if events:
            serial = self._serials[fd] = next(_serials) % facts.largest_serial + 1
        else:
            self._serials.pop(fd, None)
        if wide:
            errno = self._replace(fd, was, events, serial)
        else:
            errno = self._apply(fd, facts.changes[was][events], serial)
        # Of ANY also what is refused: what the kernel still has and the registry does not must go.
        if errno and (errno == ENOENT or facts.add_refuses_existing or not events or was == ANY):
            errno = self._reconcile(fd, events, serial)
        if errno:
            self._check_open()
            if was or events >= ANY:  # of two directions, one may have been added
                raise self._binding.error(errno)
            raise leaving_nothing(self._binding.error(errno))

    def _interrupt(self) -> None:
        self._check_open()
        if self._waker is None or not self._waker.ring():
            self.__dict__.pop("_waker", None)  # the program has closed its descriptors
            self._add_waker().ring()

    def _rebind(self, binding: Binding) -> dict[int, int]:
        self._facts = binding.facts(_Facts)
        super()._rebind(binding)
        return self._serials.copy()

    def _apply(self, fd: int, changes: Changes, serial: int) -> int:
        """Make changes in order; return the errno of the first that is refused, which ends it, or 0."""
        facts = self._facts
        if not changes:
            return 0
        records = [(fd, *change, *_REST[len(change)], serial) for change in changes]
        changelist = facts.ffi.new("struct kevent[]", records)
        arguments = (self._descriptor.fd, changelist, len(records), facts.NULL, 0, facts.NULL)
        for n in facts.calls(facts.kevent, *arguments):
            break
        errno = facts.errno(n) if n < 0 else 0
        return 0 if errno == EINTR else errno

    def _reconcile(self, fd: int, events: int, serial: int) -> int:
        """Watch exactly ``events``, change by change, whatever the kernel has.

        Returns:
            The errno of the first direction that cannot be watched, or 0.
        """
        if self._beyond:
            return self._replace(fd, ANY, watched(events), serial)
        refused = 0
        for change in self._facts.changes[ANY][events]:
            errno = self._apply(fd, (change,), serial)
            if change[1] == self._facts.ADD:
                refused = refused or errno
        return refused

    def _buffer(self) -> Buffer:
        return Buffer(self._facts.ffi, "struct kevent[]")

    def _call(self, buffer: Buffer, timeout: float | None) -> int:
        facts = self._facts
        timespec = facts.NULL
        if timeout is not None:
            seconds, rest = divmod(min(nanoseconds(timeout), _LONGEST), 10**9)
            timespec = facts.ffi.new("struct timespec *", {"tv_sec": seconds, "tv_nsec": rest})
        arguments = (self._descriptor.fd, facts.NULL, 0, buffer.array, buffer.capacity, timespec)
        for n in facts.calls(facts.kevent, *arguments):
            break
        return n if n >= 0 else -facts.errno(n)

    def _decode(
        self, buffer: Buffer, n: int, native: list[NativeEvent] | None
    ) -> tuple[dict[int, Pair], set[tuple[int, int]], bool]:
        facts, waker, rung = self._facts, self._waker, False
        found: dict[int, Pair] = {}  # in order of first appearance
        unknown = set()
        for i in range(n):
            kevent = buffer.array[i]
            fd, serial = kevent.ident, kevent.udata
            if serial == _WAKE and waker is not None and fd == waker.reader:
                rung = True
                continue
            key = self._fd_to_key.get(fd)
            if kevent.flags & facts.ERROR or not (self._shared or self._serials.get(fd) == serial):
                key = None
            if native is not None:
                rest = (kevent.flags, kevent.fflags, kevent.data, kevent.filter)
                native.append(NativeEvent(key, fd, *rest))
            event = facts.event_of.get(kevent.filter, 0)
            if key is not None and type(key.events) is Interest:
                event = self._report(key, kevent, fd in found)
                if not event:
                    continue
            if key is not None and key.events & event:
                # Between two of its events another thread may have changed the key.
                found[fd] = key, (event | (found[fd][1] if fd in found else 0)) & key.events
            else:
                unknown.add((fd, serial))
        return found, unknown, rung

    def _renew(self, fd: int, events: int) -> None:
        # The serial stays: another thread may hold an event of the current registration.
        self._reconcile(fd, events, self._serials.get(fd, 0))

    def _add_waker(self) -> Waker:
        """Have the kqueue watch a waker; this wakes the threads that wait already."""
        lent = lend()
        refused = self._apply(lent.reader, self._facts.changes[0][EVENT_READ], _WAKE)
        if refused:
            give_back(lent)
            self._check_open()
            raise self._binding.error(refused)
        waker: Waker = self.__dict__.setdefault("_waker", lent)
        if waker is not lent:
            self._apply(lent.reader, self._facts.changes[EVENT_READ][0], _WAKE)
            give_back(lent)
        return waker


class _Kqueue(Owned):
    """A kqueue, which a forked child does not have."""

    __slots__ = ()

    def close(self) -> None:
        if self.left_behind():
            self._open.clear()  # the number is not ours
            self.fd = -1
        super().close()


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.ffi = ffi = binding.ffi
        constant = binding.constant
        self.calls, self.errno, self.NULL = binding.calls, binding.errno, ffi.NULL
        self.kevent = binding.function("kevent")
        self.ADD, self._DELETE = constant("EV_ADD"), constant("EV_DELETE")
        self.ERROR = constant("EV_ERROR")
        read, write = constant("EVFILT_READ"), constant("EVFILT_WRITE")
        self.event_of = {read: EVENT_READ, write: EVENT_WRITE}
        self.largest_serial = 2 ** (8 * ffi.sizeof("uintptr_t")) - 1
        self.add_refuses_existing = binding.target == "libkqueue"
        #: The changes that lead from one mask (first index) to another.
        self.changes = [[self._changes(was, events) for events in range(4)] for was in range(4)]

    def _changes(self, was: int, events: int) -> Changes:
        # What stays is added again: the serial is new, and the number may name another file now. A
        # handler may have changed the mask before ``modify`` wrote the registry, so all else is deleted.
        gone = was if not (was and events) else ANY & ~events
        if self.add_refuses_existing:
            rest = self._each(self._DELETE, gone & ~was)
            return (*self._each(self._DELETE, was), *self._each(self.ADD, events), *rest)
        return (*self._each(self.ADD, events), *self._each(self._DELETE, gone))

    def _each(self, flags: int, events: int) -> Changes:
        return tuple((filter_, flags) for filter_, event in self.event_of.items() if events & event)

    def create(self) -> int:
        """Return the descriptor of a new kqueue, which exec(2) closes."""
        binding = self._binding
        if binding.has("kqueuex"):
            return binding.call(binding.function("kqueuex"), binding.constant("KQUEUE_CLOEXEC"))
        if binding.has("kqueue1"):
            return binding.call(binding.function("kqueue1"), os.O_CLOEXEC)
        fd = binding.call(binding.function("kqueue"))
        try:
            os.set_inheritable(fd, False)
        except OSError:
            pass  # EBADF: the number is a simulated kernel's, not this process's
        return fd
