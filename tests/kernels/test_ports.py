"""The simulated event ports themselves, clause by clause (see ``ports``)."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi.testing.kernels.ports import EBADFD, ETIME, PORT_SOURCE_FD, PORT_SOURCE_USER
from selectors_ffi.testing.kernels.solaris import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    VARIANTS,
    SimulatedSolaris,
)
from tests.crew import Crew


class Process:
    """A C program on a simulated kernel, with a port."""

    def __init__(self, system):
        self.kernel = SimulatedSolaris(system)
        self.ffi = self.kernel.ffi
        self.port = self("port_create")[0]

    def __call__(self, function, *arguments):
        """Return the result, and the errno if it is -1."""
        self.ffi.errno = 0
        result = getattr(self.kernel.lib, function)(*arguments)
        return result, self.ffi.errno if result == -1 else 0

    def associate(self, fd, events, user=0, source=PORT_SOURCE_FD, port=None):
        user = self.ffi.cast("void *", user)
        return self("port_associate", self.port if port is None else port, source, fd, events, user)

    def dissociate(self, fd, source=PORT_SOURCE_FD):
        return self("port_dissociate", self.port, source, fd)

    def send(self, events, user=0):
        return self("port_send", self.port, events, self.ffi.cast("void *", user))

    def get(self, maximum=8, nget=1, seconds=0, fraction=0, forever=False):
        """Return the errno and [(source, object, events, user)]."""
        events = self.ffi.new("struct port_event[]", maximum)
        number = self.ffi.new("unsigned int *", nget)
        timeout = self.ffi.NULL
        if not forever:
            timeout = self.ffi.new("struct timespec *", (seconds, fraction))
        result, code = self("port_getn", self.port, events, maximum, number, timeout)
        found = []
        if result == 0 or code == ETIME:
            for event in events[0 : number[0]]:
                user = int(self.ffi.cast("uintptr_t", event.portev_user))
                found.append((event.portev_source, event.portev_object, event.portev_events, user))
        return code, found


@pytest.fixture(params=sorted(VARIANTS))
def process(request):
    """A program on each system."""
    made = Process(request.param)
    yield made
    made.kernel.lib.close(made.port)


def test_a_port_is_inherited_by_other_programs(process):
    """V1: exec(3) does not close it unless that is asked for."""
    assert os.get_inheritable(process.port)


def test_what_is_no_port(process, pairs):
    """V1: another descriptor is EBADFD, a closed one EBADF."""
    near = pairs[0][0].fileno()

    assert process.associate(near, POLLIN, port=near) == (-1, EBADFD)
    assert process.associate(near, POLLIN, port=999_999) == (-1, errno.EBADF)
    assert process("port_send", near, 0, process.ffi.NULL) == (-1, EBADFD)


def test_what_cannot_be_associated(process, pairs):
    """V2: a closed descriptor is EBADFD, an unknown source EINVAL, in both directions."""
    near = pairs[0][0]
    number = near.fileno()

    assert process.associate(number, POLLIN, source=PORT_SOURCE_USER) == (-1, errno.EINVAL)
    assert process.dissociate(number, source=9) == (-1, errno.EINVAL)
    assert process.dissociate(number) == (-1, errno.ENOENT)
    near.close()
    assert process.associate(number, POLLIN) == (-1, EBADFD)
    assert process.dissociate(number) == (-1, EBADFD)


def test_to_associate_again_replaces(process, pairs):
    """V3: mask and cookie are the last ones, and the queued event is taken back."""
    near = pairs[0][0].fileno()
    process.associate(near, POLLOUT, 1)
    process.associate(near, POLLIN, 2)
    assert process.get() == (0, [])

    process.associate(near, POLLIN | POLLOUT, 3)
    assert process.get() == (0, [(PORT_SOURCE_FD, near, POLLOUT, 3)])


def test_one_event_per_association(process, pairs):
    """V4, V5: an event comes once, although it stays true, and can be asked for again."""
    near, far = pairs[0]
    far.send(b"x")
    for _ in range(2):
        assert process.associate(near.fileno(), POLLIN) == (0, 0)
        assert process.get() == (0, [(PORT_SOURCE_FD, near.fileno(), POLLIN, 0)])
        assert process.get() == (0, [])
    assert process.dissociate(near.fileno()) == (-1, errno.ENOENT)


def test_an_event_stays_when_it_is_no_longer_true(process, pairs):
    """V4: what was queued is reported after the data were read; dissociating takes it back."""
    near, far = pairs[0]
    for taken_back in (False, True):
        process.associate(near.fileno(), POLLIN)
        far.send(b"x")
        process.kernel.fire()
        near.recv(1)
        if taken_back:
            assert process.dissociate(near.fileno()) == (0, 0)
            assert process.get() == (0, [])
        else:
            assert process.get() == (0, [(PORT_SOURCE_FD, near.fileno(), POLLIN, 0)])


def test_close_ends_an_association(process, pairs):
    """V6: also while a duplicate is open, and also if the number is given out again."""
    near, far = pairs[0]
    number = near.fileno()
    process.associate(number, POLLIN)
    far.send(b"x")
    process.kernel.fire()
    with near.dup():
        near.close()
        assert process.get() == (0, [])
        os.dup2(pairs[1][0].fileno(), number)
        pairs[1][1].send(b"x")
        assert process.get() == (0, [])
        assert process.dissociate(number) == (-1, errno.ENOENT)
        os.close(number)


@pytest.mark.parametrize("call", ["associate", "dissociate"])
def test_a_closed_descriptor_that_was_asked_for(process, pairs, call):
    """V6: a call that finds it closed ends its association, even if the file gets the number again."""
    near, _ = pairs[0]
    number = near.fileno()
    process.associate(number, POLLIN)
    with near.dup() as other:
        near.close()
        words = (POLLIN,) if call == "associate" else ()
        assert getattr(process, call)(number, *words) == (-1, EBADFD)
        os.dup2(other.fileno(), number)
        assert process.dissociate(number) == (-1, errno.ENOENT)
        os.close(number)


def test_as_many_as_there_is_room_for(process, pairs):
    """V7: up to the maximum, the oldest first; the rest stays in the queue."""
    numbers = [near.fileno() for near, _ in pairs]
    for number in numbers:
        process.associate(number, POLLOUT)

    assert [one[1] for one in process.get(maximum=2)[1]] == numbers[:2]
    assert [one[1] for one in process.get(maximum=2)[1]] == numbers[2:]


def test_fewer_than_asked_for(process, pairs):
    """V8: after the timeout it is ETIME, with the events that there are; without one it is success."""
    for fraction, expected in ((1_000_000, ETIME), (0, 0)):
        process.associate(pairs[0][0].fileno(), POLLOUT)
        code, found = process.get(nget=2, fraction=fraction)
        assert code == expected
        assert [one[1] for one in found] == [pairs[0][0].fileno()]


def test_arguments_that_are_refused(process, pairs):
    """V10: more than the maximum, no list, a time that is none unless there are enough events."""
    ffi = process.ffi
    events, number = ffi.new("struct port_event[]", 2), ffi.new("unsigned int *", 1)

    assert process.get(maximum=1, nget=2)[0] == errno.EINVAL
    for *arguments, code in ((ffi.NULL, 2, number, errno.EFAULT), (events, 2, ffi.NULL, errno.EINVAL)):
        assert process("port_getn", process.port, *arguments, ffi.NULL) == (-1, code)
    assert process.get(fraction=-1)[0] == errno.EINVAL
    assert process.get(fraction=10**9)[0] == errno.EINVAL
    process.send(7)
    assert process.get(fraction=-1) == (0, [(PORT_SOURCE_USER, 0, 7, 0)])


def test_interrupted(process, pairs):
    """V9: a signal ends the wait with EINTR and without events."""
    process.associate(pairs[0][0].fileno(), POLLIN)
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        assert process.get(forever=True) == (errno.EINTR, [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_closed_by_another_thread(process):
    """V9: the wait ends with EBADFD."""
    found, crew, before = [], Crew(), threading.Event()

    def wait():
        before.set()
        found.append(process.get(forever=True))

    crew.start(wait)
    before.wait(20)
    process.kernel.lib.close(process.port)
    crew.join()
    assert found in ([(EBADFD, [])], [(errno.EBADF, [])])  # it may not have begun


def test_sent_by_the_program(process):
    """V11: events and cookie come back, in order, and wake a thread that waits."""
    found, crew = [], Crew()
    crew.start(lambda: found.append(process.get(nget=2, forever=True)))
    process.send(1, 10)
    process.send(2, 20)
    crew.join()

    assert found == [(0, [(PORT_SOURCE_USER, 0, 1, 10), (PORT_SOURCE_USER, 0, 2, 20)])]


def test_a_full_port(process, monkeypatch):
    """V11: more events than a port may have are EAGAIN."""
    monkeypatch.setattr("selectors_ffi.testing.kernels.ports._MOST_EVENTS", 2)

    assert [process.send(0) for _ in range(3)] == [(0, 0), (0, 0), (-1, errno.EAGAIN)]


def test_what_comes_unasked(process):
    """V12: a pipe without a writer hangs up, though only reading was asked for."""
    reader, writer = os.pipe()
    try:
        process.associate(reader, POLLIN)
        os.close(writer)
        ((_, number, events, _),) = process.get()[1]
        assert number == reader
        assert events & ~POLLERR == POLLHUP
    finally:
        os.close(reader)


def test_only_the_owner_may_dissociate(process, pairs):
    """V13: a forked child that dissociates what its parent has associated gets EACCES."""
    near = pairs[0][0].fileno()
    process.associate(near, POLLIN)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if process.dissociate(near) == (-1, errno.EACCES) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert process.dissociate(near) == (0, 0)


def test_a_port_is_no_device(process):
    """write(2) and ioctl(2) of /dev/poll do not take a port, nor ports the device."""
    device = process("open", b"/dev/poll", os.O_RDWR)[0]
    pollfds = process.ffi.new("struct pollfd[1]")

    assert process("write", process.port, pollfds, 8) == (-1, errno.EBADF)
    assert process("ioctl", process.port, 0xD001, pollfds) == (-1, errno.ENOTTY)
    assert process.associate(0, POLLIN, port=device) == (-1, EBADFD)
    process("close", device)


def test_a_refused_driver(process, pairs):
    """The errno of a driver's poll routine is that of port_associate, and nothing is associated."""
    near = pairs[0][0].fileno()
    process.kernel.refusals[near] = errno.ENXIO

    assert process.associate(near, POLLIN) == (-1, errno.ENXIO)
    assert process.kernel.watched(process.port) == {}
