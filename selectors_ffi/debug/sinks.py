"""Sinks: where records go. A sink is any callable that takes one record.

``Emitter`` stands in front of every sink and keeps the promises of the facility: a sink that
raises harms nothing, a sink that uses a selector does not trace itself. ``ffi.errno`` is kept by
the tap, see ``watch``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from errno import EBADF
from functools import partial
from threading import local
from typing import IO, TYPE_CHECKING, Any, Callable, Union

from ..backends.native import when_freed
from .complaints import complain, given_out_again
from .locking import Locked
from .output import PATIENCE, PIECE, Output, open_path, private, takes
from .records import Lint, now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Record

__all__ = [
    "Emitter", "FileSink", "JsonSink", "LogSink", "RingSink", "Sink", "SinkLike", "StandardError",
    "emitter_of", "sink_of", "tee",
]  # fmt: skip

Sink = Callable[["Record"], object]
#: A sink; a path ("%p" in it is the process id), "stderr", "logging" or "ring"; a descriptor; an open
#: text file. None is standard error.
SinkLike = Union[Sink, str, "os.PathLike[str]", int, IO[str], None]

_inside = local()


class Emitter:
    """Gives records to a sink; the only caller of sinks.

    Attributes:
        failed: how many times the sink raised.
        skipped: how many records came from within a sink, and were not given to it.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.failed: int = 0
        self.skipped: int = 0

    def __call__(self, record: Record) -> None:
        # The same as guard(), without the cost of more calls.
        if getattr(_inside, "sink", False):
            self.skipped += 1
            return
        try:
            _inside.sink = True
            self.sink(record)
        except Exception as error:
            self._fail(error)
        finally:
            _inside.sink = False

    def together(self, records: list[Record]) -> None:
        """Give records that belong together, at once if the sink takes several."""
        together = getattr(self.sink, "together", None)
        if together is not None:
            self.guard(lambda: together(records))
        else:
            for record in records:
                self(record)

    def guard(self, action: Callable[[], object]) -> None:
        """Do something with the sink; not from within a sink, and nothing that it raises leaves."""
        if getattr(_inside, "sink", False):
            self.skipped += 1
            return
        try:
            _inside.sink = True
            self.attempt(action)
        finally:
            _inside.sink = False

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it; count what it raises, and tell of the first."""
        try:
            action()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if self.failed > 1:
            return
        complain(
            f"selectors_ffi: a debug sink raised {type(error).__name__}: {error};"
            " its further failures are only counted"
        )


def emitter_of(sink: Sink) -> Emitter:
    """Return what gives records to a sink. An ``Emitter`` may stand for its sink; its count goes on."""
    return sink if isinstance(sink, Emitter) else Emitter(sink)


class LogSink:
    """Log each record at DEBUG, lints at WARNING, with the record itself as ``record.record``."""

    def __init__(self, logger: logging.Logger | str = "selectors_ffi") -> None:
        self.logger: logging.Logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def __call__(self, record: Record) -> None:
        level = logging.WARNING if isinstance(record, Lint) else logging.DEBUG
        if self.logger.isEnabledFor(level):
            self.logger.log(level, "%s", record, extra={"record": record})


class FileSink(Locked):
    """Write one line per record, whole, to a path, a descriptor or a text file.

    A path is opened for appending when the sink is made; ``append=False`` empties its file first. It is
    closed when the last selector that was made with the sink has gone, or by ``close()``. "%p" in it
    is the process id; a forked child then writes to a file of its own. A line is one write(2), so that
    lines of several processes do not mix.

    Raises:
        TypeError: it is none of the three.
        OSError: the path cannot be opened, or the descriptor is closed.
    """

    _file: IO[str] | None = None
    _output: Output | None = None
    _stalled = False
    _pid = 0
    """Of a path with "%p": the process that the open file belongs to."""

    def __init__(
        self, target: str | os.PathLike[str] | int | IO[str] | Output, *, append: bool = True
    ) -> None:
        super().__init__()
        if isinstance(target, (str, os.PathLike)):
            # The program may change its directory before the file must be opened again.
            path = os.path.abspath(os.fspath(target))
            if "%p" in path:
                self._pid = os.getpid()
            if not append:
                os.close(open_path(path.replace("%p", str(os.getpid())), append=False))
            self._output = Output(lambda: open_path(path.replace("%p", str(os.getpid()))))
        elif isinstance(target, int):
            self._output = Output(fd=target)
        elif isinstance(target, Output):
            self._output = target
        elif callable(getattr(target, "write", None)):
            self._file = target
        else:
            raise TypeError(f"lines go to a path, a descriptor or a text file, not {target!r}")

    @property
    def descriptor(self) -> int:
        """The number that is written to; -1 if a text file is."""
        return -1 if self._output is None else self._output.fd

    def __call__(self, record: Record) -> None:
        self.write(self.line(record) + "\n")

    def together(self, records: list[Record]) -> None:
        """Write the lines of several records at once."""
        self.write("\n".join([*map(self.line, records), ""]))

    def line(self, record: Record) -> str:
        """Return the text of a record, without its end."""
        return str(record)

    def note(self, text: str) -> None:
        """Write a line that is no record."""
        self.write(f"selectors_ffi: {text}\n")

    def write(self, text: str) -> None:
        """Write ``text`` whole."""
        output = self._output
        if output is None:
            self._write_text(text)
            return
        if self._pid and self._pid != os.getpid():
            self._pid = os.getpid()
            output.reopen()
        output.write(text.encode("utf-8", "backslashreplace"))

    def _write_text(self, text: str) -> None:
        # The file is the program's, and may block the thread that holds the lock.
        patience = 0 if self._stalled else PATIENCE
        if self._file is None or not self._lock.acquire(timeout=patience):
            self._stalled = self._file is not None
            return
        try:
            for piece in [text] if len(text) <= PIECE else text.splitlines(keepends=True):
                self._stalled = not takes(self._file, patience)
                if self._stalled:
                    return
                self._file.write(piece)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the descriptor that a path was opened as; flush a file."""
        if self._output is not None:
            self._output.close()
        elif self._file is not None:
            self._file.flush()

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._output is not None and not _ending():  # then modules are empty, the system closes it
            self._outputs = when_freed([self._output], Output.close)


