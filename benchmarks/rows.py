"""What the rows measure: the kinds of work, and how each is done."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from types import FunctionType
from typing import Any

from .bare import BareCalls

READ, BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
Timed = Callable[[int], float]  # number of calls -> seconds they took


@dataclass(frozen=True)
class Row:
    """One kind of work: ``registered`` descriptors of which ``ready`` are readable."""

    name: str
    backend: str  # "epoll"
    work: str  # "select", "timed", see ``work``
    registered: int = 1
    ready: int = 0
    events: int = READ
    highest: int = 0  # the number of the first descriptor, if it matters

    @property
    def cls(self) -> str:
        """Name of the selector class."""
        return f"{self.backend.capitalize()}Selector"


# Opens what a row watches; yields that, and the ends to write to.
Watch = Callable[[Row], AbstractContextManager[tuple[list[Any], list[Any]]]]

ROWS = (
    Row("epoll, 0 ready of 1", "epoll", "select", 1, 0),
    Row("epoll, 1 ready of 1", "epoll", "select", 1, 1),
    Row("epoll, 1 ready of 1, timeout 1 s", "epoll", "timed", 1, 1),
    Row("epoll, 1 ready of 1000", "epoll", "select", 1000, 1),
    Row("epoll, 1 ready of 4000", "epoll", "select", 4000, 1),
    Row("epoll, 10 ready of 10", "epoll", "select", 10, 10),
    Row("epoll, 100 ready of 100", "epoll", "select", 100, 100),
    Row("epoll, 1000 ready of 1000", "epoll", "select", 1000, 1000),
    Row("epoll, 100 ready, READ|WRITE", "epoll", "select", 100, 100, BOTH),
    Row("epoll, another 100 of 200 ready each time", "epoll", "changing", 200, 100),
    Row("poll, 1 ready of 100", "poll", "select", 100, 1),
    Row("poll, 1 ready of 1000", "poll", "select", 1000, 1),
    Row("poll, 100 ready of 100", "poll", "select", 100, 100),
    Row("select, 1 ready of 500", "select", "select", 500, 1),
    Row("epoll, register + unregister", "epoll", "register"),
    Row("epoll, modify READ <-> READ|WRITE", "epoll", "modify"),
    Row("epoll, register + select + unregister", "epoll", "coming", 1, 1),
    Row("poll, register + unregister", "poll", "register"),
    Row("poll, modify READ <-> READ|WRITE", "poll", "modify"),
    Row("poll, register + select + unregister", "poll", "coming", 1, 1),
    Row("select, register + select + unregister", "select", "coming", 1, 1),
    Row("select, the same of number 1000", "select", "coming", 2, 2, highest=1000),
    Row("select, modify + select of number 1000", "select", "modify", 2, 2, highest=1000),
    Row("select, 0 ready of 400 beside a waiting thread", "select", "beside", 400),
    Row("select, the same in a child that it has forked", "select", "forked", 400),
    Row("epoll, make + close", "epoll", "make"),
    Row("poll, make + close", "poll", "make"),
    Row("select, make + close", "select", "make"),
    Row("epoll, one use of a new selector", "epoll", "once", 2, 1),
    Row("poll, one use of a new selector", "poll", "once", 2, 1),
    Row("select, one use of a new selector", "select", "once", 2, 1),
)


def repeated(function: Callable[[], object]) -> Timed:
    """Return what calls ``function`` n times."""

    def timed(n: int) -> float:
        start = perf_counter()
        for _ in range(n):
            function()
        return perf_counter() - start

    # Code of its own: PyPy compiles a loop once for each code object, and would compile this one
    # for whoever comes first.
    code = timed.__code__.replace(co_name=f"timed_{id(function)}")
    return FunctionType(code, timed.__globals__, closure=timed.__closure__)


@contextmanager
def descriptors(row: Row) -> Iterator[tuple[list[Any], list[Any]]]:
    """Open what a row watches; yield that, and the ends to write to."""
    opened: list[Any] = []
    try:
        if row.events == BOTH or row.work == "modify" or os.name == "nt":
            opened = [socket.socketpair() for _ in range(row.registered)]
            watched: list[Any] = [ours for ours, _ in opened]
            peers: list[Any] = [theirs for _, theirs in opened]
            for peer in peers[: row.ready]:
                peer.send(b"x")
        else:
            for _ in range(row.registered):
                opened.append(os.pipe())
            watched = [ours for ours, _ in opened]
            peers = [theirs for _, theirs in opened]
            for peer in peers[: row.ready]:
                os.write(peer, b"x")
        if row.highest:
            number = watched[0] if isinstance(watched[0], int) else watched[0].fileno()
            watched[0] = os.dup2(number, row.highest)
            opened.append((row.highest,))
        yield watched, peers
    finally:
        for ends in opened:
            for end in ends:
                end.close() if isinstance(end, socket.socket) else os.close(end)


def work(row: Row, selector: Any, watched: list[Any], peers: list[Any]) -> Timed:
    """Return a selector's work of one row."""
    if row.work == "register":
        fd = watched[0]

        def register() -> None:
            selector.register(fd, READ)
            selector.unregister(fd)

        return repeated(register)
    if row.work in ("make", "once"):
        return repeated(use_once(type(selector), watched if row.work == "once" else []))
    if row.work == "coming":
        fd = watched[0]
        for other in watched[1:]:
            selector.register(other, READ)

        def come_and_go() -> None:
            selector.register(fd, READ)
            selector.select(0)
            selector.unregister(fd)

        return repeated(come_and_go)
    for fd in watched:
        selector.register(fd, row.events)
    if row.work == "modify":
        end = watched[0]

        def modify() -> None:
            selector.modify(end, BOTH)
            selector.modify(end, READ)

        def modify_and_select() -> None:
            for events in (BOTH, READ):
                selector.modify(end, events)
                selector.select(0)

        return repeated(modify_and_select if row.highest else modify)
    select = selector.select
    if len(select(0)) != (len(watched) if row.events == BOTH else row.ready):
        raise RuntimeError(f"{type(selector)} does not report what is ready")
    if row.work == "changing":
        return changing(lambda: select(0), watched, peers)
    if row.work in ("beside", "forked"):
        return beside(select, watched[0], peers[0], forked=row.work == "forked")
    timeout = 1.0 if row.work == "timed" else 0
    return repeated(lambda: select(timeout))


