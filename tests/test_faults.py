"""Every system call of every backend fails, at every place, with every errno of its manual.

Whatever fails: the caller gets that errno in the right subclass of OSError, or
never hears of it; registry, kernel and the caller's view agree afterwards; the
same call, made again, succeeds; and no descriptor is left open.
"""

from __future__ import annotations

import collections
import errno
import os
import socket
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from selectors_ffi.testing import inject
from selectors_ffi.testing.answers import answer_of
from selectors_ffi.testing.calls import waits
from selectors_ffi.testing.library import Proxy

from . import tally
from .kernels.machines import MACHINES, no_descriptor_left

BOTH = EVENT_READ | EVENT_WRITE
E = errno

#: C function -> the errnos of its manual page (Linux, FreeBSD, illumos) that are not a defect
#: of the caller's own, and those that say that the kernel is too old or a filter forbids it.
MANUAL = {
    "epoll_create1": (E.EMFILE, E.ENFILE, E.ENOMEM, E.EINVAL),
    "epoll_ctl": (E.EBADF, E.EEXIST, E.EINVAL, E.ELOOP, E.ENOENT, E.ENOMEM, E.ENOSPC, E.EPERM),
    "epoll_wait": (E.EBADF, E.EFAULT, E.EINTR, E.EINVAL),
    "epoll_pwait2": (E.EBADF, E.EFAULT, E.EINTR, E.EINVAL, E.ENOSYS, E.EPERM),
    "dup3": (E.EBADF, E.EBUSY, E.EINTR, E.EINVAL, E.EMFILE),
    "poll": (E.EFAULT, E.EINTR, E.EINVAL, E.ENOMEM),
    "ppoll": (E.EFAULT, E.EINTR, E.EINVAL, E.ENOMEM, E.ENOSYS, E.EPERM),
    "select": (E.EBADF, E.EINTR, E.EINVAL, E.ENOMEM),
    "kqueue": (E.ENOMEM, E.EMFILE, E.ENFILE),
    "kqueue1": (E.ENOMEM, E.EMFILE, E.ENFILE, E.EINVAL),
    "kqueuex": (E.ENOMEM, E.EMFILE, E.ENFILE, E.EINVAL),
    "kevent": (E.EACCES, E.EFAULT, E.EBADF, E.EINTR, E.EINVAL, E.ENOENT, E.ENOMEM, E.ESRCH),
    "open": (E.EACCES, E.EINTR, E.EMFILE, E.ENFILE, E.ENOENT, E.ENXIO),
    "write": (E.EACCES, E.EBADF, E.EFAULT, E.EINTR, E.EINVAL, E.ENOMEM, E.EAGAIN),
    "ioctl": (E.EACCES, E.EBADF, E.EFAULT, E.EINTR, E.EINVAL),
    "port_create": (E.EAGAIN, E.EMFILE),
    "port_associate": (E.EBADF, E.EINVAL, E.EAGAIN, E.ENOMEM),
    "port_dissociate": (E.EBADF, E.EINVAL, E.EACCES, E.ENOENT),
    "port_getn": (E.EBADF, E.EFAULT, E.EINTR, E.EINVAL),
    "close": (E.EBADF, E.EINTR, E.EIO),
}
MAKERS = ("epoll_create1", "kqueue", "kqueue1", "kqueuex", "open", "port_create")


def boot(machine, hook):
    """A session whose calls ``hook`` decides about."""
    return machine.boot(lambda whole: Proxy(whole, hook))


def boot_injecting(machine, text):
    """A session whose calls fail as ``text`` says, and the ``Injection``."""
    made = []
    session = machine.boot(lambda whole: made.append(inject(text, whole).lib) or made[0])
    return session, made[0].hook


