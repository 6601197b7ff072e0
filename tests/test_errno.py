"""errno belongs to the call that failed, whatever runs between the call and its reader.

A signal handler or a finaliser runs as soon as a C function has returned, and
its own failing calls overwrite ``ffi.errno``. Under storms of such handlers each
outcome must be what it would be in silence.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from . import tally
from .kernels.machines import MACHINES

HOST = [machine for machine in MACHINES if not machine.simulated]
SECONDS = 5 if tally.long_profile() else 0.3

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")


class Clobber:
    """A signal handler that makes an ABI-mode call fail, with an errno nobody else has here."""

    def __init__(self, session):
        self._poll = session.binding.function("poll")
        self._ffi = session.binding.ffi
        self.runs = 0

    def __call__(self, *_):
        self.runs += 1
        # More descriptors than RLIMIT_NOFILE are EINVAL, before the pointer is looked at.
        assert self._poll(self._ffi.NULL, 1 << 30, 0) == -1
        assert self._ffi.errno == errno.EINVAL


@contextlib.contextmanager
def storm(handler, interval=0.0001):
    """SIGALRM every ``interval`` seconds."""
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
@pytest.mark.parametrize("expected", [errno.EPERM, errno.EBADF])
def test_a_refused_registration_keeps_its_errno(tmp_path, expected):
    """register is refused with the kernel's errno, not with the handler's."""
    session = next(machine for machine in HOST if machine.mechanism == "epoll").boot()
    with open(tmp_path / "file", "wb") as file, session.selector() as selector:
        fd = file.fileno() if expected == errno.EPERM else 10**6
        handler = Clobber(session)
        end = time.monotonic() + SECONDS
        refused = 0
        with storm(handler):
            while time.monotonic() < end:
                with pytest.raises(OSError, match=os.strerror(expected)) as caught:
                    selector.register(fd, EVENT_READ)
                assert caught.value.errno == expected
                refused += 1
        assert handler.runs > 10
        assert refused > 100
        assert not selector.get_map()
    tally.count("signals handled", handler.runs)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
def test_a_refused_change_keeps_its_errno():
    """modify heals a reused number (ENOENT) in every instant, whatever the handler's errno."""
    session = next(machine for machine in HOST if machine.mechanism == "epoll").boot()
    near, far = socket.socketpair()
    number = os.dup(near.fileno())
    handler = Clobber(session)
    with near, far, session.selector() as selector:
        end = time.monotonic() + SECONDS
        with storm(handler):
            while time.monotonic() < end:
                selector.register(number, EVENT_READ)
                os.dup2(far.fileno(), number)
                assert selector.modify(number, EVENT_WRITE).events == EVENT_WRITE
                assert selector.select(0) == [(selector.get_key(number), EVENT_WRITE)]
                selector.unregister(number)
                os.dup2(near.fileno(), number)
        assert handler.runs > 10
    os.close(number)
    tally.count("signals handled", handler.runs)


@pytest.mark.parametrize("machine", HOST, ids=str)
def test_an_interrupted_wait_goes_on(machine):
    """EINTR is recognised though the handler has left EINVAL: the wait takes its whole time."""
    session = machine.boot()
    handler = Clobber(session)
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        selector.register(near, EVENT_READ)
        end = time.monotonic() + SECONDS
        with storm(handler, 0.0005):
            while time.monotonic() < end:
                started = time.monotonic()
                assert selector.select(0.01) == []
                assert time.monotonic() - started >= 0.01
        assert handler.runs > 10
        far.send(b"x")
        assert [key.fileobj for key, _ in selector.select(1)] == [near]
    tally.count("signals handled", handler.runs)


@pytest.mark.parametrize("machine", [m for m in HOST if m.mechanism == "select"], ids=str)
def test_a_failed_wait_keeps_its_errno(machine):
    """select(2) of a closed descriptor is EBADF, not the handler's EINVAL."""
    session = machine.boot()
    handler = Clobber(session)
    number = os.dup(0)
    with session.selector() as selector:
        selector.register(number, EVENT_READ)
        os.close(number)
        end = time.monotonic() + SECONDS
        with storm(handler):
            while time.monotonic() < end:
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                    selector.select(1)
        assert handler.runs > 10
    tally.count("signals handled", handler.runs)


@pytest.mark.skipif(not hasattr(gc, "set_threshold"), reason="PyPy's collector runs when it likes")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
def test_a_finaliser_cannot_change_an_outcome(tmp_path):
    """The collector may run a failing finaliser at any allocation."""
    session = next(machine for machine in HOST if machine.mechanism == "epoll").boot()
    clobber = Clobber(session)

    class Garbage:
        def __init__(self):
            self.myself = self

        def __del__(self):
            clobber()

    before = gc.get_threshold()
    with open(tmp_path / "file", "wb") as file, session.selector() as selector:
        gc.set_threshold(1)
        try:
            for _ in range(300):
                Garbage()
                with pytest.raises(PermissionError):
                    selector.register(file, EVENT_READ)
        finally:
            gc.set_threshold(*before)
        gc.collect()
    assert clobber.runs > 100


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_closing_leaves_errno_alone(machine):
    """Closing and finalising a selector, which finalisers do anywhere, do not touch errno."""
    session = machine.boot()
    ffi = session.binding.ffi
    for finish in (lambda selector: selector.close(), lambda selector: selector.__del__()):
        selector = session.selector()
        if not hasattr(selector, "__del__") and "__del__" in finish.__code__.co_names:
            continue
        ffi.errno = errno.EXDEV
        finish(selector)
        assert ffi.errno == errno.EXDEV
        selector.close()
