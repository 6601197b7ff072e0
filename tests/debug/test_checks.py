"""The state behind the lints: what is remembered of a registration, and what is looked at when."""

from __future__ import annotations

import os
import socket
from selectors import SelectorKey

import pytest

from selectors_ffi import EVENT_READ
from selectors_ffi.debug import checks, lints, places
from selectors_ffi.debug.checks import Checks

unix = pytest.mark.skipif(os.name != "posix", reason="Unix descriptors")


def key_of(fileobj):
    """Return a registration of ``fileobj`` for reading."""
    return SelectorKey(
        fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), EVENT_READ, None
    )


def told(findings):
    """Return the lints of findings."""
    return [finding.lint for finding in findings]


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
        checker = Checks(shared=shared)
        assert checker.used() == []
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -5)
            assert told(checker.used()) == [lints.UsedAfterFork] * shared
            assert checker.used() == []


@unix
def test_a_closed_descriptor_is_found_and_told_once(pipe):
    """The wait after a descriptor was closed finds it; the second one says nothing."""
    checker, key = Checks(shared=True), key_of(pipe[0])
    registry = {key.fd: key}
    checker.registered(key)
    assert checker.before(registry) == []
    os.close(pipe[0])

    assert checker.sweep({}) == [], "another thread has just unregistered it"
    (found,) = checker.before(registry)
    assert found.lint is lints.ClosedWhileRegistered
    assert checker.before(registry) == checker.sweep(registry) == []
    checker.unregistered(key.fd)
    assert checker.sweep(registry) == []


@unix
def test_a_reused_number_is_found_by_the_wait_and_by_modify(pipe):
    """Another file under a registered number is found by fstat(2), and by ENOENT of the kernel."""
    checker, key = Checks(shared=True), key_of(pipe[0])
    registry = {key.fd: key}
    checker.registered(key)
    with socket.socket() as other:
        os.dup2(other.fileno(), pipe[0])
        (found,) = checker.sweep(registry)
        assert found.lint is lints.DescriptorReused
        assert found.message.endswith("is another file now, a socket")
        assert checker.modified(key) == [], "told already"
        checker.registered(key)
        os.dup2(pipe[1], pipe[0])
        assert told(checker.modified(key)) == [lints.DescriptorReused]
        assert checker.modified(key) == checker.sweep(registry) == [], "it is known by its new file now"
    checker.registered(key)
    assert told(checker.modified(key, unknown=True)) == [lints.DescriptorReused]


@unix
def test_modified_with_another_object(pairs):
    """A registration that is handed over to another object of the same file is no finding."""
    checker, near = Checks(shared=True), pairs[0][0]
    checker.registered(key_of(near))
    key = key_of(near.fileno())
    assert checker.modified(key) == []
    assert checker._seen[near.fileno()].key is key
    assert "test_modified_with_another_object" in checker.about(near.fileno())
    assert checker.about(10**6) == f"fd {10**6}"


def test_modified_before_it_was_seen():
    """A registration that was made before checks were switched on is remembered when it changes."""
    checker = Checks(shared=True)
    assert checker.modified(key_of(10**6)) == []
    assert checker._seen[10**6].identity is None


@unix
def test_one_wait_looks_at_a_part_of_many(monkeypatch, pipe):
    """With many registrations each wait looks at some; the next ones go on from there."""
    looked = []
    monkeypatch.setattr(checks, "_identity", lambda fd, fileobj: looked.append(fd) or (1, fd))
    monkeypatch.setattr(checks, "CREDIT", 100)
    monkeypatch.setattr(checks, "SHARE", 1 << 60)
    checker = Checks(shared=False)
    registry = {fd: SelectorKey(fd, fd, EVENT_READ, None) for fd in range(1000, 1500)}
    for key in registry.values():
        checker.registered(key)
    looked.clear()

    checker.before(registry)
    assert len(looked) == checks.CHUNK, "the credit is used up"
    checker.before(registry)
    assert len(looked) == checks.CHUNK, "and grows with the program's time alone"
    monkeypatch.setattr(checks, "SHARE", 1)
    for _ in range(1000):
        checker.before(registry)
    assert set(looked) == set(registry)


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
    monkeypatch.setattr(checks, "_HAVE_FSTAT", False)
    checker, key = Checks(shared=False), SelectorKey(7, 7, EVENT_READ, None)
    checker.registered(key)
    assert checker.sweep({7: key}) == []

    key = key._replace(fileobj=fileobj)
    checker.modified(key)
    assert told(checker.sweep({7: key})) == [lints.ClosedWhileRegistered] * closed


def test_closed_between_two_looks():
    """A descriptor that is closed at the wrong moment neither blocks nor raises."""
    assert checks._blocks(10**6) is False
    assert checks._is_nonblocking(key_of(10**6)) is True
    assert checks._is_regular(10**6) is checks._is_socket(10**6) is False


def test_a_stale_event_is_told_once_per_number():
    """An event for a number that is registered anew is of an earlier file."""
    checker = Checks(shared=False)
    key = key_of(7)
    (found,) = checker.stale(7, "EPOLLIN", {})
    assert found.lint is lints.StaleRegistration
    assert found.message == "EPOLLIN was reported for fd 7, which is not registered"
    assert checker.stale(7, "EPOLLIN", {}) == []
    checker.registered(key)
    (found,) = checker.stale(7, "EPOLLIN", {7: key})
    assert "was reported for an earlier file with the number of fd 7 (int" in found.message


def test_a_run_of_a_forgotten_registration_is_not_told(monkeypatch):
    """Another thread may have unregistered what the kernel has just reported."""
    checker = Checks(shared=False)
    verdict = (key_of(7), lints.BusyLoop, "why")
    monkeypatch.setattr(checker._runs, "after", lambda result, now: [verdict])
    assert checker.after([], None, 0, 0) == []


def test_a_place_is_known_where_no_program_is(monkeypatch):
    """Without a frame of the program the place is a question mark."""
    monkeypatch.setattr(places, "user_frame", lambda frame: (None, None))
    assert places.place() == (places.NOWHERE,)
    assert str(places.place()[0]) == "?:0 in ?"
    assert places.depth() == 2
