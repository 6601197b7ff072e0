"""Lints: each fires where it should, once, with its id, and is silent where it should be."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import socket
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi.debug import (
    LINTS,
    BlockingDescriptor,
    BusyLoop,
    ClosedWhileRegistered,
    DescriptorReused,
    NeverSleeps,
    OutOfDescriptors,
    RegularFile,
    StaleRegistration,
    UsedAfterFork,
    WriteInterestLeftOn,
)
from selectors_ffi.debug.evidence import evidence_of
from selectors_ffi.debug.leaks import LEAK

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="Unix descriptors")


def counts_tcp_bytes():
    """Tell whether this kernel counts the bytes of a connection; qemu's user mode does not say."""
    with socket.socket() as unconnected:
        info = getattr(socket, "TCP_INFO", None)
        return bool(info) and len(unconnected.getsockopt(socket.IPPROTO_TCP, info, 136)) == 136


linux = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and counts_tcp_bytes()),
    reason="needs the kernel's byte counters, TCP_INFO of Linux",
)
epoll = pytest.mark.skipif(not hasattr(selectors_ffi, "EpollSelector"), reason="needs epoll")


def silence(record):
    """Take a record and do nothing with it."""


def connection():
    """Return the two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = socket.create_connection(server.getsockname())
        return first, server.accept()[0]


@contextlib.contextmanager
def checked(cls):
    """Yield a selector with CHECKS on."""
    with debugging("checks", silence):
        selector = cls()
    with selector:
        yield selector


@contextlib.contextmanager
def told(lint):
    """Expect exactly one warning, of class ``lint``; yield the list that it will be in."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    assert [warning.category for warning in caught] == [lint], [str(one.message) for one in caught]
    assert str(caught[0].message).startswith(f"{lint.id}: ")
    assert caught[0].filename == __file__, "the user's line is named, not ours"


@unix
def test_closed_while_registered(backend, pairs):
    """SEL001: a registered descriptor is closed when a wait begins; told once."""
    with checked(backend) as selector:
        read, write = os.pipe()
        selector.register(read, EVENT_READ)
        selector.register(pairs[0][0], EVENT_WRITE)
        os.close(read)
        with told(ClosedWhileRegistered) as caught:
            for _ in range(3):
                with contextlib.suppress(OSError):  # select(2) says EBADF
                    selector.select(0)
        os.close(write)
    text = str(caught[0].message)
    assert f"fd {read} (int, registered for EVENT_READ at {__file__}:" in text
    assert "is closed. Call unregister() before close(). (docs/lints.md#sel001-" in text


@unix
def test_descriptor_reused(pairs):
    """SEL002: the number of a registered descriptor names another file."""
    with checked(backends.PollSelector) as selector:
        read, write = os.pipe()
        selector.register(read, EVENT_READ)
        os.dup2(pairs[0][0].fileno(), read)
        with told(DescriptorReused) as caught:
            selector.select(0)
            selector.select(0)
        os.close(read)
        os.close(write)
        selector.unregister(read)
    assert "is another file now, a socket" in str(caught[0].message)


@epoll
def test_stale_registration():
    """SEL003: epoll goes on reporting a closed file of which a duplicate is open."""
    with checked(backends.EpollSelector) as selector:
        read, write = os.pipe()
        duplicate = os.dup(read)
        selector.register(read, EVENT_READ)
        os.close(read)
        selector.unregister(read)
        os.write(write, b"x")
        with told(StaleRegistration) as caught:
            assert selector.select(0) == []
            assert selector.select(0) == []
        os.close(write)
        os.close(duplicate)
    expected = f"EPOLLIN was reported for fd {read}, which is not registered"
    assert expected in str(caught[0].message)


@unix
def test_busy_loop_of_a_peer_that_hung_up(backend):
    """SEL004: end of file is reported again and again, and never unregistered."""
    first, second = socket.socketpair()
    with first, checked(backend) as selector:
        selector.register(first, EVENT_READ)
        second.close()
        with told(BusyLoop) as caught:
            for _ in range(250):
                assert selector.select(1)
    assert "end of file or hung up, with nothing left to read" in str(caught[0].message)
    assert "was reported" in str(caught[0].message)


