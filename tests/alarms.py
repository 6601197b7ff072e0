"""SIGALRM, sent by an interval timer."""

from __future__ import annotations

import contextlib
import gc
import signal

from . import tally

__all__ = ["alarm"]


@contextlib.contextmanager
def alarm(handler, first=0.02, interval=0.0):
    """Run ``handler`` for SIGALRM after ``first`` seconds, then every ``interval``; 0: once.

    A signal that comes after the last look for signals, and before the system call sleeps, is only
    noted. So one that is to come once is sent until its handler runs; not in a finaliser of the cycle
    collector's, where its exception would be lost. The timer is pytest-timeout's, too, and is given
    back to it.

    Yields:
        A list with an entry for each run.
    """
    runs = []

    def counting(*arguments):
        if not interval:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if runs:
                return None
        runs.append(None)
        return handler(*arguments)

    collects = gc.isenabled()
    if not interval:
        gc.disable()
    begun = signal.getitimer(signal.ITIMER_REAL)
    previous = signal.signal(signal.SIGALRM, counting)
    signal.setitimer(signal.ITIMER_REAL, first, interval or first)
    try:
        yield runs
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *begun)
        if collects:
            gc.enable()
        tally.count("signals handled", len(runs))
