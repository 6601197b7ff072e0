"""Raw events: what the kernel said, before it is folded into ``EVENT_*``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends import EpollSelector, KqueueSelector, SelectSelector
from .decode.epoll import event_bits as epoll_bits
from .decode.grammar import struct
from .decode.kqueue import Records
from .decode.poll import event_bits as poll_bits
from .naming import interest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from selectors import SelectorKey

__all__ = ["RawEvent", "select_raw"]


class RawEvent(NamedTuple):
    """One event of ``select_raw()``."""

    key: SelectorKey | None
    """The registration; None if the kernel reported a descriptor that has none."""
    fd: int
    flags: int
    """``events`` of epoll, ``revents`` of poll and /dev/poll, ``flags`` of kqueue; of select(2),
    which has none, the ``EVENT_*`` of its sets."""
    fflags: int
    """kqueue: with ``EV_EOF`` a socket's errno; otherwise 0."""
    data: int
    """kqueue: bytes that can be read or written; otherwise 0."""
    decoded: str
    """All of it as text, e.g. ``EPOLLIN|EPOLLHUP``."""


def select_raw(selector: Any, timeout: float | None = None) -> list[RawEvent]:
    """Wait once and return the native events; see ``select_raw`` of the selectors."""
    events = selector._raw(timeout)
    decode = _decoder(selector)
    found = []
    for event in events:
        key, fd, flags, fflags, data = event[:5]
        found.append(RawEvent(key, fd, flags, fflags, data, decode(event)))
    return found


def _decoder(selector: Any) -> Callable[[Sequence[Any]], str]:
    """Return what writes the flags of this mechanism down."""
    ffi = selector._binding.ffi
    if isinstance(selector, KqueueSelector):
        render = Records(ffi)
        return lambda event: struct(**render.outcome(event[5], *event[2:5]))
    if isinstance(selector, SelectSelector):
        return lambda event: interest(event[2])
    bits = epoll_bits(ffi) if isinstance(selector, EpollSelector) else poll_bits(ffi)
    return lambda event: bits(event[2])
