"""The descriptors of this host, as a simulated kernel sees them.

A simulated kernel keeps its own lists and applies its own rules. Readiness, blocking and
interruption come from this host: from a call of the C function ``poll``, which really sleeps,
wakes and fails with EINTR. ``select.poll`` of Python will not do. It repeats an interrupted call
(PEP 475), so that the simulated system call would never return -1.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import stat
import sys
import termios
from errno import EINTR, EMFILE, ENFILE, EPERM
from typing import Any, NamedTuple

from ...backends.beyond import flag_of
from ...backends.errors import of_handler
from ...backends.process import clock
from ...binding import INT_MAX, load

__all__ = [
    "IN", "PRI", "OUT", "ERR", "HUP", "NVAL", "RDHUP", "NONE_LEFT", "Deadline", "Edges", "File",
    "can_be_polled", "examine", "extent", "file_of", "open_descriptors", "sleep", "soon", "survivors",
    "unread",
]  # fmt: skip

_EPOLLET = 1 << 31
NONE_LEFT = (EMFILE, ENFILE)  # this process, or this host, can open no more descriptors
SOON = 10_000_000  # nanoseconds, after which to look at what cannot be waited for
UPPER = 500  # where descriptors are that a program hardly ever closes, reuses or watches
_binding = load()
_poll_function = _binding.function("poll")

IN = flag_of(_binding, "POLLIN")
PRI = flag_of(_binding, "POLLPRI")
OUT = flag_of(_binding, "POLLOUT")
ERR = flag_of(_binding, "POLLERR")
HUP = flag_of(_binding, "POLLHUP")
NVAL = flag_of(_binding, "POLLNVAL")
RDHUP = flag_of(_binding, "POLLRDHUP")


class File(NamedTuple):
    """What tells one open file from another: the best that fstat(2) can do.

    Two descriptors of one open file are equal, and so are two openings of one path. The inode of
    a pipe or a socket is its own, but both ends of a pipe share it, hence the access mode. All
    eventfds share one, and so do the masters of all pseudo-terminals: they pass for one file.
    """

    device: int
    inode: int
    access: int
    kind: int


def file_of(fd: int) -> File | None:
    """Return the open file behind ``fd``; None when the descriptor is closed."""
    try:
        status = os.fstat(fd)
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    except OverflowError:
        return None
    except OSError as error:
        if of_handler(error):
            raise
        return None
    return File(status.st_dev, status.st_ino, access, stat.S_IFMT(status.st_mode))


def open_descriptors() -> list[int]:
    """Return the numbers of all open descriptors of this process, ascending."""
    try:
        names = os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")
        numbers = sorted(map(int, names))
    except OSError as error:
        if error.errno not in NONE_LEFT:
            raise
        # To list them takes a descriptor, too. The limit is reached, or no number is high.
        numbers = list(range(1 << 16))
    found = []
    for number in numbers:
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError as error:
            if of_handler(error):
                raise
            continue  # the descriptor that listed the directory
        found.append(number)
    return found


def survivors(file: File) -> list[int]:
    """Return the descriptors through which ``file`` is still open in this process."""
    return [fd for fd in open_descriptors() if file_of(fd) == file]


def unread(fd: int) -> int | None:
    """Return how many bytes can be read from ``fd``; None when it does not count bytes."""
    try:
        answer = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    except OSError as error:
        if of_handler(error):
            raise
        return None
    return int.from_bytes(answer, sys.byteorder)


def can_be_polled(fd: int, file: File) -> bool:
    """Tell whether poll(2) asks a file: for others this host's epoll, if it has one, says EPERM.

    Most regular files are not asked, but some of /proc and /sys are, as /proc/pressure/cpu.
    """
    if file.kind in (stat.S_IFIFO, stat.S_IFSOCK):
        return True
    if not hasattr(select, "epoll"):
        return file.kind not in (stat.S_IFREG, stat.S_IFDIR)
    try:
        with select.epoll() as epoll:
            epoll.register(fd, 0)
    except OSError as error:
        if of_handler(error):
            raise
        return error.errno != EPERM
    return True


def extent(fd: int) -> tuple[int, int]:
    """Return (size, file pointer) of a file; zeroes for what has none, or is closed."""
    try:
        return os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_CUR)
    except OSError as error:
        if of_handler(error):
            raise
        return 0, 0


def examine(wanted: dict[int, int]) -> dict[int, int]:
    """Look without waiting: {fd: events wanted} -> {fd: revents}, zeroes included; poll(2)."""
    fds, _ = _poll(wanted, 0)
    return {fds[i].fd: fds[i].revents for i in range(len(wanted))}


def sleep(wanted: dict[int, int], timeout: int | None) -> bool:
    """Block until something of ``wanted`` happens, or ``timeout`` nanoseconds have passed.

    Returns:
        False when a signal interrupted the wait (EINTR). None as a timeout waits for ever.
    """
    ms = -1 if timeout is None else min(-(-timeout // 1_000_000), INT_MAX)
    return _poll(wanted, ms)[1] != EINTR


def soon(timeout: int | None) -> int:
    """Return a timeout, but not more than a short time."""
    return SOON if timeout is None else min(timeout, SOON)


def _poll(wanted: dict[int, int], ms: int) -> tuple[Any, int]:
    """Call poll(2) once; return (array, 0 or EINTR)."""
    fds = _binding.ffi.new("struct pollfd[]", [(fd, events, 0) for fd, events in wanted.items()])
    for n in _binding.calls(_poll_function, fds, len(wanted), ms):
        break
    if n >= 0:
        return fds, 0
    code = _binding.errno(n)
    if code != EINTR:
        raise _binding.error(code)
    return fds, code


class Edges:
    """What has become ready at a descriptor since it was last taken.

    poll(2) shows levels only, so this is an epoll(7) of the host with EPOLLET.

    Args:
        fd: an open descriptor.
        events: as for poll(2), whose flags have the same numbers.

    Raises:
        NotImplementedError: this host has no epoll.
        OSError: EPERM, poll(2) always calls it ready; EMFILE or ENFILE, no descriptor is left.
    """

    def __init__(self, fd: int, events: int) -> None:
        if not hasattr(select, "epoll"):
            raise NotImplementedError("edges: poll(2) of this host does not show them")
        made = select.epoll()
        try:
            number: int = fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, UPPER)
        except OSError:
            number = os.dup(made.fileno())  # the limit is lower than that
        made.close()
        os.set_inheritable(number, False)
        self._epoll = select.epoll.fromfd(number)
        self.fd = number
        """Readable while there is something to take."""
        try:
            self._epoll.register(fd, events | _EPOLLET)
        except BaseException:
            self.close()
            raise

    def take(self) -> int:
        """Return the events, 0 if there are none."""
        found = self._epoll.poll(0, 1)
        return found[0][1] if found else 0

    def close(self) -> None:
        """Close its descriptor."""
        self._epoll.close()


class Deadline:
    """When a wait is over; ``timeout`` in nanoseconds, None for never.

    A kernel's clock goes on while a program has frozen Python's. So it is ``clock`` of ``process``.
    """

    def __init__(self, timeout: int | None) -> None:
        self.at: float | None = None if timeout is None else clock() + timeout / 10**9

    def left(self) -> int | None:
        """Return the nanoseconds left, 0 when passed, None when there is no end."""
        return None if self.at is None else max(0, math.ceil((self.at - clock()) * 10**9))
