"""Tracing: what ``trace`` sets up in its own process, and in the children that it follows."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Union

from .. import debug
from ..debug.explain import Explainer
from ..debug.filters import Filter, about, chosen
from ..debug.lines import Lines, look_of
from ..debug.lints import forget_mended, mended_so_far
from ..debug.records import Marks
from ..debug.sinks import StandardError, emitter_of, standard_error
from ..installation import Installation, install

if TYPE_CHECKING:
    from types import FrameType

    from ..debug import Sink

    Output = Union[debug.FileSink, debug.PerfettoSink, debug.ReportSink]

__all__ = ["DOCUMENTS", "Settings", "Tracing"]

#: The file that the trace of this program, or of the one that has started it, goes to.
VARIABLE = "SELECTORS_FFI_OUTPUT"

#: Formats that are one document, not lines, with their own default of flags.
DOCUMENTS = {"perfetto": "syscalls,events", "html": "syscalls,events,checks"}

#: Loops that do not use ``selectors``, by the module whose presence shows them.
_OTHER_LOOPS = {
    "uvloop": "the loop was uvloop, which does not use selectors",
    "winloop": "the loop was winloop, which does not use selectors",
    "trio": "the loop was trio's, which does not use selectors",
    "gevent": "the loop was gevent's, which does not use selectors",
    "eventlet": "the loop was eventlet's, which does not use selectors",
    "asyncio.windows_events": "asyncio's default loop on Windows does not use selectors,"
    " but selectors_ffi.run() does",
}


class Settings(NamedTuple):
    """What the command line asks for, as JSON can hold it."""

    expressions: Sequence[str] = ()
    """The values of ``-e``."""
    format: str = "text"
    output: str = ""
    """A path; empty is standard error."""
    about: Sequence[str] = ()
    failed: bool = False
    slower: int = 0
    stamp: str = ""
    fold: bool = True
    limit: int = 0
    colour: str = "auto"
    explain: bool = False
    summary: bool = False
    follow: int = 0
    """1: children, too; 2: each process into a file of its own."""
    figures: str = ""
    """Where children leave their figures for the summary."""
    terminal: str = ""
    """By which name children find the standard error of the first process."""
    first: int = 0
    """Its number: the program that has taken its place by exec*() has the same."""

    @property
    def default(self) -> str:
        """The flags if ``-e`` names none."""
        if self.format in DOCUMENTS:
            return DOCUMENTS[self.format]
        return "" if self.summary else "syscalls"


class Tracing:
    """The tracing of one process.

    Args:
        settings: what is asked for.
        child: this process was started by one that is traced.

    Raises:
        ValueError: an unknown flag, call, or descriptor; the message lists what is known.
    """

    def __init__(self, settings: Settings, *, child: bool = False) -> None:
        self.settings: Settings = settings
        self._child = child
        self._pid = os.getpid()
        self._done = False
        self._forks = False
        self._installation: Installation | None = None
        self._what = chosen(settings.expressions, settings.default)
        self._about = tuple(map(about, settings.about))
        self._lines: Lines | None = None
        self.table: debug.Stats | None = debug.Stats() if settings.summary else None

    def open(self) -> None:
        """Open the output.

        Raises:
            OSError: it cannot be opened.
        """
        settings = self.settings
        self._output = self._open()
        shown: Sink = self._output
        if settings.format == "text" and isinstance(self._output, debug.FileSink):
            shown = self._lines = self._text(self._output)
        wanted = Filter(
            shown,
            self._what,
            self._about,
            failed=settings.failed,
            slower=settings.slower,
            limit=settings.limit,
        )
        # The one guard of the output. It stands for the sink, so that what fails is told once.
        self._sink: Sink = emitter_of(wanted)
        self._attempt = emitter_of(self._sink).attempt
        self._flags = self._what.flags
        if self.table is not None:
            if not self._child:
                self.settings = self.settings._replace(figures=_new_file())
            self._sink = debug.tee([self._sink, self.table])
            self._flags |= debug.Debug.SYSCALLS | debug.Debug.EVENTS

    def _open(self) -> Output:
        """Return where records go: a new file, or standard error; a child adds to its parent's."""
        settings, path = self.settings, self.settings.output
        own = settings.follow == 2
        if own:
            path += ".%p"
        join = (self._child and not own) or self._begun_before(path)
        if settings.format == "perfetto":
            return debug.PerfettoSink(_of_process(path), join=join)
        if settings.format == "html":
            return debug.ReportSink(_of_process(path), join=join)
        kind = debug.JsonSink if settings.format == "json" else debug.FileSink
        if path:
            return kind(path, append=join)
        if settings.format == "json":
            return _JsonOnStandardError()
        if self._child and settings.terminal and not _same_file(settings.terminal):
            try:
                return debug.FileSink(settings.terminal)
            except OSError:  # the first process has ended, or this is another user's
                pass
        return standard_error

    def _begun_before(self, path: str) -> bool:
        """Tell whether the program that is traced into a file has started the same trace again.

        It does so with ``sys.orig_argv``: by exec*(), or in a process beside its own.
        """
        if not path:
            return False
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = os.path.abspath(_of_process(path))
        return os.environ[VARIABLE] == before

    def _text(self, output: debug.FileSink) -> Lines:
        settings = self.settings
        return Lines(
            output,
            stamp=settings.stamp,
            look=look_of(output.descriptor, settings.colour),
            fold=settings.fold,
            slower=settings.slower,
            explain=Explainer() if settings.explain else None,
            mark=f"[pid {self._pid}] " if self._child else "",
        )

    def begin(self) -> None:
        """Trace this process from now on, to its end."""
        if not sys.warnoptions:
            # They come as records, among the calls: once is enough.
            warnings.filterwarnings("ignore", category=debug.SelectorWarning)
            warnings.filterwarnings("ignore", r"unclosed .*Selector", ResourceWarning)
        if self._child:
            Marks.main = 0  # every line names its process
        atexit.register(self.finish)
        if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
            os.register_at_fork(before=self._forking, after_in_child=self._forked)
        for name in ("execv", "execve"):  # which the others of os call
            self._tell_before(name)
        if self.table is not None:
            self._survive_a_signal()
        # Never left: threads may outlive the main one.
        debug.debugging(self._flags, self._sink).__enter__()
        self._installation = install()

    def _survive_a_signal(self) -> None:
        """Print the summary when SIGTERM ends the process, too, as it does with servers."""
        try:
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._terminated)
        except ValueError:  # not in the main thread
            pass

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self.finish()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _tell_before(self, name: str) -> None:
        """Write what is due before a function of ``os`` lets another program take the process over."""
        function: Callable[..., NoReturn] = getattr(os, name)

        @wraps(function)
        def execute(path: Any, *arguments: Any, **options: Any) -> NoReturn:
            # execvp() tries one folder after the other.
            if isinstance(path, int) or os.access(path, os.X_OK):
                self._tell_what_is_due()
            function(path, *arguments, **options)

        if function in os.supports_fd:
            os.supports_fd.add(execute)
        setattr(os, name, execute)

    def _forking(self) -> None:
        """Write what is folded, before lines of a child come between."""
        self._forks = True
        if self._lines is not None:
            self._attempt(self._lines.finish)

    def _forked(self) -> None:
        """Begin anew in a forked child, and see to it that what is due at its end is not lost."""
        self._pid, self._child = os.getpid(), True
        forget_mended()
        if self.table is not None:
            self.table.restart()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # its children end by os._exit(), and run their own list before
            util.register_after_fork(
                self, lambda tracing: util.Finalize(None, tracing.finish, exitpriority=0)
            )

    def finish(self) -> None:
        """Write what is due at the end of the process."""
        if self._done:
            return
        self._done = True
        self._tell_what_is_due()
        if not self._child and not self._seen():
            self._tell(self._why_nothing())
        self._attempt(self._output.close)

    def _tell_what_is_due(self) -> None:
        table = self.table
        if self._lines is not None:
            self._attempt(self._lines.finish)
        if table is not None and self._child and self._pid != self.settings.first:
            self._attempt(lambda: self._leave_figures(table))
        elif table is not None:
            self._attempt(lambda: self._add_figures(table))
            self._tell(str(table))
            if not self.settings.figures and (self._forks or self.settings.follow):
                self._tell("selectors_ffi: no file could be made for the figures of children")
        for sentence in mended_so_far():
            self._tell(f"selectors_ffi: {sentence}")

    def _seen(self) -> bool:
        """Tell whether a selector was made, as far as it is known here."""
        if self._forks or (self.settings.follow and self.table is None):
            return True  # by a child, perhaps
        return Marks.made > 0 or (self.table is not None and self.table.processes > 1)

    def _tell(self, text: str) -> None:
        """Write to the output if it is text, else to standard error; nothing that fails leaves."""
        text_file = self.settings.format == "text" and isinstance(self._output, debug.FileSink)
        output = self._output if text_file else standard_error
        write = output.write  # type: ignore[union-attr] # a FileSink, see above
        self._attempt(lambda: write(f"{text}\n"))

    def _why_nothing(self) -> str:
        """Return a line for a program that made no selector."""
        text = "selectors_ffi: no selector was made, so there is nothing to show"
        reasons = [reason for module, reason in _OTHER_LOOPS.items() if module in sys.modules]
        if not reasons and self._installation is not None:
            reasons = [str(missed) for missed in self._installation.missed[:1]]
        if not reasons and _had_children():
            reasons = ["-f shows what Python processes that the program starts do"]
        return f"{text}: {reasons[0]}" if reasons else text

    def _leave_figures(self, table: debug.Stats) -> None:
        if table.calls or table.waits.count:
            try:
                fd = os.open(self.settings.figures, os.O_WRONLY | os.O_APPEND)
            except OSError:  # the first process has ended
                return
            os.write(fd, f"{json.dumps(table.state())}\n".encode())
            os.close(fd)

    def _add_figures(self, table: debug.Stats) -> None:
        """Add the figures of the children that have ended."""
        try:
            with open(self.settings.figures, encoding="utf-8") as file:
                for line in file:
                    table.merge(json.loads(line))
            os.unlink(self.settings.figures)
        except OSError:  # the program has removed it
            pass


class _JsonOnStandardError(debug.JsonSink, StandardError):
    """The lines of the one, written where the other writes."""


def _new_file() -> str:
    """Return the path of an empty file; "" where none can be made, as without a writable folder."""
    try:
        fd, path = tempfile.mkstemp(prefix="selectors_ffi-")
    except OSError:
        return ""
    os.close(fd)
    return path


def _of_process(path: str) -> str:
    return path.replace("%p", str(os.getpid()))


def _had_children() -> bool:
    """Tell whether this process has waited for a child. Its time may be too short to be counted."""
    try:
        from resource import RUSAGE_CHILDREN, getrusage
    except ImportError:  # Windows
        return False
    return getrusage(RUSAGE_CHILDREN).ru_maxrss > 0


def _same_file(path: str) -> bool:
    """Tell whether a path leads to this process's own standard error."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(2))
    except OSError:
        return False


def settings_of(options: Any) -> Settings:
    """Return the settings that a parsed command line asks for."""
    given = vars(options)
    return Settings(**{name: given[name] for name in Settings._fields if name in given})
