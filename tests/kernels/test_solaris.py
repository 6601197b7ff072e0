"""The simulated Solaris kernel itself, clause by clause (see ``solaris``)."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import socket
import threading
import time

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE
from selectors_ffi.testing.kernels.solaris import (
    DP_ISPOLLED,
    DP_POLL,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLONESHOT,
    POLLOUT,
    POLLREMOVE,
    VARIANTS,
    SimulatedSolaris,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs descriptors that poll(2) knows")

BACKENDS = ["DevpollSelector", "EventPortSelector", "PollSelector", "SelectSelector"]


class Process:
    """A C program on a simulated Solaris."""

    def __init__(self, system, flags=os.O_RDWR | os.O_CLOEXEC):
        self.kernel = SimulatedSolaris(system)
        self.ffi = self.kernel.ffi
        self.fd = self.kernel.lib.open(b"/dev/poll", flags)

    def write(self, *entries, extra=0):
        records = self.ffi.new("struct pollfd[]", len(entries) + 1)
        for record, (fd, events) in zip(records, entries):
            record.fd, record.events = fd, events
        self.ffi.errno = 0
        result = self.kernel.lib.write(self.fd, records, len(entries) * 8 + extra)
        return result, self.ffi.errno

    def poll(self, nfds=8, timeout=0, fill=0):
        """(result, errno, [(fd, events, revents)])."""
        ffi = self.ffi
        records = ffi.new("struct pollfd[]", max(1, min(nfds, 64)))
        for record in records:
            record.events = fill
        argument = ffi.new("struct dvpoll *")
        argument.dp_fds = records
        argument.dp_nfds = nfds
        argument.dp_timeout = timeout
        ffi.errno = 0
        result = self.kernel.lib.ioctl(self.fd, DP_POLL, argument)
        return result, ffi.errno, [(r.fd, r.events, r.revents) for r in records[0 : max(result, 0)]]

    def ready(self, **arguments):
        result, code, found = self.poll(**arguments)
        assert result >= 0, os.strerror(code)
        return {fd: revents for fd, _, revents in found}

    def mask(self, fd):
        argument = self.ffi.new("struct pollfd *")
        argument.fd = fd
        result = self.kernel.lib.ioctl(self.fd, DP_ISPOLLED, argument)
        return argument.revents if result else None


@pytest.fixture(params=sorted(VARIANTS))
def process(request):
    """A program on each system."""
    made = Process(request.param)
    yield made
    made.kernel.lib.close(made.fd)


@pytest.fixture(params=["solaris10", "solaris11"])
def solaris(request):
    """A program on the Solaris line."""
    made = Process(request.param)
    yield made
    made.kernel.lib.close(made.fd)


@pytest.fixture
def illumos():
    """A program on illumos."""
    made = Process("illumos")
    yield made
    made.kernel.lib.close(made.fd)


@pytest.fixture
def pairs(new_pair):
    """Three pairs of connected sockets."""
    return [new_pair() for _ in range(3)]


def test_three_records_keep_their_places(process, pairs):
    """A1, A3, P5: three ready descriptors come back, with the mask that was asked for."""
    numbers = sorted(near.fileno() for near, _ in pairs)
    assert process.write(*((fd, POLLIN | POLLOUT) for fd in numbers)) == (24, 0)
    for _, far in pairs:
        far.send(b"x")
    assert process.poll()[2] == [(fd, POLLIN | POLLOUT, POLLIN | POLLOUT) for fd in numbers]


def test_open(process):
    """O1, O2: other paths are not there, and a failing driver says so."""
    assert process.kernel.lib.open(b"/dev/null", os.O_RDWR) == -1
    process.kernel.absent = errno.ENXIO
    assert process.kernel.lib.open(b"/dev/poll", os.O_RDWR) == -1
    assert process.ffi.errno == errno.ENXIO
    assert not os.get_inheritable(process.fd)


def test_a_handle_opened_for_reading_cannot_be_written():
    """O1: write(2) is EBADF, the ioctl works."""
    process = Process("illumos", os.O_RDONLY)
    assert process.write((0, POLLIN)) == (-1, errno.EBADF)
    assert process.poll()[0] == 0
    process.kernel.lib.close(process.fd)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
@pytest.mark.parametrize(("system", "child_may"), [("illumos", True), ("solaris11", False)])
def test_ownership(system, child_may):
    """F1: untouched, an illumos handle goes to whoever is first; a Solaris one to its opener."""
    process = Process(system)
    child = os.fork()
    if child == 0:
        os._exit(0 if process.poll()[0] == 0 else process.poll()[1])
    code = os.waitpid(child, 0)[1] >> 8
    assert code == (0 if child_may else errno.EACCES)
    assert process.poll()[:2] == ((-1, errno.EACCES) if child_may else (0, 0))
    process.kernel.lib.close(process.fd)


def test_bytes_of_half_a_record_count(process, pairs):
    """W1, W2: the result is the whole length, only whole records are applied."""
    fd = pairs[0][0].fileno()
    assert process.write((fd, POLLOUT), extra=5) == (13, 0)
    assert process.ready() == {fd: POLLOUT}
    assert process.write(extra=7) == (7, 0)


def test_too_many_records(process, pairs):
    """W3: more records than RLIMIT_NOFILE are EINVAL, with nothing applied."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = min(soft, 300)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    try:
        entries = [(pairs[0][0].fileno(), POLLOUT)] * (lowered + 1)
        assert process.write(*entries) == (-1, errno.EINVAL)
        assert process.ready() == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_numbers_outside_the_table(process):
    """W4: a negative or a huge number is skipped without an error."""
    assert process.write((-1, POLLIN), (10**6, POLLIN)) == (16, 0)
    assert process.mask(10**6) is None


