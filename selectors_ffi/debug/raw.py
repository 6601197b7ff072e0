"""Raw events: what the kernel said, before it is folded into ``EVENT_*``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from selectors import SelectorKey

__all__ = ["RawEvent"]


class RawEvent(NamedTuple):
    """One event of ``select_raw()``."""

    key: SelectorKey | None
    """The registration; None if the kernel reported a descriptor that has none."""
    fd: int
    flags: int
    """``events`` of epoll, ``revents`` of poll and /dev/poll, ``flags`` of kqueue, 0 of select."""
    fflags: int
    """kqueue: with ``EV_EOF`` a socket's errno; otherwise 0."""
    data: int
    """kqueue: bytes that can be read or written; otherwise 0."""
    decoded: str
    """All of it as text, e.g. ``EPOLLIN|EPOLLHUP``."""
