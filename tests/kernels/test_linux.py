"""The simulated epoll against the real one: the method itself, checked."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys

import pytest

from selectors_ffi.testing.kernels.linux import (
    EPOLL_CLOEXEC,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLONESHOT,
    SimulatedLinux,
)

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="there is no real epoll to compare with"
)

OPS = {"register": 1, "unregister": 2, "modify": 3}


class Process:
    """The interface of ``select.epoll`` on the simulated kernel."""

    def __init__(self, target="linux_x86"):
        self.kernel = SimulatedLinux(target)
        self.ffi = self.kernel.ffi
        self.fd = self.kernel.lib.epoll_create1(EPOLL_CLOEXEC)

    def control(self, op, fd, events=0):
        event = self.ffi.new("struct epoll_event *")
        event.events = events
        event.data = fd
        if self.kernel.lib.epoll_ctl(self.fd, OPS[op], fd, event) < 0:
            raise OSError(self.ffi.errno, "")

    def poll(self, timeout=0, maxevents=64):
        events = self.ffi.new("struct epoll_event[]", maxevents)
        count = self.kernel.lib.epoll_wait(self.fd, events, maxevents, timeout)
        if count < 0:
            raise OSError(self.ffi.errno, "")
        return [(e.data, e.events) for e in events[0:count]]

    def close(self):
        self.kernel.lib.close(self.fd)


OPERATIONS = st.one_of(
    st.tuples(
        st.sampled_from(sorted(OPS)),
        st.integers(0, 5),
        st.sampled_from([0, 1, 4, 5, 0x2001, EPOLLONESHOT | 5, EPOLLET | 5]),
    ),
    st.tuples(st.sampled_from(["send", "drain", "shutdown", "close", "poll"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["dup", "over"]), st.integers(0, 5), st.integers(0, 5)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, max_size=30))
def test_random_programs_agree_with_the_real_epoll(program):
    """The same calls on the same descriptors: same errnos, same events."""
    real = select.epoll()
    simulated = Process()
    sockets = [end for _ in range(3) for end in socket.socketpair()]
    numbers = [end.detach() for end in sockets]
    extra = []
    try:
        for name, index, *rest in program:
            fd = numbers[index]
            if name in OPS:
                assert control(simulated, name, fd, *rest) == control(real, name, fd, *rest)
            elif name == "poll":
                assert sorted(simulated.poll()) == sorted(real.poll(0))
            else:
                disturb(name, fd, numbers, rest, extra)
        assert sorted(simulated.poll()) == sorted(real.poll(0))
    finally:
        real.close()
        simulated.close()
        for fd in {*numbers, *extra}:
            try:
                os.close(fd)
            except OSError:
                pass


def control(epoll, name, fd, events):
    """The errno of one epoll_ctl(2); the stdlib's object is asked through the same names."""
    try:
        if isinstance(epoll, Process):
            epoll.control(name, fd, events)
        elif name == "unregister":
            epoll.unregister(fd)
        else:
            getattr(epoll, name)(fd, events)
    except OSError as error:
        return error.errno
    return 0


def disturb(name, fd, numbers, rest, extra):
    """Something that happens to the descriptors themselves."""
    try:
        if name == "send":
            os.write(fd, b"x")
        elif name == "drain":
            os.set_blocking(fd, False)
            os.read(fd, 100)
        elif name == "shutdown":
            with socket.socket(fileno=os.dup(fd)) as borrowed:
                borrowed.shutdown(socket.SHUT_WR)
        elif name == "close":
            os.close(fd)
        elif name == "dup":
            extra.append(os.dup(fd))
        elif name == "over":
            os.dup2(fd, numbers[rest[0]])
    except OSError:
        pass


