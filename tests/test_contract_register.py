"""The contract, sections 3 to 5: register, unregister, and what they refuse."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests import needs

READ, WRITE = 1, 2


class Watched:
    """A file object whose fileno() returns what it is given, or raises it."""

    def __init__(self, answer):
        self.answer = answer

    def fileno(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def closed_descriptor():
    """Return a number that no open descriptor has."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.fixture
def busy(selector, pairs):
    """A selector with one readable, one writable and one idle registration."""
    (left, right), (other, _), (idle, _), _ = pairs
    right.send(b"x")
    selector.register(left, READ, "readable")
    selector.register(other, WRITE, "writable")
    selector.register(idle, READ, "idle")
    return selector


def test_register_returns_the_key(selector, pair):
    """register returns the SelectorKey that the map then holds."""
    left, _ = pair
    data = object()

    key = selector.register(left, READ, data)

    assert key == (left, left.fileno(), READ, data)
    assert selector.get_key(left) is key


def test_register_keywords(selector, pair):
    """Arguments may be given by name, and data defaults to None."""
    left, _ = pair

    key = selector.register(events=READ | WRITE, fileobj=left)

    assert key == (left, left.fileno(), READ | WRITE, None)


def test_fd_is_the_object_given(selector, pair):
    """key.fd keeps the type of an int subclass, and events keeps True."""

    class Number(int):
        pass

    number = Number(pair[0].fileno())

    key = selector.register(number, True)

    assert key.fd is number
    assert key.events is True
    assert selector.unregister(number) is key


@pytest.mark.parametrize("convert", [str, lambda fd: fd + 0.9, lambda fd: fd])
def test_fileno_is_converted_with_int(selector, pair, convert):
    """fileno() may return whatever int() takes: a string of digits, a float."""
    left, _ = pair
    watched = Watched(convert(left.fileno()))

    key = selector.register(watched, WRITE)

    assert key.fd == left.fileno()
    assert type(key.fd) is int
    assert selector.select(0) == [(key, WRITE)]


@pytest.mark.parametrize("events", [0, 4, 8, -1, None, "", 7])
def test_invalid_events(busy, pairs, snapshot, events):
    """Events that are empty or hold an unknown bit are a ValueError, and nothing changes."""
    before = snapshot(busy)

    with pytest.raises(ValueError) as caught:
        busy.register(pairs[3][0], events)

    assert str(caught.value) == f"Invalid events: {events!r}"
    assert snapshot(busy) == before


@pytest.mark.parametrize("events", ["r", 1.5, [1]])
def test_events_of_a_wrong_type(busy, pairs, snapshot, events):
    """Events that are no integer are a TypeError, and nothing changes."""
    before = snapshot(busy)

    with pytest.raises(TypeError):
        busy.register(pairs[3][0], events)

    assert snapshot(busy) == before


