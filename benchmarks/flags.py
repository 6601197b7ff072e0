"""``python -m benchmarks.flags``: what each debug flag costs, as ratios to no flag.

Processor time of the process per round, its threads included. Each scene runs once without a flag and
once with each; they take turns, and a ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from time import process_time
from typing import Any

import selectors_ffi
from benchmarks.echo import Echo, Loop
from benchmarks.others import raise_descriptor_limit
from selectors_ffi import debugging
from selectors_ffi.debug import RingSink

IDLE = 1000

Round = Callable[[], object]
Scene = Callable[[], "Any"]


def keep_nothing(record: object = None) -> None:
    """Take a record, or a call of a loop."""


def columns(path: str) -> dict[str, tuple[str, Any]]:
    """Return what is compared: title -> flags and sink."""
    return {
        "syscalls": ("syscalls", keep_nothing),
        "events": ("events", keep_nothing),
        "stats": ("stats", keep_nothing),
        "checks": ("checks", keep_nothing),
        "leaks": ("leaks", keep_nothing),
        "ring": ("syscalls,events", RingSink()),
        "all, text": ("syscalls,events,stats,checks", path),
    }


@contextmanager
def echo(connections: int, idle: int = 0) -> Iterator[Round]:
    """Yield a round of asyncio's echo, with idle descriptors in the same loop."""
    loop = asyncio.SelectorEventLoop(selectors_ffi.DefaultSelector())
    scene = Loop(loop, Echo(connections, 64))
    with idle_descriptors(idle) as descriptors:
        for fd in descriptors:
            loop.add_reader(fd, keep_nothing)
        yield scene.round
        for fd in descriptors:
            loop.remove_reader(fd)
    scene.close()


@contextmanager
def turn(idle: int) -> Iterator[Round]:
    """Yield the turn of a loop without asyncio: one of many descriptors is ready, and is read."""
    near, far = socket.socketpair()
    near.setblocking(False)
    selector = selectors_ffi.DefaultSelector()

    def one() -> None:
        far.send(b"x")
        for key, _ in selector.select():
            key.fileobj.recv(1)  # type: ignore[union-attr] # it is the socket

    def many() -> None:
        for _ in range(100):
            one()

    with near, far, selector, idle_descriptors(idle) as descriptors:
        selector.register(near, selectors_ffi.EVENT_READ)
        for fd in descriptors:
            selector.register(fd, selectors_ffi.EVENT_READ)
        yield many


@contextmanager
def idle_descriptors(count: int) -> Iterator[list[int]]:
    """Yield descriptors that are never ready."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    made = [os.dup(read) for _ in range(count)]
    yield made
    for fd in (read, write, *made):
        os.close(fd)


SCENES: dict[str, Scene] = {
    "asyncio echo, 1 connection": lambda: echo(1),
    "asyncio echo, 20 connections": lambda: echo(20),
    "asyncio echo, 1000 connections": lambda: echo(1000),
    f"asyncio echo, 20 connections, {IDLE} idle": lambda: echo(20, IDLE),
    f"send, select, recv; {IDLE} idle": lambda: turn(IDLE),
}


def measure(scene: Scene, chosen: dict[str, tuple[str, Any]], turns: int) -> dict[str, list[float]]:
    """Return the processor time of each turn, by column; "off" is without flags."""
    with ExitStack() as stack:
        rounds = {"off": stack.enter_context(scene())}
        for title, (flags, sink) in chosen.items():
            with debugging(flags, sink):
                rounds[title] = stack.enter_context(scene())
        count = calls_of(rounds["off"])
        for work in rounds.values():
            timed(work, count)
        times: dict[str, list[float]] = {title: [] for title in rounds}
        titles = list(rounds)
        for number in range(turns):
            for title in titles[number % len(titles) :] + titles[: number % len(titles)]:
                times[title].append(timed(rounds[title], count) / count)
    return times


def timed(work: Round, count: int) -> float:
    """Return the processor time of ``count`` rounds."""
    begin = process_time()
    for _ in range(count):
        work()
    return process_time() - begin


def calls_of(work: Round) -> int:
    """Return how many rounds take some ten milliseconds."""
    count = 1
    while timed(work, count) < 0.01:
        count *= 2
    return count


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Return the ratios as a table in Markdown."""
    titles = [title for title in next(iter(rows.values())) if title != "off"]
    lines = [
        f"{platform.python_implementation()} {platform.python_version()}",
        "| | off, µs a round | " + " | ".join(titles) + " |",
        "|---|---|" + "---|" * len(titles),
    ]
    for name, times in rows.items():
        off = times["off"]
        ratios = [median(mine / bare for mine, bare in zip(times[title], off)) for title in titles]
        cells = [f"{1e6 * median(off):.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flags", description=__doc__)
    parser.add_argument("--turns", type=int, default=30, help="how often each takes a turn")
    parser.add_argument("--only", metavar="TEXT", default="", help="the scenes that have TEXT in them")
    parser.add_argument("--flag", metavar="TEXT", default="", help="the columns that have TEXT in them")
    options = parser.parse_args()
    raise_descriptor_limit()
    rows = {}
    with tempfile.TemporaryDirectory() as directory:
        chosen = columns(os.path.join(directory, "trace.log"))
        chosen = {title: column for title, column in chosen.items() if options.flag in title}
        for name, scene in SCENES.items():
            if options.only in name:
                rows[name] = measure(scene, chosen, options.turns)
    if not rows or not chosen:
        parser.error("no such scene or column")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