@pytest.mark.parametrize("target", ["linux", "linux_x86"])
def test_three_records_keep_their_places(target):
    """Both layouts of struct epoll_event carry three events."""
    process = Process(target)
    pairs = [socket.socketpair() for _ in range(3)]
    for near, far in pairs:
        process.control("register", near.fileno(), select.EPOLLIN)
        far.send(b"x")
    assert process.poll() == [(near.fileno(), select.EPOLLIN) for near, _ in pairs]
    assert len({process.poll(maxevents=1)[0][0] for _ in range(3)}) == 3
    process.close()
    for near, far in pairs:
        near.close()
        far.close()


def test_errors_of_bad_arguments(tmp_path):
    """EINVAL, EPERM, EBADF and EFAULT where epoll_ctl(2) and epoll_wait(2) name them."""
    process = Process()
    lib, ffi = process.kernel.lib, process.ffi
    near, far = socket.socketpair()
    event = ffi.new("struct epoll_event *")

    def code(result):
        return ffi.errno if result < 0 else 0

    with open(tmp_path / "file", "wb") as file:
        assert code(lib.epoll_ctl(process.fd, 1, file.fileno(), event)) == errno.EPERM
    assert code(lib.epoll_ctl(process.fd, 1, process.fd, event)) == errno.EINVAL
    assert code(lib.epoll_ctl(near.fileno(), 1, far.fileno(), event)) == errno.EINVAL
    assert code(lib.epoll_ctl(process.fd, 9, far.fileno(), event)) == errno.EINVAL
    assert code(lib.epoll_ctl(process.fd, 1, far.fileno(), ffi.NULL)) == errno.EFAULT
    assert code(lib.epoll_wait(process.fd, event, 0, 0)) == errno.EINVAL
    assert code(lib.epoll_wait(process.fd, ffi.NULL, 1, 0)) == errno.EFAULT
    assert code(lib.epoll_wait(near.fileno(), event, 1, 0)) == errno.EINVAL
    assert code(lib.epoll_create1(1)) == errno.EINVAL
    process.close()
    assert code(lib.epoll_wait(process.fd, event, 1, 0)) == errno.EBADF
    near.close()
    far.close()


@pytest.mark.parametrize(
    "path",
    [*("/dev/null", "/dev/zero", "/dev/urandom", "/dev/ptmx", "/"), __file__, "/proc/self/mounts"],
)
def test_devices_and_files(path):
    """E4: a file is refused if the real epoll refuses it, which takes some regular ones of /proc."""
    fd = os.open(path, os.O_RDONLY)
    answers = []
    for process in (Process(), select.epoll()):
        answers.append([control(process, name, fd, 1) for name in OPS])
        process.close()
    os.close(fd)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("events", [0, EPOLLONESHOT, EPOLLET, EPOLLONESHOT | EPOLLET])
def test_what_asks_for_no_event(events):
    """E5: hears of a hang-up all the same, once with EPOLLONESHOT or EPOLLET."""
    near, far = socket.socketpair()
    epolls = Process(), select.epoll()
    for epoll in epolls:
        assert control(epoll, "register", near.fileno(), events) == 0
    far.close()
    for _ in range(2):
        simulated, real = (epoll.poll(0) for epoll in epolls)
        assert simulated == real
    for epoll in epolls:
        epoll.close()
    near.close()


def test_refusals():
    """What ``refusals`` names cannot be added; to change it is another matter."""
    process = Process()
    near, far = socket.socketpair()
    process.control("register", near.fileno(), 1)
    process.kernel.refusals.update({near.fileno(): errno.ENOSPC, far.fileno(): errno.ENOSPC})
    assert control(process, "modify", near.fileno(), 1) == 0
    assert control(process, "register", far.fileno(), 1) == errno.ENOSPC
    assert list(process.kernel.watched(process.fd)) == [near.fileno()]
    process.close()
    near.close()
    far.close()


