"""``chaos``: run a Python program under seed after seed of chaos, until one makes it fail."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import IO, Any

from . import quiet_without_a_reader
from .program import load

SEEDS = 20


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "chaos",
        help="run a Python program under seed after seed of chaos",
        description="Run a Python program again and again. Each time its selectors answer in another"
        " order and at other times, as a kernel may. Print the first seed that makes it fail.",
        usage="%(prog)s [--seeds N] [--first SEED] [--spurious] [--timeout SECONDS]"
        " PROGRAM [ARGUMENT ...]\n"
        "       %(prog)s --seed SEED [--spurious] PROGRAM [ARGUMENT ...]\n"
        "PROGRAM is what python takes: a file, a directory, a zip file, -m MODULE, or -c CODE",
    )
    parser.add_argument("--seeds", type=int, metavar="N", default=SEEDS, help="default: %(default)s")
    parser.add_argument("--first", type=int, metavar="SEED", default=1, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="run this seed alone, in this process")
    parser.add_argument(
        "--spurious", action="store_true", help="also report sockets as readable that are not"
    )
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="a longer run counts as failed"
    )
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    parser.add_examples(
        ("try twenty seeds on a script", "test_server.py"),
        ("try a hundred on a module", "--seeds 100 -m unittest tests.test_server"),
        ("run one seed again", "--seed 7 test_server.py"),
    )
    parser.takes_program = True
    parser.set_defaults(run=run, fail=parser.error)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Return 0 if the program ends well under every seed, 1 if it fails under one."""
    if options.seeds < 1:
        options.fail("--seeds must be at least 1")
    if options.program[:1] == ["-"]:
        options.fail("a program from standard input cannot be run again; give a file or -c CODE")
    try:
        program = load(options.program)
    except (ValueError, OSError) as error:
        options.fail(str(error))  # exits
    if options.seed is not None or options.without:
        _prepare(options)
        program()
        return 0
    try:
        output = tempfile.TemporaryFile()  # noqa: SIM115 # closed below
    except OSError as error:
        options.fail(f"no temporary file for the program's output: {error}")  # exits
    try:
        with output, quiet_without_a_reader():
            return _try_all(options, output)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _prepare(options: argparse.Namespace) -> None:
    """Have the program use our selectors, under the one seed that is asked for."""
    from selectors_ffi import install
    from selectors_ffi.testing.ambient import begin_chaos

    if not options.without:
        begin_chaos(f"{options.seed}{':spurious' * options.spurious}", "--seed")
    install()


def _try_all(options: argparse.Namespace, output: IO[bytes]) -> int:
    progress = _Progress(sys.stderr)
    seeds = range(options.first, options.first + options.seeds)
    for seed in itertools.chain([None], seeds):
        title = "without chaos" if seed is None else f"seed {seed}"
        progress.begin(title, 0 if seed is None else seed - options.first + 1, options.seeds)
        failure = _try(options, seed, output)
        progress.end(title, failure)
        if failure:
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
            print(f"{title}: {failure}")
            print(f"to repeat it: {_shown(options, seed)}")
            return 1
    print(f"{options.seeds} seeds passed, {seeds[0]} to {seeds[-1]}")
    return 0


def _try(options: argparse.Namespace, seed: int | None, output: IO[bytes]) -> str:
    """Run the program once; return why it has failed, or an empty text."""
    output.seek(0)
    output.truncate()
    from selectors_ffi.testing.ambient import CHAOS

    environment = {k: v for k, v in os.environ.items() if k != CHAOS}
    command = [sys.executable, *_flags(), *_command(options, seed)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
    ) as child:
        try:
            status = child.wait(options.timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            return f"not finished after {options.timeout:g} s"
        except BaseException:
            child.kill()
            raise
    if status < 0:
        return f"ended by signal {-status}"
    return f"exit status {status}" if status else ""


def _flags() -> list[str]:
    """Return the flags of this interpreter, as multiprocessing hands them on: -O, -W error."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _command(options: argparse.Namespace, seed: int | None) -> list[str]:
    how = ["--without"] if seed is None else ["--seed", str(seed)]
    if options.spurious:
        how.append("--spurious")
    return ["-m", "selectors_ffi", "chaos", *how, *options.program]


def _shown(options: argparse.Namespace, seed: int | None) -> str:
    """Return the line for a shell that runs the program again as it has failed."""
    from selectors_ffi.testing.ambient import CHAOS
    from selectors_ffi.testing.repeating import shown

    command = _command(options, seed)
    if seed is None:
        command = ["-m", "selectors_ffi", "run", *options.program]
    return shown(["python", *_flags(), *command], without=CHAOS)


class _Progress:
    """What goes on, on standard error: one line that changes on a terminal, else one for each run."""

    def __init__(self, file: IO[str]) -> None:
        self._say = partial(print, end="", file=file, flush=True)
        self._begun = self._all = time.monotonic()
        self._terminal = file.isatty()

    def begin(self, title: str, number: int, count: int) -> None:
        """Say which run begins."""
        self._begun = time.monotonic()
        if self._terminal:
            total = self._begun - self._all
            self._say(f"\r\033[K{title} ({number} of {count}, {total:.0f} s)")

    def end(self, title: str, failure: str) -> None:
        """Say how it ended."""
        took = time.monotonic() - self._begun
        if self._terminal:
            self._say("\r\033[K")
        else:
            self._say(f"{title}: {failure or 'passed'}, {took:.1f} s\n")
