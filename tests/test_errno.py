"""errno belongs to the call that failed, whatever runs between the call and its reader.

A signal handler or a finaliser may run as soon as a C function has returned. Its own failing calls
overwrite ``ffi.errno``. Each outcome must be what it is without them.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sys
import time
from selectors import EVENT_READ, EVENT_WRITE
from types import MethodType

import pytest

from selectors_ffi import backends, debugging
from selectors_ffi.backends import SelectorKey, epoll, poll
from selectors_ffi.binding import ATOMIC_STEP, Binding, load

from . import tally
from .alarms import alarm
from .crew import still
from .kernels.machines import MACHINES, SOME

HOST = [machine for machine in MACHINES if not machine.simulated]
#: A traced function is one of Python's, in which a handler may run, too.
FLAGS = ["", "syscalls", "events", "checks", "syscalls,leaks"]
SECONDS = 5 if tally.long_profile() else 0.3

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")


def keep_nothing(record):
    """A sink."""


class Clobber:
    """A signal handler that makes an ABI-mode call fail, with an errno that no other call has here."""

    def __init__(self, session):
        self._poll = session.binding.function("poll")
        self._ffi = session.binding.ffi
        self.runs = 0

    def __call__(self, *_):
        self.runs += 1
        # More descriptors than RLIMIT_NOFILE are EINVAL, before the pointer is looked at.
        assert self._poll(self._ffi.NULL, 1 << 30, 0) == -1
        assert self._ffi.errno == errno.EINVAL


def storm(handler, interval=0.0001):
    """SIGALRM every ``interval`` seconds."""
    return alarm(handler, interval, interval)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("expected", [errno.EPERM, errno.EBADF])
def test_a_refused_registration_keeps_its_errno(tmp_path, expected, flags):
    """register is refused with the kernel's errno, not with the handler's, traced or not."""
    session = next(machine for machine in HOST if machine.mechanism == "epoll").boot()
    with debugging(flags, keep_nothing):
        selector = session.selector()
    with open(tmp_path / "file", "wb") as file, selector:
        fd = file.fileno() if expected == errno.EPERM else 10**6
        handler = Clobber(session)
        begun = time.monotonic()
        refused = 0
        with storm(handler):
            while still(begun, SECONDS, handler.runs > 10 and refused > 100):
                with pytest.raises(OSError, match=os.strerror(expected)) as caught:
                    selector.register(fd, EVENT_READ)
                assert caught.value.errno == expected
                refused += 1
        assert handler.runs > 10
        assert refused > 100
        assert not selector.get_map()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
def test_a_refused_change_keeps_its_errno():
    """modify heals a reused number (ENOENT) in every instant, whatever the handler's errno."""
    session = next(machine for machine in HOST if machine.mechanism == "epoll").boot()
    near, far = socket.socketpair()
    number = os.dup(near.fileno())
    handler = Clobber(session)
    with near, far, session.selector() as selector:
        begun = time.monotonic()
        with storm(handler):
            while still(begun, SECONDS, handler.runs > 10):
                selector.register(number, EVENT_READ)
                os.dup2(far.fileno(), number)
                assert selector.modify(number, EVENT_WRITE).events == EVENT_WRITE
                assert selector.select(0) == [(selector.get_key(number), EVENT_WRITE)]
                selector.unregister(number)
                os.dup2(near.fileno(), number)
        assert handler.runs > 10
    os.close(number)


#: A simulated kernel is Python code. Before 3.11 a handler may run at its last bytecodes, too.
SIMULATED = [machine for machine in MACHINES if machine.simulated] if ATOMIC_STEP else []


@pytest.mark.parametrize(
    ("machine", "flags"),
    [(machine, flags) for machine in HOST for flags in FLAGS] + [(one, "") for one in SIMULATED],
    ids=str,
)
def test_an_interrupted_wait_goes_on(machine, flags):
    """EINTR is recognised though the handler has left EINVAL: the wait takes its whole time."""
    session = machine.boot()
    handler = Clobber(HOST[0].boot())
    near, far = socket.socketpair()
    with debugging(flags, keep_nothing):
        selector = session.selector()
    with near, far, selector:
        selector.register(near, EVENT_READ)
        begun = time.monotonic()
        with storm(handler, 0.0005):
            while still(begun, SECONDS, handler.runs > 10):
                started = time.monotonic()
                assert selector.select(0.01) == []
                assert time.monotonic() - started >= 0.01
        assert handler.runs > 10
        far.send(b"x")
        assert [key.fileobj for key, _ in selector.select(1)] == [near]


