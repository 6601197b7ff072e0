"""The descriptors of the machine that runs the tests, as a simulated kernel sees them.

A simulated kernel keeps its own lists and applies its own rules, but readiness,
blocking and interruption come from this host: a call to the C function
``poll`` that really sleeps, really wakes and really fails with EINTR. Python's
own ``select.poll`` will not do, it repeats an interrupted call (PEP 475) and the
simulated system call would never return -1.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import sys
import termios
import time
from typing import NamedTuple

import cffi

_ffi = cffi.FFI()
_ffi.cdef(
    "typedef unsigned %s nfds_t;"
    "struct pollfd { int fd; short events; short revents; };"
    "int poll(struct pollfd *fds, nfds_t nfds, int timeout);"
    % ("long" if sys.platform.startswith(("linux", "sunos")) else "int")
)
_lib = _ffi.dlopen(None)

IN = select.POLLIN
PRI = select.POLLPRI
OUT = select.POLLOUT
ERR = select.POLLERR
HUP = select.POLLHUP
NVAL = select.POLLNVAL
# PyPy's select module lacks the name; the number is poll(2)'s on all but sparc.
RDHUP = getattr(select, "POLLRDHUP", 0x2000 if sys.platform.startswith("linux") else 0)


class File(NamedTuple):
    """What tells one open file from another: the best that fstat(2) can do.

    Two descriptors of one open file are equal, and so are two openings of one
    path. The inode of a pipe or socket is fresh, but both ends of a pipe share
    it, hence the access mode.
    """

    device: int
    inode: int
    access: int
    kind: int


def file_of(fd: int) -> File | None:
    """The open file behind ``fd``; None when the descriptor is closed."""
    try:
        status = os.fstat(fd)
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    except (OSError, OverflowError):
        return None
    return File(status.st_dev, status.st_ino, access, stat.S_IFMT(status.st_mode))


def open_descriptors() -> list[int]:
    """The numbers of all open descriptors of this process, ascending."""
    names = os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")
    found = []
    for number in sorted(map(int, names)):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue  # the descriptor that listed the directory
        found.append(number)
    return found


def survivors(file: File) -> list[int]:
    """The descriptors through which ``file`` is still open in this process."""
    return [fd for fd in open_descriptors() if file_of(fd) == file]


def unread(fd: int) -> int | None:
    """Bytes ready to be read from ``fd``; None when it does not count bytes."""
    try:
        answer = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    except OSError:
        return None
    return int.from_bytes(answer, sys.byteorder)


def examine(wanted: dict[int, int]) -> dict[int, int]:
    """poll(2) without waiting: {fd: events wanted} -> {fd: revents}, zeroes included."""
    fds, _ = _poll(wanted, 0)
    return {fds[i].fd: fds[i].revents for i in range(len(wanted))}


def sleep(wanted: dict[int, int], timeout: int | None) -> bool:
    """Block in poll(2) until something of ``wanted`` happens or ``timeout`` ns passed.

    False when a signal interrupted the wait (EINTR); None waits for ever.
    """
    if timeout is None:
        milliseconds = -1
    else:
        milliseconds = min(-(-timeout // 1_000_000), 2**31 - 1)
    return _poll(wanted, milliseconds)[1] != errno.EINTR


def _poll(wanted, milliseconds):
    fds = _ffi.new("struct pollfd[]", len(wanted))
    for record, (fd, events) in zip(fds, wanted.items()):
        record.fd = fd
        record.events = events
    if _lib.poll(fds, len(wanted), milliseconds) >= 0:
        return fds, 0
    code = _ffi.errno
    if code != errno.EINTR:
        raise OSError(code, os.strerror(code))
    return fds, code


class Deadline:
    """A point in time on the monotonic clock; ``timeout`` in ns, None for never."""

    def __init__(self, timeout: int | None) -> None:
        self.at = None if timeout is None else time.monotonic_ns() + timeout

    def left(self) -> int | None:
        """Nanoseconds left, 0 when passed, None when there is no end."""
        return None if self.at is None else max(0, self.at - time.monotonic_ns())