def test_edges_without_a_free_descriptor(monkeypatch):
    """epoll_ctl(2) has no EMFILE: a registration for which the host has no epoll left is ENOMEM."""

    def none_left():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    process = Process()
    near, far = socket.socketpair()
    process.control("register", near.fileno(), 1)
    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", none_left)
        assert control(process, "register", far.fileno(), EPOLLET | 1) == errno.ENOMEM
        assert control(process, "modify", near.fileno(), EPOLLET | 1) == errno.ENOMEM
    assert process.kernel.watched(process.fd) == {near.fileno(): 1}
    process.close()
    near.close()
    far.close()


def test_edges():
    """EPOLLET reports what is new, MOD looks anew, and closing gives all descriptors back."""
    before = os.listdir("/proc/self/fd")
    process = Process()
    near, far = socket.socketpair()
    process.control("register", near.fileno(), EPOLLET | 1)
    assert process.poll() == []
    for _ in range(2):
        far.send(b"x")
        assert process.poll() == [(near.fileno(), 1)]
        assert process.poll() == []
    process.control("modify", near.fileno(), EPOLLET | 1)
    assert process.poll() == [(near.fileno(), 1)]
    process.close()
    near.close()
    far.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("flags", [1, 2, 5, EPOLLET | 1, EPOLLONESHOT | 1, 0x2001])
def test_exclusive(flags):
    """EPOLLEXCLUSIVE is refused as by the real epoll: with other flags than a few, and by MOD."""
    near, far = socket.socketpair()
    answers = []
    for process in (Process(), select.epoll()):
        found = [control(process, "modify", near.fileno(), EPOLLEXCLUSIVE | flags)]
        found += [control(process, "register", near.fileno(), EPOLLEXCLUSIVE | flags) for _ in range(2)]
        found += [control(process, "modify", near.fileno(), events) for events in (1, flags)]
        found.append(control(process, "unregister", near.fileno(), 0))
        found.append(control(process, "register", near.fileno(), 1))
        found.append(control(process, "modify", near.fileno(), EPOLLEXCLUSIVE | 1))
        process.close()
        answers.append(found)
    near.close()
    far.close()

    assert answers[0] == answers[1]


def test_a_signal_interrupts():
    """EINTR while asleep, for epoll_wait(2) and epoll_pwait2(2)."""
    process = Process()
    lib, ffi = process.kernel.lib, process.ffi
    events = ffi.new("struct epoll_event[]", 1)
    spec = ffi.new("struct timespec *")
    spec.tv_sec = 20
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        for call in (
            lambda: lib.epoll_wait(process.fd, events, 1, 20000),
            lambda: lib.epoll_pwait2(process.fd, events, 1, spec, ffi.NULL),
        ):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert call() == -1
            assert ffi.errno == errno.EINTR
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    process.close()


def test_a_set_that_takes_anothers_number(pairs):
    """dup3(2): the number names the other set from then on, through either number."""
    kernel = SimulatedLinux()
    lib, ffi = kernel.lib, kernel.ffi
    old, new = (lib.epoll_create1(EPOLL_CLOEXEC) for _ in range(2))
    room = ffi.new("struct epoll_event[]", 4)
    for epfd, (near, far), data in ((old, pairs[0], 1), (new, pairs[1], 2)):
        event = ffi.new("struct epoll_event *", {"events": 1, "data": data})
        assert lib.epoll_ctl(epfd, 1, near.fileno(), event) == 0
        far.send(b"x")
    assert lib.dup3(new, old, EPOLL_CLOEXEC) == old
    assert not os.get_inheritable(old)
    for epfd in (old, new):
        assert lib.epoll_wait(epfd, room, 4, 0) == 1
        assert room[0].data == 2
    assert lib.close(new) == 0
    assert lib.epoll_wait(old, room, 4, 0) == 1
    number = pairs[0][0].fileno()
    assert lib.dup3(number, old, 0) == old
    assert lib.epoll_wait(old, room, 4, 0) == -1
    assert ffi.errno == errno.EINVAL
    for wrong, code in ((old, errno.EINVAL), (10**6, errno.EBADF)):
        assert lib.dup3(wrong, old, 0) == -1
        assert ffi.errno == code
    os.close(old)