@pytest.mark.parametrize("machine", [m for m in HOST if m.mechanism == "epoll"], ids=str)
def test_an_interrupted_wait_goes_on_with_a_smaller_buffer(machine):
    """The wait that gives a large buffer up asks for errno no later than every other."""
    session = machine.boot()
    near, far = socket.socketpair()
    copies = [os.dup(near.fileno()) for _ in range(300)]
    handler = Clobber(session)

    def hear(*_):
        handler()
        if handler.runs == 2:
            far.send(b"x")

    with near, far, session.selector() as selector:
        far.send(b"x")
        for fd in copies:
            selector.register(fd, EVENT_READ)
        for _ in range(257):  # the last one but one of a large buffer
            assert len(selector.select()) == 300
        near.recv(1)
        with storm(hear, 0.02):
            assert selector.select()
    for fd in copies:
        os.close(fd)


@pytest.mark.parametrize("machine", [m for m in HOST if m.mechanism == "select"], ids=str)
def test_a_failed_wait_keeps_its_errno(machine):
    """select(2) of a closed descriptor is EBADF, not the handler's EINVAL."""
    session = machine.boot()
    handler = Clobber(session)
    number = os.dup2(0, 500)  # which no other thread is given meanwhile
    with session.selector() as selector:
        selector.register(number, EVENT_READ)
        os.close(number)
        begun = time.monotonic()
        with storm(handler):
            while still(begun, SECONDS, handler.runs > 10):
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                    selector.select(1)
        assert handler.runs > 10


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


@pytest.mark.skipif(not hasattr(gc, "set_threshold"), reason="this interpreter collects as it likes")
def test_a_collection_in_a_step_that_fails():
    """Nothing in a step begins a collection between the call and the reading of its errno."""
    binding = load()
    clobber = Clobber(HOST[0].boot())

    class Garbage:
        def __init__(self):
            self.myself = self

        def __del__(self):
            clobber()

    close, before = binding.function("close"), gc.get_threshold()
    for steps in range(30):
        held = [(number,) for number in range(5000)]  # so that the next tuple is a new one
        Garbage()
        gc.set_threshold(gc.get_count()[0] + steps)
        try:
            answer = binding.ask(close, 10**6)
        finally:
            gc.set_threshold(*before)
        assert answer == -errno.EBADF
        del held
        gc.collect()
    assert clobber.runs == 30


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_closing_leaves_errno_alone(machine):
    """Closing and finalising a selector, which finalisers do anywhere, do not touch errno."""
    session = machine.boot()
    ffi = session.binding.ffi
    closed, dropped = session.selector(), session.selector()
    ffi.errno = errno.EXDEV
    closed.close()
    assert ffi.errno == errno.EXDEV
    del closed, dropped
    gc.collect()
    assert ffi.errno == errno.EXDEV


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
        reader, self._writer = os.pipe()
        os.close(reader)
        self._previous = signal.signal(signal.SIGPIPE, self._handle)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGPIPE, self._previous)
        os.close(self._writer)

    def _handle(self, *_):
        self.runs += 1
        self.ffi.errno = errno.EXDEV

    def instead_of(self, ffi, name):
        """Return write(2) to the pipe, to be called with the arguments of the C function ``name``.

        They are more arguments than write(2) takes, which C's calling conventions ignore. No Python code
        runs between this function and its caller.
        """
        self.ffi = ffi
        types = ["int", "const void *", "size_t", *(TYPES[one] for one in ARGUMENTS[name])]
        function = ffi.cast(f"int (*)({', '.join(types)})", self._address)
        for argument in (self._writer, b"x", 1):
            function = MethodType(function, argument)  # PyPy's partial is written in Python
        return function

    def binding(self, machine, name):
        """Return a binding of a machine in which the C function ``name`` is this one."""
        whole = machine.boot().binding
        symbol = whole.find(name)[0]
        broken = self.instead_of(whole.ffi, name)

        class Library:  # not a Proxy, whose functions are Python's
            def __getattr__(self, other):
                return broken if other == symbol else getattr(whole.lib, other)

        return Binding(whole.target, whole.ffi, Library())


