"""KeyboardInterrupt at every bytecode of register, unregister, modify and select.

Afterwards the descriptor can be unregistered, if it is registered, and
registered again; it is then reported as what it is, and others are as before.
"""

from __future__ import annotations

import os
import socket
import sys
from selectors import EVENT_READ, EVENT_WRITE

import pytest

import selectors_ffi

from . import tally
from .kernels.machines import MACHINES, SOME, no_descriptor_left

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the machines are Unix's")

BOTH = EVENT_READ | EVENT_WRITE
PACKAGE = os.path.dirname(selectors_ffi.__file__)
KERNELS = os.path.join(PACKAGE, "testing")  # a real kernel has no bytecode


def in_finaliser(frame):
    """Tell whether a finaliser runs, of which Python shows an exception and goes on."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interrupter:
    """A trace function that raises KeyboardInterrupt at the n-th bytecode of the package.

    PyPy traces lines only: there it is the n-th line.
    """

    def __init__(self, place):
        self.place = place
        self.passed = 0
        self.raised = False

    def __call__(self, frame, event, argument):
        filename = frame.f_code.co_filename
        if not filename.startswith(PACKAGE) or filename.startswith(KERNELS) or in_finaliser(frame):
            return None
        unit = "line"
        if sys.implementation.name == "cpython":
            unit = "opcode"
            frame.f_trace_opcodes = True
        if event == unit:
            self.passed += 1
            if self.passed == self.place:
                self.raised = True
                raise KeyboardInterrupt
        return self

    def run(self, operation):
        """Whether the operation was interrupted."""
        before = sys.gettrace()
        # CPython 3.12 begins to tell of bytecodes with the first settrace() after this.
        sys._getframe().f_trace_opcodes = sys.implementation.name == "cpython"
        sys.settrace(self)
        try:
            operation()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        return self.raised


OPERATIONS = {
    "register": (None, lambda selector, fd: selector.register(fd, BOTH, "new")),
    "unregister": (EVENT_READ, lambda selector, fd: selector.unregister(fd)),
    "widen": (EVENT_READ, lambda selector, fd: selector.modify(fd, BOTH, "new")),
    "narrow": (BOTH, lambda selector, fd: selector.modify(fd, EVENT_WRITE, "new")),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("machine", MACHINES if tally.long_profile() else SOME, ids=str)
def test_at_every_bytecode(machine, name):
    """Wherever it is interrupted, the selector can be brought back by its own methods."""
    before, operation = OPERATIONS[name]
    pairs = [socket.socketpair() for _ in range(3)]
    (near, far), *others = pairs
    far.send(b"x")
    place = 0
    interrupted = True
    while interrupted:
        place += 1
        with no_descriptor_left() if place % 16 == 1 else near_nothing():
            session = machine.boot()
            with session.selector() as selector:
                for other, _ in others:
                    selector.register(other, EVENT_WRITE, "other")
                if before:
                    selector.register(near.fileno(), before, "old")
                interrupted = Interrupter(place).run(lambda: operation(selector, near.fileno()))
                check(session, selector, near.fileno(), [end.fileno() for end, _ in others])
    assert place > (20 if sys.implementation.name == "cpython" else 3)
    tally.count("asynchronous exceptions", place - 1)
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("directions", [EVENT_WRITE, BOTH])
@pytest.mark.parametrize("machine", MACHINES if tally.long_profile() else SOME, ids=str)
def test_a_wait_at_every_bytecode(machine, directions):
    """Wherever a wait is interrupted that finds changes of all kinds, the next one is right.

    At every 17th bytecode; at every one with the long profile.
    """
    pairs = [socket.socketpair() for _ in range(20)]
    gone, kept, narrowed, *new = [near.fileno() for near, _ in pairs]
    expected = {kept: "old", narrowed: "new", **dict.fromkeys(new, "new")}
    step = 1 if tally.long_profile() or sys.implementation.name != "cpython" else 17
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
            interrupted = Interrupter(places * step).run(lambda: selector.select(0))
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
