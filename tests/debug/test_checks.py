"""The state behind the lints: what is remembered of a registration, and what is looked at when."""

from __future__ import annotations

import os
import socket
from selectors import SelectorKey

import pytest

from selectors_ffi import EVENT_READ
from selectors_ffi.debug import checks, known, lints, naming, places
from selectors_ffi.debug.checks import Checks
from selectors_ffi.debug.known import Known

unix = pytest.mark.skipif(os.name != "posix", reason="Unix descriptors")


def key_of(fileobj):
    """Return a registration of ``fileobj`` for reading."""
    return SelectorKey(
        fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), EVENT_READ, None
    )


def told(findings):
    """Return the lints of findings."""
    return [finding.lint for finding in findings]


class Checker(Checks):
    """Checks with the registrations that an observer would keep."""

    def __init__(self, *, shared):
        super().__init__({}, shared=shared)

    def register(self, key):
        """Take note of a registration."""
        self._known[int(key.fd)] = Known.now(key, 3)
        return self.registered(self._known[int(key.fd)])

    def sweep(self, registry):
        """Look at all registrations, as while the loop sleeps."""
        return self.confirmed(self.suspects(registry), registry)

    def modify(self, key, **arguments):
        """Take note of a change."""
        self._known[int(key.fd)].changed(key)
        return self.modified(self._known[int(key.fd)], **arguments)


@pytest.fixture
def pipe():
    """A pipe whose ends may be closed by the test."""
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def test_use_in_a_child_is_told_once(monkeypatch):
    """In another process than the one it was made in: one finding, and only if it is shared."""
    for shared in (True, False):
        checker = Checker(shared=shared)
        assert checker.used() == []
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -5)
            assert told(checker.used()) == [lints.UsedAfterFork] * shared
            assert checker.used() == []


@unix
def test_a_closed_descriptor_is_found_and_told_once(pipe):
    """The wait after a descriptor was closed finds it; the second one says nothing."""
    checker, key = Checker(shared=True), key_of(pipe[0])
    registry = {key.fd: key}
    checker.register(key)
    assert checker.before(registry) == []
    os.close(pipe[0])

    assert checker.sweep({}) == [], "another thread has just unregistered it"
    (found,) = checker.before(registry)
    assert found.lint is lints.ClosedWhileRegistered
    assert checker.before(registry) == checker.sweep(registry) == []
    checker.forget(key.fd)
    del checker._known[key.fd]
    assert checker.sweep(registry) == []


@unix
def test_a_reused_number_is_found_by_the_wait_and_by_modify(pipe):
    """Another file under a registered number is found by fstat(2), and by ENOENT of the kernel."""
    checker, key = Checker(shared=True), key_of(pipe[0])
    registry = {key.fd: key}
    checker.register(key)
    with socket.socket() as other:
        os.dup2(other.fileno(), pipe[0])
        (found,) = checker.sweep(registry)
        assert found.lint is lints.DescriptorReused
        before, _, now = found.message.partition(" is another file now, a ")
        assert before.startswith(f"fd {key.fd} (int, registered for EVENT_READ at ")
        assert now.startswith("socket, tcp ")
        assert checker.modify(key) == [], "told already"
        checker.register(key)
        os.dup2(pipe[1], pipe[0])
        assert told(checker.modify(key)) == [lints.DescriptorReused]
        assert checker.modify(key) == checker.sweep(registry) == [], "it is known by its new file now"
    checker.register(key)
    assert told(checker.modify(key, unknown=True)) == [lints.DescriptorReused]


@unix
def test_modified_with_another_object(pairs):
    """A registration that is handed over to another object of the same file is no finding."""
    checker, near = Checker(shared=True), pairs[0][0]
    checker.register(key_of(near))
    key = key_of(near.fileno())
    assert checker.modify(key) == []
    assert "test_modified_with_another_object" in checker._known[near.fileno()].about()


@unix
def test_one_wait_looks_at_a_part_of_many(monkeypatch, pipe):
    """With many registrations each wait looks at some; the next ones go on from there."""
    looked = []

    def identity(fd, fileobj):
        looked.append(fd)
        return 1, fd

    monkeypatch.setattr(checks, "identity_of", identity)
    monkeypatch.setattr(known, "identity_of", identity)
    monkeypatch.setattr(checks, "CREDIT", 100)
    monkeypatch.setattr(checks, "SHARE", 1 << 60)
    checker = Checker(shared=False)
    registry = {fd: SelectorKey(fd, fd, EVENT_READ, None) for fd in range(1000, 1500)}
    for key in registry.values():
        checker.register(key)
    looked.clear()

    checker.before(registry)
    assert len(looked) == checks.CHUNK, "the credit is used up"
    checker.before(registry)
    assert len(looked) == checks.CHUNK, "and grows with the program's time alone"
    monkeypatch.setattr(checks, "SHARE", 1)
    for _ in range(1000):
        checker.before(registry)
    assert set(looked) == set(registry)


@unix
def test_an_interruption_costs_no_credit(monkeypatch, pipe):
    """A process that got no processor during the first look still has the second one."""
    checker, key = Checker(shared=False), key_of(pipe[0])
    checker.register(key)
    times = iter(range(checker._swept, 10**18, 10**9))
    with monkeypatch.context() as patched:
        patched.setattr(checks, "perf_counter_ns", lambda: next(times))
        assert checker.before({key.fd: key}) == []
    os.close(pipe[0])
    checker._swept = checks.perf_counter_ns()  # no credit for the time between them
    assert told(checker.before({key.fd: key})) == [lints.ClosedWhileRegistered]


