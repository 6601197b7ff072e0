"""Raw events: what the kernel said, before it is folded into ``EVENT_*``, under portable names.

End of file is the hard one. kqueue says it (``EV_EOF``), and every poll says that a pipe has no writer
any more (``POLLHUP``). A stream socket whose peer has only stopped sending is simply readable; Linux
tells the two apart with ``POLLRDHUP`` and ``EPOLLRDHUP``, which must be asked for. Selectors do not
ask, so here it is asked for afterwards, with a poll(2) of its own that does not wait. Where the
system has no such flag, the answer is None: it is not known.
"""

from __future__ import annotations

import stat
from functools import cache
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..backends import EVENT_PRIORITY, EpollSelector, KqueueSelector, SelectSelector
from ..backends.beyond import flag_of
from ..binding import load
from .decode.epoll import event_bits as epoll_bits
from .decode.grammar import struct
from .decode.kqueue import Records
from .decode.poll import event_bits as poll_bits
from .naming import interest, mode_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from selectors import SelectorKey

    from ..backends.base import NativeEvent
    from ..binding import Binding

__all__ = ["RawEvent", "ends_of", "select_raw"]

_READABLE, _WRITABLE, _HANGUP, _ERROR, _PRIORITY = (1 << bit for bit in range(5))


class RawEvent(NamedTuple):
    """One event of ``select_raw()``.

    ``readable``, ``writable``, ``hangup``, ``error`` and ``priority`` tell whether the kernel
    reported just that, whatever the mechanism. select(2) reports no more than the first two.
    """

    key: SelectorKey | None
    """The registration; None if the kernel reported a descriptor that has none."""
    fd: int
    flags: int
    """``events`` of epoll, ``revents`` of poll, /dev/poll and event ports, ``flags`` of kqueue; of
    select(2), which has none, the ``EVENT_*`` of its sets."""
    fflags: int
    """kqueue: with ``EV_EOF`` a socket's errno; otherwise 0."""
    data: int
    """kqueue: bytes that can be read or written; otherwise 0."""
    decoded: str
    """All of it as text, e.g. ``EPOLLIN|EPOLLHUP``."""
    filter: int = 0
    """kqueue: ``EVFILT_READ``, ``EVFILT_WRITE``, ...; otherwise 0."""
    state: int = 0
    """The bits that the properties test."""
    eof: bool | None = None
    """Whether the other end will send no more, though there may be data left to read; None if that
    is not known: the event is not about reading, or the system does not tell."""

    @property
    def readable(self) -> bool:
        """A read would not block."""
        return bool(self.state & _READABLE)

    @property
    def writable(self) -> bool:
        """A write would not block."""
        return bool(self.state & _WRITABLE)

    @property
    def hangup(self) -> bool:
        """The other end is gone."""
        return bool(self.state & _HANGUP)

    @property
    def error(self) -> bool:
        """An error is pending, or the descriptor is not open."""
        return bool(self.state & _ERROR)

    @property
    def priority(self) -> bool:
        """There is urgent data."""
        return bool(self.state & _PRIORITY)


def select_raw(selector: Any, timeout: float | None = None) -> list[RawEvent]:
    """Wait once and return the native events; see ``select_raw`` of the selectors.

    Raises:
        TypeError: it is no selector of this package.
    """
    if not hasattr(selector, "_native"):
        raise TypeError(f"select_raw() needs a selector of selectors_ffi, not {selector!r}")
    events: list[NativeEvent] = selector._native(timeout)
    if not events:
        return []
    decode, look = _readers(selector)
    looked = [look(event) for event in events]
    asked = [
        event.fd for event, (state, eof) in zip(events, looked) if eof is None and state & _READABLE
    ]
    ends = ends_of(asked) if asked else {}
    return [
        RawEvent(
            *event[:5],
            decoded=decode(event),
            filter=event.filter,
            state=state,
            eof=ends.get(event.fd) if eof is None and state & _READABLE else eof,
        )
        for event, (state, eof) in zip(events, looked)
    ]


