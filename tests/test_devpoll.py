"""The /dev/poll backend where it is like no other: refused writes, the pipe that wakes a sleeper."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from .kernels.faulty import FaultyLibrary
from .kernels.machines import MACHINES, no_descriptor_left

BOTH = EVENT_READ | EVENT_WRITE
SYSTEMS = [machine for machine in MACHINES if machine.mechanism == "devpoll"]


@pytest.fixture(params=SYSTEMS, ids=str)
def machine(request):
    """Each of the simulated systems that have /dev/poll."""
    return request.param


@pytest.fixture
def pair():
    """Two connected sockets."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def boot(machine):
    """A session and the library that can be made to fail."""
    library = []
    session = machine.boot(lambda whole: library.append(FaultyLibrary(whole)) or library[0])
    return session, library[0]


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


def test_short_write(machine, pair, monkeypatch):
    """A write that takes less than it was given is an error, EIO, and leaves nothing behind."""
    near, _ = pair
    session = machine.boot()
    with session.selector() as selector:
        whole = selector._write
        monkeypatch.setattr(selector, "_write", lambda *arguments: whole(*arguments) - 8)
        with pytest.raises(OSError, match="wrote 8 of 16 bytes to /dev/poll") as caught:
            selector.register(near, EVENT_READ)
        assert caught.value.errno == errno.EIO
        assert session.watched(selector) == {}


@pytest.mark.parametrize("fd", [2**31, 2**70])
def test_number_beyond_an_int(machine, fd):
    """A number that is no C int is an OverflowError, before the kernel is asked."""
    with machine.boot().selector() as selector:
        with pytest.raises(OverflowError):
            selector.register(fd, EVENT_READ)


def asleep(selector):
    """Wait until a thread sleeps in the selector's ioctl."""
    never = threading.Event()
    end = time.monotonic() + 30
    while not selector._asleep:
        assert time.monotonic() < end
        never.wait(0.001)


@pytest.mark.parametrize("timeout", [None, 30])
def test_woken_for_nothing(machine, pair, timeout):
    """A sleeper that was woken by a registration goes back to sleep until something is ready."""
    near, far = pair
    found = []
    idle, peer = socket.socketpair()
    with machine.boot().selector() as selector, idle, peer:
        key = selector.register(near, EVENT_READ)
        thread = threading.Thread(target=lambda: found.append(selector.select(timeout)))
        thread.start()
        asleep(selector)
        selector.register(idle.fileno(), EVENT_READ)
        selector.unregister(idle.fileno())
        asleep(selector)
        far.send(b"x")
        thread.join(30)
        assert found == [[(key, EVENT_READ)]]


def pending(selector):
    """How many bytes wait in the pipe."""
    try:
        return len(os.read(selector._wake_read, 4096))
    except BlockingIOError:
        return 0


def test_only_sleepers_are_woken(machine, pair):
    """A change rings once for those asleep, and not at all when nobody is, before or after."""
    near, far = pair
    with no_descriptor_left(), machine.boot().selector() as selector:
        selector._make_waker()
        reader = selector._wake_read
        selector._make_waker()
        assert selector._wake_read == reader
        selector.register(near, EVENT_READ)
        assert pending(selector) == 0
        thread = threading.Thread(target=selector.select, args=(None,))
        thread.start()
        asleep(selector)
        far.send(b"x")
        thread.join(30)
        selector.modify(near, EVENT_WRITE)
        assert pending(selector) == 0
        selector._asleep.append(None)
        selector.modify(near, EVENT_READ)
        assert pending(selector) == 1


def fill(writer):
    """Write to a pipe until it takes no more."""
    try:
        while True:
            os.write(writer, bytes(65536))
    except BlockingIOError:
        pass


def test_a_full_pipe_and_an_empty_one(machine, pair):
    """Neither ringing when the pipe is full nor emptying an empty one blocks or fails."""
    near, _ = pair
    with machine.boot().selector() as selector:
        selector._hush()  # there is no pipe
        selector._make_waker()
        selector._hush()  # an empty one
        assert not os.get_blocking(selector._wake_read)
        fill(selector._wake_write)
        selector._asleep.append(None)
        selector.register(near, EVENT_READ)
        assert selector.get_key(near).fd == near.fileno()


def test_the_pipe_cannot_be_watched(machine, pair):
    """When the kernel refuses the pipe it is closed, the wait fails, and the next one can have it."""
    near, far = pair
    session, library = boot(machine)
    with no_descriptor_left(), session.selector() as selector:
        selector.register(near, EVENT_READ)
        errors = []

        def wait():
            try:
                selector.select(30)
            except OSError as error:
                errors.append(error.errno)

        library.plan["write", library.calls["write"] + 1] = errno.ENOMEM
        with no_descriptor_left():
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(30)
        assert errors == [errno.ENOMEM]
        assert selector._wake_write == -1
        far.send(b"x")
        assert [key.fileobj for key, _ in selector.select(30)] == [near]


def test_no_pipe_for_a_closed_selector(machine):
    """A pipe that is asked for after the selector was closed is not left open."""
    selector = machine.boot().selector()
    selector.close()
    with no_descriptor_left(), pytest.raises(ValueError, match="closed"):
        selector._make_waker()
    assert selector._wake_write == -1


@pytest.mark.parametrize("limit", ["unlimited", "small"])
def test_room_for_results(machine, monkeypatch, limit):
    """Room is asked for every registration, but for less than RLIMIT_NOFILE, and for one at least."""
    import resource

    soft = {"unlimited": resource.RLIM_INFINITY, "small": 3}[limit]
    pairs = [socket.socketpair() for _ in range(5)]
    with machine.boot().selector() as selector:
        for near, _ in pairs:
            selector.register(near, EVENT_WRITE)
        with monkeypatch.context() as patch:
            patch.setattr(resource, "getrlimit", lambda _: (soft, soft))
            sizes = len(selector._wait(0)[0])
            assert sizes == {"unlimited": 6, "small": 2}[limit]
            patch.setattr(resource, "getrlimit", lambda _: (1, 1))
            assert len(selector._wait(0)[0]) == 1
        assert len(selector.select(0)) == 5
    for pair in pairs:
        for end in pair:
            end.close()
