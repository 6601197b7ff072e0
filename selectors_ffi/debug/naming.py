"""Names of things: what a descriptor is, what an object says of itself, what this process runs.

Nothing here may raise, print payload, or grow without bound: all of it runs inside tracing.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import contextmanager
from select import select
from typing import TYPE_CHECKING

from ..backends.base import EVENT_READ, EVENT_WRITE
from ..backends.beyond import EVENT_HANGUP, EVENT_PRIORITY, LEVEL, Interest
from .output import duplicate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HAVE_FSTAT", "LONGEST", "borrowed", "interest", "kind_of", "link_of", "mode_of", "process_title",
    "shown", "socket_of",
]  # fmt: skip

#: os.fstat() takes a socket's number on Unix alone. The numbers of Windows' sockets are handles, and
#: the same number may be a descriptor of another file.
HAVE_FSTAT = os.name == "posix"

#: A repr is cut at this many characters.
LONGEST = 80

_FORMATS = (
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISREG, "regular file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)
_EVENTS = (
    (EVENT_READ, "EVENT_READ"),
    (EVENT_WRITE, "EVENT_WRITE"),
    (EVENT_PRIORITY, "EVENT_PRIORITY"),
    (EVENT_HANGUP, "EVENT_HANGUP"),
)
_INTEREST = ("0", "EVENT_READ", "EVENT_WRITE", "EVENT_READ|EVENT_WRITE")


def shown(thing: object) -> str:
    """Return ``repr(thing)`` on one line, cut; a repr that raises is named, not raised."""
    try:
        text = repr(thing)
    except Exception as error:
        text = f"<{type(thing).__name__} object whose repr raises {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def interest(events: int) -> str:
    """Return ``EVENT_*`` names of a mask, and how it is watched: ``EVENT_READ|ONESHOT``."""
    if type(events) is not Interest and 0 <= events < 4:
        return _INTEREST[events]
    names = [name for bit, name in _EVENTS if events & bit]
    rest = events & ~sum(bit for bit, _ in _EVENTS)
    if rest:
        names.append(str(rest))
    if type(events) is Interest:
        names += [events.trigger.upper()] if events.trigger != LEVEL else []
        names += ["EXCLUSIVE"] if events.exclusive else []
    return "|".join(names)


def kind_of(fd: int) -> str:
    """Return what a descriptor is: socket, pipe, fifo, tty, regular file, eventfd, ...; closed."""
    mode = mode_of(fd)
    if not mode:
        return "closed"
    if stat.S_ISFIFO(mode):
        return "pipe" if link_of(fd).startswith("pipe:") else "fifo"
    for test, name in _FORMATS:
        if test(mode):
            return "tty" if name == "character device" and os.isatty(fd) else name
    link = link_of(fd)
    if link.startswith("anon_inode:"):
        return link[len("anon_inode:") :].strip("[]")
    return "unknown"


def mode_of(fd: int) -> int:
    """Return the ``st_mode`` of a descriptor; 0 if it is closed, or on Windows no socket."""
    try:
        if HAVE_FSTAT:
            return os.fstat(fd).st_mode
        select((), (fd,), (), 0)
    except (OSError, OverflowError, ValueError):
        return 0
    return stat.S_IFSOCK


def link_of(fd: int) -> str:
    """Return where Linux says a descriptor points, e.g. ``anon_inode:[eventfd]``; else ""."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except (OSError, ValueError):
        return ""


def process_title(*, forked: bool = False) -> str:
    """Return what this process runs: the script or module, and which child of it this is.

    Args:
        forked: whether another process of the same program made this one.
    """
    main = sys.modules.get("__main__")
    title = str(getattr(getattr(main, "__spec__", None), "name", ""))
    if title.endswith(".__main__"):
        title = title[: -len(".__main__")]
    if title.partition(".")[0] in ("", "__main__", "selectors_ffi", "multiprocessing"):
        # A script, a directory or a zip file. multiprocessing's children know it by another name.
        files = [getattr(module, "__file__", "") for module in (sys.modules.get("__mp_main__"), main)]
        if title == "__main__":
            files.clear()
        names = [*files, *getattr(sys, "argv", ())[:1]]
        title = next((os.path.basename(str(name)) for name in names if name), "")
    if title in ("", "-c", "-"):
        title = f"python {title}".rstrip()
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        name = str(multiprocessing.current_process().name)
        if name != "MainProcess":
            return f"{title} {name}"
    return f"{title} (child)" if forked else title


@contextmanager
def socket_of(fd: int, fileobj: object) -> Iterator[socket.socket]:
    """Give a socket object to ask about ``fd``: ``fileobj`` itself, which is cheaper, or a borrowed one.

    Raises:
        OSError: it is no socket, or cannot be asked.
    """
    # The methods are those of socket.socket: a subclass of the program's is not called.
    if isinstance(fileobj, socket.socket) and socket.socket.fileno(fileobj) == fd:
        yield fileobj
    else:
        with borrowed(fd) as duplicate:
            yield duplicate


def borrowed(fd: int) -> socket.socket:
    """Return a socket object on a duplicate of ``fd``, to be closed by the caller.

    Making a socket object from a descriptor may switch the descriptor's mode: CPython makes it
    non-blocking if ``socket.setdefaulttimeout`` was called, PyPy blocking if it was not. The mode
    belongs to the open file, so a duplicate does not help. A type with SOCK_NONBLOCK says that
    the mode is known already, and neither touches it.

    Raises:
        OSError: it is no socket, or cannot be asked without touching it.
    """
    nonblock = getattr(socket, "SOCK_NONBLOCK", 0)
    if nonblock:
        return socket.socket(type=socket.SOCK_STREAM | nonblock, fileno=duplicate(fd))
    if sys.implementation.name != "cpython" or socket.getdefaulttimeout() is not None:
        raise OSError("a socket object would change the descriptor's mode")
    return socket.socket(fileno=duplicate(fd) if HAVE_FSTAT else socket.dup(fd))
