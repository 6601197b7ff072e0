"""Event ports: illumos and Oracle Solaris.

What the kernel does
--------------------
port_associate(3C) asks for one event of a descriptor. Once port_getn(3C) has handed that event out, the
descriptor is not watched until it is associated again. An event that has come waits in the port's
queue, also when it is no longer true::

    port_associate(5, POLLIN)
    data arrive                         # the port queues (5, POLLIN)
    the program reads all of them
    port_getn()                         # returns (5, POLLIN)

``select()`` promises more: it returns what is ready now, in every call. So each call asks poll(2) once
about the descriptors that the port has named. Those are *spent*, and associated again before the next
call.

While another thread is in ``select()``, the port may have handed it what this call is to return. So
they are associated again at once, and a call that is not alone asks poll(2) about all descriptors.

close(2) ends an association, also while a duplicate is open. To associate again what is associated
already replaces its mask and its queued event. So every change is one call.

Threads
-------
``wakeup()`` is port_send(3C), which may be called by signal handlers, and which needs no descriptor. A
port that is closed ends the calls that wait on it.

https://illumos.org/man/3C/port_create, https://illumos.org/man/3C/port_associate
"""

from __future__ import annotations

import errno
from errno import EAGAIN, EBADF, EINTR
from itertools import count

from ..binding import INT_MAX
from .base import ANY, TOO_LARGE, NativeEvent
from .beyond import LEVEL, ONESHOT, Interest, PollBits, lack, watched
from .errors import from_outside, is_open, leaving_nothing
from .process import PATIENCE
from .waits import Buffer, Owned, WaitingSelector, close_on_exec, timespec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .base import SelectorKey
    from .native import Pair

__all__ = ["EventPortSelector"]

# Where errno has no such names there are no ports, but there may be simulated ones.
_ETIME = getattr(errno, "ETIME", errno.ETIMEDOUT)
_EBADFD = getattr(errno, "EBADFD", EBADF)
_serials = count()