@unix
def test_a_lint_points_at_the_call_of_run():
    """selectors_ffi.run() is named by the line that calls it, as asyncio.run() is."""

    async def main():
        first, second = socket.socketpair()
        first.setblocking(False)
        second.close()
        looks, seen = 0, asyncio.Event()

        def look():
            nonlocal looks
            looks += 1
            if looks == 250:
                asyncio.get_running_loop().remove_reader(first)
                first.close()
                seen.set()

        asyncio.get_running_loop().add_reader(first, look)
        await seen.wait()

    with debugging("checks", silence), told(BusyLoop) as caught:
        selectors_ffi.run(main())
    assert caught[0].filename == __file__


@linux
def test_busy_loop_of_unread_data(backend):
    """SEL004: data is reported and never read."""
    first, second = connection()
    with first, second, checked(backend) as selector:
        selector.register(first, EVENT_READ)
        second.send(b"x" * 10)
        with told(BusyLoop) as caught:
            for _ in range(1200):
                assert selector.select(1)
    assert "none of the bytes that wait (10) was read" in str(caught[0].message)


@linux
@pytest.mark.parametrize("kind", ["pipe", "unix socket"])
def test_busy_loop_of_unread_data_without_counters(backend, kind):
    """SEL004: no counter tells that a pipe is not read, but that nothing arrives does."""
    first, second = socket.socketpair()
    read, write = os.pipe()
    with first, second, checked(backend) as selector:
        selector.register(first if kind == "unix socket" else read, EVENT_READ)
        second.send(b"12345")
        os.write(write, b"12345")
        with told(BusyLoop) as caught:
            for _ in range(1500):
                assert selector.select(1)
    os.close(read)
    os.close(write)
    assert "none of the bytes that wait (5) was read" in str(caught[0].message)


@linux
def test_busy_loop_of_connections_that_are_not_accepted(backend):
    """SEL004: a listening socket is reported, and nothing is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server, checked(backend) as selector:
        server.setblocking(False)
        selector.register(server, EVENT_READ)
        with socket.create_connection(server.getsockname()), told(BusyLoop) as caught:
            for _ in range(1500):
                assert selector.select(1)
    assert "none of the connections that wait (1) was accepted" in str(caught[0].message)


@linux
@pytest.mark.parametrize("accepts", [False, True])
def test_busy_loop_of_connections_to_a_unix_socket(backend, accepts):
    """SEL004: so is a Unix socket; if one is accepted now and then, nothing is told."""
    with socket.socket(socket.AF_UNIX) as server, checked(backend) as selector:
        server.bind(f"\0{__name__} {os.getpid()}")
        server.listen()
        server.setblocking(False)
        if evidence_of(server.fileno(), server).unread is None:
            pytest.skip("this kernel counts no connections to Unix sockets")
        selector.register(server, EVENT_READ)
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(server.getsockname())
            caught = stack.enter_context(contextlib.nullcontext() if accepts else told(BusyLoop))
            for turn in range(1500):
                assert selector.select(1)
                if accepts and not turn % 40:
                    server.accept()[0].close()
    if caught:
        assert "none of the connections that wait (40) was accepted" in str(caught[0].message)


@unix
def test_out_of_descriptors(backend):
    """SEL012: accept() fails with EMFILE, and the listening socket is reported again."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as server, checked(backend) as selector:
        server.setblocking(False)
        selector.register(server, EVENT_READ)
        with socket.create_connection(server.getsockname()) as client:
            spare = os.dup(client.fileno())
            os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
            try:
                with told(OutOfDescriptors) as caught:
                    for _ in range(250):
                        assert selector.select(1)
                        with pytest.raises(OSError, match="Too many open files"):
                            server.accept()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "has no descriptor left for it. Raise the limit" in str(caught[0].message)


def test_a_loop_that_never_sleeps(backend, pairs):
    """SEL011: waits with a timeout of 0 that find nothing, thousands in a row."""
    with checked(backend) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        with told(NeverSleeps) as caught:
            for _ in range(11_000):
                assert selector.select(0) == []
    assert "select() was called 5000 times in " in str(caught[0].message)
    assert "each time nothing was ready. Wait for an event" in str(caught[0].message)


