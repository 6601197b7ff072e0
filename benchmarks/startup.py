"""What it costs to import the package, and to have a descriptor registered."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any

import selectors_ffi

REGISTERED = 1000
IMPORT = """
import selectors, socket, sys, time
start = time.process_time()
import selectors_ffi
print(time.process_time() - start, *sorted(set(sys.modules) & {"pycparser", "cffi"}))
"""


def measure(turns: int) -> dict[str, Any]:
    """Return milliseconds of the import, what it loaded, and bytes per registered descriptor.

    Time of the processor, with the bytecode written: the first run, which writes it, is left out.
    """
    runs = []
    command = [sys.executable, "-c", IMPORT]
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": directory}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(1 + max(3, turns // 5)):
            done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
            runs.append(done.stdout)
    del runs[0]
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
