"""select_raw() and describe(), which work with debugging off, and the records of events."""

from __future__ import annotations

import io
import os
import socket
import sys
from time import monotonic
from types import SimpleNamespace

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, EVENT_WRITE, RawEvent, backends, debugging
from selectors_ffi.debug import Event, Registration, Syscall, Wait, inspect
from selectors_ffi.debug.naming import shown
from selectors_ffi.testing import injecting

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="procfs and epoll")


def test_raw_shows_what_select_folds_away(backend, pairs):
    """A peer's hang-up and three ready descriptors, by name; select says EVENT_READ to all."""
    with backend() as selector:
        keys = [selector.register(pair[0], EVENT_READ) for pair in pairs]
        pairs[0][1].send(b"x")
        pairs[1][1].close()
        pairs[2][1].shutdown(socket.SHUT_WR)
        raw = {event.key: event for event in selector.select_raw(0)}
        folded = dict(selector.select(0))

    assert set(raw) == set(folded) == set(keys)
    assert set(folded.values()) == {EVENT_READ}
    if backend is not getattr(backends, "KqueueSelector", None):
        assert {(event.fflags, event.data) for event in raw.values()} == {(0, 0)}
    assert all(isinstance(event, RawEvent) and event.fd == event.key.fd for event in raw.values())
    decoded = [raw[key].decoded for key in keys]
    if backend is backends.EpollSelector:
        assert decoded == ["EPOLLIN", "EPOLLIN|EPOLLHUP", "EPOLLIN"]
    elif backend is backends.PollSelector:
        assert decoded[:2] == ["POLLIN", "POLLIN|POLLHUP"]
    elif backend is backends.SelectSelector:
        assert decoded == ["EVENT_READ"] * 3


def test_raw_waits_as_select_does(backend):
    """With nothing ready it waits for the timeout and returns an empty list."""
    with backend() as selector:
        begin = monotonic()
        assert selector.select_raw(0.02) == []
        assert monotonic() - begin >= 0.02
        assert selector.select_raw(-1) == []


@pytest.mark.parametrize("timeout", [None, 30, 0])
def test_raw_is_of_what_is_ready(backend, pairs, timeout):
    """Who is idle, or has been unregistered, is not among the native events."""
    with backend() as selector:
        for near, _ in pairs:
            selector.register(near, EVENT_READ)
        selector.select_raw(0)
        selector.unregister(pairs[2][0])
        for _, far in pairs[1:]:
            far.send(b"x")

        assert [event.fd for event in selector.select_raw(timeout)] == [pairs[1][0].fileno()]


def test_description_with_debugging_off(backend, pairs):
    """One row per registration: kind, address, interest, owner."""
    with socket.create_server(("127.0.0.1", 0)) as server, backend() as selector:
        selector.register(server, EVENT_READ)
        selector.register(pairs[0][0], EVENT_READ | EVENT_WRITE)
        description = selector.describe()
        host, port = server.getsockname()
        fd = server.fileno()

    assert [row.interest for row in description.rows] == ["EVENT_READ", "EVENT_READ|EVENT_WRITE"]
    assert description.rows[0][:3] == (fd, "socket", f"tcp {host}:{port} listening")
    assert description.rows[0].last == description.rows[0].place == "-"
    assert str(description).startswith(f"{backend.__name__}, ")
    assert "2 registered" in str(description)
    assert selector.describe().title.endswith("closed")


def test_description_with_debugging_on(backend, pairs):
    """With a flag on, the last native flags and the place of registration are known."""
    with backend(debug="stats") as selector:
        selector.register(pairs[0][0], EVENT_WRITE)
        selector.select(0)
        row = selector.describe().rows[0]

    assert row.last in ("EPOLLOUT", "POLLOUT", "WRITE")
    assert row.place.startswith(f"{__file__}:")


@linux
def test_description_agrees_with_the_kernel(pairs):
    """On Linux the kernel's own list is compared; it is normally the same."""
    with backends.EpollSelector() as selector:
        for first, second in pairs:
            selector.register(first, EVENT_READ)
            selector.register(second, EVENT_READ | EVENT_WRITE)
        selector.modify(pairs[0][0], EVENT_WRITE)
        assert selector.describe().differences == []
        assert str(selector.describe()).endswith("kernel: the same list")


@linux
def test_description_spells_out_differences(pairs):
    """A forgotten descriptor, a ghost and a changed interest are each named."""
    with backends.EpollSelector() as selector:
        forgotten, other = socket.socketpair()
        ghost, peer = socket.socketpair()
        duplicate = ghost.dup()
        selector.register(forgotten, EVENT_READ)
        number = selector.register(ghost, EVENT_WRITE).fd
        forgotten.close()
        ghost.close()
        selector.unregister(ghost)
        changed = selector.register(pairs[0][0], EVENT_READ)
        binding, ffi = selector._binding, selector._binding.ffi
        event = ffi.new("struct epoll_event *", {"events": ffi.integer_const("EPOLLOUT")})
        modify = ffi.integer_const("EPOLL_CTL_MOD")
        control = binding.function("epoll_ctl")
        binding.call(control, selector.fileno(), modify, changed.fd, event)
        differences = selector.describe().differences
        for sock in (other, peer, duplicate):
            sock.close()

    starts = (
        f"still watches what was fd {number} for EPOLLOUT (now closed), which is not registered",
        f"watches fd {changed.fd} for EPOLLOUT, registered is EVENT_READ",
        "does not watch fd ",
    )
    assert len(differences) == 3
    for start in starts:
        assert any(difference.startswith(start) for difference in differences)


