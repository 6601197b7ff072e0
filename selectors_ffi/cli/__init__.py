"""The command line: one module per subcommand, each with ``add_parser(subparsers)``.

A subcommand's module imports what it runs inside the function that runs it, so ``--help``
and the other subcommands do not wait for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Callable

from .program import Parser

COMMANDS = ("info", "demo", "trace", "run", "chaos", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, ``info`` if none is named; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, "info")
    parser = Parser(
        prog="python -m selectors_ffi",
        description="The selectors of this host, called through cffi in ABI mode.",
        epilog="Without a command: info.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").add_parser(subparsers)
    command, *rest = given
    if command not in subparsers.choices:
        if command not in ("-h", "--help"):
            parser.error(f"unknown command {command!r}; known are {', '.join(COMMANDS)}")
        parser.print_help()
        return 0
    # Not through the parser above, which would say its own usage when an option is unknown.
    chosen: Parser = subparsers.choices[command]
    options = chosen.parse_args(rest)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BrokenPipeError:
        if chosen.takes_program:
            raise  # the program's own
        # The reader of a pipe went away, as in "... demo | head"; there is nobody to tell.
        sys.stderr.close()
        return 1
