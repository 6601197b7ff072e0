"""Document: a file that is complete after every write, although several processes add to it.

A document is a head, items and a tail, for example ``{"traceEvents": [``, events and ``]}``. An
item overwrites the tail and brings a new tail with it, in one write. A reader therefore finds a
complete document at any moment: after ``close()``, at exit, after ``os._exit()`` or a signal that
ended the process, and while a child process still writes.

One process needs no lock for this. Once it has forked, every process locks the file for the
duration of a write (fcntl(2), ``F_SETLK``). A process that was stopped in the middle of a write must
not stop the others: they give an item up after ``PATIENCE`` seconds, and then stop waiting for the lock.

All this is for a path that names a regular file. Any other target (a pipe, a descriptor, an open text
file) gets the head at once and the tail at ``close()``.
"""

from __future__ import annotations

import os
import stat
from errno import EBADF
from time import sleep
from typing import IO, TYPE_CHECKING
from weakref import WeakSet

from .locking import Locked
from .output import CLOEXEC, Held, out_of_the_way, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # pragma: no cover: Windows, which has no fork
    fcntl = None  # type: ignore[assignment]

__all__ = ["PATIENCE", "Document"]

#: Seconds that a write waits at most for another process to finish its own.
PATIENCE = 0.1


class Document(Locked):
    """A file of head, items and tail.

    Args:
        target: a path, whose file is replaced; a descriptor; or an open text file.
        head: what comes before the items.
        tail: what comes after them.
        separator: what comes between two items.
        join: continue a document of the same head and tail that another process has begun.

    Raises:
        TypeError: the target is none of the three.
        OSError: the path cannot be opened, or the descriptor is closed.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | int | IO[str],
        head: str,
        tail: str,
        *,
        separator: str = ",\n",
        join: bool = False,
    ) -> None:
        super().__init__()
        self._head, self._tail = _bytes(head), _bytes(tail)
        self._separator = _bytes(separator)
        self._file: IO[str] | None = None
        self._path = ""
        self._own = Held()
        self._rewritten = False  # the tail is: it is a regular file
        self._shared = join
        self._patience = PATIENCE
        self.closed: bool = False
        """Whether it is closed in this process."""
        self._empty = True
        self.size: int = 0
        """How many bytes it had after the last item of this process."""
        if isinstance(target, (str, os.PathLike)):
            # The program may change its directory before the file must be opened again.
            self._path = os.path.abspath(os.fspath(target))
            self._begin(join)
        elif isinstance(target, int):
            self._own.take(target)
        elif callable(getattr(target, "write", None)):
            self._file = target
        else:
            raise TypeError(f"the target is a path, a descriptor or a text file, not {target!r}")
        if not self._rewritten:
            self._stream(self._head)
        _all.add(self)

    def _begin(self, join: bool) -> None:
        """Open the path; write an empty document unless there is one to join."""
        try:
            regular = stat.S_ISREG(os.stat(self._path).st_mode)
        except FileNotFoundError:
            regular = True
        if not regular:
            self._own.take(out_of_the_way(os.open(self._path, os.O_WRONLY | CLOEXEC)))
            return
        self._own.take(self._open(0 if join else os.O_TRUNC))
        self._rewritten = True
        for size in self._sizes():
            if size:
                self._recognise()
            else:
                _write_at(self._own.fd, self._head + self._tail, 0)

    def _open(self, flags: int) -> int:
        flags |= os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        return out_of_the_way(os.open(self._path, flags | CLOEXEC, 0o666))

    def share(self) -> None:
        """From now on another process may write, too."""
        self._shared = True

    def add(self, item: str) -> None:
        """Add an item.

        Raises:
            OSError: it cannot be written; the document is as it was.
        """
        data = _bytes(item)
        with self._lock:
            self.size += len(data)
            if not self._rewritten:
                self._stream(data if self._empty else self._separator + data)
                self._empty = False
                return
            for size in self._sizes():
                self._write_whole(size, data)
                self.size = size + len(data)

    def close(self) -> None:
        """Write the tail where it is not written yet; close what was opened from a path."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if not self._rewritten:
                self._stream(self._tail)
            if self._file is not None:
                self._file.flush()
            if self._path:
                self._own.close()

    # Files that can be written anywhere

    def _sizes(self) -> Iterator[int]:
        """Yield the size of the file once, while no other process can change it."""
        size = self._size()
        if not self._shared or fcntl is None:
            yield size
            return
        self._acquire()
        try:
            yield os.fstat(self._own.fd).st_size
        finally:
            fcntl.lockf(self._own.fd, fcntl.LOCK_UN, 1)

    def _acquire(self) -> None:
        waited = 0.0
        while True:
            try:
                fcntl.lockf(self._own.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            except (BlockingIOError, PermissionError):
                if waited >= self._patience:
                    self._patience = 0.0
                    raise
                sleep(0.001)
                waited += 0.001
            else:
                self._patience = PATIENCE
                return

    def _size(self) -> int:
        """Return the size of the file; open it again if the program has closed our descriptor."""
        # If it is not ours the number may be a file of the program's now: it must be left alone.
        if not self._own.ours():
            self._own.take(-1 if self.closed else self._open(0))
        return os.fstat(self._own.fd).st_size

    def _write_whole(self, size: int, data: bytes) -> None:
        """Write ``data`` in place of the tail, and the tail behind it."""
        begin = size - len(self._tail)
        if begin < len(self._head):
            if size:
                raise OSError(f"{self._path} is not what this trace has written")
            begin, data = 0, self._head + data  # another program has emptied it
        elif begin > len(self._head):
            data = self._separator + data
        try:
            _write_at(self._own.fd, data + self._tail, begin)
        except OSError:  # for want of space, say
            if begin:
                _write_at(self._own.fd, self._tail, begin)
                os.ftruncate(self._own.fd, size)
            raise

    def _recognise(self) -> None:
        """Check that the file to join is such a document."""
        os.lseek(self._own.fd, 0, os.SEEK_SET)
        if os.read(self._own.fd, len(self._head)) != self._head:
            raise OSError(f"{self._path} exists and is not a trace to join")

    # Everything else

    def _stream(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data.decode())
            return
        if not self._own.ours():
            raise OSError(EBADF, f"{os.strerror(EBADF)}: descriptor {self._own.fd} of a sink was closed")
        write_all(self._own.fd, data)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _write_at(fd: int, data: bytes, offset: int) -> None:
    if not hasattr(os, "pwrite"):  # pragma: no cover: Windows
        os.lseek(fd, offset, os.SEEK_SET)
        write_all(fd, data)
        return
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _share_all() -> None:
    for document in list(_all):
        document.share()


_all: WeakSet[Document] = WeakSet()

if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(before=_share_all)
