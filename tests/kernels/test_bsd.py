"""The simulated BSD kernel itself, clause by clause (see ``bsd``)."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time

import pytest

from selectors_ffi.testing.kernels import host
from selectors_ffi.testing.kernels.bsd import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_EOF,
    EV_ERROR,
    EV_ONESHOT,
    VARIANTS,
    SimulatedBSD,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs descriptors that poll(2) knows")

EDGES = pytest.mark.skipif(not hasattr(select, "epoll"), reason="edges are those of the host's epoll(7)")


class Process:
    """A C program on a simulated BSD: makes a kqueue and calls kevent(2)."""

    def __init__(self, system, **options):
        self.kernel = SimulatedBSD(system, **options)
        self.ffi = self.kernel.ffi
        self.read = self.kernel.variant.read
        self.write = self.kernel.variant.write
        self.kq = self.kernel.lib.kqueue()

    def kevent(self, *changes, room=0, timeout=0.0):
        """(result, errno, events); a change is (ident, filter, flags, udata[, fflags])."""
        ffi = self.ffi
        changelist = ffi.new("struct kevent[]", len(changes) or 1)
        for record, (ident, filt, flags, udata, *fflags) in zip(changelist, changes):
            record.ident, record.filter, record.flags = ident, filt, flags
            record.udata, record.fflags = udata, sum(fflags)
        events = ffi.new("struct kevent[]", room or 1)
        spec = ffi.NULL
        if timeout is not None:
            spec = ffi.new("struct timespec *")
            spec.tv_sec, spec.tv_nsec = divmod(int(timeout * 1e9), 10**9)
        ffi.errno = 0
        call = getattr(self.kernel.lib, self.kernel.variant.kevent)
        result = call(self.kq, changelist, len(changes), events, room, spec)
        code = ffi.errno
        found = [(e.ident, e.filter, e.flags, e.data, e.udata) for e in events[0 : max(result, 0)]]
        return result, code, found

    def add(self, fd, filt, udata=0):
        return self.kevent((fd, filt, EV_ADD, udata))[:2]

    def ready(self, timeout=0.0, room=8):
        result, code, found = self.kevent(room=room, timeout=timeout)
        assert result >= 0, os.strerror(code)
        return [(ident, filt) for ident, filt, _, _, _ in found]


@pytest.fixture(params=sorted(VARIANTS))
def process(request):
    """A program on each system."""
    made = Process(request.param)
    yield made
    made.kernel.lib.close(made.kq)


def test_three_records_keep_their_places(process, pairs):
    """K13, K14: three ready descriptors come back in the declared layout of the system."""
    for index, (near, far) in enumerate(pairs):
        assert process.add(near.fileno(), process.read, 1000 + index) == (0, 0)
        far.send(b"x" * (index + 1))
    _, _, events = process.kevent(room=8)
    expected = {
        (near.fileno(), process.read, 0, index + 1, 1000 + index)
        for index, (near, _) in enumerate(pairs)
    }
    assert set(events) == expected


def test_the_filters_of_one_descriptor_are_two_registrations(process, pairs):
    """K1: READ can be removed and WRITE stays."""
    near, far = pairs[0]
    process.add(near.fileno(), process.read)
    process.add(near.fileno(), process.write)
    far.send(b"x")
    assert len(process.ready()) == 2
    process.kevent((near.fileno(), process.read, EV_DELETE, 0))
    assert process.ready() == [(near.fileno(), process.write)]


def test_one_registration_may_be_refused_alone(process, pairs):
    """K1, K2: the first failing change ends the call, what came before stays applied."""
    near = pairs[0][0].fileno()
    process.kernel.refusals[near, process.write] = errno.ENOMEM
    result, code, _ = process.kevent(
        (near, process.read, EV_ADD, 1),
        (near, process.write, EV_ADD, 1),
        (pairs[1][0].fileno(), process.read, EV_ADD, 1),
    )
    assert (result, code) == (-1, errno.ENOMEM)
    assert process.kernel.watched(process.kq) == {near: 1}


def test_with_room_an_error_is_an_event(process):
    """K2: a failed change comes back as EV_ERROR with the errno in data."""
    result, _, events = process.kevent((10**6, process.read, EV_ADD, 7), room=1)
    assert result == 1
    assert events == [(10**6, process.read, EV_ERROR, errno.EBADF, 7)]


def test_a_closed_descriptor_is_forgotten(process, pairs):
    """K4: after close(2) a delete is EBADF, after reuse ENOENT, and nothing is reported."""
    near, far = pairs[0]
    number = near.fileno()
    process.add(number, process.write)
    near.close()
    assert process.ready() == []
    assert process.kevent((number, process.write, EV_DELETE, 0))[:2] == (-1, errno.EBADF)
    os.dup2(far.fileno(), number)
    try:
        assert process.kevent((number, process.write, EV_DELETE, 0))[:2] == (-1, errno.ENOENT)
    finally:
        os.close(number)


def test_a_dup_does_not_keep_a_registration(process, pairs):
    """K4: the opposite of epoll."""
    near = pairs[0][0]
    copy = os.dup(near.fileno())
    try:
        process.add(near.fileno(), process.write)
        near.close()
        assert process.ready() == []
        assert process.kernel.watched(process.kq) == {}
    finally:
        os.close(copy)


def test_the_unseen_close_can_be_told(process, pairs):
    """K4: a number closed and duplicated back looks the same to the host; closed() tells."""
    number = pairs[0][0].fileno()
    process.add(number, process.write)
    process.kernel.closed(number)
    assert process.ready() == []


def test_adding_again_updates(process, pairs):
    """K5: the event stays pending and carries the new udata; libkqueue refuses."""
    near, far = pairs[0]
    process.add(near.fileno(), process.read, 1)
    far.send(b"x")
    refusal = process.kernel.variant.add_again
    assert process.add(near.fileno(), process.read, 2) == ((-1, refusal) if refusal else (0, 0))
    assert [event[4] for event in process.kevent(room=4)[2]] == [1 if refusal else 2]


@pytest.mark.parametrize(
    ("system", "code"),
    [("freebsd", errno.EPIPE), ("netbsd", errno.EBADF), ("netbsd11", errno.EBADF), ("darwin", 0)],
)
def test_a_pipe_without_reader(system, code):
    """K6: WRITE is refused with EPIPE, with EBADF, or accepted and at its end."""
    process = Process(system)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert process.add(writer, process.write) == (-1 if code else 0, code)
        if not code:
            (event,) = process.kevent(room=4)[2]
            assert event[2] & EV_EOF
    finally:
        os.close(writer)
        process.kernel.lib.close(process.kq)


def test_end_of_file_comes_with_the_filter(process, pairs):
    """K7: READ with EV_EOF, and in data the bytes that are left."""
    near, far = pairs[0]
    process.add(near.fileno(), process.read)
    far.send(b"abc")
    far.close()
    (event,) = process.kevent(room=4)[2]
    assert event[2] & EV_EOF
    assert event[3] == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_the_child_of_a_fork_has_no_kqueue(process):
    """K8: in the child the number is closed."""
    child = os.fork()
    if child == 0:
        os._exit(0 if host.file_of(process.kq) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert process.ready() == []


def test_close_on_exec(process):
    """K9: kqueue() is inherited by exec, kqueue1() and kqueuex() need not be."""
    lib = process.kernel.lib
    assert os.get_inheritable(process.kq)
    flags = {"kqueue1": os.O_CLOEXEC, "kqueuex": 1}
    for name in process.kernel.variant.makers[:-1]:
        made = getattr(lib, name)(flags[name])
        assert not os.get_inheritable(made)
        assert lib.close(made) == 0
        assert getattr(lib, name)(1 << 30) == -1
        assert process.ffi.errno == errno.EINVAL


def test_a_full_list_turns(process, pairs):
    """K10: with room for one event the next call reports another descriptor."""
    for near, _ in pairs:
        process.add(near.fileno(), process.write)
    seen = {process.ready(room=1)[0][0] for _ in pairs}
    assert seen == {near.fileno() for near, _ in pairs}


def test_order_differs_between_systems(pairs):
    """K10: NetBSD reports WRITE before READ, FreeBSD after."""
    near, far = pairs[0]
    far.send(b"x")
    for system, position in (("freebsd", 0), ("netbsd", 1)):
        process = Process(system)
        process.add(near.fileno(), process.read)
        process.add(near.fileno(), process.write)
        assert process.ready().index((near.fileno(), process.read)) == position
        process.kernel.lib.close(process.kq)


def test_timeouts(process):
    """K11: a negative one is EINVAL, a positive one is never early and ends in ticks."""
    assert process.kevent(room=1, timeout=-1)[:2] == (-1, errno.EINVAL)
    started = time.monotonic()
    assert process.ready(timeout=0.003) == []
    took = time.monotonic() - started
    assert took >= (0.010 if process.kernel.variant.tick > 1 else 0.003)


def test_a_file_at_its_end_is_not_readable(process, tmp_path):
    """K12: unlike poll(2); one byte more and it is."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open(path, "rb", buffering=0) as file:
        process.add(file.fileno(), process.read)
        assert process.ready() == [(file.fileno(), process.read)]
        file.read()
        assert process.ready() == []


