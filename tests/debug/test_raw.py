"""RawEvent: the same questions for every mechanism, and end of file told or said to be unknown."""

from __future__ import annotations

import os
import select
import socket

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi._abi import load_ffi
from selectors_ffi.backends.base import NativeEvent
from selectors_ffi.binding import load
from selectors_ffi.debug import Event, RawEvent, raw
from selectors_ffi.debug.decode.kqueue import Records

if os.name != "posix":
    pytest.skip("Unix descriptors", allow_module_level=True)

from tests.kernels import KERNELS

HERE = [
    (name, name, None)
    for name in ("EpollSelector", "PollSelector", "SelectSelector")
    if hasattr(select, name[: -len("Selector")].lower())
]
EVERYWHERE = HERE + [(f"{name}-{kernel}", name, make) for kernel, name, make in KERNELS]


@pytest.fixture(params=EVERYWHERE, ids=[name for name, _, _ in EVERYWHERE])
def selector(request):
    """A selector of every mechanism, here and simulated."""
    _, name, make = request.param
    with getattr(backends, name)(binding=None if make is None else make()) as made:
        yield made


def tcp():
    """Return a connected pair of TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def test_readable_and_writable(selector):
    """An event tells which way it is for, on every mechanism."""
    near, far = socket.socketpair()
    with near, far:
        selector.register(near, EVENT_READ | EVENT_WRITE)
        assert [(one.readable, one.writable) for one in selector.select_raw(0)] == [(False, True)]
        far.send(b"x")
        events = selector.select_raw(0)

        assert any(one.readable for one in events)
        assert any(one.writable for one in events)
        assert not any(one.hangup or one.error or one.priority for one in events)
        assert [one.eof for one in events if one.readable] == [False]
        selector.unregister(near)


def test_end_of_file_of_a_pipe(selector):
    """A pipe without a writer is at its end, and hung up where the mechanism says so."""
    read, write = os.pipe()
    os.write(write, b"x")
    selector.register(read, EVENT_READ)
    (event,) = selector.select_raw(0)
    assert event.eof is False
    os.close(write)
    (event,) = selector.select_raw(0)

    assert event.eof is True
    if not isinstance(selector, backends.SelectSelector):
        assert event.hangup
    selector.unregister(read)
    os.close(read)


@pytest.mark.parametrize("make", [tcp, socket.socketpair])
def test_end_of_file_of_a_stream(selector, make):
    """A peer that has stopped sending is told of, or the answer is that it is not known."""
    near, far = make()
    with near, far:
        far.send(b"last words")
        selector.register(near, EVENT_READ)
        assert selector.select_raw(1)[0].eof in (False, None)
        far.shutdown(socket.SHUT_WR)
        (event,) = selector.select_raw(1)
        selector.unregister(near)

    known = isinstance(selector, backends.KqueueSelector) or raw.flag_of(load(), "POLLRDHUP")
    assert event.eof is (True if known else None)
    assert event.readable


@pytest.mark.parametrize("cls", [getattr(backends, name) for name, _, _ in HERE])
@pytest.mark.parametrize("make", [tcp, socket.socketpair])
def test_end_of_file_in_a_record(cls, make):
    """The record of an event says that a peer has stopped sending, where its flags do not."""
    if not raw.flag_of(load(), "POLLRDHUP"):
        pytest.skip("this system does not tell")
    kept = []
    near, far = make()
    with near, far, debugging("events", kept.append), cls() as selector:
        selector.register(near, EVENT_READ)
        far.send(b"x")
        selector.select(1)
        far.shutdown(socket.SHUT_WR)
        selector.select(1)
        selector.unregister(near)
    events = [record for record in kept if isinstance(record, Event)]

    assert [event.eof for event in events] == [False, True]
    assert ", eof}) = EVENT_READ" in str(events[1])
    assert "eof" not in str(events[0])


def test_what_a_writable_event_says(selector):
    """An event that is not about reading says nothing of end of file."""
    near, far = socket.socketpair()
    with near, far:
        selector.register(near, EVENT_WRITE)
        assert [one.eof for one in selector.select_raw(0)] == [None]
        selector.unregister(near)


def test_a_reset_is_an_error():
    """A connection that was reset has an error pending."""
    near, far = tcp()
    with near, backends.PollSelector() as selector:
        selector.register(near, EVENT_READ)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        (event,) = selector.select_raw(1)
    assert event.error
    assert event.eof is True


def test_urgent_data():
    """Priority is what a mechanism was asked for: selectors do not ask."""
    states = raw._Poll(backends_bits("POLLPRI", 2), "POLL")
    assert states(NativeEvent(None, 7, 2)) == (raw._PRIORITY, None)


def backends_bits(name, value):
    """Return bits with one name."""
    from selectors_ffi.debug.decode.grammar import Bits

    return Bits({name: value})


def test_kqueue_tells_more():
    """kqueue has an event for each direction, errors of changes, and urgent data."""
    ffi = load_ffi("darwin")
    render = Records(ffi)
    look = raw._Kqueue(ffi, render)
    number = ffi.integer_const
    near, far = socket.socketpair()
    with near, far:
        fd = near.fileno()

        def of(filter_, flags=0, fflags=0):
            return look(NativeEvent(None, fd, flags, fflags, 0, number(filter_)))

        eof, error = number("EV_EOF"), number("EV_ERROR")
        assert of("EVFILT_READ") == (raw._READABLE, False)
        assert of("EVFILT_READ", eof) == (raw._READABLE, True)
        assert of("EVFILT_READ", eof, 54) == (raw._READABLE | raw._ERROR, True)
        assert of("EVFILT_WRITE") == (raw._WRITABLE, None)
        assert of("EVFILT_WRITE", eof) == (raw._WRITABLE | raw._HANGUP, None)
        assert of("EVFILT_READ", error) == (raw._READABLE | raw._ERROR, False)
        assert of("EVFILT_EXCEPT")[0] == raw._PRIORITY
        assert of("EVFILT_USER") == (0, None)
    assert look(NativeEvent(None, 10**6, eof, 0, 0, number("EVFILT_READ")))[0] & raw._HANGUP


def test_descriptors_that_have_no_other_end(tmp_path):
    """Of files, terminals and closed descriptors it is not known."""
    with open(tmp_path / "file", "w+b") as file:
        assert raw.ends_of([file.fileno(), 10**6, 2**70]) == {
            file.fileno(): None, 10**6: None, 2**70: None,
        }  # fmt: skip


@pytest.fixture
def asked_anew():
    """What the system tells is asked for in this test, and again after it."""
    raw._asking.cache_clear()
    yield
    raw._asking.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_systems_that_do_not_tell(monkeypatch):
    """Without POLLRDHUP, a socket's end is not known, and a pipe's is."""
    monkeypatch.setattr(raw, "flag_of", lambda binding, name: 0)
    read, write = os.pipe()
    near, far = socket.socketpair()
    with near, far:
        os.close(write)
        far.shutdown(socket.SHUT_WR)
        assert raw.ends_of([read, near.fileno()]) == {read: True, near.fileno(): None}
    os.close(read)


@pytest.mark.usefixtures("asked_anew")
def test_where_poll_is_not_known(monkeypatch):
    """Where poll(2) is not declared, nothing is known."""

    def refuse():
        raise OSError

    near, far = socket.socketpair()
    with near, far:
        monkeypatch.setattr(raw, "load", refuse)
        assert raw.ends_of([near.fileno()]) == {near.fileno(): None}


def test_a_constant_that_is_not_there():
    """A constant that a system does not have is no flag."""
    assert raw.flag_of(load(), "POLLNOTHING") == 0


def test_a_raw_event_is_a_tuple():
    """The first fields are those that it always had; the others have defaults."""
    event = RawEvent(None, 7, 1, 0, 0, "EPOLLIN")
    assert event[:6] == (None, 7, 1, 0, 0, "EPOLLIN")
    assert (event.readable, event.eof) == (False, None)
