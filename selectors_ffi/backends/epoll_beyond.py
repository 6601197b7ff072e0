"""What epoll does beyond the standard library: see ``beyond``.

The kernel has all of it: EPOLLPRI, EPOLLRDHUP, EPOLLET, EPOLLONESHOT and EPOLLEXCLUSIVE. From the first
such registration on, every key of the selector is decoded as one for both directions is.

A registration that is or becomes exclusive cannot be modified (EINVAL), so it is deleted and added. A
``ONESHOT`` that was reported is also noted in its ``Interest``, since a set that is replaced, see
``epoll``, would have it armed again.

https://man7.org/linux/man-pages/man2/epoll_ctl.2.html
"""

from __future__ import annotations

from abc import abstractmethod
from struct import error as StructError

from .base import ANY, BOTH, TOO_LARGE, Backend
from .beyond import EDGE, LEVEL, ONESHOT, EpollBits, Interest, lack, watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .base import Descriptor, SelectorKey
    from .epoll_buffer import Facts

__all__ = ["BeyondEpoll"]


class BeyondEpoll(Backend):
    """The part of ``EpollSelector`` that is used once a key holds an ``Interest``."""

    _binding: Binding
    _facts: Facts
    _descriptor: Descriptor
    _tokens: dict[int, int]
    _duplex: dict[int, None]
    _made: list[Any]

    @abstractmethod
    def _in_call(self) -> bool:
        """Tell whether a call is in flight."""

    @abstractmethod
    def _new_token(self, fd: int) -> int:
        """Return a token that no event has yet."""

    @abstractmethod
    def _reconcile(self, fd: int, events: int, errno: int) -> None:
        """Go on where the kernel has more, or less, than was expected."""

    @property
    def _bits(self) -> EpollBits:
        bits: EpollBits = self._binding.facts(EpollBits)
        return bits

    def _lacks(self, interest: Interest) -> str:
        if interest.exclusive and (interest > BOTH or interest.trigger is ONESHOT):
            return (
                "cannot watch exclusively for EVENT_PRIORITY or EVENT_HANGUP, nor with ONESHOT:"
                " EPOLLEXCLUSIVE excludes them, epoll_ctl(2)"
            )
        return lack(interest, self._bits.events, (LEVEL, EDGE, ONESHOT), exclusive=True)

    def _go_beyond(self) -> None:
        super()._go_beyond()
        self._tokens[-1] = -1  # ``_watch`` looks for ``_beyond`` only if this table is not empty

    def _watch_beyond(self, fd: int, events: int, was: int) -> None:
        """Do what ``_watch`` does."""
        events, facts = watched(events), self._facts
        operation, token = facts.ADD, self._tokens.get(fd, fd)
        if was:
            busy = bool(self._made) and self._in_call()  # which may hold an event for the old interest
            self._forget(fd)
            self._duplex.pop(fd, None)
            operation = facts.MOD
            exclusive = any(isinstance(one, Interest) and one.exclusive for one in (events, was))
            if not events or exclusive or was == ANY:
                busy = self._step(facts.DEL, fd, facts.NULL) != 0 or busy
                operation = facts.ADD
            if busy:
                token = self._new_token(fd)
        if not events:
            return
        self._duplex[fd] = None
        try:
            event = facts.pack(self._bits[events], token)
        except StructError:
            raise OverflowError(TOO_LARGE) from None
        errno = self._step(operation, fd, event)
        if errno:
            self._reconcile(fd, events, errno)

    def _step(self, operation: int, fd: int, event: Any) -> int:
        """Call epoll_ctl(2); return its errno, or 0."""
        facts = self._facts
        arguments = (self._descriptor.fd, operation, fd, event)
        for refused in facts.attempts(facts.epoll_ctl, (arguments,)):
            break
        return facts.errno(refused) if refused else 0

    def _report(self, flags: int, key: SelectorKey) -> int:
        """Return what of ``key`` is ready; 0 also if it was reported by another call already."""
        found = self._bits.ready(flags, key.events)
        if found and isinstance(key.events, Interest) and not key.events.fire():
            return 0
        return found
