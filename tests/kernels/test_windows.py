"""The simulated Winsock, and the selector on it where it is not like a Unix's."""

from __future__ import annotations

import os
import signal
from errno import EINTR

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi import debugging
from selectors_ffi.backends import EVENT_READ, EVENT_WRITE, SelectSelector
from selectors_ffi.debug import Syscall
from selectors_ffi.testing.kernels.windows import WSAEINVAL, WSAENOTSOCK, SimulatedWindows

BOTH = EVENT_READ | EVENT_WRITE


@pytest.fixture
def kernel():
    """A simulated Windows."""
    return SimulatedWindows()


def fd_set(kernel, *sockets):
    """A set of sockets, ``struct fd_set *``."""
    numbers = [one.fileno() for one in sockets]
    return kernel.ffi.new("fd_set *", {"fd_count": len(numbers), "fd_array": numbers})


def members(one):
    """The sockets in a set."""
    return [one.fd_array[i] for i in range(one.fd_count)]


def test_answer_is_written_over_the_sets(kernel, pairs):
    """S1: each set is left with the sockets that are ready, and the result counts them all."""
    near = [near for near, _ in pairs]
    pairs[1][1].send(b"x")
    pairs[3][1].send(b"x")
    reads, writes = fd_set(kernel, *near), fd_set(kernel, *near[:2])
    no_time = kernel.ffi.new("struct timeval *")

    assert kernel.select(0, reads, writes, kernel.ffi.NULL, no_time) == 4
    assert members(reads) == [near[1].fileno(), near[3].fileno()]
    assert members(writes) == [near[0].fileno(), near[1].fileno()]


def test_three_empty_sets(kernel):
    """S2, S5: three empty sets are WSAEINVAL, and errno stays as it is."""
    kernel.ffi.errno = EINTR
    empty = fd_set(kernel)

    assert kernel.lib.select(0, empty, empty, kernel.ffi.NULL, kernel.ffi.NULL) == -1
    assert kernel.WSAGetLastError() == WSAEINVAL
    assert kernel.ffi.errno == EINTR


def test_a_pipe_is_no_socket(kernel, pairs):
    """S3: the wait for a pipe among sockets is refused, with Winsock's number for it."""
    read, write = os.pipe()
    with SelectSelector(binding=kernel.binding()) as selector:
        for near, _ in pairs[:3]:
            selector.register(near, BOTH)
        selector.register(read, EVENT_READ)
        kernel.ffi.errno = EINTR  # not to be taken for the reason
        with pytest.raises(OSError) as caught:
            selector.select(0)
        assert caught.value.errno == WSAENOTSOCK
        selector.unregister(read)
        assert len(selector.select(0)) == 3
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("timeout", [0.05, 0, -1])
def test_nothing_watched_is_no_error(kernel, timeout):
    """S2: with nothing to watch Winsock is not asked at all."""
    with SelectSelector(binding=kernel.binding()) as selector:
        assert selector.select(timeout) == []
    assert kernel.last_error == 0


def test_nothing_watched_for_ever(kernel):
    """With nothing to watch and no timeout it sleeps, until a handler raises."""

    def stop(*_):
        raise ZeroDivisionError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with SelectSelector(binding=kernel.binding()) as selector:
            with pytest.raises(ZeroDivisionError):
                selector.select()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("flags", ["syscalls,stats", "stats", "events"])
def test_the_reason_of_a_refusal_in_a_trace(kernel, flags):
    """S5: a failed wait is shown and counted with Winsock's number, and errno stays as it is."""
    kept = []
    read, write = os.pipe()
    with debugging(flags, kept.append), SelectSelector(binding=kernel.binding()) as selector:
        selector.register(read, EVENT_READ)
        kernel.ffi.errno = EINTR
        with pytest.raises(OSError) as caught:
            selector.select(0)
        assert caught.value.errno == WSAENOTSOCK
        assert kernel.ffi.errno == EINTR
        if "stats" in flags:
            assert selector.stats().as_dict()["calls"]["select"]["errors"] == {"WSAENOTSOCK": 1}
    os.close(read)
    os.close(write)
    calls = [record for record in kept if isinstance(record, Syscall)]
    assert [(call.name, call.errno) for call in calls] == [("select", 10038)] * ("syscalls" in flags)
