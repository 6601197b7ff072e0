"""The contract, section 7: select, its timeout, its masks and its interruptions."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from fractions import Fraction
from time import monotonic

import pytest

from . import emulation
from .alarms import alarm
from .crew import still

READ, WRITE = 1, 2
posix = pytest.mark.skipif(os.name != "posix", reason="Windows select(2) takes sockets only")
alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="setitimer(2) is needed")


def sockets_only(subject):
    """Skip what Winsock does not do."""
    if subject.winsock:
        pytest.skip("Windows select(2) takes sockets only")


def test_many_ready_at_once(selector, pairs):
    """Three ready descriptors come back as those three.

    One is not enough: with a wrong struct size a single event still round-trips,
    because we read back the very bytes we wrote. From the second on the stride is off.
    """
    expected = set()
    for number, (left, right) in enumerate(pairs):
        key = selector.register(left, READ, number)
        if number != 1:
            right.send(b"x")
            expected.add((key, READ))

    ready = selector.select(0)

    assert set(ready) == expected
    assert len(ready) == 3


def test_mixed_masks_at_once(selector, pairs):
    """Each of four descriptors gets its own mask in one call."""
    for left, right in pairs[1:]:
        right.send(b"x")
        assert left is not right
    asked = (WRITE, READ, READ | WRITE, WRITE)
    keys = [selector.register(left, events) for (left, _), events in zip(pairs, asked)]

    assert set(selector.select(0)) == set(zip(keys, asked))


def test_result_shape(selector, pair):
    """The result is a new list of (key, events) tuples, the key being the registered object."""
    left, right = pair
    right.send(b"x")
    key = selector.register(left, READ | WRITE, "data")

    first, second = selector.select(0), selector.select(0)

    assert first == second
    assert first is not second
    assert type(first) is list
    assert type(first[0]) is tuple
    assert first[0][0] is key
    assert type(first[0][1]) is int


def test_both_directions_are_one_entry(selector, pairs):
    """A descriptor ready both ways is one entry with both bits, for each of three."""
    keys = []
    for left, right in pairs[:3]:
        right.send(b"x")
        keys.append(selector.register(left, READ | WRITE))

    ready = selector.select(0)

    assert sorted(key.fd for key, _ in ready) == sorted(key.fd for key in keys)
    assert [events for _, events in ready] == [READ | WRITE] * 3


def test_readiness_is_a_level(selector, pair):
    """Data is reported until it is read."""
    left, right = pair
    key = selector.register(left, READ)
    right.send(b"xy")

    assert selector.select(0) == [(key, READ)]
    assert left.recv(1) == b"x"
    assert selector.select(0) == [(key, READ)]
    assert left.recv(1) == b"y"
    assert selector.select(0) == []
    right.send(b"z")
    assert selector.select(0) == [(key, READ)]


def test_full_buffer_is_not_writable(selector, pair):
    """A socket whose buffer is full is not reported until the peer reads."""
    left, right = pair
    sent = 0
    try:
        while True:
            sent += left.send(bytes(65536))
    except BlockingIOError:
        pass
    key = selector.register(left, READ | WRITE)
    assert selector.select(0) == []

    while sent:
        sent -= len(right.recv(65536))

    assert selector.select(10) == [(key, WRITE)]


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_peer_closed(selector, new_pair, events):
    """A hang-up is reported as whatever was asked for, on three descriptors."""
    expected = set()
    for _ in range(3):
        left, right = new_pair()
        expected.add((selector.register(left, events), events))
        right.close()

    assert set(selector.select(10)) == expected


@posix
def test_pipe_ends(subject, selector, pipe):
    """A pipe is writable, then readable, and at its end still readable."""
    sockets_only(subject)
    read_end, write_end = pipe
    reader = selector.register(read_end, READ)
    writer = selector.register(write_end, WRITE)
    assert selector.select(0) == [(writer, WRITE)]

    os.write(write_end, b"x")
    assert set(selector.select(0)) == {(reader, READ), (writer, WRITE)}

    assert os.read(read_end, 10) == b"x"
    selector.unregister(write_end)
    os.close(write_end)
    assert selector.select(0) == [(reader, READ)]
    assert os.read(read_end, 10) == b""


@posix
def test_pipe_without_reader(subject, selector, pipe):
    """A pipe that nobody reads wakes its writer."""
    sockets_only(subject)
    read_end, write_end = pipe
    key = selector.register(write_end, WRITE)
    os.close(read_end)

    assert selector.select(0) == [(key, WRITE)]


def test_failed_connect(selector):
    """A refused connection shows as writable."""
    # The port is free by then: where a socket is bound to it and does not listen, NetBSD drops the SYN.
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with socket.socket() as client:
        client.setblocking(False)
        error = client.connect_ex(address)
        key = selector.register(client, WRITE)
        assert selector.select(10) == [(key, WRITE)]
        assert error or client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        selector.unregister(client)


def test_grows_with_the_ready_set(selector, new_pair):
    """Sixty descriptors that become ready after a small result all come at once."""
    keys = []
    first, peer = new_pair()
    keys.append(selector.register(first, READ))
    peer.send(b"x")
    assert len(selector.select(0)) == 1

    for _ in range(59):
        left, right = new_pair()
        keys.append(selector.register(left, READ))
        right.send(b"x")

    assert {key.fd for key, _ in selector.select(0)} == {key.fd for key in keys}
    assert len(selector.select(0)) == 60


def test_order_of_poll_is_the_order_of_registration(subject, selector, pairs):
    """poll(2) reports in the order of the registrations."""
    if subject.mechanism != "poll":
        pytest.skip("the other mechanisms promise no order")
    order = [pairs[i][0] for i in (2, 0, 3, 1)]
    for left in order:
        selector.register(left, WRITE)

    assert [key.fileobj for key, _ in selector.select(0)] == order


@pytest.mark.parametrize("timeout", [0, -1, -5, -0.5, 0.0, False, -1e300])
def test_timeout_of_zero_or_less_polls(selector, pair, timeout):
    """A timeout that is not positive returns at once."""
    selector.register(pair[0], READ)

    begin = monotonic()
    assert selector.select(timeout) == []

    assert monotonic() - begin < 0.5


@pytest.mark.parametrize("timeout", [0.001, 0.02, 0.0005, 1e-9])
def test_timeout_is_never_early(selector, pair, timeout):
    """The wait lasts at least as long as was asked, and not far longer."""
    selector.register(pair[0], READ)

    for _ in range(3):
        begin = monotonic()
        assert selector.select(timeout) == []
        passed = monotonic() - begin

        assert timeout <= passed < timeout + 5


def test_timeout_of_another_number_type(subject, selector, pair):
    """A timeout may be any number that compares and multiplies, as on the stdlib's poll family."""
    if subject.mechanism in ("select", "kqueue"):
        pytest.skip("the stdlib's select and kqueue want an int or a float")
    selector.register(pair[0], READ)

    begin = monotonic()
    assert selector.select(Fraction(1, 50)) == []

    assert monotonic() - begin >= 0.02