@linux
def test_write_interest_left_on():
    """SEL005: a connection is writable again and again, and nothing is written."""
    first, second = connection()
    with first, second, checked(backends.PollSelector) as selector:
        selector.register(first, EVENT_WRITE)
        with told(WriteInterestLeftOn) as caught:
            for _ in range(1200):
                assert selector.select(1)
    assert "nothing was written. Register EVENT_WRITE only while" in str(caught[0].message)


@unix
def test_blocking_descriptor(backend, pairs):
    """SEL006: a blocking socket among non-blocking ones; told at the first wait, not before."""
    with checked(backend) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        selector.register(pairs[1][0], EVENT_READ)
        pairs[1][0].setblocking(True)
        selector.register(pairs[2][0], EVENT_READ)
        with told(BlockingDescriptor) as caught:
            selector.select(0)
            selector.select(0)
    assert f"fd {pairs[1][0].fileno()} " in str(caught[0].message)
    assert "blocks; 2 other sockets of this selector do not" in str(caught[0].message)


@unix
def test_a_blocking_descriptor_that_came_first(backend, pairs):
    """SEL006: a socket that blocks is told of when the first comes that does not, waits later."""
    with checked(backend) as selector:
        pairs[0][0].setblocking(True)
        pairs[1][0].setblocking(True)
        selector.register(pairs[0][0], EVENT_READ)
        selector.register(pairs[1][0], EVENT_READ)
        selector.select(0)
        pairs[1][0].setblocking(False)
        selector.register(pairs[2][0], EVENT_READ)
        with told(BlockingDescriptor) as caught:
            selector.select(0)
            selector.select(0)
    assert f"fd {pairs[0][0].fileno()} " in str(caught[0].message)


