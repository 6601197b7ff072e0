"""What a test needs of the system. Each mark skips it where that is not, and says what is lacking."""

from __future__ import annotations

import os
import select
import signal
import sys
import time

import pytest


def _mark(there: bool, lacking: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=lacking)


user_signals = _mark(hasattr(signal, "SIGUSR1"), "Windows has no SIGUSR1, and no signal ends a wait")
blocking_mode = _mark(os.name == "posix", "Windows does not tell whether a socket blocks")
waits_for_files = _mark(os.name == "posix", "Windows waits for sockets alone: no file can be registered")
procfs = _mark(os.name == "posix" and os.path.isdir("/proc/self/fd"), "Linux's /proc tells it")
bitmaps = _mark(os.name == "posix", "the bare call is of a bitmap of descriptors, which Windows has not")
dup2_of_sockets = _mark(os.name == "posix", "Windows has no dup2() of sockets")
identity_of_pipes = _mark(os.name == "posix", "Windows gives a pipe no st_dev and st_ino")
simulated_kernels = _mark(os.name == "posix", "the simulated kernels work on Unix descriptors")
another_clock = _mark(hasattr(time, "clock_gettime"), "Windows has no clock beside time.monotonic()")
refusals_at_once = _mark(os.name == "posix", "Windows hears of a number in the wait alone")
resets = _mark(os.name == "posix", "wine closes in order whatever SO_LINGER says")
poll = _mark(hasattr(select, "poll"), "Windows has no poll()")
selector_loop = _mark(os.name == "posix", "asyncio's default loop on Windows does not use selectors")
interpreter_lock = _mark(
    getattr(sys, "_is_gil_enabled", lambda: True)(),
    "CPython 3.13 without its lock keeps classes for ever, and what a program holds at its end",
)