@linux
@pytest.mark.parametrize("reused", [False, True])
def test_description_tells_that_the_kernel_watches_an_earlier_file(reused, pairs):
    """A number is closed, or names another file, and a duplicate of the former one is still watched."""
    with backends.EpollSelector() as selector:
        read, write = os.pipe()
        duplicate = os.dup(read)
        selector.register(read, EVENT_READ)
        if reused:
            os.dup2(pairs[0][0].fileno(), read)
        else:
            os.close(read)
        differences = selector.describe().differences
        if reused:
            os.close(read)
        for fd in (write, duplicate):
            os.close(fd)
    now = "socket" if reused else "closed"
    (difference,) = differences
    assert difference.startswith(f"watches what was fd {read} for EPOLLIN (now {now})")


@linux
def test_a_kernel_list_without_inodes(monkeypatch):
    """Linux before 4.13 shows none; the two lists are compared by numbers."""
    lines = io.StringIO("pos:\t0\ntfd:        5 events:       19 data:                5\n")
    monkeypatch.setattr(inspect, "open", lambda *_, **__: lines, raising=False)
    with backends.EpollSelector() as selector:
        assert inspect.watched(selector.fileno()) == [(5, 0x19, "")]


def test_events_and_registrations(backend, records, pairs):
    """EVENTS records what was registered, what the kernel reported, and what became of it."""
    with backend() as selector:
        for first, _ in pairs:
            selector.register(first, EVENT_WRITE)
        assert len(selector.select(0)) == 3
        selector.modify(pairs[0][0], EVENT_READ)
        selector.unregister(pairs[1][0])
        with pytest.raises(KeyError):
            selector.unregister(pairs[1][0])
    events = [record for record in records if isinstance(record, Event)]
    actions = [record.action for record in records if isinstance(record, Registration)]
    waits = [record for record in records if isinstance(record, Wait)]

    assert {event.fd for event in events} == {pair[0].fileno() for pair in pairs}
    assert all(event.events == EVENT_WRITE and event.kind == "socket" for event in events)
    assert actions == ["register"] * 3 + ["modify", "unregister", "close"]
    assert [wait.ready for wait in waits] == [3]
    assert str(events[0]).endswith(f"= EVENT_WRITE ({shown(pairs[0][0])})")


def test_owners_follow_a_change(backend, records, pairs):
    """A descriptor that is handed over has its new owner's name in what follows."""
    near = pairs[0][0]

    def first():
        """Own it."""

    with backend() as selector:
        selector.register(near, EVENT_WRITE, first)
        selector.select(0)
        selector.modify(near, EVENT_WRITE, "second")
        selector.select(0)
    events = [record.owner for record in records if isinstance(record, Event)]

    assert "first" in events[0]
    assert events[1] == "second"


@linux
def test_dropped_events_say_why(records):
    """An event of which nothing is made says so."""
    with backends.EpollSelector() as selector:
        read, write = os.pipe()
        duplicate = os.dup(write)
        selector.register(write, EVENT_WRITE)
        os.close(write)
        selector.unregister(write)
        with pytest.warns(UserWarning, match="SEL003"):
            assert selector.select(0) == []
        for fd in (read, duplicate):
            os.close(fd)
    events = [record for record in records if isinstance(record, Event)]

    assert {event.dropped for event in events} == {"not registered"}
    assert {str(event) for event in events} == {
        f"event({{fd={write}, kind=closed, events=EPOLLOUT}}) = dropped (not registered)"
    }


@pytest.mark.skipif(not hasattr(selectors_ffi, "EpollSelector"), reason="needs epoll")
def test_a_refused_registration_is_recorded(records):
    """A registration that the kernel refuses is recorded with its exception."""
    with backends.EpollSelector() as selector, open(__file__) as file:
        with pytest.raises(PermissionError):
            selector.register(file, EVENT_READ)
    refused = next(record for record in records if isinstance(record, Registration))

    assert refused.kind == "regular file"
    assert refused.error.startswith("PermissionError(1")


