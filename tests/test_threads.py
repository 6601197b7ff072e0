"""Several threads in one selector: nothing is lost, nothing is mixed up, nothing crashes."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import threading
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from selectors_ffi.backends import PollSelector, poll
from selectors_ffi.testing.calls import controls, waits
from selectors_ffi.testing.library import Proxy

from . import apart, tally
from .crew import PATIENCE, Crew
from .kernels.machines import MACHINES, no_descriptor_left

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="the simulated kernels work on Unix descriptors"
)

BOTH = EVENT_READ | EVENT_WRITE
ROUNDS = 100 if tally.long_profile() else 12


@pytest.fixture(params=MACHINES, ids=str)
def session(request):
    """A booted machine, of every kind."""
    return request.param.boot()


@pytest.fixture
def switching():
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_no_wakeup_is_lost(session, switching):
    """What one thread registers, another hears of while it waits without end.

    Each worker registers a socket in which a byte waits, changes it to writing,
    and removes it; for each step the waiting thread must report that very key.
    select(2) and poll(2) hand the kernel a copy, so their waiter is woken by a
    byte in a watched socket, as every event loop does.
    """
    needs_wakeup = session.machine.mechanism in ("select", "poll")
    near_wake, far_wake = socket.socketpair()
    near_wake.setblocking(False)
    stop = threading.Event()
    seen = {}

    def wake():
        if needs_wakeup or stop.is_set():
            far_wake.send(b"w")

    def wait():
        while not stop.is_set():
            for key, events in selector.select(None):
                if key.data is None:
                    near_wake.recv(4096)
                    continue
                fd, step = key.data
                assert key.fd == fd
                assert events & key.events == events
                seen[fd, step].set()

    def work(number):
        for turn in range(ROUNDS):
            near, far = socket.socketpair()
            with near, far:
                fd = near.fileno()
                for step in ("read", "write"):
                    seen[fd, (number, turn, step)] = threading.Event()
                far.send(b"x")
                step = (number, turn, "read")
                selector.register(near, EVENT_READ, (fd, step))
                wake()
                assert seen[fd, step].wait(PATIENCE), "the registration was not heard"
                near.recv(1)
                step = (number, turn, "write")
                selector.modify(near, EVENT_WRITE, (fd, step))
                wake()
                assert seen[fd, step].wait(PATIENCE), "the change was not heard"
                assert selector.unregister(near).data == (fd, step)

    with near_wake, far_wake, session.selector() as selector:
        selector.register(near_wake, EVENT_READ)
        waiting = Crew()
        waiting.start(wait)
        workers = Crew()
        for number in range(3):
            workers.start(work, number)
        try:
            workers.join()
        finally:
            stop.set()
            wake()
            waiting.join()
        assert list(selector.get_map()) == [near_wake.fileno()]
        kernel = session.watched(selector)
        assert kernel is None or kernel == {near_wake.fileno(): EVENT_READ}


class Gate:
    """A hook: changes return only when another thread's wait has returned an event."""

    def __init__(self):
        self.opened = threading.Event()
        self.shut = False

    def __call__(self, call):
        change = controls(call)
        result = call.run()
        if not change and waits(call) and result > 0 and not self.opened.is_set():
            self.opened.set()
        elif change and self.shut:
            assert self.opened.wait(PATIENCE)
        return result


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("machine", [m for m in MACHINES if m.mechanism in ("epoll", "kqueue")], ids=str)
def test_a_wait_reports_what_is_just_being_registered(machine, timeout):
    """The kernel reports it before ``register`` returns: the waiting thread knows the key by then."""
    gate = Gate()
    session = machine.boot(lambda whole: Proxy(whole, gate))
    near, far = socket.socketpair()
    found = []
    with near, far, session.selector() as selector:
        crew = Crew()
        crew.start(lambda: found.extend(selector.select(timeout)))
        gate.shut = True
        key = selector.register(near, EVENT_WRITE)
        gate.shut = False
        crew.join()
        assert found == [(key, EVENT_WRITE)]


def test_two_waits_at_once(session, switching):
    """Two threads in select get whole results, each from a buffer of its own."""
    pairs = [socket.socketpair() for _ in range(5)]

    def wait():
        for turn in range(3 * ROUNDS):
            found = selector.select(0 if turn % 2 else 1)
            assert len(found) == 5
            assert dict(found) == expected

    with session.selector() as selector:
        expected = {}
        for index, (near, far) in enumerate(pairs):
            far.send(b"x")
            expected[selector.register(near, BOTH if index % 2 else EVENT_READ, index)] = (
                BOTH if index % 2 else EVENT_READ
            )
        crew = Crew()
        for _ in range(3):
            crew.start(wait)
        crew.join()
    for near, far in pairs:
        near.close()
        far.close()


