"""Evidence: whether anything was done about a descriptor that was reported ready.

Nobody tells a selector what is read or written, so the kernel's own counters are compared: at the
end of one wait and at the beginning of the next. Where no counter is trustworthy there is no
evidence, and no lint: a false alarm costs more than a missed one.
"""

from __future__ import annotations

import os
import socket
import stat
from array import array
from typing import NamedTuple

from .borrowing import borrowed

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover: Windows
    _HAVE_IOCTL = False
else:
    _HAVE_IOCTL = True

__all__ = ["Evidence", "evidence_of"]

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
