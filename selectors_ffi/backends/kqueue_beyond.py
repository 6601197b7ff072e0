"""What kqueue does beyond the standard library: see ``beyond``.

``EVENT_PRIORITY`` is EVFILT_EXCEPT with NOTE_OOB; FreeBSD and NetBSD have no such filter.
``EVENT_HANGUP`` is EV_EOF of EVFILT_READ. Without ``EVENT_READ`` that filter must not report data that
waits to be read, or each wait would end at once. So it has EV_CLEAR until it has reported the end, and
none from then on.

``EDGE`` is EV_CLEAR and ``ONESHOT`` EV_ONESHOT. The kernel deletes only the filter that it has reported.
On epoll one report is for the whole descriptor, so this module deletes the other filters, too. EV_ADD
does not change these flags of an existing filter. So each change deletes the old filters first.

https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
"""

from __future__ import annotations

from abc import abstractmethod

from .base import ANY, EVENT_READ, EVENT_WRITE
from .beyond import EDGE, EVENT_HANGUP, EVENT_PRIORITY, LEVEL, ONESHOT, Interest, lack, watched
from .waits import WaitingSelector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .base import SelectorKey

    Changes = tuple[tuple[int, ...], ...]  # (filter, flags) or (filter, flags, fflags) of each

__all__ = ["BeyondKqueue"]


class _Bits:
    """The filters and flags of a system."""

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


class BeyondKqueue(WaitingSelector):
    """The part of ``KqueueSelector`` that is used once a key holds an ``Interest``."""

    _serials: dict[int, int]

    @abstractmethod
    def _apply(self, fd: int, changes: Changes, serial: int) -> int:
        """Make changes in order; return the errno of the first that is refused, or 0."""

    @property
    def _bits(self) -> _Bits:
        bits: _Bits = self._binding.facts(_Bits)
        return bits

    def _lacks(self, interest: Interest) -> str:
        return lack(interest, self._bits.events, (LEVEL, EDGE, ONESHOT))

    def _replace(self, fd: int, was: int, events: int, serial: int) -> int:
        """Watch exactly ``events``, given what the kernel ``was`` told; return an errno, or 0."""
        bits, refused = self._bits, 0
        gone = bits.event_of if was == ANY else [change[0] for change in bits.changes(watched(was))]
        for filter_ in gone:
            self._apply(fd, ((filter_, bits.delete),), serial)  # refused if it is not there
        for change in bits.changes(events):
            refused = refused or self._apply(fd, (change,), serial)
        return refused

    def _report(self, key: SelectorKey, kevent: Any, more: bool) -> int:
        """Return what an event says of ``key``, whose events are an ``Interest``.

        Args:
            more: whether this call has reported the key already.

        Returns:
            0 if it is nothing to the caller: data while only their end is waited for, or a ``ONESHOT``
            that another call has reported.
        """
        interest: Interest = key.events  # type: ignore[assignment]
        bits, ended = self._bits, False
        event = bits.event_of.get(kevent.filter, 0)
        if kevent.flags & bits.eof:
            ended = kevent.filter != bits.write
            event |= EVENT_HANGUP if ended else 0
            event = event & interest or int(interest)
        event &= interest
        if not event or not (more or interest.fire()):
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
