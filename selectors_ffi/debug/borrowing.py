"""Borrowing: a socket object to ask a descriptor things with, that leaves it as it is.

Making one from a descriptor may switch the descriptor's mode: CPython makes it non-blocking if
``socket.setdefaulttimeout`` was called, PyPy blocking if it was not. The mode belongs to the open
file, so a duplicate does not help. A type with SOCK_NONBLOCK says that the mode is known already,
and neither touches it.
"""

from __future__ import annotations

import os
import socket
import sys

__all__ = ["borrowed"]


def borrowed(fd: int) -> socket.socket:
    """Return a socket object on a duplicate of ``fd``, to be closed by the caller.

    Raises:
        OSError: it is no socket, or cannot be asked without touching it.
    """
    nonblock = getattr(socket, "SOCK_NONBLOCK", 0)
    if nonblock:
        return socket.socket(type=socket.SOCK_STREAM | nonblock, fileno=os.dup(fd))
    if sys.implementation.name != "cpython" or socket.getdefaulttimeout() is not None:
        raise OSError("a socket object would change the descriptor's mode")
    return socket.socket(fileno=os.dup(fd))