def test_a_wait_ends_when_a_file_has_grown(process, tmp_path):
    """K12: "when the file pointer is not at the end of file", also if that comes while one sleeps."""
    path = tmp_path / "file"
    with open(path, "wb", buffering=0) as file, open(path, "rb", buffering=0) as reader:
        process.add(reader.fileno(), process.read)
        assert process.ready(timeout=0.01) == []
        late = threading.Timer(0.05, file.write, [b"abc"])
        late.start()
        began = time.monotonic()
        found = process.kevent(room=4, timeout=20)[2]
        assert time.monotonic() - began < 15
        late.join()
        assert found == [(reader.fileno(), process.read, 0, 3, 0)]


@EDGES
def test_edges_of_a_regular_file(process, tmp_path):
    """K17: EV_CLEAR reports a file that has grown, once."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open(path, "ab", buffering=0) as file, open(path, "rb", buffering=0) as reader:
        fd = reader.fileno()
        process.kevent((fd, process.read, EV_ADD | EV_CLEAR, 0))
        process.kevent((fd, process.write, EV_ADD | EV_CLEAR, 0))
        for _ in range(2):
            assert sorted(process.ready()) == sorted([(fd, process.read), (fd, process.write)])
            assert process.ready() == []
            file.write(b"y")


@EDGES
@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_edges_of_what_is_always_ready(process, path):
    """K17: EV_CLEAR reports a device that the host's epoll refuses once, and keeps no descriptor."""
    fd = os.open(path, os.O_RDONLY)
    before = host.open_descriptors()
    assert process.kevent((fd, process.read, EV_ADD | EV_CLEAR, 0))[:2] == (0, 0)
    assert host.open_descriptors() == before
    assert process.ready(timeout=5) == [(fd, process.read)]
    assert process.ready(timeout=0.02) == []
    os.close(fd)


