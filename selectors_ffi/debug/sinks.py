"""Sinks: where records go. A sink is any callable that takes one record.

``Emitter`` stands in front of every sink and keeps the promises of the facility: a sink that
raises harms nobody, a sink that uses a selector does not trace itself, ``ffi.errno`` survives.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from functools import partial
from threading import local
from typing import IO, TYPE_CHECKING, Callable, Union

from .locking import Locked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Record

__all__ = [
    "Emitter", "FileSink", "JsonSink", "LogSink", "RingSink", "Sink", "SinkLike", "sink_of", "tee",
]  # fmt: skip

Sink = Callable[["Record"], object]
#: A sink, a path, a descriptor, or an open text file; None is the logger ``selectors_ffi``.
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
        self.failed = 0
        self.skipped = 0

    def __call__(self, record: Record) -> None:
        self.guard(lambda: self.sink(record))

    def guard(self, action: Callable[[], object]) -> None:
        """Do something with the sink; not from within a sink, and nothing that it raises leaves."""
        if getattr(_inside, "sink", False):
            self.skipped += 1
            return
        _inside.sink = True
        try:
            self.attempt(action)
        finally:
            _inside.sink = False

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it; count what it raises, and tell of the first."""
        try:
            action()
        except Exception as error:
            self.failed += 1
            if self.failed == 1:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        try:
            print(
                f"selectors_ffi: a debug sink raised {type(error).__name__}: {error};"
                " its further failures are only counted",
                file=sys.stderr,
            )
        except Exception:  # stderr is None under pythonw, or closed at exit
            pass


class LogSink:
    """Log each record at DEBUG, lints at WARNING, with the record itself as ``record.record``."""

    def __init__(self, logger: logging.Logger | str = "selectors_ffi") -> None:
        self.logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def __call__(self, record: Record) -> None:
        level = logging.WARNING if type(record).__name__ == "Lint" else logging.DEBUG
        if self.logger.isEnabledFor(level):
            self.logger.log(level, "%s", record, extra={"record": record})


class FileSink(Locked):
    """Write one line per record, whole, to a path, a descriptor or a text file.

    A path is opened for appending when the sink is made. A descriptor is written with one
    write(2) per line, so that lines of several processes do not mix either.
    """

    def __init__(self, target: str | os.PathLike[str] | int | IO[str]) -> None:
        super().__init__()
        self._owned = isinstance(target, (str, os.PathLike))
        self._fd = -1
        self._file: IO[str] | None = None
        if isinstance(target, (str, os.PathLike)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._fd = os.open(target, flags, 0o666)
        elif isinstance(target, int):
            self._fd = target
        else:
            self._file = target

    def __call__(self, record: Record) -> None:
        self.write(self.line(record) + "\n")

    def line(self, record: Record) -> str:
        """Return the text of a record, without its end."""
        return str(record)

    def write(self, text: str) -> None:
        """Write ``text`` whole."""
        with self._lock:
            if self._file is not None:
                self._file.write(text)
                return
            rest = text.encode("utf-8", "backslashreplace")
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def close(self) -> None:
        """Close the descriptor that a path was opened as; flush a file."""
        with self._lock:
            if self._file is not None:
                self._file.flush()
            elif self._owned and self._fd >= 0:
                fd, self._fd = self._fd, -1
                os.close(fd)


class JsonSink(FileSink):
    """Write one JSON object per line."""

    def line(self, record: Record) -> str:
        return json.dumps(record.as_dict(), default=str, separators=(",", ":"))


class RingSink:
    """Flight recorder: keep the last records, and give them when asked or when ``select`` raises.

    Args:
        size: how many records to keep.
        dump: where to write them; None is standard error.
    """

    def __init__(self, size: int = 256, dump: SinkLike = None) -> None:
        self._records: deque[Record] = deque(maxlen=size)
        self._dump = dump

    def __call__(self, record: Record) -> None:
        self._records.append(record)

    def records(self) -> list[Record]:
        """Return the records kept, oldest first."""
        while True:
            try:
                return list(self._records)
            except RuntimeError:  # another thread has just added one
                continue

    def dump(self, reason: str = "on request") -> None:
        """Write the records kept, and forget them."""
        kept = self.records()
        self._records.clear()
        target = sys.stderr if self._dump is None else self._dump
        sink = sink_of(target)
        try:
            if isinstance(sink, FileSink):
                sink.write(f"selectors_ffi: last {len(kept)} records, {reason}\n")
            for record in kept:
                sink(record)
        finally:
            if isinstance(sink, FileSink):
                sink.close()


def tee(sinks: Iterable[Sink]) -> Sink:
    """Return a sink that gives each record to several; each is guarded for itself."""
    guarded = [Emitter(sink) for sink in sinks]

    def give(record: Record) -> None:
        for emitter in guarded:
            emitter.attempt(partial(emitter.sink, record))

    return give


def sink_of(target: SinkLike) -> Sink:
    """Return a sink for what a user names as one.

    Raises:
        TypeError: it is none of the things that can be one.
        OSError: the path cannot be opened.
    """
    if target is None:
        return LogSink()
    if isinstance(target, (str, os.PathLike, int)):
        return FileSink(target)
    if callable(target):
        return target
    if callable(getattr(target, "write", None)):
        return FileSink(target)
    raise TypeError(f"a sink is a callable, a path, a descriptor or a text file, not {target!r}")