class Program:
    """Some calls on a selector, each checked against what the caller may expect.

    ``injection`` is what makes a call fail, with the errno ``code``; None where nothing does.
    """

    def __init__(self, session, injection=None, code=0):
        self.session = session
        self.injection = injection
        self.code = code
        self.pairs = [socket.socketpair() for _ in range(3)]
        self.a, self.b, self.c = (near.fileno() for near, _ in self.pairs)
        self.selector = None
        self.expected = {}  # the caller's view: fd -> (events, data)
        self.residue = set()  # descriptors whose removal was refused by a lie

    def run(self):
        """All calls; each that fails is made again."""
        self.step(self.make)
        for _, far in self.pairs[:2]:
            far.send(b"x")
        self.step(self.register, self.a, EVENT_READ)
        self.step(self.register, self.b, BOTH)
        self.step(self.register, self.c, EVENT_WRITE)
        self.step(self.modify, self.a, BOTH)
        self.step(self.modify, self.b, EVENT_READ)
        self.step(self.select, 0)
        self.step(self.unregister, self.c)
        self.step(self.select, None)
        self.step(self.register, self.c, EVENT_READ)
        self.step(self.modify, self.c, BOTH)
        self.step(self.select, 1)
        self.step(self.unregister, self.a)
        self.step(self.select, 0)

    def step(self, operation, *arguments):
        """One call; when the fault makes it fail, the same call again."""
        hits = self.hits()
        try:
            operation(*arguments)
        except OSError as error:
            if self.hits() == hits:
                raise  # it failed by itself
            self.check_error(error)
            self.check(operation, arguments)
            if operation == self.modify and arguments[0] not in self.expected:
                operation = self.register
            operation(*arguments)
        else:
            if self.hits() > hits and operation == self.unregister:
                self.residue.add(arguments[0])
            # A filter that is not wanted any more: its removal is not worth an exception.
            kqueue = self.session.machine.mechanism == "kqueue"
            if self.hits() > hits and operation == self.modify and kqueue:
                self.residue.add(arguments[0])
        self.check(operation, arguments)

    def hits(self):
        """How many calls have been made to fail."""
        return self.injection.hits if self.injection else 0

    def check_error(self, error):
        """The errno that was injected, its text, and the subclass that Python has for it."""
        assert error.errno == self.code
        assert os.strerror(self.code) in str(error)
        assert type(error) is type(OSError(self.code, ""))

    def check(self, operation, arguments):
        """Registry, kernel and the caller's view agree."""
        if self.selector is None:
            return
        found = {fd: (key.events, key.data) for fd, key in self.selector.get_map().items()}
        if operation == self.modify and arguments[0] not in found:
            # EBADF: the kernel said that the descriptor is closed, so the entry is gone.
            assert self.code == E.EBADF
            self.residue.add(arguments[0])
            del self.expected[arguments[0]]
        assert found == self.expected
        kernel = self.session.watched(self.selector)
        if kernel is None:
            return
        for fd, (events, _) in self.expected.items():
            has = kernel.pop(fd, 0)
            assert has & events == events, f"the kernel does not watch {fd}"
            assert has == events or fd in self.residue, f"the kernel watches {fd} for too much"
        assert set(kernel) <= self.residue, f"the kernel watches {kernel}"

    def make(self):
        self.selector = self.session.selector()

    def register(self, fd, events):
        key = self.selector.register(fd, events, (fd, events))
        self.expected[fd] = key.events, key.data
        assert key == (fd, fd, events, (fd, events))
        if self.session.machine.mechanism != "kqueue":
            # There the filter that is left is another registration than the one made now.
            self.residue.discard(fd)

    def modify(self, fd, events):
        key = self.selector.modify(fd, events, (fd, events))
        self.expected[fd] = key.events, key.data
        assert key == (fd, fd, events, (fd, events))

    def unregister(self, fd):
        key = self.selector.unregister(fd)
        events, data = self.expected.pop(fd)
        assert key == (fd, fd, events, data)

    def select(self, timeout):
        ready = {self.a: BOTH, self.b: BOTH, self.c: EVENT_WRITE}
        expected = {
            fd: (data, ready[fd] & events)
            for fd, (events, data) in self.expected.items()
            if ready[fd] & events
        }
        found = self.selector.select(timeout)
        assert {key.fd: (key.data, events) for key, events in found} == expected
        assert len(found) == len(expected)

    def close(self):
        if self.selector is not None:
            self.selector.close()
        for pair in self.pairs:
            for end in pair:
                end.close()


def functions(machine):
    """{C function: number of calls} of the program when nothing fails."""
    counts = collections.Counter()

    def count(call):
        counts[call.name] += 1
        return call.run()

    program = Program(boot(machine, count))
    program.run()
    program.close()
    return counts


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_every_call_fails_with_every_errno(machine):
    """At the first, the second and every later call, of each function that the backend uses."""
    plans = []
    for name, times in functions(machine).items():
        for place in range(1, times + 1):
            plans += [(name, place, code) for code in MANUAL[name]]
    assert len(plans) > 10
    for name, place, code in plans:
        try:
            survive(machine, name, place, code)
        except BaseException as error:
            raise AssertionError(f"{name} call {place}: {errno.errorcode[code]}: {error!r}") from error
    tally.count("faults injected", len(plans))


