"""Report: records as one HTML page that needs no network.

The page (``page/``: markup, style and script) comes first, then the data as JSON: one array per
line, the shapes are in ``_Writer``. The browser's script draws everything. The file is a complete page
after every record, also while several processes write it: see ``document.py``.

The first ``DETAILED`` records of a process are kept one by one. Of what follows, the page gets sums
over intervals, and at ``close()`` the last ``LAST`` records one by one. So a page stays small enough to
open at once, however long the program runs.

Names, messages and file names are the traced program's, and may hold anything. In the file they are
JSON without ``<``, ``>`` and ``&``; the script puts them into the page as text, never as markup; and the
page's policy forbids every script but its own, and every connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pkgutil
import platform
import sys
from collections import deque
from threading import current_thread, main_thread
from time import time
from typing import IO, Any

from .decode.grammar import errno_name
from .document import Document
from .lints import LINTS
from .locking import Locked
from .naming import LONGEST, process_title
from .records import Event, Lint, Record, Registration, Source, Syscall, Wait, now
from .sinks import standard_error

__all__ = ["DETAILED", "LAST", "ReportSink"]

#: How many records of a process are kept one by one from its beginning.
DETAILED = 100_000
#: How many are kept one by one before its end.
LAST = 1_000
#: No more details are kept when the file has this many bytes: other processes may write it, too.
LARGEST = 24_000_000
#: Different texts that are written once and then named by a number.
_TEXTS = 8_192
#: A text (an argument list, a stack) is cut at this many characters.
_LONGEST_TEXT = 40 * LONGEST
#: Nanoseconds of the shortest interval.
_SHORTEST = 50_000_000
#: An interval is at least this part of the time that has been summed up.
_PART = 1_000
#: How many descriptors an interval names; it counts the others together.
_NAMED = 10

_TAIL = "\n]</script>\n</body>\n</html>\n"
#: The parts of the script, in their order.
_SCRIPTS = ("model", "words", "timeline", "page")


class ReportSink(Locked):
    """Write an HTML page to a path, which is replaced, a descriptor or a text file.

    Args:
        target: where to write. A path's file is complete at every moment, other targets when closed.
        join: add to the page of another process that is being traced, instead of replacing it.

    Raises:
        OSError: the path cannot be opened.
    """

    def __init__(self, target: str | os.PathLike[str] | int | IO[str], *, join: bool = False) -> None:
        super().__init__()
        self._document = Document(target, page(), _TAIL, join=join)
        self._root = -1 if join else os.getpid()
        self._writer: _Writer | None = None

    def __call__(self, record: Record) -> None:
        with self._lock:
            if self._document.closed:
                return  # a selector that is collected when the program has ended
            writer = self._writer
            if writer is None or writer.pid != record.source.pid:
                detailed = writer.detailed if writer is not None else 0
                forked = record.source.pid != self._root
                writer = self._writer = _Writer(self._document, record, forked, detailed)
            writer.put(record)

    def note(self, text: str) -> None:
        """Write a line that is no record to standard error: the page has no place for it."""
        standard_error.note(text)

    def close(self) -> None:
        """Write the last records, and end the page."""
        with self._lock:
            if self._document.closed:
                return
            if self._writer is not None and self._writer.pid == os.getpid():
                self._writer.finish()
            self._document.close()


class _Writer:
    """Writes the records of one process.

    Args:
        document: where to.
        first: the first record of the process.
        forked: whether another process of the trace made this one.
        detailed: how many records are written one by one already.
    """

    def __init__(self, document: Document, first: Record, forked: bool, detailed: int) -> None:
        self.pid = first.source.pid
        self.detailed = detailed
        self._document = document
        self._base = first.time
        self._texts: dict[str, int] = {}
        self._threads: set[int] = set()
        self._explained: set[str] = set()
        self._lines: list[str] = []
        self._last: deque[Record] = deque()
        self._sums = _Sums()
        python = f"{platform.python_implementation()} {platform.python_version()}"
        parent = os.getppid() if forked else 0
        begun = time() - (now() - first.time) / 1e9
        title = process_title(forked=forked)
        self._line("process", self.pid, parent, first.time, title, python, sys.platform, begun)

    def put(self, record: Record) -> None:
        """Write one record, or count it."""
        self._thread(record.source)  # its name is known now
        if self.detailed >= DETAILED or self._document.size >= LARGEST:
            self._last.append(record)
            if len(self._last) > LAST:
                self._count(self._last.popleft())
        else:
            self.detailed += 1
            self._record(record)
        self._flush()

    def finish(self) -> None:
        """Write what has only been counted, and the last records."""
        for sums in self._sums.take():
            self._sum(sums)
        while self._last:
            self._record(self._last.popleft())
        self._flush()

    def _count(self, record: Record) -> None:
        if isinstance(record, Lint):
            self._record(record)
        else:
            for sums in self._sums.add(record):
                self._sum(sums)

    # Lines. A text is a number if it has been written in a "text" line.

    def _record(self, record: Record) -> None:
        thread = self._thread(record.source)
        place = (record.time - self._base, thread, self._text(record.source.selector))
        if isinstance(record, Wait):
            own = record.turn, record.overhead, *([self._text(record.at)] if record.at else ())
            self._line(1, *place, record.span, record.finite_timeout, record.ready, *own)
        elif isinstance(record, Syscall):
            self._line(2, *place, record.duration, *self._call(record))
        elif isinstance(record, Event):
            flags, dropped = self._text(record.flags), self._text(record.dropped)
            self._line(3, *place, record.fd, flags, record.events, dropped, *self._object(record))
        elif isinstance(record, Registration):
            self._line(4, *place, record.action, record.fd, record.events, *self._registration(record))
        elif isinstance(record, Lint):
            self._explain(record.id)
            message = self._text(record.message), self._text(str(record.place))
            self._line(5, *place, record.id, record.fd, *message)

    def _call(self, record: Syscall) -> tuple[Any, ...]:
        """Return name, arguments, result, note and errno."""
        arguments, note = self._text(", ".join(record.arguments)), self._text(record.note)
        errno = self._text(errno_name(record.errno)) if record.errno else 0
        return self._text(record.name), arguments, record.result, note, errno

    def _registration(self, record: Registration) -> tuple[Any, ...]:
        """Return peer, kind, file object, owner, error and place."""
        peer, error, place = map(self._text, (record.peer, record.error, record.place))
        return peer, *self._object(record), error, place

    def _object(self, record: Event | Registration) -> tuple[int | str, ...]:
        """Return kind, file object and owner."""
        return self._text(record.kind), self._text(record.fileobj), self._text(record.owner)

    def _sum(self, sums: tuple[Source, int, dict[str, Any]]) -> None:
        source, begin, figures = sums
        thread, selector = self._thread(source), self._text(source.selector)
        self._line(6, begin - self._base, thread, selector, figures)

    def _thread(self, source: Source) -> int:
        if source.thread not in self._threads:
            self._threads.add(source.thread)
            thread = current_thread()
            main = int(thread is main_thread())
            self._line("thread", source.thread, source.pid, thread.name, main)
        return source.thread

    def _explain(self, lint: str) -> None:
        """Write the name, the cause and the cure of a lint, once."""
        if lint in self._explained:
            return
        self._explained.add(lint)
        for known in LINTS:
            if known.id == lint:
                self._line("lint", lint, known.__name__, known.cause, known.cure)

    def _text(self, text: str) -> int | str:
        """Return what stands for a text in a line: its number, 0 for no text, or itself."""
        if not text:
            return 0
        text = str(text)[:_LONGEST_TEXT]
        number = self._texts.get(text)
        if number is None:
            if len(self._texts) >= _TEXTS:
                return text
            number = self._texts[text] = len(self._texts) + 1
            self._line("text", self.pid, number, text)
        return number

    def _line(self, *fields: Any) -> None:
        line = _encode(fields)
        for character, escape in _ESCAPES:
            line = line.replace(character, escape)
        self._lines.append(line)

    def _flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._document.add(",\n".join(lines))


class _Sums:
    """What becomes of records that are too many to keep one by one: sums, by thread and selector.

    Records are summed up over intervals. An interval is a twentieth of a second at first and grows
    with the age of the trace, so that a day gives a few thousand of them.
    """

    def __init__(self) -> None:
        self._sums: dict[Source, dict[str, Any]] = {}
        self._begun = 0
        self._end = 0
        self._begin = 0
        self._ready: dict[Source, int] = {}

    def add(self, record: Record) -> list[tuple[Source, int, dict[str, Any]]]:
        """Count a record; return the sums of the interval that it has ended, if any."""
        done = self.take() if record.time >= self._end else []
        if not self._begun:
            self._begun = record.time
        if done or not self._end:
            self._begin = record.time
            self._end = record.time + max(_SHORTEST, (record.time - self._begun) // _PART)
        sums = self._sums.get(record.source)
        if sums is None:
            sums = self._sums[record.source] = _nothing()
        sums["end"] = max(sums["end"], record.time - self._begin)
        if isinstance(record, Wait):
            self._wait(sums, record)
        elif isinstance(record, Syscall):
            call = sums["calls"].setdefault(record.name, [0, 0, 0])
            call[0] += 1
            call[1] += record.duration
            call[2] += bool(record.errno)
        elif isinstance(record, Event):
            sums["events"] += 1
            sums["fds"][record.fd] = sums["fds"].get(record.fd, 0) + 1
        elif isinstance(record, Registration):
            sums["registrations"] += 1
        return done

    def _wait(self, sums: dict[str, Any], record: Wait) -> None:
        sums["waits"] += 1
        sums["waiting"] += record.duration
        sums["empty"] += record.ready == 0
        sums["ready"] += max(record.ready, 0)
        before = self._ready.get(record.source)
        if before is not None:
            turn = record.turn if record.turn >= 0 else record.time - before
            sums["turns"] += turn
            if turn > sums["longest"][0]:
                sums["longest"] = [turn, before - self._begin]
        end = self._ready[record.source] = record.time + record.span
        sums["end"] = max(sums["end"], end - self._begin)

    def take(self) -> list[tuple[Source, int, dict[str, Any]]]:
        """Return source, begin and figures of the interval so far, and forget them."""
        taken, self._sums = self._sums, {}
        for sums in taken.values():
            named = sorted(sums["fds"].items(), key=lambda item: -item[1])[:_NAMED]
            sums["fds"] = [list(item) for item in named]
        return [(source, self._begin, sums) for source, sums in taken.items()]


def _nothing() -> dict[str, Any]:
    return {
        "end": 0, "waits": 0, "waiting": 0, "empty": 0, "ready": 0, "turns": 0, "longest": [0, 0],
        "events": 0, "registrations": 0, "calls": {}, "fds": {},
    }  # fmt: skip


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode
#: What could end a script element, or begin a comment in it, is an escape in JSON.
_ESCAPES = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))


def page() -> str:
    """Return the page up to its data."""
    style = _asset("report.css")
    script = "".join([_asset(f"{name}.js") for name in _SCRIPTS])
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none';"
        f" style-src {_digest(style)}; script-src {_digest(script)}"
    )
    markup = _asset("report.html")
    for name, text in (("policy", policy), ("style", style), ("script", script)):
        markup = markup.replace("{{" + name + "}}", text)
    return markup


def _asset(name: str) -> str:
    data = pkgutil.get_data(__package__, f"page/{name}")
    if data is None:  # pragma: no cover: a loader that has no data
        raise OSError(f"selectors_ffi/debug/page/{name} is not installed")
    return data.decode().replace("\r\n", "\n")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
