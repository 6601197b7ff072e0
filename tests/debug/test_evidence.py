"""Evidence: what the kernel tells of a descriptor's use, without looking at its data."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from selectors import EVENT_READ, SelectorKey

import pytest

from selectors_ffi.debug import BusyLoop, evidence
from selectors_ffi.debug.evidence import (
    NOTHING,
    Arrivals,
    Evidence,
    descriptors_left,
    evidence_of,
    listens,
)
from selectors_ffi.debug.runs import Runs
from tests import needs

unix = pytest.mark.skipif(os.name != "posix", reason="Unix descriptors")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_INFO and epoll of Linux")


@pytest.fixture
def connection():
    """The two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = socket.create_connection(server.getsockname())
        second, _ = server.accept()
    with first, second:
        yield first, second


@unix
def test_no_evidence(tmp_path, monkeypatch):
    """Files, datagrams, closed descriptors and systems without ioctl(2) are no evidence."""
    with open(tmp_path / "file", "wb") as file:
        assert evidence_of(file.fileno()) == NOTHING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert evidence_of(datagrams.fileno(), datagrams) == NOTHING
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert evidence_of(listener.fileno(), listener).unread in (None, 0)
        with monkeypatch.context() as patch:
            patch.delattr(socket, "AF_NETLINK", raising=False)
            assert evidence_of(listener.fileno(), listener) == NOTHING
    assert evidence_of(10**6) == NOTHING
    assert evidence._waiting(10**6, "FIONREAD") is None
    assert evidence._waiting(0, "NO_SUCH_REQUEST") is None
    assert listens(10**6) is False
    assert listens(0) is False
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "_HAVE_IOCTL", False)
        assert listens(0) is False
    monkeypatch.delattr(select, "poll", raising=False)
    assert evidence._hung_up(0) is False


@linux
def test_a_kernel_that_counts_less(monkeypatch, connection):
    """A tcp_info that ends before the counters leaves the unread bytes as the only evidence."""
    monkeypatch.setattr(evidence, "_COUNTERS", evidence.struct.Struct("=900xQQ"))
    found = evidence_of(connection[0].fileno(), connection[0])
    assert found == Evidence(0, None, True)


@linux
def test_counters_of_a_connection(connection):
    """What is written counts at once, though nothing is acknowledged yet; what is read shows, too."""
    first, second = connection
    before = evidence_of(first.fileno())
    if before.counters is None:
        pytest.skip("this kernel counts no bytes")
    first.send(b"x" * 10)
    after = evidence_of(first.fileno(), first)
    assert after.counters[1] - before.counters[1] == 10
    assert after.unread == before.unread == 0
    select.select([second], [], [], 10)
    assert evidence_of(second.fileno(), second).unread == 10
    second.close()
    select.select([first], [], [], 10)
    assert evidence_of(first.fileno(), first).stream


@linux
def test_connections_that_wait():
    """A listening socket's evidence is how many connections wait to be accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if evidence_of(server.fileno(), server) == NOTHING:
            pytest.skip("this kernel counts nothing")
        assert evidence_of(server.fileno(), server) == Evidence(0)
        with socket.create_connection(server.getsockname()):
            assert evidence_of(server.fileno(), server) == Evidence(1)


@pytest.fixture
def listener():
    """A listening Unix socket of Linux, with no path in the file system."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{__name__} {os.getpid()}")
        listener.listen()
        if evidence_of(listener.fileno(), listener) == NOTHING:
            pytest.skip("this kernel counts no connections to Unix sockets")
        yield listener


@linux
def test_connections_to_a_unix_socket_that_wait(listener):
    """A listening Unix socket's evidence is the same, whoever asks."""
    for waiting in range(3):
        assert evidence_of(listener.fileno(), listener) == Evidence(waiting)
        assert evidence_of(listener.fileno()) == Evidence(waiting)
        client = socket.socket(socket.AF_UNIX)
        client.connect(listener.getsockname())
        client.close()


@linux
@pytest.mark.parametrize("answer", [b"", b"\0" * 100])
def test_an_answer_that_is_another_one(listener, answer, monkeypatch):
    """What the kernel refuses to tell, or what is of another socket, is no evidence."""

    class Other(socket.socket):
        """Gets a wrong answer."""

        def recv(self, size):
            super().recv(size)
            return answer

    with monkeypatch.context() as patch:
        patch.setattr(evidence.socket, "socket", Other)
        assert evidence._queued(listener.fileno()) is None