class Closed:
    """Says of itself that it is closed, in one of several ways."""

    def __init__(self, error):
        self.error = error

    def fileno(self):
        if self.error is None:
            return -1
        raise self.error


@pytest.mark.parametrize(
    ("fileobj", "closed"),
    [
        (7, False),
        (Closed(None), True),
        (Closed(ValueError()), True),
        (Closed(RuntimeError()), False),
        (object(), False),
    ],
    ids=["number", "socket", "io", "odd", "none"],
)
def test_where_fstat_takes_no_socket(monkeypatch, fileobj, closed):
    """On Windows the object is asked whether it is closed; where that is unknown, nothing is told."""
    monkeypatch.setattr(known, "HAVE_FSTAT", False)
    checker, key = Checker(shared=False), SelectorKey(7, 7, EVENT_READ, None)
    checker.register(key)
    assert checker.sweep({7: key}) == []

    key = key._replace(fileobj=fileobj)
    checker.modify(key)
    assert told(checker.sweep({7: key})) == [lints.ClosedWhileRegistered] * closed


def test_closed_between_two_looks():
    """A descriptor that is closed at the wrong moment neither blocks nor raises."""
    assert checks._blocks(Known.now(key_of(10**6), 1)) is None
    assert naming.mode_of(10**6) == 0


def test_a_stale_event_is_told_once_per_number():
    """An event for a number that is registered anew is of an earlier file."""
    checker = Checker(shared=False)
    key = key_of(7)
    (found,) = checker.stale(7, "EPOLLIN", {})
    assert found.lint is lints.StaleRegistration
    assert found.message == "EPOLLIN was reported for fd 7, which is not registered"
    assert checker.stale(7, "EPOLLIN", {}) == []
    assert "the number of fd 8" in checker.stale(8, "EPOLLIN", {8: key})[0].message
    checker.register(key)
    (found,) = checker.stale(7, "EPOLLIN", {7: key})
    assert "was reported for an earlier file with the number of fd 7 (int" in found.message


def test_a_stale_event_beside_other_threads(monkeypatch):
    """Two changes may cross, so that it must come again, with no change of that number in between."""
    # Not in ``backends.table``, where the watchdog of an earlier test sets it when it ends.
    monkeypatch.setattr("selectors_ffi.debug.checks.other_threads", lambda: 1)
    checker, key = Checker(shared=False), key_of(7)
    assert checker.stale(7, "EPOLLIN", {}) == []
    checker.register(key)
    assert checker.stale(7, "EPOLLIN", {7: key}) == []
    checker.modify(key)
    assert checker.stale(7, "EPOLLIN", {7: key}) == []
    assert told(checker.stale(7, "EPOLLIN", {7: key})) == [lints.StaleRegistration]


def test_the_registry_changes_from_the_begin_of_a_change_to_its_end():
    """A wait that begins or ends while a change is under way in another thread knows that."""
    checker, seen = Checker(shared=False), []

    def change(*args, **kwargs):
        seen.append(checker.changes)
        seen.append(checker.changes)
        return args, kwargs

    seen.append(checker.changes)
    assert checker.change(change, (1,), {"data": 2}) == ((1,), {"data": 2})
    seen.append(checker.changes)
    with pytest.raises(ZeroDivisionError):
        checker.change(lambda: 1 // 0, (), {})
    seen.append(checker.changes)

    assert len({*seen}) == len(seen)
    assert checker.changes == checker.changes == seen[-1]


@unix
def test_what_may_be_another_file_neither_blocks_nor_does_it_not(pairs):
    """SEL006 does not count a socket that another thread has closed, nor one that has its number now."""
    checker = Checker(shared=False)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(True)
        key = key_of(near)
        keys = {key.fd: key}
        checker.register(key)
        gone = os.dup(far.fileno())
        checker.register(key_of(gone))
        os.close(gone)
        assert checker.before(keys) == []
        os.dup2(pairs[0][0].fileno(), gone)
        checker._new.add(gone)
        assert checker._blocking(keys) == []
        checker.register(key_of(gone))
        assert checker._blocking({}) == [], "another thread has just unregistered it"
        checker.register(key)
        assert told(checker._blocking(keys)) == [lints.BlockingDescriptor]
        os.close(gone)


def test_a_run_of_a_forgotten_registration_is_not_told(monkeypatch):
    """Another thread may have unregistered what the kernel has just reported."""
    checker = Checker(shared=False)
    verdict = (key_of(7), lints.BusyLoop, "why")
    monkeypatch.setattr(checker._runs, "after", lambda result, now: [verdict])
    assert checker.after([], None, 0, 0) == []


def test_a_place_is_known_where_no_program_is(monkeypatch):
    """Without a frame of the program the place is a question mark."""
    monkeypatch.setattr(places, "user_frame", lambda frame: (None, None))
    assert places.place() == (places.NOWHERE,)
    assert str(places.NOWHERE) == "?:0 in ?"
    assert places.depth() == 2