def test_masks_are_added_up(process, pairs):
    """W5: IN, then OUT watches both; narrowing needs POLLREMOVE first."""
    fd = pairs[0][0].fileno()
    process.write((fd, POLLIN))
    process.write((fd, POLLOUT))
    assert process.mask(fd) == POLLIN | POLLOUT
    process.write((fd, POLLREMOVE), (fd, POLLIN))
    assert process.mask(fd) == POLLIN


def test_adding_a_reused_number_does_nothing(solaris, pairs):
    """W6: on Solaris the same mask for a new file is ignored while the old file lives on."""
    (near, _), (other, far) = pairs[0], pairs[1]
    number = near.fileno()
    copy = os.dup(number)
    solaris.write((number, POLLIN))
    os.dup2(other.fileno(), number)
    try:
        far.send(b"x")
        solaris.write((number, POLLIN))
        assert solaris.ready() == {}
        solaris.write((number, POLLREMOVE), (number, POLLIN))
        assert solaris.ready() == {number: POLLIN}
    finally:
        os.close(copy)


def test_adding_a_reused_number_works_on_illumos(illumos, pairs):
    """W6: illumos compares the files."""
    (near, _), (other, far) = pairs[0], pairs[1]
    number = near.fileno()
    copy = os.dup(number)
    illumos.write((number, POLLIN))
    os.dup2(other.fileno(), number)
    far.send(b"x")
    illumos.write((number, POLLIN))
    assert illumos.ready() == {number: POLLIN}
    os.close(copy)


def test_a_closed_descriptor_is_accepted(process):
    """W7: without a word, never reported; on illumos the mask survives POLLREMOVE."""
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    process.write((writer, POLLREMOVE))  # the kernel's table reaches that far from here on
    os.close(writer)
    assert process.write((writer, POLLIN)) == (8, 0)
    assert process.ready() == {}
    assert process.mask(writer) is None
    process.write((writer, POLLREMOVE))
    os.dup2(near.fileno(), writer)
    process.write((writer, POLLOUT))
    expected = POLLIN | POLLOUT if process.kernel.variant.illumos else POLLOUT
    assert process.mask(writer) == expected
    for fd in (reader, writer):
        os.close(fd)
    near.close()
    far.close()


def test_remove_is_exact(process, pairs):
    """W8, W9: POLLREMOVE with another bit adds; of an unknown descriptor it succeeds."""
    fd = pairs[0][0].fileno()
    assert process.write((fd, POLLREMOVE)) == (8, 0)
    process.write((fd, POLLREMOVE | POLLIN))
    assert process.mask(fd) == POLLREMOVE | POLLIN
    process.write((fd, POLLREMOVE))
    assert process.mask(fd) is None


def test_no_events_still_hear_a_hangup(process):
    """W10: with an empty mask a hangup is reported."""
    reader, writer = os.pipe()
    process.write((reader, 0))
    assert process.ready() == {}
    os.close(writer)
    assert process.ready() == {reader: POLLHUP}
    os.close(reader)