class StandardError(FileSink):
    """Write to standard error, through a private duplicate of its descriptor.

    The program may close descriptor 2 or its own ``sys.stderr``; lines go on. Where there is no
    standard error, or another file has its number by now, they are lost. A ``sys.stderr`` that was
    replaced is followed.
    """

    _seen: object = None

    def __init__(self) -> None:
        Locked.__init__(self)

    def write(self, text: str) -> None:
        if sys.stderr is not self._seen:
            self._look()
        super().write(text)

    @property
    def descriptor(self) -> int:
        if sys.stderr is not self._seen:
            self._look()
        return super().descriptor

    def _look(self) -> None:
        """Find out where ``sys.stderr`` leads; if nowhere, leave it as it was."""
        self._seen = file = sys.stderr
        try:
            fd = file.fileno()
        except (AttributeError, OSError, ValueError):  # None, closed, or without a descriptor
            if file is not None and not getattr(file, "closed", False):
                self._file, self._output = file, None
            return

        def opener() -> int:
            if given_out_again(file):
                raise OSError(EBADF, f"{os.strerror(EBADF)}: standard error was closed")
            return private(fd)

        try:
            self._output = Output(opener)
        except OSError:
            self._seen = None  # the program may put something there yet
            return
        self._file = None


class JsonSink(FileSink):
    """Write one JSON object per line."""

    def line(self, record: Record) -> str:
        return _dumped(record.as_dict())

    def note(self, text: str) -> None:
        self.write(_dumped({"type": "note", "text": text}) + "\n")


