"""Any number of ready descriptors, in any place, of any direction: each comes back once."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from selectors_ffi import EVENT_READ as READ
from selectors_ffi import EVENT_WRITE as WRITE
from selectors_ffi import backends

from .test_changes_during_select import ready

BOTH = READ | WRITE
HOST = [
    cls
    for name, cls in (
        ("epoll", backends.EpollSelector),
        ("poll", backends.PollSelector),
        ("select", backends.SelectSelector),
    )
    if sys.platform == "linux" or name != "epoll"
]


@pytest.fixture
def selector(subject):
    """An open selector."""
    with subject.make() as selector:
        yield selector


def test_directions_in_one_batch(selector, pairs):
    """Keys with one and with both directions in one answer each get their own events."""
    (readable, far), (idle, _), (both, both_far), (writer, _) = pairs
    far.send(b"x")
    both_far.send(b"x")
    selector.register(readable, READ)
    selector.register(idle, READ)
    selector.register(both, BOTH)
    selector.register(writer, WRITE)
    expected = {readable.fileno(): READ, both.fileno(): BOTH, writer.fileno(): WRITE}

    assert ready(selector) == expected
    both.recv(1)
    assert ready(selector) == {**expected, both.fileno(): WRITE}
    selector.modify(both, READ)
    assert ready(selector) == {readable.fileno(): READ, writer.fileno(): WRITE}
    selector.modify(idle, BOTH)
    assert ready(selector) == {
        readable.fileno(): READ, writer.fileno(): WRITE, idle.fileno(): WRITE,
    }  # fmt: skip


def test_a_few_of_many_change_between_two_waits(selector, pairs):
    """One of five is modified, one removed, one comes: the next wait knows all of it, and the rest."""
    first, second, third, fourth, fifth, sixth = [end for pair in pairs[:3] for end in pair]
    for end in (first, second, third, fourth, fifth):
        selector.register(end, WRITE)
    assert len(ready(selector)) == 5

    selector.modify(second, READ)
    selector.unregister(third)
    selector.register(sixth, WRITE)

    assert ready(selector) == {end.fileno(): WRITE for end in (first, fourth, fifth, sixth)}
    selector.modify(second, BOTH)
    assert ready(selector) == {end.fileno(): WRITE for end in (first, second, fourth, fifth, sixth)}


@pytest.mark.parametrize("events", [READ, BOTH])
def test_a_hang_up_alone(subject, selector, events):
    """The end of a pipe's writers, of which POSIX only says HUP, is readiness for reading."""
    if subject.winsock:
        pytest.skip("Windows select(2) takes sockets only")
    reads = []
    for _ in range(3):
        read, write = os.pipe()
        reads.append(read)
        selector.register(read, events)  # some BSDs refuse EVFILT_WRITE once there is no writer
        os.close(write)
    try:
        found = ready(selector)
        assert all(found[read] & READ for read in reads)
    finally:
        for read in reads:
            selector.unregister(read)
            os.close(read)


def test_an_error_alone(subject, selector):
    """The end of a full pipe's readers, of which Linux only says ERR, is readiness for writing."""
    if not (subject.on_host and sys.platform.startswith("linux")):
        pytest.skip("other kernels say more, or refuse such a pipe")
    writes = []
    for _ in range(3):
        read, write = os.pipe()
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, bytes(4096))
        except BlockingIOError:
            pass
        os.close(read)
        writes.append(write)
        selector.register(write, WRITE)
    try:
        assert ready(selector) == dict.fromkeys(writes, WRITE)
    finally:
        for write in writes:
            selector.unregister(write)
            os.close(write)


@pytest.fixture
def pipes():
    """The read and write ends of 300 pipes; of socket pairs on Windows, which waits for no pipe."""
    if os.name == "posix":
        made = [os.pipe() for _ in range(300)]
        yield made
        for ends in made:
            for end in ends:
                os.close(end)
        return
    for _ in range(300):
        for end in socket.socketpair():
            SOCKETS[end.fileno()] = end
    numbers = list(SOCKETS)
    yield list(zip(numbers[::2], numbers[1::2]))
    while SOCKETS:
        SOCKETS.popitem()[1].close()


#: The sockets of ``pipes`` by number, on Windows.
SOCKETS = {}


def put(end):
    """Write one byte."""
    if end in SOCKETS:
        SOCKETS[end].send(b"x")
    else:
        os.write(end, b"x")


def take(end):
    """Read one byte."""
    if end in SOCKETS:
        SOCKETS[end].recv(1)
    else:
        os.read(end, 1)


