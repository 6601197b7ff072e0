"""Addresses: both ends of a descriptor, short and complete.

``tcp 127.0.0.1:80 <- 127.0.0.1:51224``: accepted; ``->``: connected; ``<->``: it is not known which.
Nothing here raises, and nothing changes a descriptor.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING

from .naming import link_of, mode_of, socket_of

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from fcntl import F_GETFL, fcntl
except ImportError:  # pragma: no cover: Windows
    fcntl = None  # type: ignore[assignment] # asked for below

__all__ = ["address_of"]

#: Ports on which this process was seen to listen: a connection to one of them was accepted.
_listening: set[int] = set()

_ENDS = {os.O_RDONLY: "read end", os.O_WRONLY: "write end", os.O_RDWR: "both ends"}
_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR  # os.O_ACCMODE, which PyPy has not
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def address_of(fd: int, fileobj: object = None) -> str:
    """Return what a descriptor is connected to; "" if it has no address or cannot be asked.

    Args:
        fd: the descriptor.
        fileobj: the object that was registered; a socket is asked itself, which is cheaper.
    """
    try:
        mode = mode_of(fd)
        if stat.S_ISSOCK(mode):
            with socket_of(fd, fileobj) as sock:
                return _of_socket(sock)
        if stat.S_ISFIFO(mode):
            return _of_pipe(fd)
        if stat.S_ISCHR(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return link_of(fd)
    except (OSError, ValueError, OverflowError):
        pass
    return ""


def _of_socket(sock: socket.socket) -> str:
    # The attributes of a socket that was made from a descriptor may be a guess; the kernel knows.
    family = _option(sock, "SO_DOMAIN", socket.socket.family.fget(sock))  # type: ignore[attr-defined]
    type_ = _option(sock, "SO_TYPE", socket.SOCK_STREAM)
    own, peer = _name(socket.socket.getsockname, sock), _name(socket.socket.getpeername, sock)
    listens = bool(_option(sock, "SO_ACCEPTCONN", 0))
    unix = getattr(socket, "AF_UNIX", None)
    if family == unix:
        return _of_unix(sock, own, peer, listens=listens)
    if family not in _INTERNET:
        return f"{_family(family)} {_text(own)}".rstrip()
    kind = "tcp" if type_ == socket.SOCK_STREAM else "udp" if type_ == socket.SOCK_DGRAM else "ip"
    if listens:
        _listening.add(own[1])  # type: ignore[index] # (host, port, ...)
        return f"{kind} {_text(own)} listening"
    if not peer:
        return f"{kind} {_text(own)}"
    return f"{kind} {_text(own)} {_direction(own, peer)} {_text(peer)}"


def _direction(own: object, peer: object) -> str:
    """Tell who called whom, from the ports on which this process listens."""
    if own[1] in _listening:  # type: ignore[index] # (host, port, ...)
        return "<-"
    return "->" if peer[1] in _listening else "<->"  # type: ignore[index] # the same


def _of_unix(sock: socket.socket, own: object, peer: object, *, listens: bool) -> str:
    if listens:
        return f"unix {_text(own)} listening"
    pid = _peer_process(sock)
    other = _text(peer) or (f"pid {pid}" if pid else "")
    # The end that connected has no name of its own, unless it was bound.
    arrow = "<-" if own and not peer else "->" if peer and not own else "<->"
    if own or peer:
        return f"unix {_text(own)} {arrow} {other}".replace("  ", " ").rstrip(" <->")
    return "unix socketpair" if pid in (0, os.getpid()) else f"unix {arrow} {other}"


def _peer_process(sock: socket.socket) -> int:
    """Return the process at the other end of a Unix socket as Linux recorded it; 0 if unknown."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None or not sys.platform.startswith("linux"):
        return 0
    try:
        raw = socket.socket.getsockopt(sock, socket.SOL_SOCKET, option, 12)
        return int(struct.unpack("3i", raw)[0])  # struct ucred, unix(7)
    except (OSError, struct.error):
        return 0


def _of_pipe(fd: int) -> str:
    link = link_of(fd)
    end = _ENDS.get(fcntl(fd, F_GETFL) & _ACCESS, "") if fcntl is not None else ""
    if link.startswith("pipe:"):
        return f"{link} {end}"
    return f"{link or 'pipe'} {end}".rstrip()


def _option(sock: socket.socket, name: str, default: int) -> int:
    """Return an option of SOL_SOCKET; ``default`` where the system does not know it."""
    number = getattr(socket, name, None)
    if number is None:
        return default
    try:
        return socket.socket.getsockopt(sock, socket.SOL_SOCKET, number)
    except OSError:
        return default


def _name(ask: Callable[[socket.socket], object], sock: socket.socket) -> object:
    try:
        return ask(sock)
    except OSError:
        return ""


def _family(family: int) -> str:
    try:
        return socket.AddressFamily(family).name.lower()
    except ValueError:
        return f"family {family}"


def _text(name: object) -> str:
    """Return a socket's name as text: host:port, a path, or @ and an abstract name."""
    if isinstance(name, tuple) and len(name) >= 2 and isinstance(name[0], str):
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(name, bytes):
        name = name.decode("utf-8", "backslashreplace")
    text = str(name) if name else ""
    return "@" + text[1:] if text.startswith("\0") else text
