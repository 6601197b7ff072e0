"""Lines: records as text for people, with time stamps, folded repeats, and colour on a terminal.

A line is stamped with the time at which its call or wait began, or with that of the line before it if
that is later. So times never go back.

A loop that spins says the same few lines thousands of times. They are shown twice; then one line says
how often they came again. Lines count as the same if only their durations differ.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from .locking import Locked
from .records import Event, Lint, Registration, Syscall, Wait, now

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .records import Record
    from .sinks import FileSink

__all__ = ["STAMPS", "Folding", "Lines", "Look", "look_of"]

_DURATION = re.compile(r" <\d+\.\d+>$")
_RESET = "\x1b[0m"
_BOLD, _DIM, _RED, _GREEN, _YELLOW, _BLUE, _CYAN = (f"\x1b[{n}m" for n in (1, 2, 31, 32, 33, 34, 36))
_COLOURS = {Syscall: _BOLD, Event: _CYAN, Registration: _GREEN, Wait: _BLUE, Lint: _YELLOW}

#: On a terminal results begin in this column, as in strace.
COLUMN = 40
#: A pattern of at most so many lines is folded.
LONGEST = 12
#: Nanoseconds after which a pattern that goes on is told of again.
SOON = 1_000_000_000


class Look(NamedTuple):
    """How lines look."""

    colour: bool = False
    width: int = 0
    """Longer lines are cut to so many columns, and results aligned; 0: neither."""


def look_of(fd: int, colour: str = "auto") -> Look:
    """Return the look for what a descriptor leads to.

    Args:
        fd: the descriptor; colour and width are for a terminal.
        colour: "always", "never", or "auto": on a terminal, unless NO_COLOR is set.
    """
    terminal = fd >= 0 and os.isatty(fd)
    if colour == "auto":
        dumb = os.environ.get("TERM") == "dumb"
        coloured = terminal and not dumb and not os.environ.get("NO_COLOR")
    else:
        coloured = colour == "always"
    width = 0
    if terminal:
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() else 0
        try:
            width = width or os.get_terminal_size(fd).columns
        except OSError:
            pass
        width = width or 80
    return Look(coloured, width)


def _clock(moment: int) -> str:
    """Return a moment of ``records.now`` as a time of day."""
    seconds, rest = divmod(moment + _offset, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06}"


#: From the clock of records to that of the calendar, in nanoseconds.
_offset = time.time_ns() - now()

#: What stands in front of a line: (time, time of the line before) -> text.
STAMPS: dict[str, Callable[[int, int], str]] = {
    "": lambda moment, before: "",
    "t": lambda moment, before: _clock(moment)[:8] + " ",
    "tt": lambda moment, before: _clock(moment) + " ",
    "ttt": lambda moment, before: f"{(moment + _offset) / 1e9:.6f} ",
    "r": lambda moment, before: f"{(moment - before) / 1e9:12.6f} ",
}


class Lines(Locked):
    """A sink that writes records as lines.

    Args:
        output: where to.
        stamp: one of ``STAMPS``.
        look: colour and width.
        fold: whether repeats are folded.
        slower: nanoseconds from which a wait also says how long the program took before it; 0: never.
        explain: returns sentences that follow a record's line.
        mark: names the process where it is not the first that is traced, see ``Folding``.
    """

    def __init__(
        self,
        output: FileSink,
        *,
        stamp: str = "",
        look: Look | None = None,
        fold: bool = True,
        slower: int = 0,
        explain: Callable[[Record], list[str]] | None = None,
        mark: str = "",
    ) -> None:
        super().__init__()
        self._output = output
        self._stamp = STAMPS[stamp]
        self._look = look or Look()
        self._folding = Folding(mark) if fold else None
        self._slower = slower
        self._explain = explain
        self._before = 0
        self._pid = os.getpid()

    def __call__(self, record: Record) -> None:
        with self._lock:
            self._write(self._lines_of(record))

    def together(self, records: list[Record]) -> None:
        """Write several records at once."""
        with self._lock:
            self._write([line for record in records for line in self._lines_of(record)])

    def _lines_of(self, record: Record) -> list[str]:
        """Return what is to be written now that a record has come."""
        self._notice_fork(record.source.pid)
        text = str(record)
        if isinstance(record, Wait) and 0 < self._slower <= record.turn:
            at = f", at {record.at}" if record.at else ""
            text += f" (the program took {record.turn / 1e9:.6f} s before{at})"
        # A wait is written after its calls, and a call of another thread may have begun before.
        moment = max(record.time, self._before)
        stamp = self._stamp(moment, self._before or moment)
        self._before = moment
        line = stamp + self._drawn(record, text, len(stamp))
        if self._folding is None:
            lines = [line]
        elif isinstance(record, Lint):
            lines = [*self._folding.end(), line]
        else:
            lines = self._folding.add(_DURATION.sub("", text), line, record.time)
        if self._explain is not None:
            lines = [*lines, *(f"    {sentence}" for sentence in self._explain(record))]
        return lines

    def _notice_fork(self, pid: int) -> None:
        """Fold anew in a forked child: its parent writes what was folded before."""
        if pid != self._pid:
            self._pid = pid
            self._folding = self._folding and Folding(f"[pid {pid}] ")

    def note(self, text: str) -> None:
        """Write a line that is no record."""
        self.finish()
        self._output.note(text)

    def finish(self) -> None:
        """Write what is still folded."""
        with self._lock:
            self._notice_fork(os.getpid())
            if self._folding is not None:
                self._write(self._folding.end())

    def _write(self, lines: list[str]) -> None:
        if lines:
            self._output.write("".join(f"{line}\n" for line in lines))

    def _drawn(self, record: Record, text: str, indent: int) -> str:
        """Return a line aligned, cut and coloured."""
        head, equals, tail = text.partition(") = ")
        if isinstance(record, Lint) or not equals:
            return self._coloured(record, text, "")
        head, tail = f"{head})", f" = {tail}"
        if self._look.width:
            room = self._look.width - indent - len(tail)
            if len(head) > room >= COLUMN // 2:
                head = f"{head[: room - 4]}...)"
            elif len(head) > room:
                return self._coloured(record, (head + tail)[: self._look.width - indent - 3] + "...", "")
            head = head.ljust(min(COLUMN - indent, room))
        return self._coloured(record, head, tail)

    def _coloured(self, record: Record, head: str, tail: str) -> str:
        if not self._look.colour:
            return head + tail
        name, bracket, rest = head.partition("(")
        colour: Any = _COLOURS[type(record)]
        if isinstance(record, Lint):
            return f"{colour}{head}{tail}{_RESET}"
        wrong = getattr(record, "errno", 0) or getattr(record, "error", "")
        if wrong or getattr(record, "dropped", "") or getattr(record, "ready", 0) < 0:
            shown, angle, duration = tail.partition(" <")
            tail = f"{_RED}{shown}{_RESET}{angle}{duration}"
        tail = _DURATION.sub(lambda match: f"{_DIM}{match[0]}{_RESET}", tail)
        return f"{colour}{name}{_RESET}{bracket}{rest}{tail}"


class Folding:
    """Finds patterns of lines that come again and again.

    Args:
        mark: stands before the line that says how often, to name the process.
    """

    def __init__(self, mark: str = "") -> None:
        self._mark = mark
        self._recent: list[str] = []
        self._pattern: list[str] = []  # that is being folded; empty if none is
        self._times = 0
        self._once: list[str] = []  # the lines of the first repetition that was not shown
        self._held: list[str] = []  # the lines of the repetition that is not over
        self._told = 0

    def add(self, shape: str, line: str, time: int) -> list[str]:
        """Return the lines to write now that ``line`` has come.

        Args:
            shape: the line without what differs from one repetition to the next.
            line: the line.
            time: when it came, in nanoseconds.
        """
        shown: list[str] = []
        if self._pattern:
            if shape == self._pattern[len(self._held)]:
                self._held.append(line)
                if len(self._held) == len(self._pattern):
                    self._once = self._held if self._times == 0 else []
                    self._times, self._held = self._times + 1, []
                    if time - self._told >= SOON:
                        self._told = time
                        return self._summed()
                return []
            shown = self.end()
        shown.append(line)
        self._recent = [*self._recent[1 - 2 * LONGEST :], shape]
        for length in range(1, len(self._recent) // 2 + 1):
            if self._recent[-length:] == self._recent[-2 * length : -length]:
                self._pattern, self._told = self._recent[-length:], time
                break
        return shown

    def end(self) -> list[str]:
        """Return the lines that are due when the pattern ends."""
        shown = self._summed() + self._held
        self._recent, self._pattern, self._held = [], [], []
        return shown

    def _summed(self) -> list[str]:
        times, self._times = self._times, 0
        once, self._once = self._once, []
        if times < 2:
            return once
        what = "..." if len(self._pattern) == 1 else f"... these {len(self._pattern)} lines"
        return [f"{self._mark}{what} {times} times more"]
