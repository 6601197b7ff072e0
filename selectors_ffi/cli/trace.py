"""``trace``: run a Python program and show what its selectors ask of the kernel."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Union

from . import control
from .program import load

if TYPE_CHECKING:
    from selectors_ffi.debug import Debug, FileSink, PerfettoSink, Record, ReportSink, Sink, Stats

    Output = Union[FileSink, PerfettoSink, ReportSink]

FORMATS = ("text", "json", "perfetto", "html")
#: Formats that are one document, not lines: they need a file, and their own default of flags.
DOCUMENTS = {"perfetto": "syscalls,events", "html": "syscalls,events,checks"}


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "trace",
        help="run a Python program and show its selectors' system calls",
        description="Run a Python program with this package in place of the standard library's"
        " selectors (asyncio, socketserver, subprocess, ...) and show what it asks of the kernel.",
        usage="%(prog)s [-e FLAGS] [-o FILE] [--format FORMAT] [--summary] [--explain]"
        " [--inject TEXT] [--chaos SEED] PROGRAM [ARGUMENT ...]\n"
        "PROGRAM is what python takes: a file, a directory, a zip file, -m MODULE, -c CODE, or -",
    )
    parser.add_argument(
        "-e",
        metavar="FLAGS",
        dest="flags",
        help="syscalls, events, checks, leaks or all, separated by commas"
        " (default: syscalls; for perfetto: syscalls,events; for html: syscalls,events,checks;"
        " with --summary: none)",
    )
    parser.add_argument("-o", metavar="FILE", dest="output", help="default: standard error")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument(
        "--summary", action="store_true", help="a table of calls, errors and times at the end"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="after the line in which a call, flag or error appears first, say what it means",
    )
    control.add_options(parser)
    parser.add_examples(
        ("every system call of a script's selectors", "program.py"),
        ("what the kernel said and what became of it, with common mistakes", "-e all program.py"),
        ("a page to look at in a browser", "--format html -o report.html -m http.server"),
        ("a table of calls and times", "--summary -m http.server"),
    )
    parser.takes_program = True
    parser.set_defaults(run=run, fail=parser.error)


def run(options: argparse.Namespace) -> int:
    """Trace the program; does not return if it exits by itself or raises."""
    from selectors_ffi import debug
    from selectors_ffi.debug.explain import explained
    from selectors_ffi.debug.flags import flags_of
    from selectors_ffi.installation import install

    if options.format in DOCUMENTS and options.output is None:
        options.fail(f"--format {options.format} needs -o FILE")
    if options.explain and options.format != "text":
        options.fail("--explain is for --format text")
    try:
        flags = flags_of(_flags(options), "-e")
        program = load(options.program)
        control.begin(options)
        output = _output(options)
    except (ValueError, OSError) as error:
        options.fail(str(error))  # exits
    sink: Sink = explained(output) if options.explain and isinstance(output, debug.FileSink) else output
    if options.summary:
        table = debug.Stats()
        sink = debug.tee([_only(sink, flags), table])
        atexit.register(_print_summary, table, output, options, os.getpid())
        flags |= debug.Debug.SYSCALLS | debug.Debug.EVENTS
    else:
        atexit.register(_close, output, os.getpid())
    if not sys.warnoptions:
        # They come as records, among the calls: once is enough.
        warnings.filterwarnings("ignore", category=debug.SelectorWarning)
        warnings.filterwarnings("ignore", r"unclosed .*Selector", ResourceWarning)
    debug.debugging(flags, sink).__enter__()  # never left: threads may outlive the main one
    install()
    program()
    return 0


def _flags(options: argparse.Namespace) -> str:
    if options.flags is not None:
        return str(options.flags)
    if options.format in DOCUMENTS:
        return DOCUMENTS[options.format]
    return "" if options.summary else "syscalls"


def _output(options: argparse.Namespace) -> Output:
    """Return where the records go: a new file, or a copy of standard error.

    A copy, and with a high number: the program may close descriptor 2, and its own descriptors
    are to have the numbers that they have untraced.
    """
    from selectors_ffi.debug import FileSink, JsonSink, PerfettoSink, ReportSink

    if options.format in DOCUMENTS:
        return (PerfettoSink if options.format == "perfetto" else ReportSink)(options.output)
    if options.output is not None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        low = os.open(options.output, flags, 0o666)
        fd = _high(low)
        os.close(low)
    else:
        fd = _high(sys.stderr.fileno())
    return (FileSink if options.format == "text" else JsonSink)(fd)


def _high(fd: int) -> int:
    """Return a duplicate of ``fd``, not inherited, out of the program's way."""
    try:
        from fcntl import F_DUPFD_CLOEXEC, fcntl

        return int(fcntl(fd, F_DUPFD_CLOEXEC, 200))
    except (ImportError, OSError):  # Windows; or a low limit
        return os.dup(fd)


def _only(sink: Sink, flags: Debug) -> Sink:
    """Return a sink that gets what ``flags`` ask for, and not what the summary needs besides."""
    from selectors_ffi.debug import Debug, Lint, Syscall

    def give(record: Record) -> None:
        flag = Debug.SYSCALLS if isinstance(record, Syscall) else Debug.EVENTS
        if isinstance(record, Lint) or flag in flags:
            sink(record)

    return give


def _print_summary(table: Stats, output: Output, options: argparse.Namespace, pid: int) -> None:
    if os.getpid() != pid:
        return  # a child that left by sys.exit()
    from selectors_ffi.debug import FileSink

    if options.format == "text" and isinstance(output, FileSink):
        output.write(f"{table}\n")
    else:
        print(table, file=sys.stderr)
    output.close()


def _close(output: Output, pid: int) -> None:
    if os.getpid() == pid:
        output.close()