@unix
def test_listening_sockets(pairs):
    """A listening socket is told from others without a new descriptor."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listens(server.fileno())
    assert not listens(pairs[0][0].fileno())


@unix
def test_whether_a_descriptor_is_left(monkeypatch):
    """EMFILE and ENFILE mean that none is left; other errors mean nothing."""
    assert descriptors_left(0)
    for number, left in ((errno.EMFILE, False), (errno.ENFILE, False), (errno.EBADF, True)):

        def refuse(fd, number=number):
            raise OSError(number, "")

        monkeypatch.setattr(evidence, "duplicate", refuse)
        assert descriptors_left(0) is left


@unix
def test_hang_ups(pairs):
    """A peer that is gone is seen, whatever was registered."""
    near, far = pairs[0]
    assert not evidence_of(near.fileno(), near).hangup
    far.close()
    assert evidence_of(near.fileno(), near).hangup


@pytest.fixture(params=["pipe", "unix socket", "tcp"])
def ends(request, pairs, connection):
    """The descriptors of a reader that does not block, and of what writes to it."""
    read, write = os.pipe()
    near, far = connection if request.param == "tcp" else pairs[0]
    if request.param == "pipe":
        os.dup2(read, near.fileno())
        os.dup2(write, far.fileno())
    os.close(read)
    os.close(write)
    os.set_blocking(near.fileno(), False)
    return near, far


@unix
def test_what_another_thread_has_read_is_no_end_of_file(ends):
    """A descriptor that was reported, and is empty now, may be one that another thread has read."""
    near, far = ends
    runs = Runs()
    reported = [(SelectorKey(near.fileno(), near.fileno(), EVENT_READ, None), EVENT_READ)]

    def found():
        return [one for turn in range(300) for one in runs.after(reported, turn)]

    assert found() == []
    os.write(far.fileno(), b"x")
    select.select([near], [], [], 30)
    os.read(near.fileno(), 1)
    assert found() == []
    far.close()
    select.select([near], [], [], 30)
    assert found()[0][1] is BusyLoop


@unix
def test_the_end_where_the_kernel_does_not_tell_it(pairs, monkeypatch):
    """Without POLLRDHUP a look at the first byte tells, unless it could wait; a pipe has none."""
    near, far = pairs[0]
    monkeypatch.setattr(evidence, "ends_of", dict.fromkeys)

    def ended():
        return evidence_of(near.fileno(), near).ended

    assert not ended()
    far.send(b"x")
    assert not ended()
    assert near.recv(2) == b"x"
    far.shutdown(socket.SHUT_WR)
    assert ended()
    near.settimeout(5)
    assert not ended()
    read, write = os.pipe()
    os.close(write)
    assert not evidence_of(read).ended
    os.close(read)


@linux
def test_arrivals_tell_new_data_from_old():
    """The number of unread bytes may be the same twice; whether data arrived is known all the same."""
    read, write = os.pipe()
    arrivals = Arrivals()
    os.write(write, b"x")
    assert arrivals.since_last(read) is None, "watched from now on"
    assert arrivals.since_last(read) is False
    os.read(read, 1)
    os.write(write, b"x")
    assert arrivals.since_last(read) is True
    assert arrivals.since_last(read) is False
    assert arrivals._epoll.fileno() >= 200, "out of the program's way"
    arrivals.forget(read)
    assert arrivals.since_last(read) is None
    os.close(read)
    os.close(write)
    arrivals.forget(read)
    assert arrivals.since_last(read) is None, "closed"


@linux
def test_arrivals_where_no_set_can_be_made(monkeypatch):
    """Without epoll, or without a descriptor for it, nothing is known."""
    with monkeypatch.context() as patch:
        patch.delattr(select, "epoll")
        assert Arrivals().since_last(0) is None

    def refuse():
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(select, "epoll", refuse)
    assert Arrivals().since_last(0) is None


def test_a_look_at_the_first_byte(connection, monkeypatch):
    """Without ioctl(2), on Windows, a look tells end of file and a reset, and takes nothing away."""
    monkeypatch.setattr(evidence, "_HAVE_IOCTL", False)
    near, far = connection
    assert evidence_of(near.fileno(), near) == NOTHING, "it would block"
    near.setblocking(False)
    assert evidence_of(near.fileno(), near) == Evidence(None, None, True)
    far.send(b"x")
    assert select.select([near], [], [], 30)[0]
    assert evidence_of(near.fileno(), near) == Evidence(None, None, True)
    assert near.recv(2) == b"x"
    far.shutdown(socket.SHUT_WR)
    assert select.select([near], [], [], 30)[0]
    assert evidence_of(near.fileno(), near) == Evidence(0, None, True, ended=True)


@needs.resets
def test_a_look_at_a_reset(connection, monkeypatch):
    """A connection that the peer has reset is one that hung up."""
    monkeypatch.setattr(evidence, "_HAVE_IOCTL", False)
    near, far = connection
    near.setblocking(False)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert select.select([near], [], [], 30)[0]
    assert evidence_of(near.fileno(), near) == Evidence(None, None, True, hangup=True)
