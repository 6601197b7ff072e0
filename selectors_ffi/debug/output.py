"""Output: descriptors of our own, and lines that are written to one.

Three things happen to descriptors in real programs, and none may disturb the traced program:

- The program closes numbers that it does not know (``os.closerange`` in a daemon), and the number
  is given out again. Each write therefore checks that the number still names our file, and opens
  the file again if it does not.
- The reader of a pipe or a terminal stops reading. A write waits ``PATIENCE`` seconds for it, and
  from then on not at all, until the reader goes on. What was lost meanwhile is told in one line.
- The program forks. Each write is one write(2) of whole lines, so that lines of several threads and
  processes do not mix, up to PIPE_BUF bytes on a pipe, and no lock is needed.
"""

from __future__ import annotations

import os
import select
import stat
from errno import EBADF
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

try:
    import fcntl
except ImportError:  # pragma: no cover: Windows
    fcntl = None  # type: ignore[assignment] # asked for below

__all__ = [
    "CLOEXEC", "HIGH", "PATIENCE", "Held", "Output", "duplicate", "file_of", "open_path",
    "out_of_the_way", "private", "write_all",
]  # fmt: skip

#: Seconds that a write waits at most for a reader who does not read.
PATIENCE = 1.0

#: Our numbers are at least this, so that the program's own are those that it has without us.
HIGH = 200

CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NOCTTY = getattr(os, "O_NOCTTY", 0)


class Held:
    """A descriptor of ours. The program may close it, and then the number may be given out again."""

    def __init__(self) -> None:
        self.fd: int = -1
        self._identity: tuple[int, int] | None = None

    def take(self, fd: int) -> None:
        """Hold this descriptor from now on.

        Raises:
            OSError: it is closed.
        """
        status = os.fstat(fd)
        self.fd, self._identity = fd, (status.st_dev, status.st_ino)

    def take_high(self, fd: int) -> None:
        """Hold this descriptor at a high number; if there is none, close it and hold nothing."""
        self.take(out_of_the_way(fd))
        if self.fd < HIGH:
            self.close()

    def ours(self) -> bool:
        """Tell whether the number still names our file."""
        return file_of(self.fd) == self._identity is not None

    def close(self) -> None:
        """Close the descriptor if it is still ours."""
        fd, self.fd = self.fd, -1
        if file_of(fd) == self._identity is not None:
            os.close(fd)


class Output(Held):
    """Writes to one file, see above.

    Args:
        opener: returns a descriptor that is ours to close; it is called again if the program has
            closed the one before.
        fd: a descriptor of the caller's, instead of an opener; it is neither opened nor closed here.

    Raises:
        OSError: it cannot be opened, or is closed.
    """

    def __init__(self, opener: Callable[[], int] | None = None, fd: int = -1) -> None:
        super().__init__()
        self._opener = opener
        self._slow = False  # a reader must read it: a pipe, a terminal, a socket
        self._stalled = False
        self.lost: int = 0
        if opener is None:
            self.take(fd)
        else:
            self.reopen()

    def take(self, fd: int) -> None:
        super().take(fd)
        self._slow = not stat.S_ISREG(os.fstat(fd).st_mode)

    def reopen(self) -> None:
        """Open the file anew; the descriptor before is closed if it is still ours."""
        if self._opener is None:
            raise OSError(EBADF, f"{os.strerror(EBADF)}: descriptor {self.fd} of a sink was closed")
        self.close()
        self.take(out_of_the_way(self._opener()))

    def write(self, data: bytes) -> None:
        """Write ``data``, or count it as lost.

        Raises:
            OSError: the file refuses it (ENOSPC), or is gone and cannot be opened again.
        """
        if not self.ours():
            self.reopen()
        if not self._slow:
            write_all(self.fd, data)
        elif not self._ready():
            self.lost += 1
        else:
            if self.lost:
                lost, self.lost = self.lost, 0
                data = f"selectors_ffi: {lost} records lost here: nothing read them\n".encode() + data
            self._write_slowly(data)

    def _ready(self) -> bool:
        """Tell whether the reader takes something now, or within our patience."""
        if _writable(self.fd, 0 if self._stalled else PATIENCE):
            self._stalled = False
            return True
        self._stalled = True
        return False

    def _write_slowly(self, data: bytes) -> None:
        """Write in pieces that a pipe takes whole once it is writable."""
        while data:
            try:
                written = self.send(_piece(data))
            except BlockingIOError:
                written = 0
            data = data[written:]
            if data and not self._ready():
                self.lost += 1
                return

    def send(self, data: bytes) -> int:
        """Write once to a file that a reader must read; return how much it took."""
        return os.write(self.fd, data)

    def close(self) -> None:
        """Close the descriptor if we have opened it and it is still ours."""
        if self._opener is not None:
            super().close()