@pytest.mark.skipif(sys.platform == "win32", reason="select() without sockets is an error there")
def test_timeout_without_registrations(selector):
    """With nothing registered the wait still lasts its time."""
    begin = monotonic()
    assert selector.select(0.05) == []

    assert monotonic() - begin >= 0.05
    assert selector.select(0) == []


@pytest.mark.parametrize("method", ["select", pytest.param("select_raw", marks=pytest.mark.ours)])
@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), OverflowError),
        (1e300, OverflowError),
        (10**30, OverflowError),
        ("1", TypeError),
        (object(), TypeError),
        ([], TypeError),
    ],
    ids=repr,
)
def test_bad_timeout(selector, pairs, snapshot, timeout, error, method):
    """A timeout that is no number of seconds is refused, and nothing changes."""
    for left, _ in pairs[:3]:
        selector.register(left, READ)
    before = snapshot(selector)

    with pytest.raises(error):
        getattr(selector, method)(timeout)

    assert snapshot(selector) == before


def test_none_waits_for_an_event(selector, pair):
    """Without a timeout select waits for what another thread sends."""
    left, right = pair
    key = selector.register(left, READ)
    thread = threading.Thread(target=right.send, args=(b"x",))
    thread.start()

    assert selector.select() == [(key, READ)]
    assert selector.select(None) == [(key, READ)]
    thread.join()


@pytest.mark.parametrize("timeout", [None, 30])
def test_event_ends_a_long_wait(selector, pair, timeout):
    """A wait that has begun, with or without a timeout, ends when the event comes."""
    left, right = pair
    key = selector.register(left, READ)
    thread = threading.Timer(0.02, right.send, args=(b"x",))
    thread.start()

    assert selector.select(timeout) == [(key, READ)]
    thread.join()


@alarms
def test_handler_that_returns(selector, pair):
    """Signals whose handler returns do not shorten the wait (PEP 475)."""
    selector.register(pair[0], READ)
    calls = []

    begun = monotonic()
    with alarm(lambda *_: calls.append(1), interval=0.01):
        while still(begun, 0.1, len(calls) >= 3):
            begin = monotonic()
            assert selector.select(0.1) == []
            assert monotonic() - begin >= 0.1

    assert len(calls) >= 3


@alarms
def test_handler_that_makes_it_ready(selector, pair):
    """What a handler writes is seen by the wait that it interrupted."""
    left, right = pair
    key = selector.register(left, READ)

    with alarm(lambda *_: right.send(b"x")):
        assert selector.select(30) == [(key, READ)]


@alarms
@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("exception", [KeyboardInterrupt, KeyError, ValueError])
def test_handler_that_raises(selector, pairs, timeout, exception):
    """The exception of a handler ends the wait, whatever it is, and the selector goes on working."""

    def stop(*_):
        raise exception("from the handler")

    (left, right), (other, _), _, _ = pairs
    key = selector.register(left, READ)
    selector.register(other, READ)

    with pytest.raises(exception, match="from the handler"), alarm(stop):
        selector.select(timeout)

    right.send(b"x")
    assert selector.select(10) == [(key, READ)]