_dumped: Callable[[dict[str, Any]], str] = partial(
    json.dumps, default=str, separators=(",", ":"), allow_nan=False
)


class RingSink:
    """Flight recorder: keep the last records, and give them when asked or when ``select`` raises.

    The signal that ``SELECTORS_FFI_SIGNAL`` names asks for them, too.

    Args:
        size: how many records to keep.
        dump: where to write them, any sink; None is standard error. A sink that the caller made stays
            open, so that the next dump can follow.

    Raises:
        ValueError: the size is negative.
        TypeError: ``dump`` is no sink.
    """

    def __init__(self, size: int = 256, dump: SinkLike = None) -> None:
        if size < 0:
            raise ValueError(f"size is how many records to keep, not {size!r}")
        _check(dump)
        self._records: deque[Record] = deque(maxlen=size)
        self._dump = dump

    def __call__(self, record: Record) -> None:
        self._records.append(record)

    def together(self, records: list[Record]) -> None:
        """Keep several records."""
        self._records.extend(records)

    def records(self) -> list[Record]:
        """Return the records kept, oldest first."""
        while True:
            try:
                return list(self._records)
            except RuntimeError:  # another thread has just added one
                continue

    def dump(self, reason: str = "on request") -> None:
        """Write the records kept, each with its time before this moment, and forget them."""
        moment = now()
        kept = self.records()
        self._records.clear()
        sink = sink_of(self._dump)
        note = getattr(sink, "note", None)
        if note is not None:
            note(f"last {len(kept)} records, {reason}; times are seconds before this")
        latest = 0
        for record in kept:
            if isinstance(sink, FileSink) and not isinstance(sink, JsonSink):
                # The record of a wait comes after those of its calls, which began later.
                latest = max(latest, record.time)
                sink.write(f"{(latest - moment) / 1e9:.6f} {sink.line(record)}\n")
            else:
                sink(record)


def tee(sinks: Iterable[Sink]) -> Sink:
    """Return a sink that gives each record to several. If one raises, the others still get it.

    Raises:
        TypeError: one of them is no callable.
    """
    guarded = [emitter_of(sink) for sink in sinks]
    for emitter in guarded:
        if not callable(emitter.sink):
            raise TypeError(f"tee() takes callables, as FileSink(path) is one, not {emitter.sink!r}")
    return _Tee(guarded)


class _Tee:
    """Gives to several sinks what it is given."""

    def __init__(self, sinks: list[Emitter]) -> None:
        self._sinks = sinks
        # It has these methods if one of them has: a sink with dump() is taken for a flight recorder.
        for name in ("dump", "note"):
            able = [one for one in sinks if callable(getattr(one.sink, name, None))]
            if able:
                setattr(self, name, partial(self._each, able, name))

    def __call__(self, record: Record) -> None:
        for one in self._sinks:
            one.attempt(partial(one.sink, record))

    @staticmethod
    def _each(able: list[Emitter], name: str, *text: str) -> None:
        for one in able:
            one.attempt(partial(getattr(one.sink, name), *text))


def sink_of(target: SinkLike) -> Sink:
    """Return a sink for what a user names as one.

    Raises:
        TypeError: it is none of the things that can be one.
        OSError: the path cannot be opened.
    """
    _check(target)
    if target is None or target == "stderr":
        return standard_error
    if target == "logging":
        return LogSink()
    if target == "ring":
        return RingSink()
    return target if callable(target) else FileSink(target)


def _check(target: object) -> None:
    """Refuse what cannot be a sink."""
    if target is None or isinstance(target, (str, os.PathLike, int)) or callable(target):
        return
    if not callable(getattr(target, "write", None)):
        raise TypeError(
            "a sink is a callable, a path, 'stderr', 'logging', 'ring', a descriptor or a text file,"
            f" not {target!r}"
        )


#: The one of this process.
standard_error: StandardError = StandardError()
