"""KeyboardInterrupt, or a signal handler's exception, at every bytecode of what a selector does.

The exception comes out, though a missing entry of a table is a KeyError, too, and a refusal of the
kernel an OSError as TimeoutError is. Afterwards
the descriptor can be unregistered, if it is registered, and
registered again; it is then reported as what it is, and others are as before.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from errno import EBADF
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from . import tally
from .bytecodes import AtBytecode
from .crew import Crew
from .kernels.machines import SOME, no_descriptor_left

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="the simulated kernels work on Unix descriptors"
)

BOTH = EVENT_READ | EVENT_WRITE


def in_finaliser(frame):
    """Tell whether a finaliser runs, of which Python shows an exception and goes on."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interrupter(AtBytecode):
    """An exception is raised at the n-th bytecode."""

    def __init__(self, place, kind=KeyboardInterrupt):
        super().__init__(place)
        self.error = kind("of a signal handler")

    def counts(self, frame):
        return super().counts(frame) and not in_finaliser(frame)

    def act(self):
        raise self.error

    def run(self, operation):
        """Whether the operation was interrupted; the exception has come out then."""
        came = None
        try:
            super().run(operation)
        except type(self.error) as error:
            came = error
        assert came is (self.error if self.reached else None), self.where
        assert not getattr(came, "__notes__", None), self.where
        return self.reached


def not_open(text):
    """The exception of a handler whose own call has failed as one of a selector may."""
    return OSError(EBADF, text)


def kinds(*short):
    """Return what is raised: ``short``, or all that a method may take for its own."""
    every = [KeyboardInterrupt, KeyError, IndexError, ValueError, TimeoutError, not_open, struct.error]
    return every if tally.long_profile() else short


def register_again(selector, fd):
    """Register what is registered, which is refused."""
    try:
        selector.register(fd, EVENT_WRITE)
    except KeyError as error:
        if "already registered" not in str(error):
            raise


