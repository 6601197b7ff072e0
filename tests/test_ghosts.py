"""epoll's registrations of closed numbers whose files are open elsewhere: reported, and unnameable.

epoll(7), Q6: nobody can remove them, but a new set without them can take the old one's number.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import time

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("epoll is Linux's", allow_module_level=True)

from selectors_ffi.backends import EVENT_READ, EVENT_WRITE, EpollSelector, epoll, epoll_ghosts
from selectors_ffi.binding import Binding, load

from .kernels.machines import epoll_list, no_descriptor_left

STEPS = ("epoll_create1", "epoll_ctl", "dup3")


class Library:
    """The C library; counts calls, fails where told, and does things before and after a call."""

    def __init__(self, whole):
        self._lib, self._ffi = whole.lib, whole.ffi
        self.calls = dict.fromkeys((*STEPS, "epoll_wait", "epoll_pwait2", "close"), 0)
        self.failing = {}
        self.before, self.after = {}, {}

    def __getattr__(self, symbol):
        function = getattr(self._lib, symbol)
        name = next((name for name in self.calls if name in symbol), None)
        if name is None:
            return function

        def call(*arguments):
            self.calls[name] += 1
            errno = self.failing.pop(name, 0)
            if errno:
                self._ffi.errno = errno
                return -1
            self.before.pop(name, bool)()
            result = function(*arguments)
            self.after.pop(name, bool)()
            return result

        return call


@pytest.fixture
def library():
    return Library(load())


@pytest.fixture
def selector(library):
    EpollSelector().close()  # its self-test tells which calls do not work here
    whole = load()
    binding = Binding(whole.target, whole.ffi, library)
    binding.refused = whole.refused
    with EpollSelector(binding=binding) as selector:
        yield selector


@pytest.fixture
def others(selector, new_pair):
    """Three more registrations, one of them for both directions."""
    pairs = [new_pair() for _ in range(3)]
    for i, (near, _) in enumerate(pairs):
        selector.register(near, EVENT_READ | (EVENT_WRITE if i == 1 else 0), i)
    return pairs


@pytest.fixture
def ghost(selector, new_pair):
    """A closed and unregistered number whose file is readable and lives on; its number."""
    near, far = new_pair()
    selector.register(near, EVENT_READ)
    number, duplicate = near.fileno(), near.dup()
    near.close()
    selector.unregister(near)
    far.send(b"x")
    yield number
    duplicate.close()


def wanted(selector):
    return {fd: key.events for fd, key in selector._fd_to_key.items()}


@pytest.mark.parametrize("timeout", [0.2, 0.05])
def test_wait_lasts_its_time_and_asks_seldom(selector, library, others, ghost, timeout):
    """A ghost does not keep the processor busy: it is gone after the first wait."""
    selector.unregister(others[1][0])  # it is always writable
    begin = time.monotonic()
    assert selector.select(timeout) == []
    assert time.monotonic() - begin >= timeout
    assert library.calls["epoll_wait"] + library.calls["epoll_pwait2"] <= 3
    assert epoll_list(selector.fileno()) == wanted(selector)
    assert library.calls["dup3"] == 1


def test_wait_without_timeout_ends_with_the_next_event(selector, others, ghost):
    """A wait for ever is not ended by a ghost, and not deaf to others."""
    selector.unregister(others[1][0])
    timer = threading.Timer(0, others[0][1].send, [b"x"])
    begin = time.monotonic()
    assert selector.select(0.01) == []
    timer.start()
    assert [(key.data, events) for key, events in selector.select(None)] == [(0, EVENT_READ)]
    timer.join()
    assert time.monotonic() - begin < 20


def test_everything_else_stays(selector, others, ghost):
    """The new set has the old one's number, and reports what is registered, both ways."""
    number = selector.fileno()
    selector.modify(others[1][0], EVENT_READ, 1)
    assert selector.select(0.01) == []
    assert epoll_list(number) == wanted(selector)
    assert not os.get_inheritable(number)
    for _, far in others:
        far.send(b"x")
    assert sorted((key.data, events) for key, events in selector.select(1)) == [
        (0, EVENT_READ), (1, EVENT_READ), (2, EVENT_READ)]  # fmt: skip
    selector.modify(others[1][0], EVENT_READ | EVENT_WRITE, 1)
    assert (selector.get_key(others[1][0]), EVENT_READ | EVENT_WRITE) in selector.select(1)