@pytest.mark.parametrize(
    "fileobj",
    [
        object(),
        None,
        "7",
        1.5,
        Watched("seven"),
        Watched(None),
        Watched(AttributeError("no")),
        Watched(TypeError("no")),
        Watched(ValueError("no")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["register", "unregister", "modify"])
def test_invalid_file_object(busy, snapshot, method, fileobj):
    """What has no usable fileno() is a ValueError that names it, without a context."""
    before = snapshot(busy)

    with pytest.raises(ValueError) as caught:
        call(busy, method, fileobj)

    assert str(caught.value) == f"Invalid file object: {fileobj!r}"
    assert caught.value.__suppress_context__
    assert snapshot(busy) == before


@pytest.mark.parametrize("method", ["register", "unregister", "modify"])
def test_a_fileno_that_raises_is_called_once(busy, method):
    """What a fileno() does besides raising is done once."""
    fileobj = Watched(ValueError("no"))
    asked = []
    fileobj.fileno = lambda: asked.append(1) or Watched.fileno(fileobj)

    with pytest.raises(ValueError, match="Invalid file object"):
        call(busy, method, fileobj)

    assert len(asked) == 1


def call(selector, method, fileobj):
    """Call ``method`` with a file object and, where it wants them, events."""
    arguments = (fileobj,) if method == "unregister" else (fileobj, READ)
    return getattr(selector, method)(*arguments)


@pytest.mark.parametrize("fileobj", [-1, -10, Watched(-5), Watched("-6")], ids=repr)
@pytest.mark.parametrize("method", ["register", "unregister", "modify"])
def test_negative_descriptor(busy, snapshot, method, fileobj):
    """A negative descriptor is a ValueError that shows it, and nothing changes."""
    before = snapshot(busy)
    number = fileobj if isinstance(fileobj, int) else int(fileobj.answer)

    with pytest.raises(ValueError) as caught:
        call(busy, method, fileobj)

    assert str(caught.value) == f"Invalid file descriptor: {number}"
    assert snapshot(busy) == before


@pytest.mark.parametrize("error", [OSError(5, "no"), ZeroDivisionError("no"), RuntimeError("no")])
def test_other_errors_of_fileno_propagate(busy, snapshot, error):
    """An exception of fileno() that is no conversion problem reaches the caller as it is."""
    before = snapshot(busy)

    with pytest.raises(type(error)) as caught:
        busy.register(Watched(error), READ)

    assert caught.value is error
    assert snapshot(busy) == before


def test_keyerror_of_fileno_in_unregister(busy, snapshot):
    """A KeyError raised by fileno() inside unregister is a KeyError; nothing changes."""
    before = snapshot(busy)

    with pytest.raises(KeyError):
        busy.unregister(Watched(KeyError("no")))

    assert snapshot(busy) == before


def test_closed_socket(busy, snapshot, pairs):
    """A closed socket is a ValueError for the descriptor -1."""
    before = snapshot(busy)
    closed = pairs[3][0]
    closed.close()

    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        busy.register(closed, READ)

    assert snapshot(busy) == before


@pytest.mark.parametrize("number", [2**31, 2**63, 2**70])
def test_descriptor_that_no_kernel_type_holds(subject, busy, snapshot, number):
    """A number beyond the C type is an OverflowError.

    select(2) alone keeps nothing in the kernel, so there it may come from select(),
    as in the standard library.
    """
    before = snapshot(busy)

    try:
        busy.register(number, READ)
    except OverflowError:
        pass
    else:
        assert subject.mechanism == "select"
        with pytest.raises(OverflowError):
            busy.select(0)
        busy.unregister(number)

    assert number not in busy.get_map()
    assert snapshot(busy) == before


def test_registered_twice(busy, snapshot, pairs):
    """A second registration of a file object is a KeyError that names it."""
    before = snapshot(busy)
    left = pairs[0][0]

    with pytest.raises(KeyError) as caught:
        busy.register(left, WRITE)

    assert caught.value.args == (f"{left!r} (FD {left.fileno()}) is already registered",)
    assert snapshot(busy) == before


def test_registered_through_two_objects(busy, snapshot, pairs):
    """One descriptor is one registration, whichever object names it."""
    before = snapshot(busy)
    number = pairs[0][0].fileno()

    for other in (number, Watched(number)):
        with pytest.raises(KeyError, match="already registered"):
            busy.register(other, READ)

    assert snapshot(busy) == before


def test_closed_descriptor(subject, busy, snapshot):
    """A closed descriptor is OSError(EBADF) where the kernel keeps the list.

    select(2) and poll(2) see it only when they wait.
    """
    before = snapshot(busy)
    number = closed_descriptor()

    if subject.kernel_keeps_list:
        with pytest.raises(OSError) as caught:
            busy.register(number, READ)
        assert caught.value.errno == errno.EBADF
    else:
        busy.register(number, READ)
        busy.unregister(number)

    assert snapshot(busy) == before


@needs.waits_for_files
def test_regular_file(subject, busy, snapshot, tmp_path):
    """A regular file is EPERM on epoll, and always ready on select and poll."""
    if not subject.on_host or subject.mechanism in ("kqueue", "devpoll"):
        pytest.skip("what a regular file does is known for select, poll and epoll only")
    before = snapshot(busy)
    with (tmp_path / "file").open("w+") as file:
        if subject.mechanism == "epoll":
            with pytest.raises(PermissionError) as caught:
                busy.register(file, READ)
            assert caught.value.errno == errno.EPERM
        else:
            key = busy.register(file, READ | WRITE)
            assert (key, READ | WRITE) in busy.select(0)
            busy.unregister(file)

        assert snapshot(busy) == before


@needs.dup2_of_sockets
def test_refused_is_free_again(subject, selector, pair):
    """After a refusal the same number can be registered once it is open."""
    number = closed_descriptor()
    try:
        selector.register(number, READ)
    except OSError:
        pass
    else:
        selector.unregister(number)
    os.dup2(pair[0].fileno(), number)
    try:
        key = selector.register(number, WRITE)

        assert selector.select(0) == [(key, WRITE)]
        assert selector.unregister(number) is key
    finally:
        os.close(number)


def test_unregister_returns_the_key(busy, pairs):
    """unregister returns the removed key, and the descriptor is no longer reported."""
    left = pairs[0][0]
    key = busy.get_key(left)

    assert busy.unregister(left) is key
    assert left not in busy.get_map()
    assert [ready.data for ready, _ in busy.select(0)] == ["writable"]


def test_unregister_by_another_object(busy, pairs):
    """Any object with the same descriptor names the registration."""
    left = pairs[0][0]
    key = busy.get_key(left)

    assert busy.unregister(Watched(left.fileno())) is key


@pytest.mark.parametrize("fileobj", [999_999, 2**31, 2**63])
@pytest.mark.parametrize("method", ["unregister", "modify", "get_key"])
def test_not_registered(busy, snapshot, method, fileobj):
    """An unknown descriptor is a KeyError that names it, without a context."""
    before = snapshot(busy)

    with pytest.raises(KeyError) as caught:
        busy.get_key(fileobj) if method == "get_key" else call(busy, method, fileobj)

    assert caught.value.args == (f"{fileobj!r} is not registered",)
    assert caught.value.__suppress_context__
    assert snapshot(busy) == before


def test_unregister_twice(busy, pairs, snapshot):
    """The second unregister of an open file object is a KeyError."""
    left = pairs[0][0]
    busy.unregister(left)
    before = snapshot(busy)

    with pytest.raises(KeyError, match="is not registered"):
        busy.unregister(left)

    assert snapshot(busy) == before


def test_unregister_after_close_of_the_socket(busy, pairs):
    """A closed socket is found by identity once; the second time it is an invalid descriptor."""
    left = pairs[0][0]
    key = busy.get_key(left)
    left.close()

    assert busy.unregister(left) is key
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        busy.unregister(left)
    assert [ready.data for ready, _ in busy.select(0)] == ["writable"]


def test_unregister_after_close_of_the_descriptor(selector, pipe):
    """The kernel's complaint about a closed descriptor is not the caller's."""
    # Both first: some BSDs refuse the end for writing once nobody can read (EPIPE, EBADF).
    for number, events in zip(pipe, (READ, WRITE)):
        selector.register(number, events)
    for number in pipe:
        os.close(number)

    assert [selector.unregister(number).fd for number in pipe] == list(pipe)
    assert not selector.get_map()


@needs.dup2_of_sockets
def test_unregister_after_reuse(selector, pairs):
    """A descriptor that was closed and taken by another file can be unregistered."""
    (left, _), (other, _), _, _ = pairs
    number = os.dup(left.fileno())
    selector.register(number, READ)
    os.dup2(other.fileno(), number)
    try:
        selector.unregister(number)
        key = selector.register(number, WRITE)

        assert selector.select(0) == [(key, WRITE)]
        selector.unregister(number)
        assert not selector.get_map()
    finally:
        os.close(number)


def test_register_many(selector, new_pair):
    """Registrations grow past every initial buffer, and each is reported once."""
    keys = [selector.register(end, WRITE, i) for i in range(60) for end in new_pair()]

    ready = selector.select(0)

    assert sorted(key.fd for key, _ in ready) == sorted(key.fd for key in keys)
    assert {events for _, events in ready} == {WRITE}


def test_listening_socket(selector):
    """A listening socket becomes readable when a client connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        key = selector.register(server, READ)
        assert selector.select(0) == []
        with socket.create_connection(server.getsockname()):
            assert selector.select(10) == [(key, READ)]
            server.accept()[0].close()
        selector.unregister(server)