@pytest.mark.parametrize("cls", HOST, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("duplex", [False, True])
def test_any_number_at_once(cls, pipes, duplex):
    """As many as are ready come back, below, at and above every size of a buffer or batch."""
    left, right = socket.socketpair()
    with cls() as selector, left, right:
        for read, _ in pipes:
            selector.register(read, READ)
        if duplex:
            selector.register(left, BOTH)
        extra = {left.fileno(): WRITE} if duplex else {}
        done = 0
        for n in (0, 1, 2, 3, 10, 37, 38, 127, 128, 129, 255, 256, 257, 300):
            for _, write in pipes[done:n]:
                put(write)
            done = n
            expected = {read: READ for read, _ in pipes[:n]}
            assert ready(selector) == {**expected, **extra}, n
            assert ready(selector, 20 if expected or extra else 0) == {**expected, **extra}, n


@pytest.mark.parametrize("cls", HOST, ids=lambda cls: cls.__name__)
def test_any_place(cls, pipes):
    """One or two ready among many idle are found wherever they are, whichever direction."""
    with cls() as selector:
        for read, _ in pipes:
            selector.register(read, READ)
        for i in (0, 1, 7, 8, 63, 64, 150, 298, 299):
            put(pipes[i][1])
            assert ready(selector) == {pipes[i][0]: READ}
            put(pipes[17][1])
            assert ready(selector) == {pipes[i][0]: READ, pipes[17][0]: READ}
            selector.register(pipes[i][1], WRITE)
            take(pipes[i][0])
            take(pipes[17][0])
            assert ready(selector) == {pipes[i][1]: WRITE}
            selector.unregister(pipes[i][1])


@pytest.mark.parametrize("cls", HOST, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_writer_among_idle_readers(cls, pipes, place):
    """One that is ready for writing, the unusual answer, is found among idle readers."""
    with cls() as selector:
        for i, (read, write) in enumerate(pipes[:3]):
            selector.register(*((write, WRITE) if i == place else (read, READ)))

        assert ready(selector) == {pipes[place][1]: WRITE}


@pytest.mark.parametrize("cls", HOST, ids=lambda cls: cls.__name__)
def test_another_set_each_time(cls, pipes):
    """Nothing of one answer is left in the next."""
    with cls() as selector:
        for read, _ in pipes:
            selector.register(read, READ)
        for step in (2, 3, 7, 50, 299):
            chosen = pipes[step::step]
            for _, write in chosen:
                put(write)
            assert ready(selector) == {read: READ for read, _ in chosen}
            for read, _ in chosen:
                take(read)
            assert ready(selector) == {}


@pytest.mark.parametrize("cls", HOST, ids=lambda cls: cls.__name__)
def test_registering_and_unregistering_in_turn(cls, pipes):
    """A table with holes that is filled again, grown and shrunk has each descriptor in its place."""
    for _, write in pipes:
        put(write)
    with cls() as selector:
        watched = set()
        for read, _ in pipes:
            selector.register(read, READ, read)
            watched.add(read)
            if len(watched) % 3 == 0:
                selector.unregister(read - 2 if read - 2 in watched else read)
                watched = set(selector.get_map())
            if len(watched) % 50 == 0:
                assert set(ready(selector)) == watched
        for read in sorted(watched)[5:]:
            selector.unregister(read)
        assert set(ready(selector)) == set(sorted(watched)[:5])
        for read, _ in pipes[::2]:
            if read not in selector.get_map():
                selector.register(read, READ, read)
        found = selector.select(0)
        assert {key.fd for key, _ in found} == set(selector.get_map())
        assert all(key.data == key.fd for key, _ in found)


@pytest.mark.parametrize("cls", HOST, ids=lambda cls: cls.__name__)
def test_a_place_that_another_descriptor_has_taken(cls, pipes):
    """A descriptor that is registered again does not take the place that another one has had since."""
    reads = [read for read, _ in pipes[:4]]
    for _, write in pipes[:4]:
        put(write)
    with cls() as selector:
        for read in reads[:3]:
            selector.register(read, READ)
        for _ in range(3):
            assert set(ready(selector)) == set(reads[:3])
            selector.unregister(reads[0])
            assert set(ready(selector)) == set(reads[1:3])
            selector.register(reads[3], READ)
            assert set(ready(selector)) == set(reads[1:])
            selector.register(reads[0], READ)
            assert set(ready(selector)) == set(reads)
            selector.unregister(reads[3])


def test_numbers_far_apart(pipes):
    """poll takes any number, open or not, at no cost of memory, and keeps each one's place."""
    tracemalloc = pytest.importorskip("tracemalloc")
    read, write = pipes[0]
    put(write)
    numbers = [2**31 - 1, 2**30, 2**20 + 255, 2**20 + 256]
    tracemalloc.start()
    try:
        with backends.PollSelector() as selector:
            for number in (numbers[0], read, *numbers[1:]):
                selector.register(number, READ)
            found = ready(selector)
            assert tracemalloc.get_traced_memory()[1] < 200_000
            assert found == {**dict.fromkeys(numbers, READ), read: READ}
            for number in numbers:
                selector.unregister(number)
            assert ready(selector) == {read: READ}
    finally:
        tracemalloc.stop()
