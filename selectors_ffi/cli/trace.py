"""``trace``: run a Python program and show what its selectors ask of the kernel."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .options import add_control, add_filters, add_looks, begin_control, check_times
from .program import load

FORMATS = ("text", "json", "perfetto", "html")


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "trace",
        help="run a Python program and show its selectors' system calls",
        description="Run a Python program with this package in place of the standard library's"
        " selectors (asyncio, socketserver, subprocess, ...) and show what it asks of the kernel."
        " Options that strace has, too, are named as there.",
        usage="%(prog)s [OPTION ...] PROGRAM [ARGUMENT ...]\n"
        "PROGRAM is what python takes: a file, a directory, a zip file, -m MODULE, -c CODE, or -",
    )
    _add_what(parser.add_argument_group("what is shown"))
    _add_how(parser.add_argument_group("how it is shown"))
    group = parser.add_argument_group("what the kernel says")
    add_control(group)
    parser.add_examples(
        ("every system call of a script's selectors", "program.py"),
        ("what the kernel said and what became of it, with common mistakes", "-e all program.py"),
        ("failed calls and nothing else, with the time of day", "-Z -tt program.py"),
        ("what descriptor 7 was registered for, and what happened to it", "-e events -P 7 program.py"),
        ("calls that change registrations, of child processes too", "-f -e trace=control program.py"),
        ("what took the loop longer than 10 ms", "-e events --slower 10ms program.py"),
        ("a table of calls and times", "--summary -m http.server"),
        ("a page to look at in a browser", "--format html -o report.html -m http.server"),
    )
    parser.takes_program = True
    parser.set_defaults(run=run, fail=parser.error)


def _add_what(group: Any) -> None:
    add_filters(
        group,
        "syscalls; for perfetto: syscalls,events; for html: syscalls,events,checks;"
        " with --summary: none",
    )
    group.add_argument(
        "-f",
        dest="follow",
        action="count",
        default=0,
        help="trace the Python processes that the program starts, too; -ff: each into FILE.PID",
    )
    group.add_argument(
        "--summary",
        action="store_true",
        help="a table of calls, errors and times at the end, and what woke the loop most",
    )


def _add_how(group: Any) -> None:
    group.add_argument("-o", metavar="FILE", dest="output", default="", help="default: standard error")
    group.add_argument("--format", choices=FORMATS, default="text")
    add_looks(group)
    group.add_argument(
        "--explain",
        action="store_true",
        help="after the line in which a call, flag or error appears first, say what it means",
    )


def run(options: argparse.Namespace) -> int:
    """Trace the program; does not return if it exits by itself or raises."""
    from .following import children_follow
    from .tracing import Tracing, settings_of

    _check(options)
    try:
        settings = settings_of(options)
        tracing = Tracing(settings)
        program = load(options.program)
        begin_control(options)
        tracing.open()  # after all that may be refused: it empties a file
        if options.follow:
            tracing.settings = children_follow(tracing.settings)
    except (ValueError, OSError) as error:
        options.fail(str(error))  # exits
    tracing.begin()
    try:
        program()
    except KeyboardInterrupt:
        if sys.implementation.name == "pypy":  # it runs nothing more, no atexit function either
            tracing.finish()
        raise
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together, and put those of the time into one."""
    if options.format in ("perfetto", "html") and not options.output:
        options.fail(f"--format {options.format} needs -o FILE")
    if options.follow > 1 and not options.output:
        options.fail("-ff needs -o FILE, to whose name the process id is added")
    check_times(options)
    if options.format != "text":
        for name, given in (
            ("-t", options.time), ("-r", options.relative), ("--explain", options.explain),
            ("--no-fold", not options.fold),
        ):  # fmt: skip
            if given:
                options.fail(f"{name} is for --format text")