def test_a_refusing_driver_stops_the_write(process, pairs):
    """W11: earlier records stay applied, later ones are not looked at."""
    first, second, third = (near.fileno() for near, _ in pairs)
    process.kernel.refusals[second] = errno.ENXIO
    assert process.write((first, POLLOUT), (second, POLLOUT), (third, POLLOUT)) == (-1, errno.ENXIO)
    assert process.ready() == {first: POLLOUT}


@pytest.mark.parametrize(("system", "over"), [("solaris10", 0), ("solaris11", 1)])
def test_the_limit_of_a_poll(system, over):
    """P1: RLIMIT_NOFILE itself is too many on Solaris 10, one more on 11."""
    process = Process(system)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert process.poll(nfds=limit + over)[:2] == (-1, errno.EINVAL)
    assert process.poll(nfds=limit + over - 1)[0] == 0
    process.kernel.lib.close(process.fd)


def test_illumos_has_no_limit(illumos):
    """P1: a huge dp_nfds is clamped, one that overflows is EINVAL."""
    if illumos.ffi.sizeof("nfds_t") < 8:
        pytest.skip("a 32-bit process has no number that is huge enough")
    assert illumos.poll(nfds=1 << 40)[0] == 0
    assert illumos.poll(nfds=1 << 61)[:2] == (-1, errno.EINVAL)


def test_without_room_it_only_sleeps(process, pairs):
    """P2: dp_nfds 0 does not look at what is ready."""
    process.write((pairs[0][0].fileno(), POLLOUT))
    started = time.monotonic()
    assert process.poll(nfds=0, timeout=20)[0] == 0
    assert time.monotonic() - started >= 0.02


def test_timeouts_are_ticks(process):
    """P3: one millisecond takes at least ten."""
    started = time.monotonic()
    assert process.poll(timeout=1)[0] == 0
    assert time.monotonic() - started >= 0.01


def test_less_than_minus_one_is_no_wait_on_illumos(illumos):
    """P3: a deadline in the past."""
    assert illumos.poll(timeout=-2)[0] == 0


def test_a_small_buffer_turns(process, pairs):
    """P4, P7, P8: ascending, and the next call goes on where the last one ended."""
    numbers = sorted(near.fileno() for near, _ in pairs)
    process.write(*((fd, POLLOUT) for fd in numbers))
    assert list(process.ready(nfds=2)) == numbers[:2]
    assert list(process.ready(nfds=2)) == [numbers[2], numbers[0]]


def test_a_signal_interrupts(process):
    """P12: EINTR while asleep."""
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert process.poll(timeout=20000)[:2] == (-1, errno.EINTR)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_pipe_whose_reader_is_gone_hangs_up(process):
    """R1: POLLHUP without POLLOUT."""
    reader, writer = os.pipe()
    process.write((writer, POLLOUT))
    assert process.ready() == {writer: POLLOUT}
    os.close(reader)
    assert process.ready() == {writer: POLLHUP}
    os.close(writer)


def test_both_ends_of_a_pipe_can_be_written(process):
    """R2: the end for reading reports OUT."""
    reader, writer = os.pipe()
    process.write((reader, POLLIN | POLLOUT))
    assert process.ready() == {reader: POLLOUT}
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pipes_are_alike_in_every_call(process, backend):
    """R1, R2: also in poll, in select, and in event ports: one that is ready for one is so for all."""
    made = getattr(importlib.import_module("selectors_ffi.backends"), backend)
    reader, writer = os.pipe()
    with made(binding=process.kernel.binding()) as selector:
        key = selector.register(reader, EVENT_READ | EVENT_WRITE)
        assert selector.select(0) == [(key, EVENT_WRITE)]
        selector.unregister(reader)
        key = selector.register(writer, EVENT_READ | EVENT_WRITE)
        assert selector.select(0) == [(key, EVENT_WRITE)]
        os.close(reader)
        assert selector.select(0) == [(key, EVENT_READ | EVENT_WRITE)]
    os.close(writer)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_poll_set_that_is_polled_is_an_error(process, backend, pairs):
    """N1: at once, always, whatever it watches."""
    made = getattr(importlib.import_module("selectors_ffi.backends"), backend)
    with made(binding=process.kernel.binding()) as selector:
        key = selector.register(process.fd, EVENT_READ)
        assert selector.select(5) == [(key, EVENT_READ)]
        process.write((pairs[0][0].fileno(), POLLOUT))
        assert selector.select(5) == [(key, EVENT_READ)]


