"""The /dev/poll backend where it is like no other: refused writes, wakers, and the room for results."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

if os.name != "posix":
    pytest.skip("simulated on poll(2)", allow_module_level=True)

from selectors_ffi.backends import devpoll, wake
from selectors_ffi.testing.library import Proxy

from .crew import Crew
from .kernels.faulty import FaultyLibrary
from .kernels.machines import MACHINES, no_descriptor_left
from .test_fork import in_child

BOTH = EVENT_READ | EVENT_WRITE
PATIENCE = 30
SYSTEMS = [machine for machine in MACHINES if machine.mechanism == "devpoll"]


@pytest.fixture(params=SYSTEMS, ids=str)
def machine(request):
    """Each of the simulated systems that have /dev/poll."""
    return request.param


def boot(machine):
    """A session and the library that can be made to fail."""
    library = []
    session = machine.boot(lambda whole: library.append(FaultyLibrary(whole)) or library[0])
    return session, library[0]


def asleep(session, selector, count=1):
    """Wait until so many threads sleep in the selector's ioctl."""
    handle = session.kernel.handles[selector._descriptor.fd]
    end = time.monotonic() + PATIENCE
    while len(handle.polling) < count or len(handle.sleepers) < count:
        assert time.monotonic() < end
        os.sched_yield()


class Waiting(threading.Thread):
    """A thread in select()."""

    def __init__(self, selector, timeout=PATIENCE):
        super().__init__(daemon=True)
        self.found = None
        self._arguments = selector, timeout
        self.start()

    def run(self):
        """Wait once."""
        selector, timeout = self._arguments
        self.found = selector.select(timeout)

    def result(self):
        """What the wait returned."""
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.found


def test_refused_after_it_was_applied(machine, pair):
    """A write that fails half-way leaves nothing behind: register nothing, modify the old mask."""
    near, _ = pair
    session, library = boot(machine)
    library.applied.add("write")
    with session.selector() as selector:
        library.plan["write", 1] = errno.ENOMEM
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            selector.register(near, BOTH)
        assert session.watched(selector) == {}

        key = selector.register(near, EVENT_READ)
        library.plan["write", library.calls["write"] + 1] = errno.ENOMEM
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            selector.modify(near, BOTH)
        assert session.watched(selector) == {near.fileno(): EVENT_READ}
        assert selector.get_key(near) is key


def test_refused_and_refused_again(machine, pair):
    """When the old mask cannot be written back either, the caller hears of the first refusal."""
    near, _ = pair
    session, library = boot(machine)
    with session.selector() as selector:
        selector.register(near, EVENT_READ)
        at = library.calls["write"]
        library.plan.update({("write", at + 1): errno.ENOMEM, ("write", at + 2): errno.EINVAL})
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            selector.modify(near, BOTH)


def test_a_short_write(machine, pair):
    """A write that takes less than it was given is an error, EIO, and leaves nothing behind."""
    near, _ = pair
    session = machine.boot(lambda whole: Proxy(whole, lambda call: call.run() - 8, ["write"]))
    with session.selector() as selector:
        with pytest.raises(OSError, match="wrote 8 of 16 bytes to /dev/poll") as caught:
            selector.register(near, EVENT_READ)
        assert caught.value.errno == errno.EIO
        assert session.watched(selector) == {}


def test_a_child_does_not_wait_for_a_thread_of_its_parent(machine, pair):
    """A thread may write to the set while another one forks; no child waits for it for ever."""
    near, _ = pair
    with machine.boot().selector() as selector:
        writing, end, crew = threading.Event(), threading.Event(), Crew()

        def write():
            with selector._lock:
                writing.set()
                assert end.wait(PATIENCE)

        crew.start(write)
        assert writing.wait(PATIENCE)

        def child():
            with contextlib.suppress(PermissionError):
                selector.register(near, EVENT_READ)

        in_child(child)
        end.set()
        crew.join()


@pytest.mark.parametrize("fd", [2**31, 2**70])
def test_a_number_beyond_an_int(machine, fd):
    """A number that is no C int is an OverflowError, before the kernel is asked."""
    with machine.boot().selector() as selector:
        with pytest.raises(OverflowError):
            selector.register(fd, EVENT_READ)


