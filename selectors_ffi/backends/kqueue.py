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

Beyond the standard library
---------------------------
See ``beyond``. ``EVENT_PRIORITY`` is EVFILT_EXCEPT with NOTE_OOB; FreeBSD and NetBSD have no such
filter. ``EVENT_HANGUP`` is EV_EOF of EVFILT_READ. Without ``EVENT_READ`` that filter must not report
data that waits to be read, or each wait would end at once. So it has EV_CLEAR until it has reported the
end, and none from then on.

``EDGE`` is EV_CLEAR and ``ONESHOT`` EV_ONESHOT. The kernel deletes only the filter that it has reported.
On epoll one report is for the whole descriptor, so here the other filters are deleted, too. EV_ADD
does not change these flags of an existing filter. So each change deletes the old filters first.

https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
"""

from __future__ import annotations

import os
from errno import EINTR, ENOENT
from itertools import count

from ..binding import INT_MAX
from .base import ANY, EVENT_READ, EVENT_WRITE, TOO_LARGE, NativeEvent
from .beyond import EDGE, EVENT_HANGUP, EVENT_PRIORITY, LEVEL, ONESHOT, Interest, lack, watched
from .errors import leaving_nothing
from .waits import Buffer, Owned, WaitingSelector, close_on_exec, timespec
from .wake import Waker, give_back, lend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .base import SelectorKey
    from .native import Pair

    Changes = tuple[tuple[int, ...], ...]  # (filter, flags) or (filter, flags, fflags) of each

__all__ = ["KqueueSelector"]

_REST = ((), (), (0, 0), (0,))  # fflags and data, by how much of a change is there
_WAKE = 0  # the serial of the waker
_serials = count()


class _Bits:
    """The filters and flags of an ``Interest``, by system."""

    def __init__(self, binding: Binding) -> None:
        constant = binding.constant
        self.write = constant("EVFILT_WRITE")
        self.eof, self.delete = constant("EV_EOF"), constant("EV_DELETE")
        self._clear, self._add = constant("EV_CLEAR"), constant("EV_ADD")
        self.oneshot = constant("EV_ONESHOT")
        self._triggers = {LEVEL: 0, EDGE: self._clear, ONESHOT: self.oneshot}
        self.filters = {EVENT_READ: constant("EVFILT_READ"), EVENT_WRITE: self.write}
        try:
            self._notes, self.filters[EVENT_PRIORITY] = constant("NOTE_OOB"), constant("EVFILT_EXCEPT")
        except OSError:
            pass  # FreeBSD, NetBSD, libkqueue
        self.event_of = {filter_: event for event, filter_ in self.filters.items()}
        self.events = sum(self.filters) | EVENT_HANGUP

    def changes(self, events: int) -> Changes:
        """Return what makes the kernel watch ``events``, given that it has nothing."""
        trigger = self._triggers[events.trigger] if isinstance(events, Interest) else 0
        found: list[tuple[int, ...]] = []
        for event, filter_ in self.filters.items():
            notes = (self._notes,) if event == EVENT_PRIORITY else ()
            if events & event:
                found.append((filter_, self._add | trigger, *notes))
        if isinstance(events, Interest) and events & EVENT_HANGUP and not events & EVENT_READ:
            clear = 0 if events.ended else self._clear
            found.append((self.filters[EVENT_READ], self._add | clear))
        return tuple(found)


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.ffi = ffi = binding.ffi
        constant = binding.constant
        self.ask, self.NULL = binding.ask, ffi.NULL
        self.kevent = binding.function("kevent")
        self.ADD, self._DELETE = constant("EV_ADD"), constant("EV_DELETE")
        self.ERROR = constant("EV_ERROR")
        read, write = constant("EVFILT_READ"), constant("EVFILT_WRITE")
        self.event_of = {read: EVENT_READ, write: EVENT_WRITE}
        self.largest_serial = 2 ** (8 * ffi.sizeof("uintptr_t")) - 1
        self.add_refuses_existing = binding.target == "libkqueue"
        #: How often to reconcile: a thread that waits may do so, too, and add what is to be added.
        self.tries = 5 if self.add_refuses_existing else 1
        self.bits = _Bits(binding)
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
        return close_on_exec(binding.call(binding.function("kqueue")))


class KqueueSelector(WaitingSelector):
    """Kqueue-based selector."""

    _mechanism = "kqueue"
    _make_facts = _Facts
    _facts: _Facts

    def _admit(self, regular_files: str) -> None:
        super()._admit(regular_files)
        from .regular_files import admit  # few selectors need it

        admit(self)

    def _create(self) -> _Kqueue:
        self._serials: dict[int, int] = {}  # of the current registration of each descriptor
        self._flagged: set[int] = set()  # descriptors whose filters may have flags of an ``Interest``
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
            wide, events = self._mark(fd, events), watched(events)
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
            left = facts.tries
            while errno and left:
                errno, left = self._reconcile(fd, events, serial), left - 1
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
        super()._rebind(binding)
        return {**self._serials}

    def _apply(self, fd: int, changes: Changes, serial: int) -> int:
        """Make changes in order; return the errno of the first that is refused, which ends it, or 0."""
        facts = self._facts
        if not changes:
            return 0
        records = [(fd, *change, *_REST[len(change)], serial) for change in changes]
        changelist = facts.ffi.new("struct kevent[]", records)
        arguments = (self._descriptor.fd, changelist, len(records), facts.NULL, 0, facts.NULL)
        errno = -facts.ask(facts.kevent, *arguments)
        return 0 if errno == EINTR else errno

    def _reconcile(self, fd: int, events: int, serial: int) -> int:
        """Watch exactly ``events``, change by change, whatever the kernel has.

        Returns:
            The errno of the first direction that cannot be watched, or 0.
        """
        if self._beyond and (self._mark(fd, events) or not events):
            return self._replace(fd, ANY, watched(events), serial)
        refused = 0
        for change in self._facts.changes[ANY][events]:
            errno = self._apply(fd, (change,), serial)
            if change[1] == self._facts.ADD:
                refused = refused or errno
        return refused

    def _mark(self, fd: int, events: int) -> bool:
        """Tell whether the filters of a descriptor have flags, or are to have some.

        Flags cannot be changed, so such filters are deleted and added. Others are not deleted: FreeBSD
        keeps the filter of a pipe that has lost its reader, but would refuse to add it again.
        """
        if type(events) is Interest:
            self._flagged.add(fd)
        found = fd in self._flagged
        if not events:
            self._flagged.discard(fd)  # before they are deleted, and another thread adds new ones
        return found

    def _buffer(self) -> Buffer:
        return Buffer(self._facts.ffi, "struct kevent[]")

    def _call(self, buffer: Buffer, timeout: float | None) -> int:
        facts = self._facts
        room = buffer.array, buffer.capacity, timespec(facts.ffi, timeout)
        return facts.ask(facts.kevent, self._descriptor.fd, facts.NULL, 0, *room)

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
                event = self._report(key, kevent, fd in found, buffer.fired)
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
        lent = lend(registered=self._fd_to_key)
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

    def _lacks(self, interest: Interest) -> str:
        wanted = interest & (ANY | EVENT_HANGUP)
        if self._facts.add_refuses_existing and wanted == EVENT_WRITE | EVENT_HANGUP:
            return (
                "cannot watch for EVENT_WRITE and EVENT_HANGUP without EVENT_READ: the EV_CLEAR of one"
                " filter is the other's, too"
            )
        return lack(interest, self._facts.bits.events, (LEVEL, EDGE, ONESHOT))

    def _replace(self, fd: int, was: int, events: int, serial: int) -> int:
        """Watch exactly ``events``, given what the kernel ``was`` told; return an errno, or 0."""
        bits, refused = self._facts.bits, 0
        gone = bits.event_of if was == ANY else [change[0] for change in bits.changes(watched(was))]
        for filter_ in gone:
            self._apply(fd, ((filter_, bits.delete),), serial)  # refused if it is not there
        for change in bits.changes(events):
            refused = refused or self._apply(fd, (change,), serial)
        return refused

    def _report(self, key: SelectorKey, kevent: Any, more: bool, fired: list[Interest]) -> int:
        """Return what an event says of ``key``, whose events are an ``Interest``.

        Args:
            more: whether this call has reported the key already.
            fired: see ``Interest``.

        Returns:
            0 if it is nothing to the caller: data while only their end is waited for, or a ``ONESHOT``
            that another call has reported.
        """
        interest: Interest = key.events  # type: ignore[assignment]
        bits, ended = self._facts.bits, False
        event = bits.event_of.get(kevent.filter, 0)
        if kevent.flags & bits.eof:
            ended = kevent.filter != bits.write
            event |= EVENT_HANGUP if ended else 0
            event = event & interest or int(interest)
        event &= interest
        if not event or not (more or interest.fire(fired)):
            return 0
        ends = ended and not interest & EVENT_READ and interest.trigger is LEVEL and not interest.ended
        if ends:
            interest.ended = True
            self._replace(key.fd, interest, interest, self._serials.get(key.fd, 0))
        elif interest.trigger is ONESHOT and not more:
            for filter_, flags, *_ in bits.changes(interest):
                if filter_ != kevent.filter or not flags & bits.oneshot:
                    self._apply(key.fd, ((filter_, bits.delete),), 0)
        self._settle(key.fd, key)
        return event


class _Kqueue(Owned):
    """A kqueue, which a forked child does not have."""

    __slots__ = ()

    def close(self) -> None:
        if self.left_behind():
            self._open.clear()  # the number is not ours
            self.fd = -1
        super().close()