def test_a_full_pipe_cannot_be_written(process):
    """R2 is about the other end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    process.write((writer, POLLOUT))
    assert process.ready() == {}
    os.close(reader)
    os.close(writer)


def test_a_closed_descriptor_is_reported_for_ever(process, pairs):
    """C1, C2, C5, P9: POLLNVAL on every call, with stale events, until POLLREMOVE."""
    near = pairs[0][0]
    number = near.fileno()
    process.write((number, POLLIN))
    near.close()
    for _ in range(3):
        assert process.poll(fill=0x55)[2] == [(number, 0x55, POLLNVAL)]
    process.write((number, POLLREMOVE))
    assert process.ready() == {}


def test_a_file_open_elsewhere_is_not_examined(process, pairs):
    """C3: nothing while it is idle, POLLNVAL when it becomes active."""
    near, far = pairs[0]
    number = near.fileno()
    copy = os.dup(number)
    process.write((number, POLLIN))
    near.close()
    assert process.ready() == {}
    far.send(b"x")
    assert process.ready() == {number: POLLNVAL}
    os.close(copy)


def test_a_reused_number_keeps_the_old_mask(process, pairs):
    """C4: the stale entry polls the new file, with what was asked for the old one."""
    number = pairs[0][0].fileno()
    process.write((number, POLLIN | POLLOUT))
    os.dup2(pairs[1][0].fileno(), number)
    process.write((number, POLLIN))
    assert process.ready() == {number: POLLOUT}


def test_oneshot_stays_disarmed(illumos, pairs):
    """X1: after one report only the bit itself is left, until the next add."""
    fd = pairs[0][0].fileno()
    illumos.write((fd, POLLOUT | POLLONESHOT))
    assert illumos.ready() == {fd: POLLOUT}
    assert illumos.ready() == {}
    assert illumos.mask(fd) == POLLONESHOT


def test_a_write_wakes_a_poll(illumos, pairs):
    """P13, T1: on illumos the running call reports what another thread added."""
    fd = pairs[0][0].fileno()
    found = []
    waiter = threading.Thread(target=lambda: found.append(illumos.ready(timeout=-1)))
    waiter.start()
    wait_for_sleeper(illumos)
    illumos.write((fd, POLLOUT))
    waiter.join(20)
    assert found == [{fd: POLLOUT}]


def test_a_write_waits_for_a_poll(solaris, pairs):
    """T2: on Solaris the writer sleeps until the poll has returned."""
    near, far = pairs[0]
    solaris.write((near.fileno(), POLLIN))
    order = []

    def poll():
        order.append(solaris.ready(timeout=-1))

    def write():
        solaris.write((pairs[1][0].fileno(), POLLOUT))
        order.append("written")

    waiter = threading.Thread(target=poll)
    waiter.start()
    wait_for_sleeper(solaris)
    writer = threading.Thread(target=write)
    writer.start()
    wait_for_sleeper(solaris, 2)
    assert order == []
    far.send(b"x")
    waiter.join(20)
    writer.join(20)
    assert sorted(map(str, order)) == sorted(map(str, [{near.fileno(): POLLIN}, "written"]))


def test_closing_the_handle_wakes_a_poll(process):
    """T3: the sleeping thread gets EBADF."""
    found = []
    waiter = threading.Thread(target=lambda: found.append(process.poll(timeout=-1)[:2]))
    waiter.start()
    wait_for_sleeper(process)
    process.kernel.lib.close(process.fd)
    waiter.join(20)
    assert found == [(-1, errno.EBADF)]


def test_a_reset_socket_is_an_error_or_a_hangup(process):
    """P5: what is wrong comes unasked."""
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    process.write((accepted.fileno(), 0))
    client.close()
    revents = process.ready(timeout=20000)[accepted.fileno()]
    assert revents & (POLLERR | POLLHUP)
    accepted.close()
    server.close()


def wait_for_sleeper(process, count=1):
    """Return when ``count`` threads sleep in the kernel; they registered their bells before."""
    handle = process.kernel.handles[process.fd]
    deadline = time.monotonic() + 20
    while len(handle.sleepers) < count:
        assert time.monotonic() < deadline
        os.sched_yield()