def test_all_threads_change_everything(session, switching):
    """Threads that fight over the same descriptors get KeyError or the result; all is well then."""
    pairs = [socket.socketpair() for _ in range(3)]
    numbers = [near.fileno() for near, _ in pairs]

    def fight(seed):
        choice = random.Random(seed).choice
        for _ in range(8 * ROUNDS):
            fd = choice(numbers)
            with contextlib.suppress(KeyError):
                what = choice("rrmmus")
                if what == "r":
                    assert selector.register(fd, choice([1, 2, 3]), seed).fd == fd
                elif what == "m":
                    assert selector.modify(fd, choice([1, 2, 3]), seed).fd == fd
                elif what == "u":
                    assert selector.unregister(fd).fd == fd
                else:
                    for key, events in selector.select(0):
                        assert key.fd in numbers
                        assert events
                        assert not events & ~key.events

    with session.selector() as selector:
        for _, far in pairs:
            far.send(b"x")
        crew = Crew()
        for seed in range(4):
            crew.start(fight, seed)
        crew.join()
        for fd in numbers:
            if fd in selector.get_map():
                selector.unregister(fd)
            key = selector.register(fd, EVENT_READ, "last")
            assert (key, EVENT_READ) in selector.select(0)
        assert sorted(key.fd for key, _ in selector.select(0)) == sorted(numbers)
        kernel = session.watched(selector)
        if kernel is not None:
            assert {fd: kernel[fd] & EVENT_READ for fd in numbers} == dict.fromkeys(numbers, 1)
    for near, far in pairs:
        near.close()
        far.close()


def test_closing_while_others_wait(session, switching):
    """close() in one thread: the others' waits end with [], or say that the selector is closed."""
    with no_descriptor_left():
        for _ in range(max(3, ROUNDS // 10)):
            near, far = socket.socketpair()
            with near, far:
                selector = session.selector()
                selector.register(near, EVENT_READ)
                started = threading.Barrier(3)

                def wait(selector=selector, started=started):
                    started.wait(PATIENCE)
                    try:
                        while selector.select(0.02) == []:
                            pass
                    except ValueError as error:
                        if "closed" not in str(error):
                            raise

                crew = Crew()
                crew.start(wait)
                crew.start(wait)
                started.wait(PATIENCE)
                selector.close()
                crew.join()
                assert selector.get_map() is None


def test_selectors_of_many_threads_share_nothing(session, switching):
    """Each thread with a selector of its own sees its own descriptors only."""

    def work(number):
        for turn in range(ROUNDS):
            near, far = socket.socketpair()
            with near, far, session.selector() as selector:
                key = selector.register(near, EVENT_READ, (number, turn))
                assert selector.select(0) == []
                far.send(b"x")
                assert selector.select(PATIENCE) == [(key, EVENT_READ)]

    crew = Crew()
    for number in range(4):
        crew.start(work, number)
    crew.join()


COLLECTED_MEANWHILE = """
import gc, threading
from selectors_ffi.backends.process import frames

end = threading.Event()
for _ in range(50):  # a frame of each is made
    threading.Thread(target=end.wait, daemon=True).start()
gc.collect()
for _ in range(200):
    gc.disable()
    cycle = [threading.local()]
    cycle.append(cycle)
    cycle[0].value = 1
    del cycle
    gc.set_threshold(gc.get_count()[0] + 3, 1, 1)
    gc.enable()
    frames()
    assert gc.isenabled()
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy has the lock")
def test_the_array_of_poll_is_another_threads(monkeypatch):
    """What interrupts a wait does not take the bytearray's buffer, of which two threads may lose count.

    Without the interpreter's lock it was a SystemError, shown when the bytearray was freed.
    """
    takers, pack = set(), poll._pack

    def recording(*arguments):
        takers.add(threading.get_ident())
        pack(*arguments)

    monkeypatch.setattr(poll, "_pack", recording)
    crew, found = Crew(), []
    near, far = socket.socketpair()
    with near, far, PollSelector() as selector:
        waiting = crew.start(lambda: found.extend(selector.select(PATIENCE)))
        while not selector._asleep:
            os.sched_yield()
        key = selector.register(near, EVENT_WRITE)
        crew.join()
    assert found == [(key, EVENT_WRITE)]
    assert takers == {waiting.ident}


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="its garbage collector")
def test_frames_are_looked_at_without_a_collection():
    """CPython 3.11 waits for itself if a threading.local is collected while frames are looked at."""
    assert apart.python("-c", COLLECTED_MEANWHILE, timeout=30).returncode == 0
