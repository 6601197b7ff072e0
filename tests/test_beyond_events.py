"""EVENT_PRIORITY and EVENT_HANGUP, on every backend and kernel."""

from __future__ import annotations

import os
import select
import socket

import pytest

from selectors_ffi import EVENT_HANGUP, EVENT_PRIORITY, EVENT_READ, EVENT_WRITE

pytestmark = pytest.mark.ours

BOTH = EVENT_READ | EVENT_WRITE
#: The kernels whose mechanism has each event; of the others it is a NotImplementedError.
WITHOUT_PRIORITY = {"freebsd", "freebsd11", "netbsd", "netbsd11", "libkqueue"}
WITH_HANGUP = {"host", "simulated_linux"}


def has(subject, event):
    """Tell whether a subject must have an event."""
    if event == EVENT_PRIORITY:
        return not (subject.mechanism == "kqueue" and subject.kernel in WITHOUT_PRIORITY)
    if subject.mechanism in ("poll", "epoll"):
        return subject.kernel in WITH_HANGUP
    return subject.mechanism == "kqueue"


def shares_triggers(subject):
    """Tell whether a trigger is of all filters of a descriptor, which is so with libkqueue."""
    return subject.kernel == "libkqueue"


@pytest.fixture
def tcp():
    """Two connected TCP sockets, which can have urgent data; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def watching(subject, selector):
    """Return a function that registers for an event, or skips where the mechanism lacks it."""

    def register(fileobj, events):
        for event in (EVENT_PRIORITY, EVENT_HANGUP):
            if events & event and not has(subject, event):
                pytest.skip(f"{subject} has no such event")
        selector.register(fileobj, events)
        return selector

    return register


def masks(selector, timeout=0):
    """Return the masks that a wait returns."""
    return [events for _, events in selector.select(timeout)]


def urgent(near, far):
    """Send urgent data and wait until it is there."""
    far.send(b"!", socket.MSG_OOB)
    assert select.select([], [], [near], 5)[2]


@pytest.mark.parametrize("event", [EVENT_PRIORITY, EVENT_HANGUP])
def test_an_event_that_the_mechanism_lacks(subject, selector, pair, snapshot, event):
    """It is a NotImplementedError that names it, before anything changes."""
    selector.register(pair[0], EVENT_READ, "kept")
    before = snapshot(selector)
    name = "EVENT_PRIORITY" if event == EVENT_PRIORITY else "EVENT_HANGUP"
    if has(subject, event):
        selector.modify(pair[0], EVENT_READ | event)
        assert selector.get_key(pair[0]).events == EVENT_READ | event
        return

    for call in (selector.modify, selector.register):
        with pytest.raises(NotImplementedError, match=rf"{subject.mechanism} \(.*\) has no {name}"):
            call(pair[0], EVENT_READ | event)

    assert snapshot(selector) == before


@pytest.mark.parametrize("events", [0, 4, 8, 16, EVENT_PRIORITY << 2, EVENT_HANGUP | 4, -1])
def test_invalid_events_stay_invalid(selector, pair, events):
    """Bits that are no event are a ValueError, as in the standard library."""
    with pytest.raises(ValueError, match="Invalid events"):
        selector.register(pair[0], events)


def test_urgent_data(watching, tcp):
    """Urgent data is EVENT_PRIORITY until it is read, and not EVENT_READ."""
    near, far = tcp
    selector = watching(near, EVENT_READ | EVENT_PRIORITY)

    urgent(near, far)

    assert masks(selector, 5) == masks(selector) == [EVENT_PRIORITY]
    assert near.recv(1, socket.MSG_OOB) == b"!"
    assert masks(selector) == []


def test_urgent_data_alone(watching, tcp):
    """Who waits for urgent data alone is not woken by other data."""
    near, far = tcp
    selector = watching(near, EVENT_PRIORITY)

    far.send(b"x")
    select.select([near], [], [], 5)
    assert masks(selector) == []

    urgent(near, far)
    assert masks(selector, 5) == [EVENT_PRIORITY]


def test_urgent_data_of_many(watching, new_pair, tcp):
    """Events of one registration are not those of another, whatever else is ready."""
    near, far = tcp
    selector = watching(near, BOTH | EVENT_PRIORITY)
    ends = [new_pair() for _ in range(20)]
    for left, right in ends:
        selector.register(left, EVENT_READ)
        right.send(b"x")
    urgent(near, far)

    found = {key.fd: events for key, events in selector.select(5)}

    assert found.pop(near.fileno()) == EVENT_WRITE | EVENT_PRIORITY
    assert found == {left.fileno(): EVENT_READ for left, _ in ends}
    assert {key.fd: events for key, events in selector.select(0)}[near.fileno()]


def test_who_does_not_ask_does_not_see(selector, tcp):
    """A registration for reading is not woken by urgent data."""
    near, far = tcp
    selector.register(near, EVENT_READ)

    urgent(near, far)

    assert masks(selector) == []


def test_end_of_the_peer(watching, pair):
    """EVENT_HANGUP comes when the peer has stopped sending, with what is left to read."""
    left, right = pair
    selector = watching(left, EVENT_READ | EVENT_HANGUP)

    right.send(b"x")
    assert masks(selector, 5) == [EVENT_READ]
    right.shutdown(socket.SHUT_WR)

    assert masks(selector, 5) == masks(selector) == [EVENT_READ | EVENT_HANGUP]


def test_end_of_the_peer_without_reading(watching, pair):
    """Data that waits to be read does not end a wait for EVENT_HANGUP alone; the end does, and stays."""
    left, right = pair
    selector = watching(left, EVENT_HANGUP)

    right.send(b"x")
    assert masks(selector) == masks(selector) == []
    right.send(b"y")
    assert masks(selector, 0.01) == []
    right.close()

    assert masks(selector, 5) == masks(selector) == masks(selector) == [EVENT_HANGUP]
    assert left.recv(3) == b"xy"
    assert masks(selector) == [EVENT_HANGUP]


def test_end_of_the_peer_while_writing(subject, watching, pair):
    """EVENT_HANGUP is told from EVENT_WRITE."""
    left, right = pair
    if shares_triggers(subject):
        with pytest.raises(NotImplementedError, match="EVENT_WRITE and EVENT_HANGUP without EVENT_READ"):
            watching(left, EVENT_WRITE | EVENT_HANGUP)
        return
    selector = watching(left, EVENT_WRITE | EVENT_HANGUP)

    assert masks(selector, 5) == masks(selector) == [EVENT_WRITE]
    right.shutdown(socket.SHUT_WR)

    assert masks(selector, 5) == [EVENT_WRITE | EVENT_HANGUP]


def test_end_of_a_pipe(watching, pipe):
    """The end of a pipe is EVENT_HANGUP, too."""
    reader, writer = pipe
    selector = watching(reader, EVENT_READ | EVENT_HANGUP)
    os.write(writer, b"x")
    assert masks(selector, 5) == [EVENT_READ]

    os.close(writer)

    assert masks(selector, 5) == [EVENT_READ | EVENT_HANGUP]


def test_an_end_that_was_not_asked_for(watching, pair):
    """Who waits for urgent data alone still learns that the connection is gone."""
    left, right = pair
    selector = watching(left, EVENT_PRIORITY)
    if type(selector).__name__ in ("SelectSelector", "KqueueSelector"):
        pytest.skip("select(2) and EVFILT_EXCEPT say nothing of it")

    right.close()

    assert masks(selector, 5) == [EVENT_PRIORITY]


def test_back_to_what_the_standard_library_has(watching, pair):
    """modify() takes the events away again."""
    left, right = pair
    selector = watching(left, EVENT_READ | EVENT_HANGUP)
    right.shutdown(socket.SHUT_WR)
    assert masks(selector, 5) == [EVENT_READ | EVENT_HANGUP]

    assert type(selector.modify(left, EVENT_READ).events) is int
    assert masks(selector) == [EVENT_READ]
    selector.modify(left, EVENT_HANGUP, "data")
    assert masks(selector) == [EVENT_HANGUP]
    selector.unregister(left)
    assert masks(selector) == []
    selector.register(left, EVENT_READ)
    assert masks(selector) == [EVENT_READ]
