"""Signal handlers that return, raise, and use the very selector that they interrupt."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from . import tally
from .alarms import alarm
from .crew import still
from .kernels.machines import MACHINES, no_descriptor_left

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")

BOTH = EVENT_READ | EVENT_WRITE
SECONDS = 3 if tally.long_profile() else 0.15


@pytest.fixture(params=MACHINES, ids=str)
def session(request):
    """A booted machine, of every kind."""
    return request.param.boot()


class Surprise(Exception):
    pass


@pytest.mark.parametrize("kind", [Surprise, InterruptedError, KeyboardInterrupt])
@pytest.mark.parametrize("timeout", [None, 30])
def test_a_handler_that_raises_ends_the_wait(session, pair, kind, timeout):
    """The exception comes out of select, and the selector works as before."""
    near, far = pair

    def handler(*_):
        raise kind("from the handler")

    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        with pytest.raises(kind, match="from the handler"), alarm(handler, 0.01):
            selector.select(timeout)
        assert selector.select(0) == []
        far.send(b"x")
        assert selector.select(timeout) == [(key, EVENT_READ)]


def test_a_handler_that_returns_does_not_shorten_the_wait(session, pair):
    """Interrupted over and over, a wait is never early and still ends."""
    near, _ = pair
    with session.selector() as selector, alarm(lambda *_: None, 0.001, 0.001) as runs:
        selector.register(near, EVENT_READ)
        begun = time.monotonic()
        while still(begun, 0.05, len(runs) > 3):
            started = time.monotonic()
            assert selector.select(0.05) == []
            assert 0.05 <= time.monotonic() - started < 10
    assert len(runs) > 3


def test_a_handler_that_makes_something_ready_ends_the_wait(session, pair):
    """What the handler sent is reported by the call that it interrupted."""
    near, far = pair
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        with alarm(lambda *_: far.send(b"x"), 0.01):
            assert selector.select(30) == [(key, EVENT_READ)]


def test_a_handler_that_registers_is_heard_at_once(session, pair):
    """A ready descriptor that a handler registers ends the interrupted wait without end.

    The signal comes again, for the first may come before the wait has begun: select(2)
    and poll(2) have their copy of the interest then, and need to be interrupted.
    """
    near, _ = pair

    def handler(*_):
        if near not in selector.get_map():
            selector.register(near, EVENT_WRITE, "late")

    with session.selector() as selector:
        with alarm(handler, 0.01, 0.05):
            found = selector.select(30)
        assert [(key.data, events) for key, events in found] == [("late", EVENT_WRITE)]


def test_a_handler_that_closes_the_selector(session, pair):
    """The interrupted wait says that the selector is closed, or finds nothing; nothing leaks."""
    near, _ = pair
    with no_descriptor_left():
        selector = session.selector()
        selector.register(near, EVENT_READ)
        with alarm(lambda *_: selector.close(), 0.01):
            try:
                assert selector.select(0.1) == []
            except ValueError as error:
                closed = str(error)
                assert "closed" in closed
        with pytest.raises(ValueError, match="closed"):
            selector.select(0)


def test_a_handler_that_uses_the_selector(session, pair):
    """Changes by a handler in the middle of changes: registry and kernel agree afterwards.

    The handler registers, changes and removes descriptors of its own, and one
    that the interrupted code changes as well.
    """
    near, far = pair
    own, _other = socket.socketpair()
    state = {"rounds": 0, "running": False}
    with own, _other, session.selector() as selector:

        def handler(*_):
            if session.busy() or state["running"]:
                return
            state["running"] = True
            state["rounds"] += 1
            for fileobj in (own, near):
                if fileobj in selector.get_map():
                    selector.modify(fileobj, EVENT_WRITE if state["rounds"] % 2 else BOTH)
                    if state["rounds"] % 3 == 0:
                        selector.unregister(fileobj)
                else:
                    with contextlib.suppress(KeyError):
                        selector.register(fileobj, EVENT_READ, "handler")
            selector.select(0)
            state["running"] = False

        far.send(b"x")
        begun = time.monotonic()
        with alarm(handler, 0.0005, 0.0005):
            while still(begun, SECONDS, state["rounds"] > 3):
                # The handler may have been faster with any of these.
                with contextlib.suppress(KeyError):
                    selector.register(near, EVENT_READ, "main")
                with contextlib.suppress(KeyError):
                    selector.modify(near, BOTH, "main")
                selector.select(0)
                with contextlib.suppress(KeyError):
                    selector.unregister(near)
        assert state["rounds"] > 3
        settled(session, selector, near)
        settled(session, selector, own)
        assert not selector.get_map()


def settled(session, selector, fileobj):
    """The descriptor can be unregistered, registered and is reported as what it is now."""
    if fileobj in selector.get_map():
        selector.unregister(fileobj)
    key = selector.register(fileobj, EVENT_WRITE, "last")
    assert (key, EVENT_WRITE) in selector.select(0)
    kernel = session.watched(selector)
    if kernel is not None:
        assert kernel[fileobj.fileno()] == EVENT_WRITE
    assert selector.unregister(fileobj) == key
    if kernel is not None:
        assert fileobj.fileno() not in session.watched(selector)


def test_wakeup_fd_and_selector(session, pair):
    """signal.set_wakeup_fd on a watched socket ends the wait, as asyncio relies on."""
    near, far = pair
    near.setblocking(False)
    far.setblocking(False)
    previous = signal.set_wakeup_fd(far.fileno())
    try:
        with session.selector() as selector, alarm(lambda *_: None, 0.01):
            key = selector.register(near, EVENT_READ)
            assert selector.select(30) == [(key, EVENT_READ)]
            assert {*near.recv(10)} == {signal.SIGALRM}
    finally:
        signal.set_wakeup_fd(previous)