class _Facts:
    """What depends on the binding alone, shared by its selectors."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.ffi, self.NULL = binding.ffi, binding.ffi.NULL
        function, constant = binding.function, binding.constant
        self.ask = binding.ask
        self.associate, self.dissociate = function("port_associate"), function("port_dissociate")
        self.getn, self.send = function("port_getn"), function("port_send")
        self.poll = function("poll")
        self.FD, self.NVAL = constant("PORT_SOURCE_FD"), constant("POLLNVAL")
        self.bits: PollBits = binding.facts(PollBits)
        self.flags, self.directions = self.bits.flags, self.bits.directions

    def create(self) -> int:
        """Return the descriptor of a new port, which exec(2) closes."""
        binding = self._binding
        return close_on_exec(binding.call(binding.function("port_create")))


class EventPortSelector(WaitingSelector):
    """Event-port-based selector of illumos and Solaris."""

    _mechanism = "eventport"
    _make_facts = _Facts
    _facts: _Facts

    def _create(self) -> Owned:
        self._spent: dict[tuple[int, int], None] = {}  # (descriptor, serial) of each event handed out
        self._handed_out: object = None  # another object each time
        return Owned(self._binding, self._facts.create())

    def _watch(self, fd: int, events: int, was: int) -> None:
        self._check_open()
        if fd > INT_MAX:
            raise OverflowError(TOO_LARGE)
        facts, port, events = self._facts, self._descriptor.fd, watched(events)
        if not events:
            facts.ask(facts.dissociate, port, facts.FD, fd)
            return  # ENOENT: its event was handed out. EBADFD: it is closed, and so not associated
        code = -facts.ask(facts.associate, port, facts.FD, fd, self._flags(events), facts.NULL)
        if code:
            self._check_open()
            raise leaving_nothing(self._binding.error(EBADF if code == _EBADFD else code))

    def _interrupt(self) -> None:
        self._check_open()
        facts = self._facts
        code = -facts.ask(facts.send, self._descriptor.fd, 0, facts.NULL)
        if code and code != EAGAIN:  # that is a full queue, which wakes as well
            self._check_open()
            raise self._binding.error(code)

    def _end_call(self) -> None:
        for port in self._descriptor.numbers if self._waits else ():
            # A port hands what is sent to one thread, which passes it on.
            self._facts.ask(self._facts.send, port, 0, self._facts.NULL)
        super()._end_call()

    def _buffer(self) -> _Buffer:
        return _Buffer(self._facts.ffi)

    def _call(self, buffer: _Buffer, timeout: float | None) -> int:
        self._associate_spent()
        facts = self._facts
        buffer.clear()
        room = buffer.array, buffer.capacity, buffer.nget, timespec(facts.ffi, timeout)
        before = self._handed_out
        try:
            code = -facts.ask(facts.getn, self._descriptor.fd, *room)
            unchanged = self._handed_out is before
            n = self._note_spent(buffer)
            # Later: a call that begins after this look finds among the spent what this one was handed.
            buffer.alone = unchanged and len(self._waits) == 1
        except BaseException:
            # An exception of a signal handler: what was handed out must be associated again.
            self._note_spent(buffer)
            raise
        return n if n or code == _ETIME else -code  # ETIME may come with events

    def _decode(
        self, buffer: _Buffer, n: int, native: list[NativeEvent] | None
    ) -> tuple[dict[int, Pair], set[tuple[int, int]], bool]:
        facts, registry = self._facts, self._fd_to_key
        named: dict[int, SelectorKey] = {}  # in the order of the port
        unknown = set()
        for i in range(n):
            event = buffer.array[i]
            if event.portev_source != facts.FD:
                continue  # of ``wakeup()``, which has set ``_woken``
            fd = event.portev_object
            key = registry.get(fd)
            if key is not None:
                named[fd] = key
                continue
            unknown.add((fd, 0))
            if native is not None:
                native.append(NativeEvent(None, fd, event.portev_events))
        if not buffer.alone:
            named = {**named, **self._fd_to_key}
        found: dict[int, Pair] = {}
        for fd, flags in self._look(named).items():
            key = named[fd]
            # Closed meanwhile, or changed by another thread: the next call knows.
            if not flags or flags & facts.NVAL or registry.get(fd) is not key:
                continue
            if native is not None:
                native.append(NativeEvent(key, fd, flags))
            events = facts.directions[flags] & key.events
            if self._beyond:
                events = facts.bits.report(flags, key.events, buffer.fired)
            if events:
                found[fd] = key, events
        if not buffer.alone:
            self._associate_spent()
        return found, unknown, False

    def _look(self, named: dict[int, SelectorKey]) -> dict[int, int]:
        """Return what poll(2) says of each descriptor now."""
        if not named:
            return {}
        facts = self._facts
        asked = [(fd, self._flags(key.events), 0) for fd, key in named.items() if watched(key.events)]
        pollfds = facts.ffi.new("struct pollfd[]", asked)
        for _ in range(PATIENCE):
            n = facts.ask(facts.poll, pollfds, len(asked), 0)
            if n >= 0:
                return {entry.fd: entry.revents for entry in pollfds}
            if n != -EINTR:
                break
        raise self._binding.error(-n)

    def _lacks(self, interest: Interest) -> str:
        return lack(interest, self._facts.bits.events, (LEVEL, ONESHOT))

    def _flags(self, events: int) -> int:
        return self._facts.bits[events] if self._beyond else self._facts.flags[events]

    def _renew(self, fd: int, events: int) -> None:
        try:
            self._watch(fd, events, ANY)
        except (OSError, ValueError) as error:
            if from_outside(error):
                raise
            # Closed: the descriptor, or the selector.

    def _note_spent(self, buffer: _Buffer) -> int:
        """Note what the port has handed out; return the number of events."""
        facts, spent = self._facts, self._spent
        for n in range(buffer.capacity):
            event = buffer.array[n]
            if not event.portev_source:
                return n
            if event.portev_source == facts.FD:
                self._handed_out = entry = event.portev_object, next(_serials)
                spent[entry] = None
        return buffer.capacity

    def _associate_spent(self) -> None:
        """Associate again what the port has handed out, as the registry says now.

        An entry goes last, so that an exception loses none, and is one event's: another thread may be
        handed the next event of the same descriptor meanwhile.
        """
        for entry in [*self._spent]:
            fd = entry[0]
            key = self._fd_to_key.get(fd)
            if key is not None:
                try:
                    self._watch(fd, key.events, 0)
                except OSError as error:
                    # Closed; or unregistered and closed meanwhile, and the number may be another file's.
                    closed = error.errno == EBADF and not from_outside(error)
                    if not closed or (is_open(fd) and self._fd_to_key.get(fd) is key):
                        raise
                except ValueError as error:
                    if from_outside(error):
                        raise
                    return  # the selector was closed meanwhile; ``_wait`` sees it
                self._settle(fd, key)
            self._spent.pop(entry, None)


class _Buffer(Buffer):
    """A buffer, and the number of events that a call waits for."""

    alone = True  # no other call can have been handed an event that the last one was to return

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi, "struct port_event[]")
        self.nget = ffi.new("unsigned int *")

    def clear(self) -> None:
        """Have no events in it, and wait for one."""
        memory = self._ffi.buffer(self.array)
        memory[:] = bytes(len(memory))
        self.nget[0] = 1
