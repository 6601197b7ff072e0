"""What it costs to import the package, and to have a descriptor registered."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from statistics import median
from typing import Any

import selectors_ffi

REGISTERED = 1000
IMPORT = """
import selectors, socket, sys, time
start = time.perf_counter()
import selectors_ffi
print(time.perf_counter() - start, *sorted(set(sys.modules) & {"pycparser", "cffi"}))
"""


def measure(turns: int) -> dict[str, Any]:
    """Return milliseconds of the import, what it loaded, and bytes per registered descriptor."""
    runs = []
    for _ in range(max(3, turns // 5)):
        command = [sys.executable, "-c", IMPORT]
        runs.append(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    figures: dict[str, Any] = {
        "import_ms": 1000 * median(float(run.split()[0]) for run in runs),
        "import_loaded": runs[-1].split()[1:],
    }
    try:
        import tracemalloc  # not in PyPy
    except ImportError:
        return figures
    figures["bytes_per_descriptor"] = {
        name: {
            module.__name__: memory(tracemalloc, getattr(module, name))
            for module in (selectors, selectors_ffi)
        }
        for name in ("EpollSelector", "PollSelector", "SelectSelector")
        if hasattr(selectors, name)
    }
    return figures


def memory(tracemalloc: Any, cls: Any) -> dict[str, int]:
    """Return bytes per descriptor: registered and idle, and after all have been ready once."""
    read, write = os.pipe()
    watched = [os.dup(read) for _ in range(REGISTERED if cls.__name__[0] != "S" else 500)]
    with cls() as selector:
        selector.register(read, selectors.EVENT_READ)
        selector.select(0)
        tracemalloc.start()
        start, _ = tracemalloc.get_traced_memory()
        for fd in watched:
            selector.register(fd, selectors.EVENT_READ)
        selector.select(0)
        idle, _ = tracemalloc.get_traced_memory()
        os.write(write, b"x")
        selector.select(0)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    for fd in (read, write, *watched):
        os.close(fd)
    return {
        "idle": round((idle - start) / len(watched)),
        "after_use": round((used - start) / len(watched)),
    }
