"""Spinning: descriptors that are reported again and again although nothing is done about them.

The selector is not told what the program reads and writes. Therefore the kernel's own counters
are compared: at the end of one wait and at the beginning of the next. Where no counter can be
trusted there is no evidence, and no lint: a false alarm costs more than a missed one.
"""

from __future__ import annotations

import os
import socket
import stat
from array import array
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, NamedTuple

from .lints import BusyLoop, SelectorWarning, WriteInterestLeftOn
from .naming import borrowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .decode import Native

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover: Windows
    _HAVE_IOCTL = False
else:
    _HAVE_IOCTL = True

__all__ = ["Evidence", "Spins", "evidence_of"]

#: Waits in a row that find the same, of a descriptor whose state is final (hung up, end of file).
FINAL = 100
#: The same, of one that could still be read or written.
FROZEN = 1000
#: A loop slower than this per turn burns no processor worth a warning, in seconds.
TURN = 0.005
# struct tcp_info, linux/tcp.h: tcpi_bytes_acked and tcpi_bytes_received, two u64, since 4.1.
_TCP_COUNTERS = slice(120, 136)


class Evidence(NamedTuple):
    """What the kernel says of a descriptor at one moment."""

    unread: int | None
    """Bytes that can be read; None if the kernel does not say."""
    counters: tuple[object, ...] | None
    """Changes whenever something is read or written; None if there is no such counter."""
    stream: bool
    """0 unread bytes and readable mean end of file."""


NOTHING = Evidence(None, None, False)


def evidence_of(fd: int) -> Evidence:
    """Return the evidence on ``fd``; never raises."""
    try:
        status = os.fstat(fd)
        if stat.S_ISFIFO(status.st_mode):
            # Its times moved with each read and write until Linux 6.15; nothing else does.
            return Evidence(_unread(fd), None, True)
        if stat.S_ISSOCK(status.st_mode):
            return _of_socket(fd)
    except (OSError, ValueError, OverflowError):
        pass
    return NOTHING


def _of_socket(fd: int) -> Evidence:
    with borrowed(fd) as sock:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
            return NOTHING
        listening = getattr(socket, "SO_ACCEPTCONN", None)
        if listening is not None and sock.getsockopt(socket.SOL_SOCKET, listening):
            return NOTHING
        unread = _unread(fd)
        inet = sock.family in (socket.AF_INET, socket.AF_INET6)
        info = getattr(socket, "TCP_INFO", None)
        if not inet or info is None or not os.path.isdir("/proc/self"):
            return Evidence(unread, None, True)
        raw = sock.getsockopt(socket.IPPROTO_TCP, info, _TCP_COUNTERS.stop)
        if len(raw) < _TCP_COUNTERS.stop:
            return Evidence(unread, None, True)
        return Evidence(unread, (unread, raw[_TCP_COUNTERS]), True)


def _unread(fd: int) -> int | None:
    """Return the number of bytes that can be read; ioctl(2) FIONREAD."""
    if not _HAVE_IOCTL:
        return None
    number = array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, number)
    except OSError:
        return None
    return number[0]


class _Spin(NamedTuple):
    """A run of waits that found the same."""

    events: int
    decoded: str
    evidence: Evidence
    since: float
    final: int
    """Waits in a row that found a final state."""
    frozen: int
    """Waits in a row between which no counter moved."""


class Spins:
    """The runs of one selector."""

    def __init__(self) -> None:
        self._spins: dict[int, _Spin] = {}

    def forget(self, fd: int) -> None:
        """End the run of ``fd``: its registration has changed."""
        self._spins.pop(fd, None)

    def before(self) -> None:
        """Compare the counters of what the last wait reported, at the beginning of the next."""
        for fd, spin in list(self._spins.items()):
            counters = spin.evidence.counters
            if counters is None or evidence_of(fd).counters != counters:
                self._spins[fd] = spin._replace(frozen=0)

    def after(
        self, natives: Iterable[Native], given: Mapping[int, int], now: float
    ) -> list[tuple[int, type[SelectorWarning], str]]:
        """Count a wait; return (fd, lint, what was seen) of runs that are long enough."""
        texts: dict[int, str] = {}
        hangups = set()
        for native in natives:
            before = texts.get(native.fd)
            texts[native.fd] = f"{before}, {native.decoded}" if before else native.decoded
            if native.hangup:
                hangups.add(native.fd)
        for fd in [fd for fd in self._spins if fd not in given]:
            del self._spins[fd]
        findings = []
        for fd, events in given.items():
            spin = self._spins[fd] = self._next(
                self._spins.get(fd), events, texts.get(fd, ""), now, fd, hangup=fd in hangups
            )
            found = _judge(spin, now)
            if found is not None:
                findings.append((fd, *found))
        return findings

    def _next(
        self, last: _Spin | None, events: int, decoded: str, now: float, fd: int, *, hangup: bool
    ) -> _Spin:
        evidence = evidence_of(fd)
        final = _is_final(events, evidence, hangup=hangup)
        # A stalled loop is no busy loop: a long pause ends the run.
        if last is None or last.events != events or last.decoded != decoded:
            return _Spin(events, decoded, evidence, now, int(final), 0)
        if now - last.since > TURN * (max(last.final, last.frozen) + 20):
            return _Spin(events, decoded, evidence, now, int(final), 0)
        frozen = last.frozen + 1 if evidence.counters is not None else 0
        same = evidence.unread == last.evidence.unread
        return _Spin(
            events, decoded, evidence, last.since,
            last.final + 1 if final and same else int(final),
            frozen if evidence.counters == last.evidence.counters else 0,
        )  # fmt: skip


def _is_final(events: int, evidence: Evidence, *, hangup: bool) -> bool:
    """Tell whether nothing but unregistering will end this readiness."""
    if evidence.unread:
        return False
    if hangup:
        return True
    return bool(events & EVENT_READ) and evidence.stream and evidence.unread == 0


def _judge(spin: _Spin, now: float) -> tuple[type[SelectorWarning], str] | None:
    count = max(spin.final, spin.frozen)
    seconds = now - spin.since
    if spin.final >= FINAL:
        return BusyLoop, (
            f"was reported {spin.decoded} {count} times in {seconds:.3f} s: end of file or hung up,"
            " nothing left to read"
        )
    if spin.frozen >= FROZEN:
        if spin.events == EVENT_WRITE:
            return WriteInterestLeftOn, (
                f"was writable {count} times in {seconds:.3f} s and nothing was written"
            )
        return BusyLoop, (
            f"was reported {spin.decoded} {count} times in {seconds:.3f} s and nothing was read"
        )
    return None
