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
from types import SimpleNamespace

import pytest

from . import emulation, tally
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


class BrokenPipe:
    """A C function that sends a signal and fails, in one: write(2) to a pipe without reader.

    The handler of SIGPIPE is due the instant the function has returned. Here it leaves an errno
    that is not the function's.
    """

    def __init__(self):
        import cffi

        own = cffi.FFI()
        own.cdef("long write(int, const void *, size_t);")
        self._library = own.dlopen(None)
        self._address = int(own.cast("uintptr_t", own.addressof(self._library, "write")))
        self.runs = 0

    def __enter__(self):
        reader, self.writer = os.pipe()
        os.close(reader)
        self._previous = signal.signal(signal.SIGPIPE, self._handle)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGPIPE, self._previous)
        os.close(self.writer)

    def _handle(self, *_):
        self.runs += 1
        self.ffi.errno = errno.EXDEV

    def instead_of(self, ffi, signature):
        """write(2) with the type of another function."""
        self.ffi = ffi
        return ffi.cast(signature, self._address)


@pytest.fixture
def broken():
    """A function that fails with EPIPE while a signal handler is due."""
    with BrokenPipe() as pipe:
        yield pipe


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at no byte it cannot write")
def test_a_call_keeps_its_errno_from_a_handler_that_is_due(broken):
    """``Binding.call`` raises the errno of its call, though a handler ran right after it."""
    binding = HOST[0].boot().binding
    write = broken.instead_of(binding.ffi, "long (*)(int, const void *, size_t)")

    for n in range(1, 20):
        with pytest.raises(BrokenPipeError):
            binding.call(write, broken.writer, b"x", 1)
        assert broken.runs == n


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
@pytest.mark.parametrize("operation", ["register", "modify", "select"])
def test_epoll_keeps_its_errno_from_a_handler_that_is_due(broken, operation):
    """Each call of epoll raises the errno of its system call, not the handler's."""
    if operation != "select":
        emulation.needs_write_to_look_at_the_pipe_first()
    session = next(machine for machine in HOST if machine.mechanism == "epoll").boot()
    ffi = session.binding.ffi
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        selector.register(near, EVENT_READ)
        epfd, selector._epfd = selector._epfd, broken.writer
        if operation == "select":
            failing = broken.instead_of(ffi, "int (*)(int, void *, int, int)")
            lib = SimpleNamespace(epoll_wait=failing)
            selector._binding = type(session.binding)(session.binding.target, ffi, lib)
        else:
            failing = broken.instead_of(ffi, "int (*)(int, int, int, const void *)")
            selector._epoll_ctl = failing
        call = {
            "register": lambda: selector.register(far, EVENT_READ),
            "modify": lambda: selector.modify(near, EVENT_WRITE),
            "select": lambda: selector.select(0),
        }[operation]
        try:
            with pytest.raises(BrokenPipeError):
                call()
        finally:
            selector._epfd = epfd
            selector._binding = session.binding
        assert broken.runs == 1
        assert set(selector.get_map()) == {near.fileno()}
