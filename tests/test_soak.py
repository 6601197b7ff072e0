"""Scale and endurance: many descriptors, many cycles, flat memory, flat descriptor count."""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from . import emulation, tally
from .kernels import host
from .kernels.machines import MACHINES, SOME, no_descriptor_left

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="the simulated kernels work on Unix descriptors"
)

HOST = [machine for machine in MACHINES if not machine.simulated]
LONG = tally.long_profile()
_SPARE = 100


def memory():
    """Resident bytes of this process, collected; None where the system does not say."""
    gc.collect()
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


@pytest.fixture
def many():
    """The read end of a pipe, and as many duplicates of it as the hard limit lets us have."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 20_000) if LONG else min(hard, 4_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    reader, writer = os.pipe()
    copies = []
    try:
        while len(copies) < wanted - _SPARE:
            copies.append(os.dup(reader))
        yield copies, writer
    finally:
        for fd in (reader, writer, *copies):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("machine", HOST, ids=str)
def test_as_many_descriptors_as_the_limit_allows(machine, many):
    """All are registered, all come back when ready, all can be removed, on the host's mechanisms."""
    emulation.needs_large_sets(machine.mechanism)
    copies, writer = many
    near, far = socket.socketpair()
    with near, far, machine.boot().selector() as selector:
        for fd in copies:
            selector.register(fd, EVENT_READ, fd)
        assert len(selector.get_map()) == len(copies)
        assert selector.select(0) == []
        alone = selector.register(near, EVENT_WRITE)
        assert selector.select(0) == [(alone, EVENT_WRITE)]
        selector.unregister(near)
        os.write(writer, b"x")
        found = selector.select(0)
        assert {key.fd: (key.data, events) for key, events in found} == {
            fd: (fd, EVENT_READ) for fd in copies
        }
        os.read(copies[0], 1)
        assert selector.select(0) == []
        for fd in copies:
            selector.unregister(fd)
        assert not selector.get_map()
    tally.counts[f"descriptors held by {machine}"] = len(copies)


@pytest.mark.timeout(300)
def test_idle_descriptors_cost_epoll_nothing(many):
    """One event among thousands idle costs about what it costs among ten: within a factor of 5."""
    epoll = [machine for machine in HOST if machine.mechanism == "epoll"]
    if not epoll:
        pytest.skip("epoll is Linux's")
    copies, _ = many
    near, far = socket.socketpair()

    def cost(selector):
        best = float("inf")
        for _ in range(30):
            started = time.perf_counter()
            for _ in range(50):
                selector.select(0)
            best = min(best, time.perf_counter() - started)
        return best

    session = epoll[0].boot()
    with near, far, session.selector() as few, session.selector() as full:
        for selector, count in ((few, 10), (full, len(copies))):
            for fd in copies[:count]:
                selector.register(fd, EVENT_READ)
            selector.register(near, EVENT_WRITE)
            assert len(selector.select(0)) == 1
        assert cost(full) < 5 * cost(few)


@pytest.mark.timeout(3600 if LONG else 60)
@pytest.mark.parametrize("machine", MACHINES if LONG else SOME, ids=str)
def test_cycles_leave_nothing(machine):
    """Register, change, wait, unregister over and over: memory and descriptors stay flat."""
    session = machine.boot()
    near, far = socket.socketpair()
    far.send(b"x")
    cycles = (1_000_000 if LONG else 20_000) if not machine.simulated else (20_000 if LONG else 300)

    def turn(count):
        for i in range(count):
            key = selector.register(near, EVENT_READ, i)
            if i % 7 == 0:
                selector.modify(near, EVENT_READ | EVENT_WRITE, i)
            if i % 5 == 0:
                assert [key.data for key, _ in selector.select(0)] == [i]
            key = selector.unregister(near)
            assert key.data == i

    with no_descriptor_left(), session.selector() as selector:
        turn(cycles // 10)
        before, descriptors = memory(), host.open_descriptors()
        turn(cycles)
        assert host.open_descriptors() == descriptors
        after = memory()
        assert not selector.get_map()
    if before is not None and sys.implementation.name == "cpython":
        assert after - before < 2_000_000, f"{after - before} bytes more"
    near.close()
    far.close()
    tally.count("register and unregister cycles", cycles + cycles // 10)


@pytest.mark.timeout(3600 if LONG else 60)
@pytest.mark.parametrize("machine", HOST, ids=str)
def test_events_without_end(machine):
    """A byte goes round and round a ring of sockets: each event is reported once, none is lost."""
    events = 1_000_000 if LONG else 20_000
    ring = [socket.socketpair() for _ in range(20)]
    session = machine.boot()
    with no_descriptor_left(), session.selector() as selector:
        for index, (near, _) in enumerate(ring):
            selector.register(near, EVENT_READ, index)
        before = memory()
        ring[0][1].send(b"x")
        place = 0
        for _ in range(events):
            ((key, mask),) = selector.select(20)
            assert (key.data, mask) == (place, EVENT_READ)
            near, _ = ring[place]
            assert near.recv(10) == b"x"
            place = (place + 1) % len(ring)
            ring[place][1].send(b"x")
        after = memory()
    if before is not None and sys.implementation.name == "cpython":
        assert after - before < 2_000_000, f"{after - before} bytes more"
    for near, far in ring:
        near.close()
        far.close()
    tally.count("events delivered in a ring", events)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("machine", SOME, ids=str)
def test_selectors_come_and_go(machine):
    """A thousand selectors, closed or just dropped: no descriptor is left."""
    session = machine.boot()
    near, far = socket.socketpair()
    made = 5_000 if LONG else 200
    with near, far, no_descriptor_left():
        for i in range(made):
            selector = session.selector()
            selector.register(near, EVENT_WRITE)
            assert len(selector.select(0)) == 1
            if i % 2:
                selector.close()
            elif i % 4 == 0:
                del selector
                if sys.implementation.name != "cpython" and i % 100 == 0:
                    gc.collect()
        selector = None
        gc.collect()
    tally.count("selectors made and dropped", made)
