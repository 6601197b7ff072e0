"""Options of ``trace`` and ``run`` that decide what the kernel says, see ``selectors_ffi.testing``."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare --inject and --chaos."""
    parser.add_argument(
        "--inject",
        metavar="TEXT",
        action="append",
        help="make calls fail or wait, as strace does: epoll_ctl:error=ENOSPC:when=3; may be repeated",
    )
    parser.add_argument(
        "--chaos",
        metavar="SEED",
        help="let waits answer in other orders and at other times; SEED:spurious for more",
    )


def begin(options: argparse.Namespace) -> None:
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
