"""Attached: what ``python -m selectors_ffi attach`` runs in the process that it looks at.

Records go through a socket to the command. When the command closes its end, or is gone, everything is
switched off. A thread of ours waits for that, so that it happens while the loop sleeps, too.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from .counts import Stats
from .filters import Filter, about, chosen
from .lines import Lines, Look
from .live import Switched, switch, switched
from .output import Output, duplicate, out_of_the_way
from .sinks import FileSink, JsonSink
from .threads import start

if TYPE_CHECKING:
    from .flags import Debug
    from .records import Record
    from .sinks import Sink

__all__ = ["DEFAULT", "Attached", "begin"]

#: The flags if the command names none: what every selector can show.
DEFAULT = "events"

_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class _Connection(Output):
    """Writes to the command. That it is gone is an error, not a signal."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=out_of_the_way(fd))
        self._socket.setblocking(False)
        super().__init__(fd=self._socket.fileno())

    def send(self, data: bytes) -> int:
        return self._socket.send(data, _NO_SIGNAL)

    def wait_for_end(self) -> None:
        """Return when the command has closed its end."""
        own = self._socket
        waiting = socket.socket(own.family, own.type, own.proto, duplicate(own.fileno()))
        try:
            waiting.settimeout(None)
            while waiting.recv(64):
                pass
        except OSError:
            pass
        finally:
            waiting.close()

    def close(self) -> None:
        """Close it for forked children, too."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


class Attached:
    """The sink of one command.

    Args:
        fd: the socket, which belongs to this object from now on.
        settings: what the command line asks for.
    """

    #: A lint is a record for the command, and no warning in the program.
    quiet = True

    def __init__(self, fd: int, settings: dict[str, Any]) -> None:
        self._output = _Connection(fd)
        kind = JsonSink if settings["format"] == "json" else FileSink
        self._file = kind(self._output)
        self._lines: Lines | None = None
        shown: Sink = self._file
        if settings["format"] == "text":
            look = Look(*settings["look"])
            fold, slower = settings["fold"], settings["slower"]
            self._lines = shown = Lines(
                self._file, stamp=settings["stamp"], look=look, fold=fold, slower=slower
            )
        what = chosen(settings["expressions"], DEFAULT)
        self.flags: Debug = what.flags
        self._table = Stats() if settings["summary"] else None
        self._sink: Sink = Filter(
            shown,
            what,
            tuple(map(about, settings["about"])),
            failed=settings["failed"],
            slower=settings["slower"],
            limit=settings["limit"],
        )
        if self._table is not None:
            self.flags |= type(self.flags).SYSCALLS | type(self.flags).EVENTS
        self._switched: Switched | None = None
        self._early: list[Record | str] | None = []  # what came before the first line was written

    def __call__(self, record: Record) -> None:
        if self._early is not None:
            self._early.append(record)
            return
        if self._table is not None:
            self._table(record)
        try:
            self._sink(record)
        except OSError:  # the command is gone
            self._off()

    def note(self, text: str) -> None:
        """Write a line that is no record."""
        if self._early is not None:
            self._early.append(text)
        else:
            self._file.note(text)

    def begin(self) -> None:
        """Switch on, and say so."""
        current = switched()
        if current is not None:
            raise RuntimeError(f"something is switched on already ({current})")
        self._switched = made = switch(self.flags, self)
        self._output.write(f"{made}\n".encode())
        early, self._early = self._early or [], None
        for one in early:
            if isinstance(one, str):
                self.note(one)
            else:
                self(one)
        start(self._end_with_the_command)

    def refuse(self, why: str) -> None:
        """Switch off, and say why it was not begun; the command may be gone."""
        self._off()
        try:
            self._output.write(f"refused: {why}\n".encode())
        except OSError:
            pass
        self._output.close()

    def _end_with_the_command(self) -> None:
        self._output.wait_for_end()
        self._off()
        try:
            if self._lines is not None:
                self._lines.finish()
            if self._table is not None:
                self._file.write(f"{self._table}\n")
        except OSError:  # it does not listen any more
            pass
        self._output.close()

    def _off(self) -> None:
        if self._switched is not None:
            self._switched.off()


def begin(fd: int, settings: str) -> None:
    """Show a command what the selectors of this process do.

    Args:
        fd: a socket that is connected to it.
        settings: JSON, see ``cli.attach``.
    """
    attached = Attached(fd, json.loads(settings))
    try:
        attached.begin()
    except Exception as error:
        attached.refuse(str(error))
