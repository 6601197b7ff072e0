"""``run``: run a Python program on this package's selectors, without showing anything."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_control, begin_control
from .program import load


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="run a Python program on these selectors",
        description="Run a Python program with this package in place of the standard library's"
        " selectors (asyncio, socketserver, subprocess, ...). SELECTORS_FFI_BACKEND chooses the"
        " class that DefaultSelector is.",
        usage="%(prog)s [--missed] [--inject TEXT] [--chaos SEED] PROGRAM [ARGUMENT ...]\n"
        "PROGRAM is what python takes: a file, a directory, a zip file, -m MODULE, -c CODE, or -",
    )
    parser.add_argument(
        "--missed",
        action="store_true",
        help="at the end, list on standard error what still uses the standard library's classes",
    )
    add_control(parser)
    parser.add_examples(
        ("a script, with its arguments", "server.py --port 8000"),
        ("a module, and at the end what still uses the standard library", "--missed -m http.server"),
    )
    parser.takes_program = True
    parser.set_defaults(run=run, fail=parser.error)


def run(options: argparse.Namespace) -> int:
    """Run the program; does not return if it exits by itself or raises."""
    from selectors_ffi.installation import install

    try:
        program = load(options.program)
        begin_control(options)
        installation = install()
    except (ValueError, OSError) as error:
        options.fail(str(error))  # exits
    if options.missed:
        import atexit

        atexit.register(_print_missed, installation)
    program()
    return 0


def _print_missed(installation: Any) -> None:
    from selectors_ffi.debug.complaints import complain

    for place in installation.missed:
        complain(str(place))