@epoll
def test_used_after_fork(pairs):
    """SEL007: a child that uses its parent's selector is told."""
    with checked(backends.EpollSelector) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        pid = os.fork()
        if pid == 0:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    selector.select(0)
                    selector.select(0)
                os._exit(0 if [one.category for one in caught] == [UsedAfterFork] else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            selector.select(0)


@epoll
def test_silent_after_reopen(pairs):
    """A child that calls reopen() first may use the selector; its own child may not."""
    with checked(backends.EpollSelector) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        pid = os.fork()
        if pid == 0:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    selector.reopen()
                    selector.select(0)
                    found = [one.category for one in caught]
                    if os.fork() == 0:
                        selector.select(0)
                        os._exit(0 if [one.category for one in caught] == [UsedAfterFork] else 1)
                    os._exit(0 if found == [] and os.wait()[1] == 0 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0


@unix
def test_regular_file():
    """SEL008: a regular file on poll is told when it is registered."""
    with open(__file__) as file, checked(backends.PollSelector) as selector, told(RegularFile):
        selector.register(file, EVENT_READ)


# Where they must be silent


@unix
def test_silent_on_closing_after_unregister(backend, pairs):
    """The right order is no finding, nor are reused numbers that were unregistered."""
    with checked(backend) as selector:
        for _ in range(5):
            read, write = os.pipe()
            os.set_blocking(read, False)
            selector.register(read, EVENT_READ)
            selector.select(0)
            selector.unregister(read)
            os.close(read)
            os.close(write)


@unix
def test_silent_on_closing_before_unregister_without_a_wait_between(backend):
    """Closing first is no finding as long as nobody waits in between: many programs do it."""
    with checked(backend) as selector:
        first, second = socket.socketpair()
        selector.register(first, EVENT_READ)
        first.close()
        second.close()
        selector.unregister(first)
        selector.select(0)


@unix
def test_silent_on_a_socket_that_was_detached(backend, pairs):
    """detach() leaves the file open under its number, for another object; as ssl does."""
    near, far = pairs[0]
    with checked(backend) as selector:
        selector.register(near, EVENT_READ)
        other = socket.socket(fileno=near.detach())
        far.send(b"x")
        assert len(selector.select(1)) == 1
        other.close()


@linux
def test_silent_on_a_slow_link(backend):
    """A writer whose bytes the peer does not take is no idle writer: they wait in the queue."""
    first, second = connection()
    with first, second, checked(backend) as selector:
        first.setblocking(False)
        selector.register(first, EVENT_WRITE)
        for _ in range(1500):
            assert selector.select(1)
            first.send(b"x")


@unix
def test_silent_on_a_loop_that_works_between_its_waits(backend, pairs, monkeypatch):
    """A program that computes, and asks with a timeout of 0 in between, is not idle."""
    clock = [0]

    def later():
        clock[0] += 2_000_000
        return clock[0]

    monkeypatch.setattr("selectors_ffi.debug.observer.now", later)
    with checked(backend) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        for _ in range(6000):
            selector.select(0)


@unix
def test_silent_on_steady_traffic_within_one_loop(backend):
    """A thousand equal messages through one loop are no busy loop, though all looks the same."""
    tcp, peer = connection()
    unix_pair = socket.socketpair()
    read, write = os.pipe()
    with tcp, peer, unix_pair[0], unix_pair[1], checked(backend) as selector:
        for source in (peer, unix_pair[1]):
            selector.register(source, EVENT_READ)
        selector.register(read, EVENT_READ)
        for sink in (tcp, unix_pair[0]):
            selector.register(sink, EVENT_WRITE)
        tcp.send(b"12345")
        unix_pair[0].send(b"12345")
        os.write(write, b"12345")
        for _ in range(1500):
            for key, _ in selector.select(5):
                if key.fileobj in (tcp, unix_pair[0]):
                    key.fileobj.send(b"12345")
                elif isinstance(key.fileobj, int):
                    os.read(key.fd, 5)
                    os.write(write, b"12345")
                else:
                    key.fileobj.recv(5)
        selector.unregister(read)
    os.close(read)
    os.close(write)


@epoll
@pytest.mark.parametrize("size", [1, 4])
def test_silent_on_threads_that_register_and_unregister(backend, size):
    """Changes in other threads than the loop's are no mistake, in the right order."""
    done = threading.Event()

    def change(selector):
        while not done.is_set():
            near, far = socket.socketpair()
            near.setblocking(False)
            selector.register(near, EVENT_READ)
            far.send(b"x")
            selector.modify(near, EVENT_READ | EVENT_WRITE)
            selector.modify(near, EVENT_READ)
            selector.unregister(near)
            near.close()
            far.close()

    with checked(backend) as selector:
        threads = [threading.Thread(target=change, args=(selector,)) for _ in range(size)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            for key, _ in selector.select(0.05):
                with contextlib.suppress(OSError):
                    key.fileobj.recv(10)
        done.set()
        for thread in threads:
            thread.join()


@unix
def test_a_busy_loop_beside_other_threads_must_last(backend, monkeypatch):
    """SEL004 gives another thread half a second to read or to unregister, and speaks then."""
    # Not in ``backends.table``, where the watchdog of an earlier test sets it when it ends.
    monkeypatch.setattr("selectors_ffi.debug.runs.other_threads", lambda: 1)
    clock = [0]

    def later():
        clock[0] += 100_000
        return clock[0]

    monkeypatch.setattr("selectors_ffi.debug.observer.now", later)
    first, second = socket.socketpair()
    with first, checked(backend) as selector:
        selector.register(first, EVENT_READ)
        second.close()
        for _ in range(500):
            assert selector.select(1)
        with told(BusyLoop):
            for _ in range(10_000):
                assert selector.select(1)


@unix
def test_silent_on_reading_slowly_after_hang_up(backend):
    """A peer that hung up while data is left is read to its end without a finding."""
    first, second = socket.socketpair()
    second.send(b"x" * 500)
    second.close()
    with first, checked(backend) as selector:
        selector.register(first, EVENT_READ)
        while first.recv(1):
            assert selector.select(1)


@unix
def test_silent_on_blocking_sockets_alone(backend):
    """A program of blocking sockets, or of sockets with timeouts, is consistent in itself."""
    first, second = socket.socketpair()
    with first, second, checked(backend) as selector:
        second.settimeout(5)
        selector.register(first, EVENT_READ | EVENT_WRITE)
        selector.register(second, EVENT_READ)
        selector.select(0)


@unix
def test_a_lint_may_be_an_error(pairs):
    """As any warning, a lint can be made an exception; the selector stays usable."""
    with checked(backends.PollSelector) as selector:
        read, write = os.pipe()
        selector.register(read, EVENT_READ)
        os.close(read)
        os.close(write)
        with pytest.raises(ClosedWhileRegistered):  # filterwarnings = error in this project
            selector.select(0)
        selector.unregister(read)
        assert selector.select(0) == []


def test_documentation_has_every_id():
    """docs/lints.md has a section with cause and cure for every id, and for no other."""
    page = Path(__file__).parents[2] / "docs" / "lints.md"
    sections = re.split(r"^## ", page.read_text("utf-8"), flags=re.M)[1:]
    ids = [section.split()[0] for section in sections]

    assert ids == sorted([*(lint.id for lint in LINTS), LEAK])
    for lint in LINTS:
        (title,) = [one.partition("\n")[0] for one in sections if one.startswith(lint.id)]
        assert title == f"{lint.id} {lint.__name__}"
        assert lint.page == "docs/lints.md#" + title.lower().replace(" ", "-")
        assert lint.cause.endswith(".")
        assert lint.cure.endswith(".")
        assert f"{lint.page})" in str(lint("text"))
    assert all("**Cause.**" in one and "**Cure.**" in one for one in sections)


class Tornado:
    """As tornado's loop hands a callback to asyncio's."""

    def _run_callback(self, callback):
        callback()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda callback: (callback,),
        lambda callback: (Tornado()._run_callback, functools.partial(callback)),
    ],
)
def test_what_never_sleeps_is_told_once_where_it_is(backend, wrap):
    """SEL011 names the callback that comes again and again by its line, and tells of it once."""
    turns = []

    def again():
        turns.append(None)
        loop.call_later(0, *wrap(again)) if len(turns) < 12_000 else loop.stop()

    with checked(backend) as selector:
        loop = asyncio.SelectorEventLoop(selector)
        again()
        with told(NeverSleeps) as caught:
            loop.run_forever()
        loop.close()
    (warning,) = caught
    assert "meanwhile asyncio runs callback " in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, again.__code__.co_firstlineno)


