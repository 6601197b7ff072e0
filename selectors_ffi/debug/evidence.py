"""Evidence: whether the program did anything about a descriptor that was reported ready.

A selector does not see what is read or written, and must not look at it. The kernel has traces of it:

* TCP counts the bytes of a connection (``TCP_INFO`` of Linux), and how many connections wait. For a Unix
  socket Linux tells the latter by ``sock_diag``.
* For a pipe or a Unix socket it only says how many bytes wait. The same number twice may mean that
  nothing happened, or that as much was read as arrived. An epoll set of our own tells the two apart:
  with EPOLLET it reports the arrival of new data, and nothing else.
* End of file is a state that stays: POLLRDHUP of a socket, POLLHUP of a pipe. A descriptor that was
  reported as readable, with nothing left to read, may be one that another thread or process has read.
  Where there is no POLLRDHUP, as on Windows, a look at the first byte tells. The byte stays there.

Where nothing is certain there is no evidence, and no lint: a false alarm costs more than a missed one.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
from array import array
from contextlib import suppress
from typing import Any, NamedTuple

from .naming import mode_of, socket_of
from .output import duplicate
from .raw import ends_of

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover: Windows
    _HAVE_IOCTL = False
else:
    _HAVE_IOCTL = True

__all__ = ["Arrivals", "Evidence", "descriptors_left", "evidence_of", "listens"]

# struct tcp_info, linux/tcp.h: u32 tcpi_unacked, which is the backlog of a listening socket; and
# tcpi_bytes_acked and tcpi_bytes_received, two u64, since Linux 4.1.
_BACKLOG = struct.Struct("=24xI")
_COUNTERS = struct.Struct("=120xQQ")

# linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h: struct nlmsghdr, and after it struct
# unix_diag_req. The answer has a header, too, struct unix_diag_msg and one attribute,
# struct unix_diag_rqlen. Of each, what is asked for.
_SOCK_DIAG, _BY_FAMILY, _SHOW_QUEUE, _QUEUE = 4, 20, 0x10, 4
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BB2xIIIII")
_ANSWER = struct.Struct("=4xH10x4xI8x2xHI")

_INTERNET = (socket.AF_INET, socket.AF_INET6)


# Of Linux, by name: other systems' select module has neither.
_ARRIVALS: int = getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLET", 0)


class Evidence(NamedTuple):
    """What the kernel says of a descriptor at one moment."""

    unread: int | None = None
    """Bytes that can be read, connections that can be accepted; None if the kernel does not say."""
    counters: tuple[int, ...] | None = None
    """Bytes received and written since the beginning; None if the kernel does not count them.

    Only with them, equal evidence means that nothing happened.
    """
    stream: bool = False
    """It is a pipe or a connection, and no listening socket."""
    hangup: bool = False
    """The peer is gone or an error is pending."""
    ended: bool = False
    """No more data will come than is unread."""


NOTHING = Evidence()


def evidence_of(fd: int, fileobj: object = None) -> Evidence:
    """Return the evidence on ``fd``; never raises.

    Args:
        fd: the descriptor.
        fileobj: the object that was registered; a socket is asked itself, which is cheaper.
    """
    try:
        mode = mode_of(fd)
        if stat.S_ISFIFO(mode):
            ended = _has_ended(fd)
            return Evidence(_waiting(fd, "FIONREAD"), None, True, _hung_up(fd), ended)
        if stat.S_ISSOCK(mode):
            with socket_of(fd, fileobj) as sock:
                return _of_socket(fd, sock)
    except (OSError, ValueError, OverflowError):
        pass
    return NOTHING


def _of_socket(fd: int, sock: socket.socket) -> Evidence:
    ask = socket.socket.getsockopt
    if ask(sock, socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return NOTHING
    info = getattr(socket, "TCP_INFO", None)
    raw = b""
    if info is not None and sock.family in _INTERNET and os.path.isdir("/proc/self"):
        raw = ask(sock, socket.IPPROTO_TCP, info, _COUNTERS.size)
    listening = getattr(socket, "SO_ACCEPTCONN", None)
    if listening is not None and ask(sock, socket.SOL_SOCKET, listening):
        return Evidence(_BACKLOG.unpack_from(raw)[0] if len(raw) >= _BACKLOG.size else _queued(fd))
    if not _HAVE_IOCTL:
        return _peeked(sock)
    ended = _has_ended(fd, sock)  # first: until then data may arrive
    unread, counters = _waiting(fd, "FIONREAD"), None
    unsent = _waiting(fd, "TIOCOUTQ")
    if unsent is not None and len(raw) >= _COUNTERS.size:
        acknowledged, received = _COUNTERS.unpack_from(raw)
        # On a slow link nothing is acknowledged for long; what is written waits in the queue.
        counters = (received, acknowledged + unsent)
    return Evidence(unread, counters, True, _hung_up(fd), ended)


def _has_ended(fd: int, sock: socket.socket | None = None) -> bool:
    """Tell whether the other end of a pipe or a connection will send no more."""
    ended = ends_of([fd])[fd]
    # With a timeout, recv() would wait.
    if ended is None and sock is not None and not socket.socket.gettimeout(sock):
        try:
            return not socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:  # nothing has arrived, or it is reset, which is a hang-up
            return False
    return bool(ended)


def _queued(fd: int) -> int | None:
    """Return how many connections to a Unix socket wait; None if the kernel does not say.

    https://man7.org/linux/man-pages/man7/sock_diag.7.html
    """
    family, unix = getattr(socket, "AF_NETLINK", None), getattr(socket, "AF_UNIX", None)
    if family is None or unix is None:
        return None
    inode = os.fstat(fd).st_ino
    header = _HEADER.pack(_HEADER.size + _REQUEST.size, _BY_FAMILY, 1, 0, 0)  # 1: NLM_F_REQUEST
    request = _REQUEST.pack(unix, 0, 0xFFFF_FFFF, inode, _SHOW_QUEUE, 0xFFFF_FFFF, 0xFFFF_FFFF)
    with socket.socket(family, socket.SOCK_RAW, _SOCK_DIAG) as asked:
        asked.setblocking(False)
        asked.send(header + request)
        reply = asked.recv(4096)
    if len(reply) < _ANSWER.size:
        return None
    kind, found, attribute, queued = _ANSWER.unpack_from(reply)
    return queued if (kind, found, attribute) == (_BY_FAMILY, inode, _QUEUE) else None


def _peeked(sock: socket.socket) -> Evidence:
    """Return what a look at the first byte says of a socket that does not block; Windows."""
    if socket.socket.gettimeout(sock) != 0:
        return NOTHING
    try:
        if not socket.socket.recv(sock, 1, socket.MSG_PEEK):
            return Evidence(0, None, True, ended=True)
        return Evidence(None, None, True)
    except BlockingIOError:
        return Evidence(None, None, True)
    except OSError:
        return Evidence(None, None, True, hangup=True)


def _waiting(fd: int, request: str) -> int | None:
    """Return the bytes that wait to be read or to be sent; ioctl(2), tty_ioctl(4)."""
    number = array("i", [0])
    try:
        fcntl.ioctl(fd, getattr(termios, request), number)
    except (OSError, AttributeError, NameError):  # NameError: Windows
        return None
    return number[0]


def _hung_up(fd: int) -> bool:
    """Tell whether the kernel reports a hang-up or an error of ``fd`` now."""
    make = getattr(select, "poll", None)  # not on Windows; gevent takes it away
    if make is None:
        return False
    poller = make()
    poller.register(fd, 0)
    return bool(poller.poll(0))


def listens(fd: int) -> bool:
    """Tell whether ``fd`` is a listening socket, without a descriptor to ask it with."""
    if not _HAVE_IOCTL or not stat.S_ISSOCK(mode_of(fd)):
        return False
    try:
        fcntl.ioctl(fd, termios.FIONREAD, array("i", [0]))
    except OSError as error:
        return error.errno == errno.EINVAL
    return False


def descriptors_left(fd: int) -> bool:
    """Tell whether the process can have one more descriptor; accept(2) needs one."""
    try:
        os.close(duplicate(fd))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)
    return True


class Arrivals:
    """An epoll set of our own that reports when new data arrive; Linux alone.

    It has a high number, out of the program's way, and holds only what is under suspicion.
    """

    def __init__(self) -> None:
        self._pid = -1
        self._epoll: Any = None
        self._watched: set[int] = set()
        self._arrived: set[int] = set()  # and not asked for yet

    def since_last(self, fd: int) -> bool | None:
        """Tell whether anything arrived since the last call; None in the first, and if it is unknown."""
        if self._pid != os.getpid() and not self._open():
            return None
        known = fd in self._watched
        try:
            if not known:
                self._epoll.register(fd, _ARRIVALS)
                self._watched.add(fd)
            self._arrived.update(number for number, _ in self._epoll.poll(0))
        except (OSError, ValueError):
            self.forget(fd)
            return None
        arrived = fd in self._arrived
        self._arrived.discard(fd)
        return arrived if known else None

    def _open(self) -> bool:
        make = getattr(select, "epoll", None)
        if make is None:
            return False
        try:
            with make() as low:
                high = duplicate(low.fileno())
        except OSError:  # no descriptor left
            return False
        # A forked child leaves its parent's set alone, and closes its own copy of the number.
        self._epoll = make.fromfd(high)
        self._pid = os.getpid()
        self._watched.clear()
        self._arrived.clear()
        return True

    def forget(self, fd: int) -> None:
        """Look away from ``fd``: its registration has ended, or its run."""
        if fd in self._watched:
            self._watched.discard(fd)
            self._arrived.discard(fd)
            with suppress(OSError, ValueError):
                self._epoll.unregister(fd)
