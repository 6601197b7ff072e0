"""Cost per call against how many are registered (1 ready) and how many are ready (all).

With so many registered, the descriptors are duplicates of two pipes' ends, one of them readable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks import bench
from benchmarks.rows import Row

REGISTERED = (1, 4, 16, 64, 250, 1000, 4000, 16000)
READY = (1, 4, 16, 64, 250, 1000, 4000)
SELECT_MAX = 1000  # select(2) of the standard library takes numbers below FD_SETSIZE


def rows() -> list[Row]:
    """Return a row for each backend and number."""
    found = []
    for backend in ("epoll", "poll", "select"):
        for what, numbers in (("registered", REGISTERED), ("ready", READY)):
            for n in numbers:
                row = Row(f"{backend}, {n} {what}", backend, "select", n, 1)
                found.append(row if what == "registered" else replace(row, ready=n))
    return [
        row
        for row in found
        if bench.available(row) and (row.backend != "select" or row.registered < SELECT_MAX)
    ]


def measure(turns: int) -> list[bench.Result]:
    """Measure all rows."""
    return bench.measure_rows(rows(), max(3, turns // 2), watch=duplicates)


@contextmanager
def duplicates(row: Row) -> Iterator[tuple[list[int], list[int]]]:
    """Open what a row watches, as ``descriptors`` does, with one number each."""
    full, idle = os.pipe(), os.pipe()
    os.write(full[1], b"x")
    opened = [*full, *idle]
    try:
        for i in range(row.registered):
            opened.append(os.dup(full[0] if i < row.ready else idle[0]))
        yield opened[4:], []
    finally:
        for fd in opened:
            os.close(fd)
