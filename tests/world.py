"""Real descriptors and a model of them: what is open, and what is ready.

The model knows only sockets, pipes and regular files of this host; what a
mechanism makes of it is in ``oracle``.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile

IN, OUT, ERR, HUP = 1, 4, 8, 16
_BASE = 100  # our numbers, away from those that interpreter and selectors take


class File:
    """One open file. ``peer`` is the other end; ``inbox`` counts the bytes to be read here."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.peer: File = self
        self.inbox = 0
        self.full = False  # what is written here has no room
        self.shut = False  # shutdown(SHUT_WR)

    def __repr__(self) -> str:
        return f"<{self.kind} {id(self) & 0xFFFF:x}>"


class World:
    """Descriptors, each an index into ``files``; numbers that were closed stay known."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.numbers: list[int] = []
        with tempfile.TemporaryFile() as file:
            file.write(b"never read")
            file.flush()
            file.seek(0)
            self.add(file.fileno(), File("regular"))
        for _ in range(2):
            self.new_sockets()
        self.new_pipe()

    def add(self, fd: int, file: File) -> int:
        """Take a copy of ``fd`` to the lowest of our own numbers."""
        number: int = fcntl.fcntl(fd, fcntl.F_DUPFD, _BASE)
        if number not in self.numbers:
            self.numbers.append(number)
        self.files[number] = file
        return number

    def new_sockets(self) -> None:
        """Two connected sockets."""
        self._join(socket.socketpair(), File("socket"), File("socket"))

    def new_pipe(self) -> None:
        """Both ends of a pipe."""
        reader, writer = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb")))
        self._join((reader, writer), File("reader"), File("writer"))

    def _join(self, ends, left, right):
        left.peer, right.peer = right, left
        for end, file in zip(ends, (left, right)):
            os.set_blocking(end.fileno(), False)
            self.add(end.fileno(), file)
            end.close()

    def pick(self, index: int) -> int:
        """A number, open or closed."""
        return self.numbers[index % len(self.numbers)]

    def is_open(self, file: File) -> bool:
        """Whether any descriptor of the file is left."""
        return file in self.files.values()

    def bits(self, file: File) -> int:
        """What poll(2) of Linux reports for the file when asked for IN and OUT."""
        if file.kind == "regular":
            return IN | OUT
        gone = not self.is_open(file.peer)
        if file.kind == "reader":
            return IN * (file.inbox > 0) | HUP * gone
        if file.kind == "writer":
            return OUT * (not file.full) | ERR * gone
        ended = gone or file.peer.shut
        return (
            IN * (file.inbox > 0 or ended)
            | OUT * (gone or not file.full)
            | HUP * (gone or (file.shut and file.peer.shut))
        )

    # -- what happens to the descriptors ------------------------------------

    def send(self, fd: int) -> None:
        """One byte for the other end, if it can be sent."""
        file = self.files.get(fd)
        if file and file.kind in ("socket", "writer") and not (file.full or file.shut):
            try:
                os.write(fd, b"x")
            except OSError:
                return
            file.peer.inbox += 1

    def fill(self, fd: int) -> None:
        """As many bytes as there is room for."""
        file = self.files.get(fd)
        if file and file.kind in ("socket", "writer") and not file.shut and self.is_open(file.peer):
            try:
                while True:
                    file.peer.inbox += os.write(fd, bytes(65536))
            except BlockingIOError:
                file.full = True

    def drain(self, fd: int) -> None:
        """Read all there is."""
        file = self.files.get(fd)
        if file and file.kind in ("socket", "reader"):
            try:
                while os.read(fd, 1 << 20):
                    pass
            except OSError:
                pass
            file.inbox = 0
            file.peer.full = False

    def shutdown(self, fd: int) -> None:
        """shutdown(2) for writing."""
        file = self.files.get(fd)
        if file and file.kind == "socket" and self.is_open(file.peer):
            with socket.socket(fileno=os.dup(fd)) as borrowed:
                borrowed.shutdown(socket.SHUT_WR)
            os.set_blocking(fd, False)  # PyPy's constructor makes the file blocking
            file.shut = True

    def close(self, fd: int) -> bool:
        """close(2); False if it was not open."""
        file = self.files.pop(fd, None)
        if file is None:
            return False
        os.close(fd)
        if not self.is_open(file) and file.kind == "socket":
            file.peer.full = False  # what lay in its inbox is thrown away
        return True

    def dup(self, fd: int) -> None:
        """dup(2), to the lowest free number."""
        if fd in self.files:
            self.add(fd, self.files[fd])

    def dup2(self, fd: int, over: int) -> bool:
        """dup2(2); False if nothing was changed."""
        file = self.files.get(fd)
        if file is None or fd == over:
            return False
        # Closed first, for the books; dup2(2) does both at once.
        replaced = self.files.pop(over, None)
        os.dup2(fd, over)
        self.files[over] = file
        if replaced and replaced.kind == "socket" and not self.is_open(replaced):
            replaced.peer.full = False
        return True

    def end(self) -> None:
        """Close everything."""
        for fd in list(self.files):
            self.close(fd)
