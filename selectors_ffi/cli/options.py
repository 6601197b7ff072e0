"""The options of the commands: their parser, and what more than one command declares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = [
    "Parser", "add_control", "add_filters", "add_looks", "begin_control", "check_times", "count",
]  # fmt: skip


class _Help(argparse.HelpFormatter):
    """The usual help, but for the lines of examples, which stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A subcommand's parser. Its command line may end in a program and the program's arguments.

    Our own options end where the program begins: at the first word that is no option, at
    ``-m``, ``-c``, ``-`` or ``--``. The words of the program are left in ``options.program``.
    """

    takes_program = False

    def __init__(self, **options: Any) -> None:
        # An abbreviated option would hide where the program begins.
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)

    def add_examples(self, *examples: tuple[str, str]) -> None:
        """Show examples at the end of ``--help``: pairs of what one does and its command line."""
        lines = [f"  # {purpose}\n  {self.prog} {words}".rstrip() for purpose, words in examples]
        self.epilog: str | None = "\n".join(["examples:", *lines])

    def parse_known_args(  # type: ignore[override] # the overloads of argparse
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Set the program's words aside, then parse as ``ArgumentParser`` does."""
        if not self.takes_program:
            return super().parse_known_args(args, namespace)
        words = list(sys.argv[1:] if args is None else args)
        ours, program = self._split(words)
        options, extra = super().parse_known_args(ours, namespace)
        options.program = program
        return options, extra

    def _split(self, words: list[str]) -> tuple[list[str], list[str]]:
        with_value = {
            name for action in self._actions if action.nargs is None for name in action.option_strings
        }
        position = 0
        while position < len(words):
            word = words[position]
            if word == "--":
                return words[:position], words[position + 1 :]
            if word == "-" or not word.startswith("-") or word.startswith(("-m", "-c")):
                break
            position += 2 if _takes_next(word, with_value) else 1
        return words[:position], words[position:]

    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong; exit status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _takes_next(word: str, with_value: set[str]) -> bool:
    """Tell whether the next word is the value of an option: ``-o FILE``, also at the end of ``-fo``."""
    if word.startswith("--"):
        return word in with_value
    for place, letter in enumerate(word[1:], 2):
        if f"-{letter}" in with_value:
            return place == len(word)
    return False


def count(text: str) -> int:
    """Convert an argument that must be a positive number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def duration(text: str) -> int:
    """Convert an argument such as 10ms to nanoseconds."""
    from selectors_ffi.debug.filters import nanoseconds_of

    try:
        return nanoseconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
        "--slower", type=duration, default=0, metavar="TIME", help="only what took that long: 10ms, 2s"
    )
    group.add_argument("--limit", type=count, default=0, metavar="N", help="at most N records")


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


def check_times(options: argparse.Namespace) -> None:
    """Put the options of the time into one, ``stamp``; refuse what does not go together."""
    if options.time and options.relative:
        options.fail("-t and -r are two ways to show the time; choose one")
    if options.time > 3:
        options.fail("write -t, -tt or -ttt")
    options.stamp = "r" if options.relative else "t" * options.time


def add_control(group: Any) -> None:
    """Declare the options that decide what the kernel says, see ``selectors_ffi.testing``."""
    group.add_argument(
        "--inject",
        metavar="TEXT",
        action="append",
        help="make calls fail or wait, as strace does: epoll_ctl:error=ENOSPC:when=3; may be repeated",
    )
    group.add_argument(
        "--chaos",
        metavar="SEED",
        help="let waits answer in other orders and at other times; SEED:spurious for more",
    )


def begin_control(options: argparse.Namespace) -> None:
    """Do what the options ask for, for the rest of the process.

    Raises:
        ValueError: one of them is wrong; the message says where and lists what is known.
    """
    if options.chaos is None and options.inject is None:
        return
    from selectors_ffi.testing.ambient import begin_chaos, begin_injecting

    if options.chaos is not None:
        begin_chaos(options.chaos, "--chaos")
    if options.inject is not None:
        begin_injecting(";".join(options.inject), "--inject")