def test_curio_is_not_accused(backend):
    """SEL011 is silent in curio's loop, since tasks that wake each other look like one that sleeps 0."""
    names = {"__name__": "curio.kernel"}
    exec("def run(selector):\n    for _ in range(6000):\n        selector.select(0)", names)
    with checked(backend) as selector:
        names["run"](selector)


def test_checkpoints_of_anyio_are_no_spinning(backend):
    """SEL011 is silent on anyio's queues, each call of which sleeps for 0; not on anyio's sleep(0)."""
    names = {"__name__": "anyio._backends._asyncio"}
    code = "async def {}():\n    await asyncio.sleep(0)\n"
    exec("import asyncio\n" + code.format("checkpoint") + code.format("pause"), names)

    async def main(pause):
        for _ in range(6000):
            await pause()

    with checked(backend) as selector:
        loop = asyncio.SelectorEventLoop(selector)
        loop.run_until_complete(main(names["checkpoint"]))
        with pytest.warns(NeverSleeps):
            loop.run_until_complete(main(names["pause"]))
        loop.close()


class Ready:
    """Can be awaited, and is no coroutine."""

    def __await__(self):
        return self
        yield


def test_tasks_that_make_tasks_sleep_enough(backend):
    """SEL011 is silent on a finite computation that is spread over new tasks, one after the other."""

    async def work():
        sum(range(300))

    async def main():
        for _ in range(1500):
            await asyncio.ensure_future(work())
            await asyncio.gather(work(), Ready())
            await asyncio.wait_for(work(), 5)

    with checked(backend) as selector:
        loop = asyncio.SelectorEventLoop(selector)
        loop.run_until_complete(main())
        loop.close()


def test_tasks_that_wake_each_other_sleep_enough(backend):
    """SEL011 is silent on both ends of a queue, and tells once of tasks that are made to sleep(0)."""

    async def pong(there, back):
        while True:
            await back.put(await there.get())

    async def ping():
        there, back = asyncio.Queue(), asyncio.Queue()
        task = asyncio.ensure_future(pong(there, back))
        for number in range(4000):
            await there.put(number)
            await back.get()
        task.cancel()

    async def spin():
        for _ in range(4000):
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    with backend(debug="checks") as selector:
        loop = asyncio.SelectorEventLoop(selector)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.run_until_complete(ping())
            before = len(caught)
            loop.run_until_complete(spin())
        loop.close()

    assert (before, [one.category for one in caught]) == (0, [NeverSleeps])