@EDGES
def test_edges_without_a_free_descriptor(process, pairs, monkeypatch):
    """kevent(2) has no EMFILE: a registration for which the host has no epoll left is ENOMEM."""

    def none_left():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(select, "epoll", none_left)
    fd = pairs[0][0].fileno()
    assert process.kevent((fd, process.read, EV_ADD | EV_CLEAR, 0))[:2] == (-1, errno.ENOMEM)
    assert process.kernel.watched(process.kq) == {}


def test_oneshot_is_gone_after_one_report(process, pairs):
    """EV_ONESHOT removes the registration when it has been reported."""
    near = pairs[0][0].fileno()
    process.kevent((near, process.write, EV_ADD | EV_ONESHOT, 0))
    assert process.ready() == [(near, process.write)]
    assert process.ready() == []


@EDGES
def test_edges(process, pairs):
    """K17: EV_CLEAR reports what is new, the end of the file, too, and EV_ADD does not take it back."""
    near, far = pairs[0]
    before = os.listdir("/proc/self/fd")
    fd = near.fileno()
    process.kevent((fd, process.read, EV_ADD | EV_CLEAR, 0))
    assert process.ready() == []
    for _ in range(2):
        far.send(b"x")
        assert process.ready(timeout=None) == [(fd, process.read)]
        assert process.ready() == []
        if not process.kernel.variant.add_again:
            process.add(fd, process.read)
    far.shutdown(socket.SHUT_WR)
    (event,) = process.kevent(room=4)[2]
    assert event[2] & EV_EOF and event[2] & EV_CLEAR
    assert process.ready() == []
    process.kevent((fd, process.read, EV_DELETE, 0))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("system", [name for name, one in VARIANTS.items() if one.oob])
def test_urgent_data(system):
    """K16: EVFILT_EXCEPT is ready while urgent data waits; without NOTE_OOB it is EINVAL."""
    process = Process(system)
    filter_, note = process.kernel.variant.oob
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    with near, far:
        assert process.add(near.fileno(), filter_) == (-1, errno.EINVAL)
        assert process.kevent((near.fileno(), filter_, EV_ADD, 0, note))[:2] == (0, 0)
        assert process.ready() == []
        far.send(b"!", socket.MSG_OOB)
        assert process.ready(timeout=5) == process.ready() == [(near.fileno(), filter_)]
        assert near.recv(1, socket.MSG_OOB) == b"!"
        assert process.ready() == []
    process.kernel.lib.close(process.kq)