def survive(machine, name, place, code):
    """One run of the program with one fault."""
    text = f"{name}:error={errno.errorcode[code]}:when={place}"
    if name == "close":
        text += ":made=1"  # close(2) has released the descriptor
    with no_descriptor_left():
        session, injection = boot_injecting(machine, text)
        program = Program(session, injection, code)
        try:
            program.run()
        finally:
            try:
                program.close()
            except OSError as error:
                program.check_error(error)
                program.close()
                assert program.selector.get_map() is None
        assert injection.hits == 1


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("timeout", [1, None, 0])
def test_a_storm_of_interruptions(machine, timeout):
    """Fifty EINTR in a row delay a wait and change nothing."""
    session, injection = boot_injecting(machine, "wait:error=EINTR:when=1..50")
    program = Program(session)
    try:
        program.step(program.make)
        program.step(program.register, program.a, BOTH)
        program.pairs[0][1].send(b"x")
        program.select(timeout)
        assert injection.hits == 50
        tally.count("faults injected", injection.hits)
    finally:
        program.close()


@pytest.mark.parametrize(
    "machine", [m for m in MACHINES if m.mechanism == "kqueue" and m.simulated], ids=str
)
@pytest.mark.parametrize("refused", [EVENT_READ, EVENT_WRITE])
def test_a_changelist_refused_in_the_middle(machine, refused):
    """When one filter of two is refused, neither stays: nothing has been registered or modified."""
    session = machine.boot()
    kernel = session.kernel
    near, far = socket.socketpair()
    filters = {EVENT_READ: kernel.variant.read, EVENT_WRITE: kernel.variant.write}
    kernel.refusals[near.fileno(), filters[refused]] = E.ENOMEM
    with near, far, session.selector() as selector:
        for fd in (near, near.fileno()):
            with pytest.raises(OSError, match=os.strerror(E.ENOMEM)) as caught:
                selector.register(fd, BOTH)
            assert caught.value.errno == E.ENOMEM
            assert not selector.get_map()
            assert session.watched(selector) == {}
        accepted = BOTH & ~refused
        key = selector.register(near, accepted, "data")
        for events in (BOTH, refused):
            with pytest.raises(OSError, match=os.strerror(E.ENOMEM)):
                selector.modify(near, events)
            assert selector.get_key(near) == key
            assert session.watched(selector) == {near.fileno(): accepted}
        kernel.refusals.clear()
        selector.modify(near, BOTH)
        assert session.watched(selector) == {near.fileno(): BOTH}
        tally.count("faults injected", 4)


@pytest.mark.parametrize("machine", [m for m in MACHINES if m.mechanism == "devpoll"], ids=str)
def test_a_driver_that_refuses_poll(machine):
    """/dev/poll's write stops at a driver's error and leaves half an entry: nothing stays (W11)."""
    session = machine.boot()
    near, far = socket.socketpair()
    session.kernel.refusals[near.fileno()] = E.ENXIO
    with near, far, session.selector() as selector:
        with pytest.raises(OSError, match=os.strerror(E.ENXIO)):
            selector.register(near, BOTH)
        assert session.watched(selector) == {}
        session.kernel.refusals.clear()
        selector.register(near, EVENT_READ)
        assert selector.select(0) == []
        tally.count("faults injected")


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_results_come_one_by_one(machine):
    """A kernel that returns one event a call, whatever the room: no descriptor is starved."""
    if machine.mechanism in ("poll", "select"):
        pytest.skip("the kernel returns all at once, there is no room to limit")

    def one_by_one(call):
        if waits(call):
            answer = answer_of(call)
            room = answer.room()
            answer.limit(1)
            try:
                return call.run()
            finally:
                answer.limit(room)
        return call.run()

    session = boot(machine, one_by_one)
    pairs = [socket.socketpair() for _ in range(4)]
    with session.selector() as selector:
        for near, _ in pairs:
            selector.register(near, EVENT_WRITE)
        seen = [selector.select(0) for _ in range(4)]
        assert all(len(found) == 1 for found in seen)
        assert {found[0][0].fileobj for found in seen} == {near for near, _ in pairs}
    for near, far in pairs:
        near.close()
        far.close()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_no_descriptor_left_by_a_refused_constructor(machine):
    """A selector whose kernel object cannot be made leaves nothing behind; the next one works."""
    if machine.mechanism in ("poll", "select"):
        pytest.skip("there is no kernel object")
    with no_descriptor_left():
        makers = [name for name in MAKERS if machine.boot().binding.has(name)]
        if machine.mechanism == "devpoll":
            makers = ["open"]  # these systems have ports, too
        text = f"{','.join(makers)}:error=EMFILE:when=1"
        session, injection = boot_injecting(machine, text)
        with pytest.raises(OSError, match=os.strerror(E.EMFILE)):
            session.selector()
        with session.selector() as selector:
            assert selector.select(0) == []
        assert injection.hits == 1
