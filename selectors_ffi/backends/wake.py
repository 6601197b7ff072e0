"""Wakers: descriptors by which one thread ends another thread's wait.

A waker is a pipe with both ends in this process (a socket pair where only sockets can be waited for).
A wait that includes the read end returns as soon as another thread, or a signal handler, writes into
the other.

The process keeps a small pool of wakers, so that a selector that is used once in a threaded program
costs no new descriptors. A waker checks that its numbers still name its own pipe before it uses them
again: a program may have closed all its descriptors (daemons do), and given the numbers to others.
A pipe has an inode of its own, which an eventfd(2) has not; that is why it is a pipe.
"""

from __future__ import annotations

import os

from . import process
from .errors import from_outside, fstat, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any, ClassVar

__all__ = ["SocketWaker", "Waker", "give_back", "lend", "rung"]

_POOL_SIZE = 8


class Waker:
    """A pipe from this process to itself; ``reader`` is the descriptor to wait for.

    ``child`` is ``process.forks_as_child`` of the process that made it.
    """

    pool: ClassVar[list[Waker]] = []  # those that no wait includes
    reader: int = -1  # and so on: an exception may end ``__init__`` anywhere
    _writer = -1
    _file: object = None
    child: int

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)
        self.child = process.forks_as_child
        self._file = self._identity()

    def _identity(self) -> object:
        """Return what tells this pipe from every other open file."""
        status = fstat(self.reader), fstat(self._writer)
        return [(one.st_dev, one.st_ino) for one in status]

    def _mine(self) -> bool:
        """Tell whether both numbers still name this pipe."""
        try:
            return self._file is None or self._identity() == self._file
        except OSError as error:
            if from_outside(error):
                raise
            return False

    def intact(self) -> bool:
        """Tell whether both numbers still name this pipe, and no other process shares it."""
        return self.child == process.forks_as_child and self._mine()

    def ring(self) -> bool:
        """End the waits that include ``reader``; may be called from a signal handler.

        Returns:
            Whether the waker is intact. If not, nothing is written.
        """
        if not self.intact():
            return False
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            pass  # full: it has been rung
        return True

    def drain(self) -> bool:
        """Take all that was rung; return whether the waker is intact. If not, nothing is read."""
        if not self.intact():
            return False
        try:
            os.read(self.reader, 65536)
        except BlockingIOError:
            pass  # another thread was faster
        return True

    def close(self) -> None:
        """Close both ends, unless their numbers have gone to other files."""
        if self.reader >= 0:
            if self._mine():
                os.close(self.reader)
                if self._writer >= 0:  # else an exception has ended ``_open`` before
                    os.close(self._writer)
            self.reader = self._writer = -1

    def __del__(self) -> None:
        self.close()


class SocketWaker(Waker):
    """A socket pair: what Windows can wait for."""

    pool: ClassVar[list[Waker]] = []
    reader: int
    child: int

    def _open(self) -> None:
        from socket import socketpair

        ends: Any = socketpair()
        for end in ends:
            end.setblocking(False)
        self._ends = ends
        self.reader, self._writer = (end.fileno() for end in ends)
        self.child = process.forks_as_child
        self._file = None

    def _identity(self) -> object:
        return None

    def ring(self) -> bool:
        try:
            self._ends[1].send(b"\0")
        except BlockingIOError:
            pass
        return True

    def drain(self) -> bool:
        try:
            self._ends[0].recv(65536)
        except BlockingIOError:
            pass
        return True

    def close(self) -> None:
        self.reader = self._writer = -1
        for end in self.__dict__.pop("_ends", ()):
            end.close()


def lend(kind: type[Waker] = Waker, registered: Container[int] = ()) -> Waker:
    """Return a waker that has not been rung.

    Args:
        registered: numbers that it must not have. A waker that has got one names a descriptor that was
            closed: when the program unregisters that, the kernel must not stop watching the waker.

    Raises:
        OSError: no descriptor is left (EMFILE, ENFILE).
    """
    waker, passed = None, []
    try:
        while waker is None or waker.reader in registered:
            if waker is not None:
                passed.append(waker)  # kept open, or the next one has the same number
            waker = take(kind.pool)
            if waker is None:
                waker = kind()
            elif not waker.drain():
                waker = None
        return waker
    finally:
        for one in passed:
            one.close()


def rung(waker: Waker | None) -> Waker:
    """Return a waker that has been rung: this one if it is intact, or another."""
    if waker is None or not waker.ring():
        waker = lend()
        waker.ring()
    return waker


def give_back(waker: Waker) -> None:
    """Take back a waker that no wait includes any more."""
    if len(waker.pool) < _POOL_SIZE:
        waker.pool.append(waker)