def test_a_kqueue_is_readable(process, pairs):
    """U9: poll(2) reports a kqueue that has something to report, and wakes when it has."""
    if process.kernel.target == "libkqueue":
        pytest.skip("libkqueue is not a kernel: it has no poll")
    near, far = pairs[0]
    process.add(near.fileno(), process.read)
    readable = process.ffi.integer_const("POLLIN")
    fds = process.ffi.new("struct pollfd[]", [(process.kq, readable, 0)])
    assert process.kernel.lib.poll(fds, 1, 0) == 0
    late = threading.Timer(0.01, far.send, [b"x"])
    late.start()
    assert process.kernel.lib.poll(fds, 1, 5000) == 1
    late.join()
    assert fds[0].revents == readable
    assert process.ready() == [(near.fileno(), process.read)]
    near.recv(1)
    assert process.kernel.lib.poll(fds, 1, 0) == 0


@EDGES
def test_a_kqueue_with_an_edge_is_readable(process, pairs):
    """U9: also if what is ready is EVFILT_WRITE with EV_CLEAR, until that is reported."""
    if process.kernel.target == "libkqueue":
        pytest.skip("libkqueue is not a kernel: it has no poll")
    process.kevent((pairs[0][0].fileno(), process.write, EV_ADD | EV_CLEAR, 0))
    fds = process.ffi.new("struct pollfd[]", [(process.kq, process.ffi.integer_const("POLLIN"), 0)])
    assert process.kernel.lib.poll(fds, 1, 0) == 1
    assert len(process.ready()) == 1
    assert process.kernel.lib.poll(fds, 1, 0) == 0


def test_a_change_wakes_a_sleeper(process, pairs):
    """Another thread's EV_ADD of a ready descriptor ends a wait without end."""
    near = pairs[0][0].fileno()
    found = []
    waiter = threading.Thread(target=lambda: found.extend(process.ready(timeout=None)))
    waiter.start()
    wait_for_sleeper(process)
    process.add(near, process.write)
    waiter.join(20)
    assert found == [(near, process.write)]


def test_data_wakes_a_sleeper(process, pairs):
    """A byte that arrives ends a wait without end."""
    near, far = pairs[0]
    process.add(near.fileno(), process.read)
    found = []
    waiter = threading.Thread(target=lambda: found.extend(process.ready(timeout=None)))
    waiter.start()
    wait_for_sleeper(process)
    far.send(b"x")
    waiter.join(20)
    assert found == [(near.fileno(), process.read)]


def test_closing_the_kqueue_wakes_a_sleeper(process):
    """A thread asleep on a kqueue that is closed gets EBADF."""
    found = []
    waiter = threading.Thread(target=lambda: found.append(process.kevent(room=1, timeout=None)[:2]))
    waiter.start()
    wait_for_sleeper(process)
    process.kernel.lib.close(process.kq)
    waiter.join(20)
    assert found == [(-1, errno.EBADF)]
    process.kq = process.kernel.lib.kqueue()


def test_a_signal_interrupts(process, pairs):
    """K3: EINTR, and the changes of the call have been applied."""
    near = pairs[0][0].fileno()
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        result, code, _ = process.kevent((near, process.read, EV_ADD, 0), room=1, timeout=20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert (result, code) == (-1, errno.EINTR)
    assert process.kernel.watched(process.kq) == {near: 1}


def test_a_number_that_is_no_kqueue(process, pairs):
    """kevent(2) on a socket, and on a kqueue closed behind the kernel's back, is EBADF."""
    kq, process.kq = process.kq, pairs[0][0].fileno()
    assert process.add(0, process.read) == (-1, errno.EBADF)
    process.kq = kq
    os.close(kq)
    assert process.add(0, process.read) == (-1, errno.EBADF)
    process.kq = process.kernel.lib.kqueue()


def wait_for_sleeper(process):
    """Return when another thread sleeps in the kernel; it registered its bell before."""
    handle = process.kernel.handles[process.kq]
    deadline = time.monotonic() + 20
    while not len(handle.sleepers):
        assert time.monotonic() < deadline
        os.sched_yield()