def test_a_closed_descriptor(machine, pair):
    """What is closed and not unregistered stays registered; it is not returned, or looked at again."""
    near, _ = pair
    session = machine.boot()
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        near.close()
        for _ in range(2):
            begin = time.monotonic()
            assert selector.select(0.02) == []
            assert time.monotonic() - begin >= 0.02
        assert list(selector.get_map().values()) == [key]
        assert session.kernel.handles[selector._descriptor.fd].entries == {}
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            selector.modify(key.fd, EVENT_WRITE)
        assert not selector.get_map()


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_woken_for_a_change_only(machine, pair, timeout):
    """A wait that another thread's changes have woken goes on until something is ready."""
    near, far = pair
    idle, peer = socket.socketpair()
    session = machine.boot()
    with session.selector() as selector, idle, peer:
        key = selector.register(near, EVENT_READ)
        waiting = Waiting(selector, timeout)
        asleep(session, selector)
        selector.register(idle.fileno(), EVENT_READ)
        selector.unregister(idle.fileno())
        asleep(session, selector)
        far.send(b"x")
        assert waiting.result() == [(key, EVENT_READ)]


def test_a_change_waits_for_no_other_wait(machine, pair):
    """A change rings for all threads that sleep, and ends although Oracle's write waits for them."""
    near, far = pair
    session = machine.boot()
    with no_descriptor_left(), session.selector() as selector:
        waits = [Waiting(selector), Waiting(selector)]
        asleep(session, selector, 2)
        key = selector.register(near, EVENT_READ)
        asleep(session, selector, 2)
        far.send(b"x")
        assert [wait.result() for wait in waits] == [[(key, EVENT_READ)]] * 2


def test_only_waits_are_rung_for(machine, pair, monkeypatch):
    """A change rings the waker while a call is in flight, and not before or after."""
    near, far = pair
    rings = []
    ring = wake.Waker.ring
    monkeypatch.setattr(wake.Waker, "ring", lambda waker: rings.append(waker) or ring(waker))
    session = machine.boot()
    with session.selector() as selector:
        waiting = Waiting(selector)
        asleep(session, selector)
        selector.register(near, EVENT_READ)
        assert rings == [selector._waker]
        far.send(b"x")
        waiting.result()
        selector.modify(near, EVENT_WRITE)
        assert rings == [selector._waker]


@pytest.mark.parametrize("reason", ["no descriptor is left", "the write is refused"])
def test_without_a_waker(machine, pair, monkeypatch, reason):
    """Where no waker can be had, a wait sleeps in short slices and hears of changes a little later."""
    near, far = pair
    session, library = boot(machine)
    with no_descriptor_left(), session.selector() as selector:
        if reason == "no descriptor is left":

            def refuse(**_):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

            monkeypatch.setattr(devpoll, "lend", refuse)
        else:
            library.plan["write", 1] = errno.ENOMEM
        waiting = Waiting(selector)
        asleep(session, selector)
        key = selector.register(near, EVENT_READ)
        far.send(b"x")
        assert waiting.result() == [(key, EVENT_READ)]
        near.recv(1)
        waiting = Waiting(selector)
        asleep(session, selector)
        selector.wakeup()
        assert waiting.result() == []


@pytest.mark.parametrize("registered", [False, True])
def test_a_waker_that_the_program_has_closed(machine, pair, registered):
    """It is forgotten: no wait spins for it, and what has got its number is reported."""
    near, far = pair
    calls = []

    def hook(call):
        calls.append(call.name)
        return call.run()

    session = machine.boot(lambda whole: Proxy(whole, hook))
    released = threading.Event()
    other = threading.Thread(target=released.wait)
    other.start()
    try:
        with session.selector() as selector:
            assert selector.select(0.01) == []
            waker = selector._waker
            os.close(waker.reader)
            os.close(waker._writer)
            if registered:
                os.dup2(near.fileno(), waker.reader)
                key = selector.register(waker.reader, EVENT_READ)
                far.send(b"x")
                assert selector.select(PATIENCE) == [(key, EVENT_READ)]
                selector.unregister(waker.reader)
                os.close(waker.reader)
            calls.clear()
            assert selector.select(0.2) == []
            assert len(calls) < 10
            waiting = Waiting(selector)
            asleep(session, selector)
            selector.wakeup()
            assert waiting.result() == []
    finally:
        released.set()
        other.join()