@alarms
@pytest.mark.ours
@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("left_behind", [0, errno.ENOENT])
def test_handler_that_leaves_an_errno_and_raises(selector, pairs, timeout, left_behind):
    """Whatever errno a raising handler leaves, the next wait of the same kind is a fresh one."""

    def stop(*_):
        selector._binding.ffi.errno = left_behind
        raise ZeroDivisionError

    key = None
    for left, _ in pairs[:3]:
        key = selector.register(left, READ)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), alarm(stop):
            selector.select(timeout)
    selector._binding.ffi.errno = left_behind

    pairs[2][1].send(b"x")
    assert selector.select(timeout) == [(key, READ)]


@alarms
@pytest.mark.ours
def test_handler_that_raises_interrupted_error(selector, pair):
    """An InterruptedError of a handler is an exception like any other."""

    def interrupt(*_):
        raise InterruptedError("from the handler")

    selector.register(pair[0], READ)

    with pytest.raises(InterruptedError, match="from the handler"), alarm(interrupt):
        selector.select(30)


@posix
def test_closed_while_registered(subject, selector, pairs):
    """select(2) fails with EBADF, poll(2) reports it for ever, the others are silent."""
    keys = [selector.register(left, WRITE) for left, _ in pairs[:3]]
    duplicate = os.dup(pairs[3][0].fileno())
    closed = selector.register(duplicate, READ | WRITE)
    os.close(duplicate)
    pairs[3][0].close()

    if subject.mechanism == "select":
        with pytest.raises(OSError) as caught:
            selector.select(0)
        wsaenotsock = 10038
        expected = wsaenotsock if subject.winsock else errno.EBADF
        assert caught.value.errno == expected
    elif subject.mechanism == "poll":
        for _ in range(2):
            assert set(selector.select(0)) == {(key, WRITE) for key in keys} | {(closed, READ | WRITE)}
    else:
        live = [ready for ready in selector.select(0) if ready[0] is not closed]
        assert set(live) == {(key, WRITE) for key in keys}
    selector.unregister(duplicate)
    assert set(selector.select(0)) == {(key, WRITE) for key in keys}


def test_epoll_reports_a_closed_descriptor_with_a_living_duplicate(subject, selector, pair):
    """epoll(7) watches the open file, so a duplicate keeps the registration alive."""
    if subject.mechanism != "epoll":
        pytest.skip("the other mechanisms watch the number")
    left, _ = pair
    number = os.dup(left.fileno())
    key = selector.register(number, WRITE)
    os.close(number)

    assert selector.select(0) == [(key, WRITE)]


def test_registered_from_another_thread(subject, selector, pair):
    """Where the kernel keeps the list, a registration is seen by a wait under way."""
    if not subject.kernel_keeps_list:
        pytest.skip("select(2) and poll(2) copy the list when they begin")
    left, _ = pair
    results = []
    # The kernel can report the descriptor before register has noted its key; that very wait
    # must go on until it has.
    waiting = threading.Thread(target=lambda: results.extend(selector.select(30)))
    begin = monotonic()
    waiting.start()

    key = selector.register(left, WRITE)

    waiting.join(30)
    assert results == [(key, WRITE)]
    assert monotonic() - begin < 20


@pytest.mark.ours
def test_two_threads_in_select(selector, pairs):
    """Threads that wait in one selector each get the whole, uncorrupted result."""
    expected = {(selector.register(left, WRITE), WRITE) for left, _ in pairs}
    wrong = []

    def wait():
        for _ in range(200):
            try:
                ready = selector.select(0.001)
            except Exception as error:
                wrong.append(error)
                return
            if set(ready) != expected or len(ready) != len(expected):
                wrong.append(ready)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


@posix
@pytest.mark.ours
def test_descriptor_beyond_fd_setsize(subject, selector, pairs):
    """A number above FD_SETSIZE is watched like any other, on Linux by select(2) too."""
    if subject.on_host and subject.mechanism == "select" and sys.platform != "linux":
        pytest.skip("whether select(2) takes more is known for Linux only")
    if subject.on_host:
        emulation.needs_large_sets(subject.mechanism)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = 3000
    if hard != resource.RLIM_INFINITY and hard <= highest:
        pytest.skip(f"the hard limit is {hard} descriptors")
    if soft <= highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    expected = set()
    numbers = (1023, 1024, 2047, 2999)
    try:
        for number, (left, right) in zip(numbers, pairs):
            os.dup2(left.fileno(), number)
            right.send(b"x")
            expected.add((selector.register(number, READ), READ))

        assert set(selector.select(0)) == expected
        for number in numbers:
            selector.unregister(number)
    finally:
        for number in numbers:
            try:
                os.close(number)
            except OSError:
                pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