def test_number_that_names_another_file_now(selector, others, ghost):
    """The registration that has the ghost's number stays."""
    selector.modify(others[1][0], EVENT_READ, 1)
    left, right = socket.socketpair()
    with left, right:
        if left.fileno() != ghost:
            os.dup2(left.fileno(), ghost)
        key = selector.register(ghost, EVENT_READ)
        assert selector.select(0.01) == []
        assert epoll_list(selector.fileno()) == wanted(selector)
        right.send(b"x")
        assert selector.select(1) == [(key, EVENT_READ)]
        selector.unregister(ghost)
        if left.fileno() != ghost:
            os.close(ghost)


def test_what_is_registered_and_closed_is_not_lost(selector, library, others, ghost, new_pair):
    """Where something wanted cannot be named either, the set stays as it is."""
    selector.modify(others[1][0], EVENT_READ, 1)
    near, far = new_pair()
    selector.register(near, EVENT_READ, "closed")
    with near.dup():
        near.close()
        assert selector.select(0.01) == []
        assert library.calls["dup3"] == 0
        far.send(b"x")
        assert [key.data for key, _ in selector.select(1)] == ["closed"]
        selector.unregister(near)


def test_set_that_another_epoll_watches(selector, library, others, ghost):
    """A set that is watched itself keeps its watcher."""
    selector.modify(others[1][0], EVENT_READ, 1)
    with selectors.EpollSelector() as outer:
        outer.register(selector, EVENT_READ)
        assert selector.select(0.01) == []
        assert library.calls["dup3"] == 0
        others[0][1].send(b"x")
        assert [key.fileobj for key, _ in outer.select(1)] == [selector]


@pytest.fixture
def company():
    """Another thread, that does nothing."""
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, args=(60,))
    thread.start()
    yield
    leave.set()
    thread.join()


def asleep_in_epoll(thread):
    """Wait until a thread sleeps in the kernel's epoll_wait, as proc(5) tells."""
    deadline = time.monotonic() + 30
    where = "0"
    while time.monotonic() < deadline and "epoll" not in where:
        with open(f"/proc/self/task/{thread.native_id}/wchan") as file:
            where = file.read()
        if where == "0":
            os.sched_yield()
    if "epoll" not in where:
        pytest.skip("this kernel does not tell where a thread sleeps")


@pytest.mark.skipif(not hasattr(threading.Thread, "native_id"), reason="no thread number")
def test_thread_that_waits_on_the_old_set(selector, library, others, new_pair):
    """It goes on with the new one: it hears of what is registered there, before and after."""
    selector.unregister(others[1][0])
    near, _ = new_pair()
    selector.register(near, EVENT_READ)
    heard = []
    with near.dup():
        near.close()
        selector.unregister(near)
        waiting = threading.Thread(target=lambda: heard.append(selector.select(30)))
        waiting.start()
        asleep_in_epoll(waiting)
        assert selector._exorcise()
        assert library.calls["dup3"] == 1
        left, right = new_pair()
        selector.register(left, EVENT_READ, "after")
        asleep_in_epoll(waiting)
        right.send(b"x")
        waiting.join(30)
        assert [key.data for key, _ in heard.pop()] == ["after"]
        left.recv(1)

        waiting = threading.Thread(target=lambda: heard.append(selector.select(30)))
        waiting.start()
        asleep_in_epoll(waiting)
        others[2][1].send(b"x")
        waiting.join(30)
        assert [key.data for key, _ in heard.pop()] == [2]
    assert epoll_list(selector.fileno()) == wanted(selector)


def test_thread_that_waits_on_a_set_twice_replaced(selector, library, others, new_pair):
    """As long as a thread has not left the first set the second is not replaced."""
    selector.unregister(others[1][0])
    heard, duplicates = [], []

    def haunt():
        near, _ = new_pair()
        selector.register(near, EVENT_READ)
        duplicates.append(near.dup())
        near.close()
        selector.unregister(near)

    haunt()
    waiting = threading.Thread(target=lambda: heard.append(selector.select(30)))
    waiting.start()
    asleep_in_epoll(waiting)
    assert selector._exorcise()
    haunt()
    assert not selector._exorcise()
    others[2][1].send(b"x")
    waiting.join(30)
    assert [key.data for key, _ in heard.pop()] == [2]
    assert selector._exorcise()
    assert epoll_list(selector.fileno()) == wanted(selector)
    for duplicate in duplicates:
        duplicate.close()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_in_company(selector, library, others, ghost, new_pair, company, moment, name):
    """Where there are threads the set is replaced all the same, whatever they do meanwhile."""
    near, far = new_pair()

    def thread():
        selector.modify(others[1][0], EVENT_READ, 1)
        selector.unregister(others[0][0])
        selector.register(near, EVENT_READ, "thread")

    def script():
        running = threading.Thread(target=thread)
        getattr(library, moment)[name] = lambda: (running.start(), running.join(30))

    selector.modify(others[1][0], EVENT_READ, 1)
    library.before["epoll_create1"] = script
    if name == "epoll_create1":
        script()
    assert selector.select(0.02) == []
    assert library.calls["dup3"] == 1
    assert epoll_list(selector.fileno()) == wanted(selector)
    for _, peer in others:
        peer.send(b"x")
    far.send(b"x")
    assert sorted(str(key.data) for key, _ in selector.select(1)) == ["1", "2", "thread"]


