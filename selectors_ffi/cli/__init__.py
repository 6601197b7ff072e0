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

COMMANDS = ("info", "demo", "trace", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, ``info`` if none is named; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, "info")
    parser = argparse.ArgumentParser(
        prog="python -m selectors_ffi",
        description="The selectors of this host, called through cffi in ABI mode.",
        epilog="Without a command: info.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").add_parser(subparsers)
    options = parser.parse_args(given)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BrokenPipeError:
        # The reader of a pipe went away, as in "... demo | head"; there is nobody to tell.
        sys.stderr.close()
        return 1