def test_no_descriptor_for_one_thread(machine, pair):
    """A selector that one thread uses has the set and no other descriptor."""
    if threading.active_count() > 1:
        pytest.skip("a thread of some other test is still here")
    near, far = pair
    far.send(b"x")
    with machine.boot().selector() as selector, no_descriptor_left():
        selector.register(near, BOTH)
        assert len(selector.select(1)) == 1
        assert selector.modify(near, EVENT_READ).events == EVENT_READ
        assert len(selector.select(None)) == 1
        selector.wakeup()
        assert selector.select(None) != []
        selector.unregister(near)
        assert selector.select(0.01) == []


def test_a_handler_wakes_just_before_the_call(machine, pair):
    """A wake-up after the last look at the flag, in the thread that is to sleep, is not lost."""
    near, _ = pair
    calls = []

    def hook(call):
        calls.append(call.arguments[2].dp_timeout)
        if len(calls) == 1:
            selector.wakeup()  # as a handler that runs between two bytecodes
        return call.run()

    session = machine.boot(lambda whole: Proxy(whole, hook, ["ioctl"]))
    with session.selector() as selector:
        selector.register(near, EVENT_READ)
        assert selector.select(None) == []
        assert calls == [-1]
        begin = time.monotonic()
        assert selector.select(0.05) == []
        assert time.monotonic() - begin >= 0.05


def test_a_wait_that_begins_during_a_change(machine, pair):
    """A call that begins while another thread writes starts to sleep after the write."""
    near, far = pair
    order, waits = [], []

    def hook(call):
        if call.name == "ioctl":
            order.append("wait")
        elif call.arguments[1][0].fd == near.fileno():
            waits.append(Waiting(selector))
            while not order and waits[0].is_alive() and selector._waits:
                os.sched_yield()
            order.append("write")
        return call.run()

    session = machine.boot(lambda whole: Proxy(whole, hook, ["ioctl", "write"]))
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        far.send(b"x")
        assert waits[0].result() == [(key, EVENT_READ)]
        assert order[:2] == ["write", "wait"]


def test_a_change_during_a_wait_is_looked_up_again(machine, pair):
    """An event that was fetched before a change is left out; the wait asks again."""
    near, far = pair
    far.send(b"x")

    changes = []

    def hook(call):
        result = call.run()
        if changes:
            selector.modify(near, changes.pop())
        return result

    session = machine.boot(lambda whole: Proxy(whole, hook, ["ioctl"]))
    with session.selector() as selector:
        selector.register(near, EVENT_READ)
        changes.append(BOTH)
        assert selector.select(None) == [(selector.get_key(near), BOTH)]
        changes.append(EVENT_WRITE)
        assert selector.select(0) == []
        assert selector.select(0) == [(selector.get_key(near), EVENT_WRITE)]


@pytest.mark.parametrize("limit", ["unlimited", "small"])
def test_room_for_results(machine, limit):
    """Less room is asked for than RLIMIT_NOFILE, and room for one at least."""
    import resource

    soft = {"unlimited": resource.RLIM_INFINITY, "small": 3}[limit]
    pairs = [socket.socketpair() for _ in range(20)]
    asked = []

    def hook(call):
        asked.append(call.arguments[2].dp_nfds)
        return call.run()

    with machine.boot(lambda whole: Proxy(whole, hook, ["ioctl"])).selector() as selector:
        for near, _ in pairs:
            selector.register(near, EVENT_WRITE)
        facts = selector._facts
        facts._getrlimit = lambda _: (soft, soft)
        assert len(selector.select(0)) == {"unlimited": 20, "small": 2}[limit]
        assert asked == {"unlimited": [16, 64], "small": [2]}[limit]
        facts._getrlimit = lambda _: (1, 1)
        assert len(selector.select(0)) == 1
        facts._getrlimit = resource.getrlimit
        assert len(selector.select(0)) == 20
    for pair in pairs:
        for end in pair:
            end.close()


def test_closed_while_two_threads_sleep(machine):
    """close() ends every wait with [], and gives back the set and the waker."""
    session = machine.boot()
    with no_descriptor_left():
        selector = session.selector()
        waits = [Waiting(selector, None), Waiting(selector, PATIENCE)]
        asleep(session, selector, 2)
        selector.close()
        assert [wait.result() for wait in waits] == [[], []]
        assert selector._waker is None
        assert selector._idle == []