def _readers(
    selector: Any,
) -> tuple[Callable[[NativeEvent], str], Callable[[NativeEvent], tuple[int, bool | None]]]:
    """Return what writes an event of this mechanism down, and what gives its state and end of file."""
    ffi = selector._binding.ffi
    if isinstance(selector, KqueueSelector):
        render = Records(ffi)
        return lambda event: struct(
            **render.outcome(event.filter, event.flags, event.fflags, event.data)
        ), _Kqueue(ffi, render)
    if isinstance(selector, SelectSelector):
        return lambda event: interest(event.flags), _look_at_sets
    epoll = isinstance(selector, EpollSelector)
    bits = epoll_bits(ffi) if epoll else poll_bits(ffi)
    return lambda event: bits(event.flags), _Poll(bits, "EPOLL" if epoll else "POLL")


def _look_at_sets(event: NativeEvent) -> tuple[int, bool | None]:
    # EVENT_READ and EVENT_WRITE are the first two bits of a state, too.
    urgent = _PRIORITY if event.flags & EVENT_PRIORITY else 0
    return event.flags & (_READABLE | _WRITABLE) | urgent, None


class _Poll:
    """The state of an event of epoll, poll, /dev/poll or a port, whose flags have the same names."""

    def __init__(self, bits: Any, prefix: str) -> None:
        def of(*names: str) -> int:
            return int(bits.of_names(*(prefix + name for name in names)))

        self._states = (
            (of("IN", "RDNORM", "RDBAND"), _READABLE),
            (of("OUT", "WRNORM", "WRBAND"), _WRITABLE),
            (of("HUP"), _HANGUP),
            (of("ERR", "NVAL"), _ERROR),
            (of("PRI"), _PRIORITY),
        )
        self._end = of("HUP", "RDHUP")

    def __call__(self, event: NativeEvent) -> tuple[int, bool | None]:
        state = sum(bit for flags, bit in self._states if event.flags & flags)
        return state, True if event.flags & self._end else None


class _Kqueue:
    """The state of an event of kqueue, which is about one direction."""

    def __init__(self, ffi: Any, render: Records) -> None:
        self._names = render.filter
        self._error = render.error
        self._eof = render.eof
        self._oob = render.notes["EVFILT_READ"].of_names("NOTE_OOB")

    def __call__(self, event: NativeEvent) -> tuple[int, bool | None]:
        name = self._names(event.filter)
        ended = bool(event.flags & self._eof)
        state = _READABLE if name == "EVFILT_READ" else _WRITABLE if name == "EVFILT_WRITE" else 0
        # A socket whose peer has stopped sending may still be written to.
        if ended and (name == "EVFILT_WRITE" or not stat.S_ISSOCK(mode_of(event.fd))):
            state |= _HANGUP
        if event.flags & self._error or (ended and event.fflags):
            state |= _ERROR
        if name == "EVFILT_EXCEPT" or (event.fflags & self._oob and not ended):
            state |= _PRIORITY
        return state, ended if name == "EVFILT_READ" else None


def ends_of(fds: Iterable[int], *, sockets: bool = False) -> dict[int, bool | None]:
    """Return whether each descriptor's other end has stopped sending; None if it is not known.

    Args:
        fds: the descriptors.
        sockets: they are known to be sockets.
    """
    kinds = dict.fromkeys(fds, stat.S_IFSOCK) if sockets else {fd: _kind(fd) for fd in fds}
    found: dict[int, bool | None] = dict.fromkeys(kinds)
    asked = [fd for fd, kind in kinds.items() if kind]
    if not asked:
        return found
    try:
        binding, hangup, closed = _asking()
        array = binding.ffi.new("struct pollfd[]", [(fd, closed) for fd in asked])
        errno = binding.ffi.errno
        try:
            ended = binding.call(binding.function("poll"), array, len(asked), 0)
        finally:
            binding.ffi.errno = errno
    except OSError:
        return found
    # A pipe without a writer says so in any case.
    found.update((fd, False) for fd in asked if closed or stat.S_ISFIFO(kinds[fd]))
    for entry in array if ended else ():
        if entry.revents & (hangup | closed):
            found[entry.fd] = True
    return found


@cache
def _asking() -> tuple[Binding, int, int]:
    """Return the binding of this process, POLLHUP, and POLLRDHUP, which is 0 where there is none.

    Raises:
        OSError: nothing certain is known of this system.
    """
    binding = load()
    return binding, binding.constant("POLLHUP"), flag_of(binding, "POLLRDHUP")


def _kind(fd: int) -> int:
    """Return the mode of a pipe or a socket; 0 of anything else, which has no other end."""
    mode = mode_of(fd)
    return mode if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else 0