@pytest.mark.parametrize("threads", [False, True])
def test_one_file_under_many_numbers(request, selector, library, new_pair, ghost, threads):
    """Linux lets no set that watches one file so often be watched: with threads it stays."""
    if threads:
        request.getfixturevalue("company")
    near, far = new_pair()
    duplicates = [os.dup(near.fileno()) for _ in range(510)]
    try:
        for duplicate in duplicates:
            selector.register(duplicate, EVENT_READ)
        assert selector.select(0.01) == []
        assert library.calls["dup3"] == (not threads)
        far.send(b"x")
        assert len(selector.select(1)) == len(duplicates)
    finally:
        for duplicate in duplicates:
            selector.unregister(duplicate)
            os.close(duplicate)


def test_one_attempt_a_wait(selector, ghost, monkeypatch):
    """A set that cannot be replaced is not looked at again and again while a wait goes on."""
    attempts = []
    monkeypatch.setattr(epoll, "without_ghosts", lambda *_: attempts.append(1))
    for wait in (1, 2):
        assert selector.select(None) == []
        assert len(attempts) == wait


@pytest.mark.parametrize("where", ["_FDINFO", "_FD"])
def test_no_list_of_the_set(selector, library, others, ghost, monkeypatch, where):
    """Without proc(5) nothing is known of the set, and it stays."""
    selector.modify(others[1][0], EVENT_READ, 1)
    monkeypatch.setattr(epoll_ghosts, where, "/nonexistent")
    assert selector.select(None) == []
    assert library.calls["dup3"] == 0


@pytest.mark.parametrize("name", STEPS)
def test_one_at_a_time(selector, library, others, ghost, name):
    """While a set is being replaced nobody else replaces it: not a thread, not a signal handler."""
    selector.modify(others[1][0], EVENT_READ, 1)
    seen = []
    inner = lambda: seen.append(selector._exorcise())  # noqa: E731 - a function of two lines
    if name == "epoll_create1":
        library.before[name] = inner
    else:
        library.before["epoll_create1"] = lambda: library.before.update({name: inner})
    assert selector.select(0.01) == []
    assert seen == [False]
    assert library.calls["dup3"] == 1
    assert selector._exorcise() is False  # nothing is left to be done


@pytest.mark.parametrize("name", STEPS)
def test_refused(selector, library, others, ghost, name):
    """When the kernel refuses a step the old set stays, and no descriptor is left."""
    selector.modify(others[1][0], EVENT_READ, 1)
    library.before["epoll_create1"] = lambda: library.failing.update({name: 24})
    if name == "epoll_create1":
        library.before.clear()
        library.failing[name] = 24
    with no_descriptor_left():
        assert selector.select(0.02) == []
    others[2][1].send(b"x")
    assert [key.data for key, _ in selector.select(1)] == [2]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_signal_handler_in_the_middle(selector, library, others, ghost, new_pair, moment, name):
    """What a handler registers and unregisters meanwhile is in the new set, or not in it."""
    selector.modify(others[1][0], EVENT_READ, 1)
    near, far = new_pair()

    def handler():
        selector.unregister(others[0][0])
        selector.register(near, EVENT_READ, "handler")

    def script():
        getattr(library, moment)[name] = handler

    if name == "epoll_create1":
        script()
    else:
        library.before["epoll_create1"] = script
    assert selector.select(0.01) == []
    for _, peer in others:
        peer.send(b"x")
    far.send(b"x")
    assert sorted(str(key.data) for key, _ in selector.select(1)) == ["1", "2", "handler"]
    assert sorted(str(key.data) for key, _ in selector.select(1)) == ["1", "2", "handler"]
    assert epoll_list(selector.fileno()) == wanted(selector)
