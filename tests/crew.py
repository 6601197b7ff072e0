"""Threads for tests: their exceptions come out, and it can be told when one sleeps in the kernel."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable

import pytest

from . import tally

PATIENCE = 30


class Crew:
    """Threads whose exceptions are raised by ``join``."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def start(self, function: Callable[..., Any], *arguments: Any) -> threading.Thread:
        """Run a function in a thread of its own."""

        def run() -> None:
            try:
                function(*arguments)
            except BaseException as error:
                self.errors.append(error)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        return self.threads[-1]

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"stuck; errors so far: {self.errors}"
        if self.errors:
            raise self.errors[0]
        tally.count("threads run", len(self.threads))


def still(begun: float, seconds: float, enough: bool) -> bool:
    """Tell whether to go on: for some seconds, and on a busy machine until enough was done."""
    spent = time.monotonic() - begun
    return spent < seconds or (not enough and spent < PATIENCE)


def asleep(thread: threading.Thread, where: str) -> None:
    """Wait until a thread sleeps in a function of Linux's whose name contains ``where``, proc(5)."""
    deadline = time.monotonic() + PATIENCE
    found = "0"
    while time.monotonic() < deadline and where not in found:
        with open(f"/proc/self/task/{thread.native_id}/wchan") as file:
            found = file.read()
        if found == "0":
            os.sched_yield()
    if where not in found:
        pytest.skip("this kernel does not tell where a thread sleeps")