@pytest.mark.skipif(not hasattr(selectors_ffi, "EpollSelector"), reason="needs epoll")
def test_a_refused_modify_is_recorded_and_so_is_that_it_ended_the_registration(records):
    """What modify() refuses of a closed descriptor is registered no more; of an open one, it stays."""
    read, write = os.pipe()
    with injecting("epoll_ctl:error=EPERM:when=2"), backends.EpollSelector() as selector:
        selector.register(read, EVENT_READ)
        with pytest.raises(PermissionError):
            selector.modify(read, EVENT_WRITE)
        os.close(read)
        with pytest.raises(OSError, match="Bad file descriptor"):
            selector.modify(read, EVENT_WRITE)
        assert read not in selector.get_map()
    os.close(write)

    changes = [record for record in records if isinstance(record, Registration)]
    assert [(one.action, one.events, one.error.partition("(")[0]) for one in changes[:-1]] == [
        ("register", EVENT_READ, ""),
        ("modify", EVENT_WRITE, "PermissionError"),
        ("modify", EVENT_WRITE, "OSError"),
        ("unregister", EVENT_READ, ""),
    ]


@pytest.mark.skipif(not hasattr(os, "get_blocking"), reason="needs fcntl")
@pytest.mark.parametrize("default", [None, 5.0])
def test_looking_changes_no_mode(records, pairs, default):
    """Neither checks nor describe() make a socket blocking or non-blocking, on any Python."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(default)
    try:
        with backends.PollSelector() as selector:
            first, second = pairs[0]
            for sock, blocking in ((first, False), (second, True)):
                os.set_blocking(sock.fileno(), blocking)
                selector.register(sock.fileno(), EVENT_READ | EVENT_WRITE)
            with pytest.warns(UserWarning, match="SEL006"):
                selector.select(0)
            selector.select(0)
            str(selector.describe())
            assert not os.get_blocking(first.fileno())
            assert os.get_blocking(second.fileno())
    finally:
        socket.setdefaulttimeout(before)


def test_a_second_close_is_not_recorded(backend):
    """Closing a closed selector does nothing, and nothing is said of it."""
    kept = []
    with debugging("events", kept.append):
        selector = backend()
    selector.close()
    selector.close()
    assert [record.action for record in kept if isinstance(record, Registration)] == ["close"]


def test_description_of_nothing(backend):
    """Without registrations there is a title and what the kernel says, and no table."""
    with backend() as selector:
        lines = str(selector.describe()).splitlines()
        assert len(lines) == 2
        assert repr(selector.describe()) == f"<Description of {lines[0]}>"


@linux
def test_description_without_procfs(monkeypatch):
    """Without /proc nothing is said of the kernel's own list."""
    module = sys.modules["selectors_ffi.debug.inspect"]
    monkeypatch.setattr(module, "watched", lambda epfd: None)
    with backends.EpollSelector() as selector:
        assert selector.describe().differences is None
        assert "no list of its own" in str(selector.describe())


@pytest.mark.parametrize(
    "lines", ["tfd: x events: 1 data: 2", "tfd: 5 data: 2", "tfd: 5 events: zz data: 2"]
)
def test_a_kernel_list_of_another_form(monkeypatch, lines):
    """Lines that are not as expected are no list, rather than a wrong one."""
    monkeypatch.setattr(inspect, "open", lambda *_, **__: io.StringIO(lines), raising=False)
    assert inspect.watched(5) is None


def test_no_kernel_list():
    """A descriptor that is not there, or a system without inspect, has no list."""
    assert inspect.watched(10**6) is None


def test_why_an_event_was_dropped(backend, pairs):
    """Not registered, of an earlier file, or of a direction that was not asked for."""
    with backend(debug="events") as selector:
        key = selector.register(pairs[0][0], EVENT_READ)
        observer = selector._observer
        native = SimpleNamespace(fd=key.fd, token=None)
        assert observer._reason(SimpleNamespace(fd=10**6, token=None)) == "not registered"
        assert observer._reason(native) == "only EVENT_READ was asked for"
        native.token = 2**40
        assert observer._reason(native) == "of an earlier registration of this number"


@linux
def test_the_selectors_own_waker_is_named(records):
    """A wake-up is an event of no descriptor of the program, and is shown as what it is."""
    with backends.EpollSelector() as selector:
        selector.wakeup()
        assert selector.select() == []
    (event,) = [record for record in records if isinstance(record, Event)]
    assert event.fd == -1
    assert str(event) == (
        "event({kind=wake-up, events=EPOLLIN}) = dropped (the selector's own, to be woken up by)"
    )


def test_a_call_is_shown_before_the_next_one_begins(backend, pairs):
    """What a call brought is shown with it, but not later than the next call of the same wait."""
    near, far = pairs[0]
    kept = []
    seen = []
    with debugging("syscalls,events", kept.append), backend() as selector:
        selector.register(near, EVENT_READ)
        far.send(b"x")
        selector.select(0)
        here = selector._observer.here()
        assert here.held == []
        kinds = [type(record).__name__ for record in kept][-3:]
        kept.clear()
        here.heard = []  # as in a wait that goes on after an event for itself
        selector._observer.record(Syscall(0, here.source, "epoll_wait", ("3",), 1, 0, "", 0), here)
        seen.append(len(kept))
        selector._native(0)
        seen.append(len(kept))
        here.heard = None
    assert kinds == ["Syscall", "Event", "Wait"]
    assert seen[0] == 0
    assert kept[0].arguments == ("3",)