#: So many bytes a pipe takes at once if it takes any.
PIECE: int = getattr(select, "PIPE_BUF", 512)


def _piece(data: bytes) -> bytes:
    """Return the first lines, as many as are written at once; at least a part of the first."""
    if len(data) <= PIECE:
        return data
    return data[: data.rfind(b"\n", 0, PIECE) + 1 or PIECE]


def write_all(fd: int, data: bytes) -> None:
    """Write ``data`` whole, in as many calls as it takes."""
    while data:
        data = data[os.write(fd, data) :]


def file_of(fd: int) -> tuple[int, int] | None:
    """Return (device, inode), which tells files apart; None if the descriptor is closed."""
    try:
        status = os.fstat(fd)
    except (OSError, OverflowError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _writable(fd: int, seconds: float) -> bool:
    """Tell whether a write would not block, or would fail; wait for it at most so long."""
    if not hasattr(select, "poll"):  # pragma: no cover: Windows
        return True
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(int(seconds * 1000)))


def takes(file: IO[str], seconds: float) -> bool:
    """Tell whether a text file takes something now, or within ``seconds``.

    One that buffers more than ``PIECE`` may still block when it writes what it has gathered.
    """
    try:
        fd = file.fileno()
        return stat.S_ISREG(os.fstat(fd).st_mode) or _writable(fd, seconds)
    except (AttributeError, OSError, ValueError):  # no reader, or its write() says what is wrong
        return True


def open_path(path: str | os.PathLike[str], *, append: bool = True) -> int:
    """Open a file to write records to: ``path`` is created, or appended to, or emptied.

    Raises:
        OSError: it cannot be opened; a named pipe that no process reads, too (ENXIO).
    """
    # Without O_NONBLOCK the open of a named pipe would wait for its reader.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | CLOEXEC | _NONBLOCK | _NOCTTY
    return os.open(path, flags | (0 if append else os.O_TRUNC), 0o666)


def private(fd: int) -> int:
    """Return a descriptor of the same file as ``fd``.

    Of a pipe and a terminal it is one that does not block, if the system opens them anew: the mode
    belongs to the open file, and the program's own is not to change.
    """
    mode = os.fstat(fd).st_mode
    if os.name == "posix" and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        try:
            flags = os.O_WRONLY | CLOEXEC | _NONBLOCK | _NOCTTY
            return os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            pass
    return duplicate(fd)


def duplicate(fd: int) -> int:
    """Return a duplicate with a high number, not inherited; with a low one only if there is no high one.

    A low number would be one that another thread of the program has just closed.

    Raises:
        OSError: ``fd`` is closed, or no descriptor is left.
    """
    high = _high(fd)
    return os.dup(fd) if high is None else high


def out_of_the_way(fd: int) -> int:
    """Move a descriptor to a high number, not inherited; return the number."""
    high = _high(fd)
    if high is None:
        return fd
    os.close(fd)
    return high


def _high(fd: int) -> int | None:
    """Return a duplicate with a high number; None if there is none."""
    try:
        # PyPy has no F_DUPFD_CLOEXEC.
        command = getattr(fcntl, "F_DUPFD_CLOEXEC", None) or fcntl.F_DUPFD
        high = int(fcntl.fcntl(fd, command, HIGH))
        os.set_inheritable(high, False)
    except (AttributeError, OSError):  # Windows; or a low limit
        return None
    return high
