"""The command line: one module per subcommand, each with ``add_parser(subparsers)``.

A subcommand's module imports what it runs inside the function that runs it, so ``--help``
and the other subcommands do not wait for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EINVAL
from importlib import import_module
from typing import Callable

from .options import Parser

ANYWHERE = ("-h", "--help", "-V", "--version")
COMMANDS = ("info", "demo", "trace", "attach", "run", "chaos")
WITHOUT_A_SELECTOR = ("info", "attach")


def version() -> str:
    """Return the versions that a bug report needs."""
    import platform

    from _cffi_backend import __version__ as cffi

    from selectors_ffi import __version__ as ours

    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"selectors_ffi {ours}, cffi {cffi}, {python} on {platform.platform()}"


def _any_works() -> bool:
    import selectors_ffi

    return hasattr(selectors_ffi, "DefaultSelector")


def _reader_has_gone(error: OSError) -> bool:
    """Tell whether a pipe has no reader; C on Windows, not Winsock, calls that an invalid argument."""
    of_c = os.name == "nt" and getattr(error, "winerror", None) is None
    return isinstance(error, BrokenPipeError) or (of_c and error.errno == EINVAL)


@contextmanager
def quiet_without_a_reader() -> Iterator[None]:
    """Write all output; exit 1 without a word if the reader of a pipe has gone, as by "... | head"."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # what is left of a short output
    except OSError as error:
        if not _reader_has_gone(error):
            raise
        sys.stderr.close()
        # Else the interpreter would try once more to write what is left, and exit with 120.
        with suppress(OSError):
            sys.stdout.close()
        sys.exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, ``info`` if none is named; return its exit status."""
    with quiet_without_a_reader():
        chosen, options = _parse(list(sys.argv[1:] if arguments is None else arguments))
    run: Callable[[argparse.Namespace], int] = options.run
    if os.environ.get("SELECTORS_FFI_SINK"):
        from selectors_ffi.debug.ambience import ambient

        try:
            _ = ambient().sink  # what cannot be opened is told before anything runs
        except ValueError as error:
            chosen.error(str(error))
    if chosen.takes_program:
        return run(options)  # the output is the program's own
    with quiet_without_a_reader():
        return run(options)


def _parse(given: list[str]) -> tuple[Parser, argparse.Namespace]:
    """Return the subcommand and its options; help, versions and errors end the process."""
    named = bool(given) and (not given[0].startswith("-") or given[0] in ANYWHERE)
    if not named:
        given.insert(0, "info")
    parser = Parser(
        prog="python -m selectors_ffi",
        description="See what the kernel tells an event loop, and decide what it says.",
    )
    parser.add_argument("-V", "--version", action="store_true", help="show versions, and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    parser.add_examples(
        ("does it work here? (info is what runs without a command)", ""),
        ("see the system calls of a program's selectors", "trace program.py"),
        ("the options and more examples of a command", "trace --help"),
    )
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").add_parser(subparsers)
    command, *rest = given
    if command in ("-V", "--version"):
        print(version())
        parser.exit()
    if command not in subparsers.choices:
        if command not in ("-h", "--help"):
            program = f"; to run it: {parser.prog} run {command}" if os.path.exists(command) else ""
            parser.error(f"unknown command {command!r}; known are {', '.join(COMMANDS)}{program}")
        parser.print_help()
        parser.exit()
    # Not through the parser above, which would say its own usage when an option is unknown.
    chosen: Parser = subparsers.choices[command]
    if not named:
        chosen.prog = parser.prog  # whose --help lists the commands
    options = chosen.parse_args(rest)
    if command not in WITHOUT_A_SELECTOR and not _any_works():
        chosen.exit(1, f"{chosen.prog}: no selector works on this system; {parser.prog} says why\n")
    return chosen, options