TYPES = {"i": "long", "p": "const void *"}
#: The C functions that selectors call, and which of their arguments are integers or pointers.
ARGUMENTS = {
    "epoll_create1": "i",
    "epoll_ctl": "iiip",
    "epoll_wait": "ipii",
    "epoll_pwait2": "ipipp",
    "poll": "pii",
    "ppoll": "pipp",
    "select": "ipppp",
    "kqueuex": "i",
    "kqueue1": "i",
    "kqueue": "",
    "kevent": "ipipip",
    "open": "pi",
    "write": "ipi",
    "ioctl": "iip",
    "port_create": "",
    "port_associate": "iiiip",
    "port_getn": "ipipp",
    "close": "i",
}
#: Mechanism -> what is done to a selector, and which C function fails in it: the first that is there.
OPERATIONS = {
    "epoll": {
        "make": ["epoll_create1"],
        "register": ["epoll_ctl"],
        "modify": ["epoll_ctl"],
        "select": ["epoll_wait"],
        "wait": ["epoll_wait"],
        "wait precisely": ["epoll_pwait2", "epoll_wait"],
        "wait for ever": ["epoll_wait"],
        "raw": ["epoll_wait"],
        "close": ["close"],
    },
    "poll": {
        "select": ["poll"],
        "wait": ["poll"],
        "wait precisely": ["ppoll", "poll"],
        "wait for ever": ["poll"],
        "raw": ["poll"],
    },
    "select": {
        "select": ["select"],
        "wait": ["select"],
        "wait for ever": ["select"],
        "raw": ["select"],
    },
    "kqueue": {
        "make": ["kqueuex", "kqueue1", "kqueue"],
        "register": ["kevent"],
        "modify": ["kevent"],
        "select": ["kevent"],
        "wait": ["kevent"],
        "wait for ever": ["kevent"],
        "raw": ["kevent"],
        "close": ["close"],
    },
    "eventport": {
        "make": ["port_create"],
        "register": ["port_associate"],
        "modify": ["port_associate"],
        "select": ["port_getn"],
        "wait": ["port_getn"],
        "wait for ever": ["port_getn"],
        "raw": ["port_getn"],
        "close": ["close"],
    },
    "devpoll": {
        "make": ["open"],
        "register": ["write"],
        "modify": ["write"],
        "select": ["ioctl"],
        "wait": ["ioctl"],
        "wait for ever": ["ioctl"],
        "raw": ["ioctl"],
        "close": ["close"],
    },
}
CASES = [
    (machine, operation, next(name for name in names if machine.boot().binding.has(name)))
    for machine in MACHINES
    if machine in SOME or machine.name in ("simulated_linux", "openbsd")
    for operation, names in OPERATIONS[machine.mechanism].items()
]


@pytest.fixture
def broken():
    """A function that fails with EPIPE while a signal handler is due."""
    with BrokenPipe() as pipe:
        yield pipe


def test_a_call_keeps_its_errno_from_a_handler_that_is_due(broken):
    """``Binding.call`` raises the errno of its call, though a handler ran right after it."""
    binding = HOST[0].boot().binding
    write = broken.instead_of(binding.ffi, "epoll_create1")

    for n in range(1, 20):
        with pytest.raises(BrokenPipeError):
            binding.call(write, 0)
        assert broken.runs == n


@pytest.mark.parametrize(("machine", "operation", "name"), CASES, ids=str)
def test_every_call_keeps_its_errno_from_a_handler_that_is_due(broken, pairs, machine, operation, name):
    """Each call of each backend raises the errno of its system call, not the handler's."""
    binding = broken.binding(machine, name)
    make = getattr(backends, machine.backend)
    near = pairs[0][0]
    if operation == "make":
        for n in range(1, 5):
            with pytest.raises(BrokenPipeError):
                make(binding=binding)
            assert broken.runs == n
        return
    selector = make(binding=binding)
    if operation == "modify":  # registered by another call, whose function works
        selector._fd_to_key[near.fileno()] = SelectorKey(near, near.fileno(), EVENT_READ, None)
    act = {
        "register": lambda: selector.register(near, EVENT_READ),
        "modify": lambda: selector.modify(near, EVENT_WRITE),
        "select": lambda: selector.select(0),
        "wait": lambda: selector.select(30),
        "wait precisely": lambda: selector.select(30.0005),
        "wait for ever": lambda: selector.select(None),
        "raw": lambda: selector.select_raw(0),
        "close": selector.close,
    }[operation]
    before = dict(selector.get_map())
    for n in range(1, 2 if operation == "close" else 5):
        runs = broken.runs
        with pytest.raises(BrokenPipeError):
            act()
        assert broken.runs > runs
        assert operation == "close" or selector.get_map() == before
    if operation == "close":
        return
    if operation == "modify":
        selector._fd_to_key.clear()
    selector.close()


@pytest.mark.parametrize(("machine", "operation", "name"), [
    case for case in CASES if case[2] in ("epoll_pwait2", "ppoll")], ids=str)  # fmt: skip
def test_a_refusal_is_known_in_spite_of_a_handler_that_is_due(
    broken, pairs, machine, operation, name, monkeypatch
):
    """A call that a sandbox refuses has its fall-back, whatever errno the handler leaves."""
    for module in (epoll, poll):
        monkeypatch.setattr(module, "REFUSALS", (errno.EPIPE,))
    with getattr(backends, machine.backend)(binding=broken.binding(machine, name)) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        assert selector.select(0.0015) == []
        assert selector.select(0.0015) == []
        assert broken.runs == 1
        pairs[0][1].send(b"x")
        assert len(selector.select(30)) == 1
