"""Events and triggers beyond the standard library's in debugging, under inject and under chaos."""

from __future__ import annotations

import json
import socket

import pytest

from selectors_ffi import EDGE, EVENT_HANGUP, EVENT_PRIORITY, EVENT_READ, EVENT_WRITE, ONESHOT, Debug
from selectors_ffi.debug import JsonSink, debugging
from selectors_ffi.testing import Chaos, injecting
from selectors_ffi.testing.library import proxied

pytestmark = pytest.mark.ours

BOTH = EVENT_READ | EVENT_WRITE


@pytest.fixture
def lines():
    """The lines that are traced."""
    written = []

    class Lines:
        def write(self, text):
            written.append(text)

        def flush(self):
            pass

    with debugging(Debug.SYSCALLS | Debug.EVENTS | Debug.CHECKS, sink=JsonSink(Lines())):
        yield written


def records(lines):
    """Return the records that were written."""
    return [json.loads(line) for text in lines for line in text.splitlines()]


def test_a_trace_names_them(subject, lines, pair):
    """A trace shows the native flags and the names of what is beyond."""
    left, right = pair
    selector = subject.make()
    selector.register(left, EVENT_READ, trigger=ONESHOT)
    right.send(b"x")
    assert len(selector.select(5)) == 1
    assert selector.select(0) == []
    selector.modify(left, EVENT_READ)
    assert len(selector.select(5)) == 1
    selector.close()

    found = records(lines)

    assert [one["ready"] for one in found if one["type"] == "wait"] == [1, 0, 1]
    told = [one for one in found if one["type"] == "event" and one["events"]]
    assert [one["events"] for one in told] == [EVENT_READ] * 2
    native = {"epoll": "EPOLLONESHOT", "kqueue": "EV_ONESHOT"}.get(subject.mechanism, "")
    assert native in "".join(lines)


@pytest.mark.parametrize("event", [EVENT_PRIORITY, EVENT_HANGUP])
def test_a_trace_shows_what_was_asked(subject, lines, pair, event):
    """What a mechanism has is shown by its own name; what it lacks shows no call."""
    left, _ = pair
    selector = subject.make()
    before = len(lines)
    try:
        selector.register(left, EVENT_READ | event)
    except NotImplementedError:
        assert len(lines) == before
        selector.close()
        return
    selector.select(0)
    selector.close()

    names = {
        "epoll": ("EPOLLPRI", "EPOLLRDHUP"),
        "poll": ("POLLPRI", "POLLRDHUP"),
        "devpoll": ("POLLPRI", ""),
        "eventport": ("POLLPRI", ""),
        "kqueue": ("EVFILT_EXCEPT", "EVFILT_READ"),
        "select": ("select", ""),
    }
    assert names[subject.mechanism][event == EVENT_HANGUP] in "".join(lines)


def test_describe_names_them(subject, selector, pair):
    """The table has the trigger, and epoll's own list agrees before and after the report."""
    left, _ = pair
    selector.register(left, BOTH, trigger=ONESHOT)
    for timeout in (5, 0):
        described = selector.describe()
        assert described.rows[0].interest == "EVENT_READ|EVENT_WRITE|ONESHOT"
        assert not described.differences
        selector.select(timeout)


@pytest.mark.parametrize("options", [{"trigger": EDGE}, {"exclusive": True}, {}])
def test_describe_agrees_with_epoll(subject, selector, pair, options):
    """The kernel's list is compared with all that was asked for."""
    if subject.mechanism != "epoll":
        pytest.skip("only epoll shows its list")
    more = 0 if options.get("exclusive") else EVENT_PRIORITY | EVENT_HANGUP
    selector.register(pair[0], EVENT_READ | more, **options)

    assert not selector.describe().differences


def test_raw_events(subject, selector, pair):
    """select_raw() has the native event, and says that the peer has ended."""
    left, right = pair
    try:
        selector.register(left, EVENT_READ | EVENT_HANGUP)
    except NotImplementedError:
        pytest.skip(f"{subject} has no EVENT_HANGUP")
    right.shutdown(socket.SHUT_WR)

    (event,) = selector.select_raw(5)

    assert event.key.fd == left.fileno()
    assert (event.readable, event.eof) == (True, True)
    assert any(name in event.decoded for name in ("RDHUP", "EV_EOF"))


@pytest.mark.parametrize("seed", range(5))
def test_under_chaos(subject, pairs, seed):
    """Chaos neither loses nor doubles a report of ONESHOT or EDGE."""
    edges = subject.mechanism in ("epoll", "kqueue")
    selector = subject.cls(binding=proxied(subject.new_binding(), Chaos(seed)))
    for left, _ in pairs:
        selector.register(left, EVENT_READ, trigger=EDGE if edges else ONESHOT)
    for _ in range(3):
        for _, right in pairs:
            right.send(b"x")
        found = []
        while len(found) < len(pairs):
            found += [key.fd for key, _ in selector.select(5)]
        for _ in range(5):
            found += [key.fd for key, _ in selector.select(0)]
        assert sorted(found) == sorted(left.fileno() for left, _ in pairs)
        for left, _ in pairs:
            assert left.recv(10) == b"x"
            selector.modify(left, EVENT_READ)
    selector.close()


def test_under_inject(subject, pair):
    """A refusal of the kernel leaves the registration as it was, with its trigger."""
    if not (subject.on_host and subject.mechanism == "epoll"):
        pytest.skip("epoll of this process")
    left, right = pair
    with injecting("epoll_ctl:error=ENOMEM:when=2"):
        selector = subject.cls()
        key = selector.register(left, EVENT_READ, trigger=ONESHOT)
        with pytest.raises(OSError, match="memory"):
            selector.modify(left, BOTH, trigger=EDGE)
        assert selector.get_key(left) is key
        right.send(b"x")
        assert [events for _, events in selector.select(5)] == [EVENT_READ]
        assert selector.select(0) == []
        selector.close()
