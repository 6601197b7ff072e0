"""trigger= and exclusive= of register and modify, on every backend and kernel."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import sys
import threading
import time

import pytest

from selectors_ffi import EDGE, EVENT_HANGUP, EVENT_PRIORITY, EVENT_READ, EVENT_WRITE, LEVEL, ONESHOT
from selectors_ffi.testing.calls import waits
from selectors_ffi.testing.library import proxied

from .test_async_exceptions import Interrupter, every

pytestmark = pytest.mark.ours

BOTH = EVENT_READ | EVENT_WRITE


def masks(selector, timeout=0):
    """Return the masks that a wait returns."""
    return [events for _, events in selector.select(timeout)]


@pytest.fixture
def edges(subject, selector):
    """A selector whose mechanism has edges."""
    if subject.mechanism not in ("epoll", "kqueue"):
        pytest.skip(f"{subject.mechanism} has no edges")
    return selector


@pytest.fixture
def readable(pair):
    """A socket with something to read."""
    left, right = pair
    right.send(b"x")
    return left


@pytest.mark.parametrize(
    ("options", "name", "mechanisms"),
    [
        ({"trigger": EDGE}, "EDGE", ("epoll", "kqueue")),
        ({"exclusive": True}, "exclusive", ("epoll",)),
        ({"trigger": EDGE, "exclusive": True}, "EDGE|exclusive", ("epoll",)),
        ({"trigger": ONESHOT, "exclusive": True}, "exclusive", ()),
    ],
)
def test_what_the_mechanism_lacks(subject, selector, readable, snapshot, options, name, mechanisms):
    """It is a NotImplementedError that names it, before anything changes."""
    key = selector.register(readable, EVENT_READ, "kept")
    before = snapshot(selector)
    if subject.mechanism in mechanisms:
        assert selector.modify(readable, EVENT_READ, **options) is not key
        return

    for call in (selector.modify, selector.register):
        with pytest.raises(NotImplementedError, match=name):
            call(readable, EVENT_READ, **options)

    assert snapshot(selector) == before
    assert selector.get_key(readable) is key


@pytest.mark.parametrize("trigger", ["", "sometimes", 1, []])
def test_unknown_trigger(selector, readable, snapshot, trigger):
    """A trigger that does not exist is a ValueError that lists those that do."""
    before = snapshot(selector)

    with pytest.raises(ValueError, match="LEVEL, EDGE and ONESHOT"):
        selector.register(readable, EVENT_READ, trigger=trigger)

    assert snapshot(selector) == before


def test_keywords_only(selector, readable):
    """Neither can be given by position."""
    with pytest.raises(TypeError):
        selector.register(readable, EVENT_READ, None, ONESHOT)


def test_level_is_the_default(selector, readable):
    """LEVEL is what the standard library has, and its keys are the same."""
    key = selector.register(readable, EVENT_READ, trigger=LEVEL, exclusive=False)

    assert type(key.events) is int
    assert selector.modify(readable, EVENT_READ, trigger=LEVEL) is key
    assert selector.select(0) == selector.select(0) == [(key, EVENT_READ)]


def test_the_key_tells(selector, readable):
    """The events of such a key are an int that knows the trigger, and survives a copy."""
    key = selector.register(readable, EVENT_READ, trigger=ONESHOT)

    assert key.events == EVENT_READ
    for events in (key.events, copy.copy(key.events), pickle.loads(pickle.dumps(key.events))):
        assert (events, events.trigger, events.exclusive, events.armed) == (1, ONESHOT, False, True)


def test_oneshot_reports_once(selector, readable):
    """ONESHOT ends with its report; modify arms it again, also with equal arguments."""
    key = selector.register(readable, EVENT_READ, "data", trigger=ONESHOT)

    assert selector.select(5) == [(key, EVENT_READ)]
    assert masks(selector) == masks(selector, 0.01) == []
    assert selector.get_key(readable) is key
    assert not key.events.armed

    for _ in range(2):
        again = selector.modify(readable, EVENT_READ, "data")
        assert again.events.trigger is ONESHOT
        assert selector.select(5) == [(again, EVENT_READ)]
        assert masks(selector) == []


def test_oneshot_of_both_directions(selector, pair):
    """One report is for all the events of a registration."""
    left, right = pair
    selector.register(left, BOTH, trigger=ONESHOT)
    assert masks(selector, 5) == [EVENT_WRITE]
    right.send(b"x")
    assert masks(selector) == []

    selector.modify(left, BOTH)

    assert masks(selector, 5) == [BOTH]
    assert masks(selector) == []


def test_oneshot_does_not_end_before_its_report(selector, pair):
    """Waits in which nothing is ready do not use it up."""
    left, right = pair
    selector.register(left, EVENT_READ, trigger=ONESHOT)
    assert masks(selector) == masks(selector, 0.01) == []

    right.send(b"x")

    assert masks(selector, 5) == [EVENT_READ]


def test_oneshot_that_has_reported_hears_of_nothing(selector, pair):
    """Not even a hang-up ends a wait for a registration that has reported."""
    left, right = pair
    selector.register(left, EVENT_READ, trigger=ONESHOT)
    right.send(b"x")
    assert masks(selector, 5) == [EVENT_READ]

    right.close()

    assert masks(selector) == masks(selector, 0.01) == []
    selector.modify(left, EVENT_READ)
    assert masks(selector, 5) == [EVENT_READ]


def test_oneshot_beside_others(selector, readable, pairs):
    """Other registrations are level-triggered, whatever their order."""
    (before, one), (after, other), (both, _), _ = pairs
    level = {selector.register(before, EVENT_READ): 1}
    selector.register(readable, EVENT_READ, trigger=ONESHOT)
    level.update({selector.register(after, EVENT_READ): 1, selector.register(both, BOTH): 2})
    one.send(b"x")
    other.send(b"x")
    assert len(selector.select(5)) == 4

    for _ in range(3):
        assert dict(selector.select(0)) == level
    selector.unregister(before)
    selector.modify(readable, EVENT_READ)
    assert len(selector.select(5)) == 3
    assert len(selector.select(0)) == 2


def test_oneshot_is_registered_anew(selector, readable):
    """What is registered again is armed; the events of a key are a mask to register()."""
    key = selector.register(readable, EVENT_READ, trigger=ONESHOT)
    assert masks(selector, 5) == [EVENT_READ]
    selector.unregister(readable)

    selector.register(readable, key.events, trigger=ONESHOT)
    assert masks(selector, 5) == [EVENT_READ]
    assert masks(selector) == []
    selector.unregister(readable)

    assert type(selector.register(readable, key.events).events) is int
    assert masks(selector) == masks(selector) == [EVENT_READ]


def test_oneshot_becomes_level(selector, readable):
    """modify(trigger=LEVEL) makes it what the standard library has, and ONESHOT back."""
    selector.register(readable, EVENT_READ, trigger=ONESHOT)
    assert masks(selector, 5) == [EVENT_READ]

    selector.modify(readable, EVENT_READ, trigger=LEVEL)
    assert masks(selector) == masks(selector) == [EVENT_READ]

    selector.modify(readable, EVENT_READ, trigger=ONESHOT)
    assert masks(selector) == [EVENT_READ]
    assert masks(selector) == []


@pytest.fixture
def many(readable):
    """More descriptors with something to read than the first buffer of a call has room for."""
    fds = [os.dup(readable.fileno()) for _ in range(300)]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("count", [16, 17, 40, 300])
@pytest.mark.parametrize("trigger", [EDGE, ONESHOT])
def test_more_than_a_buffer_has_room_for(subject, selector, many, trigger, count):
    """Each is reported, and only once, however many are ready."""
    if trigger is EDGE and subject.mechanism not in ("epoll", "kqueue"):
        pytest.skip(f"{subject.mechanism} has no edges")
    for fd in many[:count]:
        selector.register(fd, EVENT_READ, trigger=trigger)

    assert sorted(key.fd for key, _ in selector.select(0)) == sorted(many[:count])
    assert selector.select(0) == []


def test_more_levels_than_a_buffer_has_room_for(selector, many):
    """Beside a trigger what stays ready is one result of each wait."""
    selector.register(many[0], EVENT_READ, trigger=ONESHOT)
    for fd in many[1:]:
        selector.register(fd, EVENT_READ)

    assert sorted(key.fd for key, _ in selector.select(0)) == sorted(many)
    for _ in range(3):
        assert sorted(key.fd for key, _ in selector.select(0)) == sorted(many[1:])


@pytest.mark.parametrize("trigger", [EDGE, ONESHOT])
def test_an_exception_takes_nothing_with_it(subject, readable, trigger):
    """What a call had reported when a signal handler raised is reported by the next wait."""
    if trigger is EDGE and subject.mechanism not in ("epoll", "kqueue"):
        pytest.skip(f"{subject.mechanism} has no edges")
    raising = []

    def hook(call):
        result = call.run()
        if raising and waits(call):
            raise raising.pop()
        return result

    with subject.cls(binding=proxied(subject.new_binding(), hook)) as selector:
        key = selector.register(readable, EVENT_READ, trigger=trigger)
        for timeout in (0, 5, None):
            for wait in (selector.select, selector.select_raw):
                raising.append(KeyboardInterrupt())
                with pytest.raises(KeyboardInterrupt):
                    wait(timeout)
        assert selector.select(0) == [(key, EVENT_READ)]


@pytest.mark.timeout(600)
def test_an_exception_at_any_bytecode_takes_no_oneshot_with_it(subject, many):
    """Those that had been decoded already are reported by the next wait, too.

    At every 167th bytecode, on PyPy at every 13th line; at every one with the long profile.
    """

    def interrupted_at(place):
        with subject.make() as selector:
            for fd in many[:20]:
                selector.register(fd, EVENT_READ, trigger=ONESHOT)
            interrupter = Interrupter(place)
            if interrupter.run(lambda: selector.select(0)):
                assert len(selector.select(0)) == 20, interrupter.where
            assert selector.select(0) == []
        return interrupter.passed

    # What comes in the last lines, when all is done, takes the result with it.
    interrupted_at(0)  # the first call makes what later ones share
    end = interrupted_at(0) - (130 if sys.implementation.name == "cpython" else 30)
    assert end > 50
    for place in range(1, end, every()):
        interrupted_at(place)


def test_a_change_while_edges_are_armed_again(edges, subject, pair):
    """What another thread has changed meanwhile is what the kernel watches in the end."""
    edges.register(pair[0], EVENT_READ, trigger=EDGE)
    step = "_renew" if subject.mechanism == "kqueue" else "_watch"
    apply, keys = getattr(edges, step), []

    def late(*arguments):
        delattr(edges, step)
        keys.append(edges.modify(pair[0], EVENT_WRITE, trigger=LEVEL))
        apply(*arguments)

    setattr(edges, step, late)
    edges._arm_again(*[[]] if subject.mechanism == "kqueue" else [])
    assert edges.select(0) == [(keys[0], EVENT_WRITE)]


def test_the_events_of_another_selectors_key(make, readable):
    """They are a mask alone: the trigger, and that a ONESHOT has been reported, stay behind."""
    with make() as old, make() as new:
        old.register(readable, EVENT_READ, trigger=ONESHOT)
        assert masks(old) == [EVENT_READ]
        spent = old.get_key(readable).events

        assert type(new.register(readable, spent).events) is int
        assert masks(new) == masks(new) == [EVENT_READ]

        new.modify(readable, EVENT_WRITE)
        assert type(new.modify(readable, spent).events) is int
        assert masks(new) == masks(new) == [EVENT_READ]


def test_oneshot_wakes_one_thread(subject, selector, pair):
    """Of several threads that wait, one is given the report."""
    left, right = pair
    if subject.closes_later:
        pytest.skip("libkqueue may lose a wake-up of two waiting threads")
    selector.register(left, EVENT_READ, trigger=ONESHOT)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(selector.select(0.1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    right.send(b"x")
    for thread in threads:
        thread.join()
    found.extend(selector.select(0))  # on a busy machine the threads may have left before the byte came

    assert [events for _, events in found] == [EVENT_READ]


def test_oneshot_shares_the_work(subject, selector, pairs):
    """Threads that take reports and arm again lose nothing, and none is given what another has."""
    if subject.closes_later:
        pytest.skip("libkqueue may lose a wake-up of two waiting threads")
    total = 20 * len(pairs)
    got, empty, lock, deadline = [], [], threading.Lock(), time.monotonic() + 30
    for left, _ in pairs:
        selector.register(left, EVENT_READ, trigger=ONESHOT)

    def work():
        while len(got) < total and time.monotonic() < deadline:
            for key, _ in selector.select(0.02):
                try:
                    data = key.fileobj.recv(1)
                except BlockingIOError:
                    empty.append(key)
                    continue
                with lock:
                    got.append(data)
                selector.modify(key.fileobj, EVENT_READ)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        for _, right in pairs:
            right.send(b"x")
    for thread in threads:
        thread.join()

    assert (len(got), empty) == (total, [])


def test_a_set_that_is_replaced_arms_nothing(subject, selector, readable, pipe):
    """A ONESHOT that has reported is not armed by what cures a stale registration, see epoll."""
    if subject.mechanism != "epoll":
        pytest.skip("only epoll keeps what was closed")
    armed, other = socket.socketpair()
    with armed, other:
        selector.register(readable, EVENT_READ, trigger=ONESHOT)
        selector.register(armed, EVENT_READ, trigger=ONESHOT)
        assert masks(selector, 5) == [EVENT_READ]
        _, writer = pipe
        copy_ = os.dup(writer)
        selector.register(writer, EVENT_WRITE)
        os.close(writer)
        selector.unregister(writer)  # the kernel cannot delete it

        assert masks(selector) == masks(selector) == []
        other.send(b"x")
        assert masks(selector, 5) == [EVENT_READ]
        assert masks(selector) == []

        selector.modify(readable, EVENT_READ)
        assert masks(selector, 5) == [EVENT_READ]
        os.close(copy_)


def test_oneshot_raw(selector, readable):
    """select_raw() uses a ONESHOT up, too."""
    selector.register(readable, EVENT_READ, trigger=ONESHOT)

    assert [event.fd for event in selector.select_raw(5)] == [readable.fileno()]
    assert masks(selector) == []


def test_edge(edges, pair):
    """EDGE reports what is new, and not what is still there."""
    left, right = pair
    edges.register(left, EVENT_READ, trigger=EDGE)
    assert masks(edges) == []

    for byte in (b"x", b"y"):
        right.send(byte)
        assert masks(edges, 5) == [EVENT_READ]
        assert masks(edges) == []
    assert left.recv(3) == b"xy"
    assert masks(edges) == []
    right.shutdown(socket.SHUT_WR)
    assert masks(edges, 5) == [EVENT_READ]
    assert masks(edges) == []


def test_edge_of_both_directions(edges, pair):
    """Both directions may be new, and are reported apart when they are."""
    left, right = pair
    edges.register(left, BOTH, trigger=EDGE)
    assert masks(edges, 5) == [EVENT_WRITE]
    assert masks(edges) == []

    right.send(b"x")

    assert masks(edges, 5)[0] & EVENT_READ
    assert masks(edges) == []


def test_edge_is_kept_by_modify(edges, readable):
    """modify() without a trigger keeps it; the change is looked at anew."""
    edges.register(readable, EVENT_READ, trigger=EDGE)
    assert masks(edges, 5) == [EVENT_READ]

    key = edges.modify(readable, BOTH)

    assert key.events.trigger is EDGE
    assert masks(edges, 5) == [BOTH]
    assert masks(edges) == []
    assert edges.modify(readable, BOTH) is key
    edges.modify(readable, BOTH, trigger=LEVEL)
    assert masks(edges) == masks(edges) == [BOTH]


def test_more_hangups_than_a_buffer_has_room_for(subject, selector, new_pair):
    """EVENT_HANGUP alone stays reported, however many have ended, and after an exception."""
    if subject.mechanism not in ("epoll", "kqueue"):
        pytest.skip(f"{subject.mechanism} has no buffer that may be full")
    ends = [new_pair() for _ in range(40)]
    for left, right in ends:
        selector.register(left, EVENT_HANGUP)
        right.close()
    for _ in range(3):
        assert masks(selector) == [EVENT_HANGUP] * 40


def test_edge_of_a_hangup(edges, subject, pair):
    """The end of the peer is new once."""
    left, right = pair
    edges.register(left, EVENT_HANGUP, trigger=EDGE)
    right.close()

    assert masks(edges, 5) == [EVENT_HANGUP]
    assert masks(edges) == []


def test_exclusive(subject, selector, readable):
    """An exclusive registration reports as any other; modify and unregister work on it."""
    if subject.mechanism != "epoll":
        pytest.skip(f"{subject.mechanism} has no exclusive registrations")
    key = selector.register(readable, EVENT_READ, exclusive=True)
    assert selector.select(5) == selector.select(0) == [(key, EVENT_READ)]
    assert key.events.exclusive

    assert selector.modify(readable, EVENT_READ) is key
    assert selector.modify(readable, BOTH).events.exclusive
    assert masks(selector) == [BOTH]
    assert type(selector.modify(readable, BOTH, exclusive=False).events) is int
    assert masks(selector) == [BOTH]
    selector.modify(readable, EVENT_WRITE, exclusive=True)
    assert masks(selector) == [EVENT_WRITE]
    selector.unregister(readable)
    assert masks(selector) == []


def test_exclusive_reaches_the_kernel(subject, selector, readable):
    """The kernel refuses to change the registration: it has EPOLLEXCLUSIVE, see epoll_ctl(2)."""
    if subject.mechanism != "epoll":
        pytest.skip(f"{subject.mechanism} has no exclusive registrations")
    binding = selector._binding
    function, constant = binding.function("epoll_ctl"), binding.constant("EPOLL_CTL_MOD")
    event = binding.ffi.new("struct epoll_event *", {"events": binding.constant("EPOLLIN")})
    selector.register(readable, EVENT_READ, exclusive=True)

    with pytest.raises(OSError, match="Invalid argument"):
        binding.call(function, selector.fileno(), constant, readable.fileno(), event)

    selector.modify(readable, EVENT_READ, exclusive=False)
    binding.call(function, selector.fileno(), constant, readable.fileno(), event)


@pytest.mark.parametrize("events", [EVENT_PRIORITY, EVENT_READ | EVENT_HANGUP])
def test_exclusive_excludes(subject, selector, readable, snapshot, events):
    """What epoll_ctl(2) does not take with EPOLLEXCLUSIVE is refused before it is asked."""
    if subject.mechanism != "epoll":
        pytest.skip(f"{subject.mechanism} has no exclusive registrations")
    before = snapshot(selector)

    with pytest.raises(NotImplementedError, match="EPOLLEXCLUSIVE"):
        selector.register(readable, events, exclusive=True)

    assert snapshot(selector) == before
