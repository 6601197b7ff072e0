"""``trace``: run a Python program and show what its selectors ask of the kernel."""

from __future__ import annotations

import argparse
from typing import Any

from . import control
from .program import load

FORMATS = ("text", "json", "perfetto", "html")


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "trace",
        help="run a Python program and show its selectors' system calls",
        description="Run a Python program with this package in place of the standard library's"
        " selectors (asyncio, socketserver, subprocess, ...) and show what it asks of the kernel."
        " Options are those of strace where strace has them.",
        usage="%(prog)s [OPTION ...] PROGRAM [ARGUMENT ...]\n"
        "PROGRAM is what python takes: a file, a directory, a zip file, -m MODULE, -c CODE, or -",
    )
    _add_what(parser.add_argument_group("what is shown"))
    _add_how(parser.add_argument_group("how it is shown"))
    group = parser.add_argument_group("what the kernel says")
    control.add_options(group)
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
        help="a table of calls, errors and times at the end, and who woke the loop most",
    )


def add_filters(group: Any, default: str) -> None:
    """Declare the options that choose what is shown."""
    group.add_argument(
        "-e",
        metavar="WHAT",
        dest="expressions",
        action="append",
        default=[],
        help="FLAGS: syscalls, events, checks, leaks or all, separated by commas"
        f" (default: {default});"
        " or trace=CALLS: epoll_ctl,epoll_wait, or !close for all others, or the groups wait and"
        " control; may be repeated",
    )
    group.add_argument(
        "-P",
        metavar="FD",
        dest="about",
        action="append",
        default=[],
        help="only what is about this descriptor, by its number or by a path; may be repeated",
    )
    group.add_argument("-Z", dest="failed", action="store_true", help="only what failed")
    group.add_argument(
        "--slower", type=_duration, default=0, metavar="TIME", help="only what took so long: 10ms, 2s"
    )
    group.add_argument("--limit", type=_count, default=0, metavar="N", help="at most N records")


def _add_how(group: Any) -> None:
    group.add_argument("-o", metavar="FILE", dest="output", default="", help="default: standard error")
    group.add_argument("--format", choices=FORMATS, default="text")
    add_looks(group)
    group.add_argument(
        "--explain",
        action="store_true",
        help="after the line in which a call, flag or error appears first, say what it means",
    )


def add_looks(group: Any) -> None:
    """Declare the options that choose how lines look."""
    group.add_argument(
        "-t",
        dest="time",
        action="count",
        default=0,
        help="the time of day before each line; -tt: with microseconds; -ttt: seconds since 1970",
    )
    group.add_argument("-r", dest="relative", action="store_true", help="the time since the line before")
    group.add_argument(
        "--no-fold",
        dest="fold",
        action="store_false",
        help='show every line; else repeats are shown twice, then as "... 412 times more"',
    )
    group.add_argument(
        "--color",
        dest="colour",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )


def _duration(text: str) -> int:
    from selectors_ffi.debug.filters import nanoseconds_of

    try:
        return nanoseconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Trace the program; does not return if it exits by itself or raises."""
    from .following import children_follow
    from .tracing import Tracing, settings_of

    _check(options)
    try:
        settings = settings_of(options)
        tracing = Tracing(settings)
        program = load(options.program)
        tracing.open()
        control.begin(options)
        if options.follow:
            tracing.settings = children_follow(tracing.settings)
    except (ValueError, OSError) as error:
        options.fail(str(error))  # exits
    tracing.begin()
    program()
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


def check_times(options: argparse.Namespace) -> None:
    """Put the options of the time into one, ``stamp``; refuse what does not go together."""
    if options.time and options.relative:
        options.fail("-t and -r are two ways to show the time; choose one")
    if options.time > 3:
        options.fail("there is -t, -tt and -ttt")
    options.stamp = "r" if options.relative else "t" * options.time