def use_once(cls: type[Any], watched: list[Any]) -> Callable[[], None]:
    """Return what makes a selector and closes it, and waits in between if there is what to watch.

    As ``subprocess.communicate`` and ``multiprocessing.connection.wait`` do.
    """

    def make() -> None:
        cls().close()

    def once() -> None:
        selector = cls()
        for fd in watched:
            selector.register(fd, READ)
        selector.select(0.5)
        for fd in watched:
            selector.unregister(fd)
        selector.close()

    return once if watched else make


def has_bare(row: Row) -> bool:
    """Tell whether there are system calls to measure a row's work by."""
    works = ("changing", "register", "modify")
    return row.work == "select" or (row.backend == "epoll" and row.work in works)


def work_bare(row: Row, bare: BareCalls, watched: list[Any], peers: list[Any]) -> Timed:
    """Return the system calls alone of one row."""
    fds = [fd if isinstance(fd, int) else fd.fileno() for fd in watched]
    if row.work == "register":
        return repeated(bare.register(fds[0]))
    if row.work == "modify":
        return repeated(bare.modify(fds[0]))
    select = bare.select(fds, row.events == BOTH)
    return changing(select, fds, peers) if row.work == "changing" else repeated(select)


def changing(select: Callable[[], object], watched: list[int], peers: list[int]) -> Timed:
    """Return what makes the other half ready before each call, and times the calls alone."""
    half = len(watched) // 2

    def timed(n: int) -> float:
        total = 0.0
        for _ in range(n):
            for old, new in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
                for i in range(len(watched))[old]:
                    os.read(watched[i], 1)
                for i in range(len(watched))[new]:
                    os.write(peers[i], b"x")
                start = perf_counter()
                select()
                total += perf_counter() - start
        return total / 2

    return timed


def beside(select: Callable[..., object], watched: int, peer: int, *, forked: bool) -> Timed:
    """Return what times calls while another thread waits in ``select``, if asked in a forked child."""
    calls = repeated(lambda: select(0))

    def timed(n: int) -> float:
        begun = threading.Event()

        def wait() -> None:
            begun.set()
            select()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        begun.wait()
        try:
            return in_child(calls, n) if forked else calls(n)
        finally:
            os.write(peer, b"x")
            thread.join()
            os.read(watched, 1)

    return timed


def in_child(timed: Timed, n: int) -> float:
    """Return what a forked child measures."""
    answer, question = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: this process has threads
        pid = os.fork()
    if not pid:
        try:
            timed(n)  # the pages that both write to are copied now
            os.write(question, repr(timed(n)).encode())
        finally:
            os._exit(0)
    os.close(question)
    with open(answer, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return float(text)