OPERATIONS = {
    "register": (None, lambda selector, fd: selector.register(fd, BOTH, "new")),
    "register again": (EVENT_READ, register_again),
    "unregister": (EVENT_READ, lambda selector, fd: selector.unregister(fd)),
    "discard": (EVENT_READ, lambda selector, fd: selector.discard(fd)),
    "discard nothing": (EVENT_READ, lambda selector, fd: selector.discard("no file object")),
    "look up": (EVENT_READ, lambda selector, fd: selector.get_key(fd)),
    "widen": (EVENT_READ, lambda selector, fd: selector.modify(fd, BOTH, "new")),
    "narrow": (BOTH, lambda selector, fd: selector.modify(fd, EVENT_WRITE, "new")),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", kinds(KeyboardInterrupt, KeyError, TimeoutError, not_open))
@pytest.mark.parametrize("machine", SOME, ids=str)
def test_at_every_bytecode(machine, name, kind):
    """Wherever it is interrupted, the selector can be brought back by its own methods.

    KeyboardInterrupt at every bytecode, on PyPy at every line; others at every fifth, at every one
    with the long profile.
    """
    if name == "discard nothing" and kind is ValueError:
        pytest.skip("a ValueError where fileno() is called is its answer")
    before, operation = OPERATIONS[name]
    pairs = [socket.socketpair() for _ in range(3)]
    (near, far), *others = pairs
    far.send(b"x")
    step = 1 if tally.long_profile() or kind is KeyboardInterrupt else 5
    place = 1 - step
    interrupted = True
    while interrupted:
        place += step
        with no_descriptor_left() if place % 16 == 1 else near_nothing():
            session = machine.boot()
            with session.selector() as selector:
                for other, _ in others:
                    selector.register(other, EVENT_WRITE, "other")
                if before:
                    selector.register(near.fileno(), before, "old")
                interrupted = Interrupter(place, kind).run(lambda: operation(selector, near.fileno()))
                check(session, selector, near.fileno(), [end.fileno() for end, _ in others])
    assert place > (15 if sys.implementation.name == "cpython" else 3)
    tally.count("asynchronous exceptions", place // step)
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("directions", [EVENT_WRITE, BOTH])
@pytest.mark.parametrize("kind", kinds(KeyboardInterrupt))
@pytest.mark.parametrize("machine", SOME, ids=str)
def test_a_wait_at_every_bytecode(machine, kind, directions):
    """Wherever a wait is interrupted that finds changes of all kinds, the next one is right.

    At every 167th bytecode, on PyPy at every 13th line; at every one with the long profile.
    """
    pairs = [socket.socketpair() for _ in range(20)]
    gone, kept, narrowed, *new = [near.fileno() for near, _ in pairs]
    expected = {kept: "old", narrowed: "new", **dict.fromkeys(new, "new")}
    step = every()
    places = 0
    interrupted = True
    while interrupted:
        places += 1
        with machine.boot().selector() as selector:
            for fd in (gone, kept, narrowed):
                selector.register(fd, directions, "old")
            assert len(selector.select(0)) == 3
            selector.unregister(gone)
            selector.modify(narrowed, EVENT_WRITE, "new")
            for fd in new:
                selector.register(fd, directions, "new")
            interrupted = Interrupter(places * step, kind).run(lambda: selector.select(0))
            for _ in range(2):
                found = selector.select(0)
                assert {key.fd: key.data for key, _ in found} == expected
                assert all(events == EVENT_WRITE for _, events in found)
                assert len(found) == len(expected)
    assert places > 5
    tally.count("asynchronous exceptions", places - 1)
    for pair in pairs:
        for end in pair:
            end.close()


def every():
    """How many bytecodes lie between two interrupts, or lines on PyPy."""
    if tally.long_profile():
        return 1
    return 167 if sys.implementation.name == "cpython" else 13


@pytest.fixture(params=[False, True], ids=["alone", "beside a thread"])
def second_thread(request):
    """Whether Python knows of a second thread, so that waits take wakers with them."""
    if not request.param:
        yield
        return
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield
    end.set()
    thread.join()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("timeout", "used", "events"),
    [
        (0, 0, EVENT_WRITE),
        (None, 0, BOTH),
        (0.001, 1, EVENT_WRITE),
        (0, 3, BOTH),
        (None, 3, EVENT_WRITE),
    ],
)
@pytest.mark.parametrize("kind", kinds(KeyError, IndexError, TimeoutError))
@pytest.mark.parametrize("machine", SOME, ids=str)
@pytest.mark.usefixtures("second_thread")
def test_any_wait_at_every_bytecode(machine, kind, events, used, timeout):
    """The first wait and later ones: the exception comes out, and the next two waits are right.

    At every 167th bytecode, on PyPy at every 13th line; at every one with the long profile.
    """
    pairs = [socket.socketpair() for _ in range(3)]
    expected = {near.fileno(): EVENT_WRITE for near, _ in pairs}
    place, interrupted = 1, True
    while interrupted:
        with machine.boot().selector() as selector:
            for fd in expected:
                selector.register(fd, events, "data")
            for _ in range(used):
                assert len(selector.select(timeout)) == 3
            interrupter = Interrupter(place, kind)
            interrupted = interrupter.run(partial(selector.select, timeout))
            for again in (0, timeout):
                found = selector.select(again)
                assert {key.fd: ready for key, ready in found} == expected, interrupter.where
                assert len(found) == 3
            selector.unregister(pairs[0][0])
            selector.wakeup()
            assert len(selector.select(timeout)) == 2, interrupter.where
        place += every()
    tally.count("asynchronous exceptions", place // every())
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", SOME, ids=str)
def test_close_at_every_bytecode(machine):
    """Wherever ``close`` is interrupted, nothing was done, or it is done and other threads' waits end.

    At the first eight bytecodes and every 42nd after them, on PyPy at every fourth line; at every one
    with the long profile.
    """
    near, far = socket.socketpair()
    place, interrupted = 1, True
    with near, far:
        while interrupted:
            selector = machine.boot().selector()
            selector.register(near, EVENT_READ)
            found, crew = [], Crew()
            crew.start(lambda found=found, selector=selector: found.append(selector.select(20)))
            while not waits(selector):
                pass
            interrupter = Interrupter(place)
            interrupted = interrupter.run(selector.close)
            assert selector.get_map() is None or len(selector.get_map()) == 1, interrupter.where
            selector.close()
            begun = time.monotonic()
            crew.join()
            assert found == [[]], interrupter.where
            assert time.monotonic() - begun < 15, interrupter.where
            assert selector.get_map() is None
            place += 1 if place < 8 else (every() + 3) // 4
    tally.count("asynchronous exceptions", place // every())


def waits(selector):
    """Tell whether a call of a selector is in flight, or about to be."""
    if hasattr(selector, "_asleep"):
        return selector._asleep
    return selector._waits if hasattr(selector, "_waits") else selector._made and not selector._idle


class near_nothing:
    """A context that checks nothing: listing descriptors costs more than the rest."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def check(session, selector, fd, others):
    """Unregister, register, look; and the others."""
    registry = selector.get_map()
    assert set(registry) - {fd} == set(others)
    if fd in registry:
        assert registry[fd].data in ("old", "new")
        key = selector.unregister(fd)
        assert key.fd == fd
    with pytest.raises(KeyError):
        selector.unregister(fd)
    key = selector.register(fd, BOTH, "again")
    found = {key.fd: (key.data, events) for key, events in selector.select(0)}
    assert found == {fd: ("again", BOTH), **dict.fromkeys(others, ("other", EVENT_WRITE))}
    kernel = session.watched(selector)
    if kernel is not None:
        assert kernel == {fd: BOTH, **dict.fromkeys(others, EVENT_WRITE)}
    assert selector.modify(fd, EVENT_READ).events == EVENT_READ
    assert (selector.get_key(fd), EVENT_READ) in selector.select(0)
    selector.unregister(fd)
    found = sorted(key.fd for key, _ in selector.select(0))
    assert found == sorted(others)
