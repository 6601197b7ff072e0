"""The contract, section 6: modify."""

from __future__ import annotations

import errno
import os

import pytest

from tests import needs
from tests.conftest import Failing

READ, WRITE = 1, 2


def test_events_change(selector, pairs):
    """The new events replace the old ones, in the key and in the kernel."""
    (left, right), _, _, _ = pairs
    right.send(b"x")
    selector.register(left, READ, "data")
    assert selector.select(0) == [((left, left.fileno(), READ, "data"), READ)]

    key = selector.modify(left, WRITE, "data")

    assert key == (left, left.fileno(), WRITE, "data") == selector.get_key(left)
    assert selector.select(0) == [(key, WRITE)]


@pytest.mark.parametrize("first", [READ, WRITE, READ | WRITE])
@pytest.mark.parametrize("second", [READ, WRITE, READ | WRITE])
def test_every_change_of_events(selector, pair, first, second):
    """From any events to any others: exactly the second are reported when all are ready."""
    left, right = pair
    right.send(b"x")
    selector.register(left, first)

    key = selector.modify(left, second)

    assert selector.select(0) == [(key, second)]


def test_three_modified_descriptors(selector, pairs):
    """Modified descriptors are reported each with its own new events and data."""
    keys = set()
    for number, (left, right) in enumerate(pairs[:3]):
        right.send(b"x")
        selector.register(left, READ, "old")
        keys.add((selector.modify(left, WRITE, number), WRITE))

    assert set(selector.select(0)) == keys


def test_nothing_changed(selector, pair):
    """The same events and data give back the same key object."""
    left, _ = pair
    key = selector.register(left, READ, 1.0)

    assert selector.modify(left, READ, 1.0) is key


@needs.dup2_of_sockets
def test_equal_number_keeps_the_key(selector, pair):
    """Another int object of the same number is the same file object: nothing has changed."""
    number = 300
    os.dup2(pair[0].fileno(), number)
    try:
        key = selector.register(int("300"), READ, "data")
        assert selector.modify(int("300"), READ, "data") is key
        selector.unregister(number)
    finally:
        os.close(number)


def test_equal_data_keeps_the_key(selector, pair):
    """Data is compared by equality, so equal data is no change."""
    left, _ = pair
    key = selector.register(left, READ, [1, 2])

    assert selector.modify(left, READ, [1, 2]) is key


def test_data_alone(selector, pair):
    """New data replaces the old, and the kernel still reports the events."""
    left, _ = pair
    selector.register(left, WRITE, "old")

    key = selector.modify(left, WRITE, "new")

    assert key.data == "new"
    assert selector.get_key(left) is key
    assert selector.select(0) == [(key, WRITE)]


def test_data_defaults_to_none(selector, pair):
    """modify without data resets it."""
    left, _ = pair
    selector.register(left, READ, "data")

    assert selector.modify(left, READ).data is None
    assert selector.get_key(left).data is None


def test_unknown(selector, pairs, snapshot):
    """An unregistered file object is a KeyError that names it, and nothing is added."""
    (left, _), (other, _), _, _ = pairs
    selector.register(left, WRITE)
    before = snapshot(selector)

    with pytest.raises(KeyError) as caught:
        selector.modify(other, READ)

    assert caught.value.args == (f"{other!r} is not registered",)
    assert snapshot(selector) == before


def test_keeps_the_order_of_the_map(selector, pairs):
    """A change of data keeps the place in the mapping."""
    lefts = [left for left, _ in pairs]
    for left in lefts:
        selector.register(left, READ)

    selector.modify(lefts[0], READ, "new")

    assert list(selector.get_map()) == [left.fileno() for left in lefts]


@pytest.mark.ours
@pytest.mark.parametrize("events", [0, 4, 8, -1, None])
def test_invalid_events(selector, pairs, snapshot, events):
    """Invalid events are a ValueError that changes nothing, on every backend."""
    for left, right in pairs:
        right.send(b"x")
        selector.register(left, READ)
    before = snapshot(selector)

    with pytest.raises(ValueError) as caught:
        selector.modify(pairs[0][0], events)

    assert str(caught.value) == f"Invalid events: {events!r}"
    assert snapshot(selector) == before


@pytest.mark.ours
def test_events_of_a_wrong_type(selector, pair, snapshot):
    """Events that are no integer are a TypeError that changes nothing."""
    selector.register(pair[0], WRITE)
    before = snapshot(selector)

    with pytest.raises(TypeError):
        selector.modify(pair[0], "r")

    assert snapshot(selector) == before


@pytest.mark.ours
@pytest.mark.parametrize("events", [READ, WRITE])
def test_another_file_object(selector, pair, events):
    """The object given to modify is the one that the key then holds."""
    left, _ = pair
    selector.register(left.fileno(), READ)

    key = selector.modify(left, events, "new")

    assert key == (left, left.fileno(), events, "new")
    assert selector.get_key(left.fileno()) is key


@pytest.mark.ours
def test_refused_by_the_kernel(subject, pairs, snapshot):
    """A refused change leaves the old registration in the registry and in the kernel."""
    function = {
        "epoll": "epoll_ctl",
        "kqueue": "kevent",
        "devpoll": "write",
        "eventport": "port_associate",
    }.get(subject.mechanism)
    if function is None:
        pytest.skip("select and poll ask no kernel before they wait")
    if subject.kernel == "libkqueue":
        pytest.skip("it refuses to add what it has, so it is asked again, change by change")
    failing = Failing(subject, function)
    with subject.cls(binding=failing.binding) as selector:
        for left, right in pairs[:3]:
            right.send(b"x")
            selector.register(left, READ, "old")
        before = snapshot(selector)
        failing.pending.append(errno.ENOMEM)

        with pytest.raises(OSError) as caught:
            selector.modify(pairs[0][0], WRITE, "new")

        assert caught.value.errno == errno.ENOMEM
        assert not failing.pending
        assert snapshot(selector) == before
        key = selector.modify(pairs[0][0], WRITE, "new")
        assert (key, WRITE) in selector.select(0)


@pytest.mark.ours
def test_closed_descriptor(subject, selector, pipe, pairs):
    """Where the kernel says EBADF its entry is gone, so ours goes too."""
    read_end, _ = pipe
    other = selector.register(pairs[0][0], WRITE)
    selector.register(read_end, READ)
    os.close(read_end)

    if subject.kernel_keeps_list:
        with pytest.raises(OSError) as caught:
            selector.modify(read_end, READ | WRITE)
        assert caught.value.errno == errno.EBADF
        assert list(selector.get_map().values()) == [other]
        assert selector.select(0) == [(other, WRITE)]
    else:
        assert selector.modify(read_end, READ | WRITE).events == READ | WRITE


@needs.dup2_of_sockets
@pytest.mark.ours
def test_reused_descriptor_is_healed(selector, pairs):
    """A descriptor that now names another file is added again by modify."""
    (left, _), (other, right), _, _ = pairs
    number = os.dup(left.fileno())
    selector.register(number, READ, "old")
    os.dup2(other.fileno(), number)
    try:
        key = selector.modify(number, READ | WRITE, "new")
        right.send(b"x")

        assert (key, READ | WRITE) in selector.select(0)
        selector.unregister(number)
    finally:
        os.close(number)
