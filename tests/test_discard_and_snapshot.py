"""discard() and snapshot(): what the standard library lacks for tidying up and for looking."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from selectors_ffi import Debug
from selectors_ffi.debug import RingSink, debugging
from tests.crew import Crew

pytestmark = pytest.mark.ours


class Broken:
    """A file object whose ``fileno()`` raises, as that of a closed socket of ZeroMQ does."""

    def __init__(self, fd, error):
        self.fd = fd
        self.error = error
        self.closed = False

    def fileno(self):
        if self.closed:
            raise self.error
        return self.fd


def test_discard_of_the_open(selector, pair):
    """An open file object is unregistered, by itself or by its descriptor; the key comes back."""
    left, right = pair
    left.send(b"x")
    for given in (right, right.fileno()):
        key = selector.register(right, EVENT_READ, "data")

        assert selector.discard(given) is key
        assert selector.discard(given) is None
        assert selector.select(0) == []
    assert selector.register(right, EVENT_READ).data is None


def test_discard_of_the_closed(selector, pair):
    """A file object that was closed first is unregistered, once."""
    key = selector.register(pair[0], EVENT_READ)
    pair[0].close()

    assert selector.discard(pair[0]) is key
    assert selector.discard(pair[0]) is None
    assert dict(selector.get_map()) == {}


def test_discard_of_the_reused(subject, selector, new_pair):
    """The old file object goes though its number names another file now, which can be registered."""
    if subject.winsock:
        pytest.skip("no dup2 of sockets")
    old, _ = new_pair()
    new, far = new_pair()
    key = selector.register(old, EVENT_READ)
    number = old.detach()
    os.dup2(new.fileno(), number)
    with socket.socket(fileno=number) as reused:
        assert selector.discard(old) is key
        assert selector.discard(old) is None

        key = selector.register(reused, EVENT_READ)
        far.send(b"x")
        assert selector.select(1) == [(key, EVENT_READ)]
        assert selector.discard(reused) is key


@pytest.mark.parametrize("error", [OSError(88, "not a socket"), RuntimeError("gone"), KeyError(3)])
def test_discard_when_fileno_raises(selector, pair, error):
    """Whatever ``fileno()`` raises: what is registered is found by identity, what is not is None."""
    broken, other = Broken(pair[0].fileno(), error), Broken(pair[1].fileno(), error)
    key = selector.register(broken, EVENT_READ)
    broken.closed = other.closed = True

    assert selector.discard(other) is None
    assert selector.discard(broken) is key
    assert selector.discard(broken) is None


@pytest.mark.parametrize(
    "fileobj", [-1, 10**30, 1.5, "xx", None, object(), [], True, Broken(2**70, None)], ids=repr
)
def test_discard_of_what_is_no_file_object(selector, pair, fileobj):
    """What is invalid or unknown is None, and nothing changes."""
    key = selector.register(pair[0], EVENT_READ)

    assert selector.discard(fileobj) is None
    assert selector.snapshot() == {key.fd: key}


def test_discard_when_fileno_is_interrupted(selector, pair):
    """What ends the program is not taken for a closed file object."""
    broken = Broken(pair[0].fileno(), KeyboardInterrupt())
    selector.register(broken, EVENT_READ)
    broken.closed = True

    with pytest.raises(KeyboardInterrupt):
        selector.discard(broken)
    broken.closed = False
    assert selector.discard(broken) is not None


def test_after_close(selector, pair):
    """A closed selector has nothing: discard is None, the snapshot empty."""
    selector.register(pair[0], EVENT_READ)
    selector.close()

    assert selector.discard(pair[0]) is None
    assert selector.snapshot() == {}


def test_what_is_registered_while_it_is_closed_is_forgotten(selector, pair, monkeypatch):
    """A signal handler or another thread may register between two steps of close()."""
    release = selector._release

    def register_and_release():
        with contextlib.suppress(ValueError):
            selector.register(pair[0], EVENT_READ, "data")
        release()

    monkeypatch.setattr(selector, "_release", register_and_release)
    selector.close()
    assert selector.snapshot() == {}


def test_snapshot_is_a_plain_dict(selector, pairs):
    """It holds the keys by descriptor, in order of registration, and no later change alters it."""
    keys = [selector.register(left, EVENT_READ, right) for left, right in pairs[:3]]

    taken = selector.snapshot()

    assert type(taken) is dict
    assert list(taken.values()) == keys
    assert taken == selector.get_map()
    selector.modify(pairs[0][0], EVENT_WRITE)
    selector.unregister(pairs[1][0])
    assert list(taken.values()) == keys
    taken.clear()
    assert len(selector.get_map()) == 2


def test_snapshots_while_another_thread_registers(subject, selector, new_pair):
    """Every snapshot is one state of the registry: a whole one, never a changed one in the middle."""
    kept, coming = selector.register(new_pair()[0], EVENT_READ), new_pair()[0]
    fd = coming.fileno()

    def change():
        for _ in range(200):
            selector.register(coming, EVENT_READ)
            selector.discard(coming)

    crew = Crew()
    changing = crew.start(change)
    while changing.is_alive():
        taken = selector.snapshot()
        assert taken[kept.fd] is kept
        assert set(taken) <= {kept.fd, fd}
    crew.join()
    assert selector.snapshot() == {kept.fd: kept}


class Leaver:
    """Garbage whose finaliser unregisters something."""

    def __init__(self, selector, fileobj):
        self.itself = self
        self.discard, self.fileobj = selector.discard, fileobj

    def __del__(self):
        self.discard(self.fileobj)


#: What copies the registry: each returns the keys.
COPIES = {
    "snapshot": lambda selector: selector.snapshot().values(),
    "values": lambda selector: list(selector.get_map().values()),
    "items": lambda selector: [key for _, key in selector.get_map().items()],
}


@pytest.mark.skipif(not hasattr(gc, "set_threshold"), reason="this interpreter collects as it likes")
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
def test_a_finaliser_that_unregisters_while_the_registry_is_copied(selector, pairs, copies):
    """A collection, which begins when something is made, may run any code. No copy is half of one."""
    before = gc.get_threshold()
    kept = selector.register(pairs[0][0], EVENT_READ)
    for steps in range(10):  # until the collection begins
        leaving = selector.register(pairs[1][0], EVENT_READ)
        held = [{} for _ in range(200)]  # so that the next dict is a new one
        Leaver(selector, pairs[1][0])
        gc.set_threshold(gc.get_count()[0] + steps)
        try:
            copied = copies(selector)
        finally:
            gc.set_threshold(*before)
        assert list(copied) in ([kept], [kept, leaving])
        selector.discard(pairs[1][0])
        del held


def test_discards_of_two_threads(selector, pair):
    """Of several threads that discard one registration, one has the key and the others None."""
    for _ in range(20):
        key, found, crew = selector.register(pair[0], EVENT_READ), [], Crew()
        for _ in range(3):
            crew.start(lambda found=found: found.append(selector.discard(pair[0])))
        crew.join()
        assert sorted(found, key=bool) == [None, None, key]


def test_trace_shows_a_discard(subject, pair):
    """A discard is an unregister of the trace if it removes something, else nothing at all."""
    sink = RingSink(100)
    with debugging(Debug.EVENTS | Debug.CHECKS, sink), subject.make() as selector:
        selector.discard(pair[0])
        selector.register(pair[0], EVENT_READ)
        selector.discard(pair[0])
        selector.discard(pair[0])

    actions = [record.action for record in sink.records() if hasattr(record, "action")]
    assert actions == ["register", "unregister", "close"]
