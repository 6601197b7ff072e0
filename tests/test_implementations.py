"""What other interpreters and older kernels run, run here as well.

PyPy decodes with loops, CPython 3.9 and PyPy turn a failed step into its errno, and a
kernel may lack the calls with nanoseconds: each is chosen by one condition, which is set here.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from itertools import starmap

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, binding
from selectors_ffi.backends import epoll, epoll_buffer
from selectors_ffi.backends.base import _BaseSelectorImpl
from selectors_ffi.binding import Binding, load
from selectors_ffi.testing.library import proxied

from .kernels.faulty import FaultyLibrary
from .test_changes_during_select import ready

BOTH = EVENT_READ | EVENT_WRITE
HERE = [backends.PollSelector, backends.SelectSelector]
if sys.platform.startswith("linux"):
    HERE.append(backends.EpollSelector)


@pytest.fixture
def looping(monkeypatch):
    """A maker of epoll selectors that decode as on PyPy, with buffers of their own."""
    monkeypatch.setattr(epoll, "LOOPS", True)
    monkeypatch.setattr(epoll_buffer, "LOOPS", True)
    whole = load()
    kernel = Binding(whole.target, whole.ffi, whole.lib)
    return lambda: backends.EpollSelector(binding=kernel)


@pytest.fixture
def pipes():
    """The ends of 300 pipes."""
    made = [os.pipe() for _ in range(300)]
    yield made
    for ends in made:
        for end in ends:
            os.close(end)


@pytest.fixture
def pairs(new_pair):
    """Three pairs of connected sockets."""
    return [new_pair() for _ in range(3)]


@pytest.mark.skipif(backends.EpollSelector not in HERE, reason="epoll is Linux's")
@pytest.mark.parametrize("duplex", [False, True])
def test_loops_decode_any_number(looping, pipes, pairs, duplex):
    """The loops return as many as are ready, of keys with one direction and with both."""
    both = pairs[0][0]
    with looping() as selector:
        for read, _ in pipes:
            selector.register(read, EVENT_READ)
        extra = {}
        if duplex:
            selector.register(both, BOTH)
            extra = {both.fileno(): EVENT_WRITE}
        done = 0
        for n in (0, 1, 2, 3, 100, 256, 300):
            for _, write in pipes[done:n]:
                os.write(write, b"x")
            done = n
            for _ in range(2):
                assert ready(selector) == {**{read: EVENT_READ for read, _ in pipes[:n]}, **extra}


@pytest.mark.skipif(backends.EpollSelector not in HERE, reason="epoll is Linux's")
def test_loops_leave_out_what_is_not_asked_for(looping, pairs):
    """A result of former keys, or for former directions, is looked up anew."""
    (one, _), (two, _), (three, three_far) = pairs
    with looping() as selector:
        for near, _ in pairs:
            selector.register(near, BOTH)
        assert ready(selector) == {near.fileno(): EVENT_WRITE for near, _ in pairs}
        selector.modify(one, EVENT_READ)
        selector.unregister(two)
        three_far.send(b"x")
        assert ready(selector) == {three.fileno(): BOTH}


@pytest.mark.skipif(backends.EpollSelector not in HERE, reason="epoll is Linux's")
@pytest.mark.parametrize("events", [EVENT_READ, BOTH])
def test_loops_recognise_a_former_file(looping, pairs, events):
    """An event of a duplicate of the file that had a number before is not of the new file."""
    old, far = socket.socketpair()
    (idle, _), (writable, _), _ = pairs
    with looping() as selector, far, old.dup():
        selector.register(writable, events)
        pairs[1][1].send(b"x")
        number = old.fileno()
        selector.register(old, EVENT_READ)
        far.send(b"x")
        assert ready(selector) == {writable.fileno(): events, number: EVENT_READ}
        old.close()
        selector.unregister(number)
        os.dup2(idle.fileno(), number)
        selector.register(number, EVENT_READ)
        try:
            assert ready(selector) == {writable.fileno(): events}
            pairs[0][1].send(b"x")
            for _ in range(2):
                assert ready(selector) == {writable.fileno(): events, number: EVENT_READ}
        finally:
            selector.unregister(number)
            os.close(number)


@pytest.fixture
def not_atomic(monkeypatch):
    """Steps as on CPython 3.9: a failure is the negative errno."""
    monkeypatch.setattr(binding, "ATOMIC_STEP", False)


def faulty():
    """A binding of the host with steps that are not atomic, and its library."""
    whole = load()
    library = FaultyLibrary(whole)
    made = Binding(whole.target, whole.ffi, library)
    assert not binding.ATOMIC_STEP

    def overwritten(steps):
        assert steps is not starmap

        def overwrite(function, arguments):
            for result in steps(function, arguments):
                made.ffi.errno = errno.EXDEV  # as a signal handler would leave it
                yield result

        return overwrite

    made.steps = overwritten(made.steps)
    return made, library


@pytest.mark.skipif(sys.platform == "win32", reason="Winsock leaves errno alone")
@pytest.mark.parametrize("cls", HERE, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("timeout", [None, 30, 0])
def test_a_failed_wait_whose_step_is_not_atomic(not_atomic, cls, pairs, timeout):
    """An interrupted wait goes on, a refused one raises, and errno is not looked at afterwards."""
    made, library = faulty()
    with cls(binding=made) as selector:
        expected = {}
        for near, far in pairs:
            far.send(b"x")
            selector.register(near, EVENT_READ)
            expected[near.fileno()] = EVENT_READ
        waits = ("epoll_wait", "epoll_pwait2", "poll", "ppoll", "select")
        symbols = [made.find(name)[0] for name in waits if made.has(name)]
        for code in (errno.EINTR, errno.EINVAL):
            for symbol in symbols:
                for place in (1, 2):
                    library.plan[symbol, library.calls[symbol] + place] = code
            # The calls with nanoseconds have an older form, which refuses, too.
            if code == errno.EINTR:
                assert ready(selector, timeout) == expected
            else:
                with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                    selector.select(timeout)
            library.plan.clear()
            assert ready(selector, timeout) == expected


@pytest.mark.skipif(backends.EpollSelector not in HERE, reason="epoll is Linux's")
def test_a_refused_change_whose_step_is_not_atomic(not_atomic, pairs, tmp_path):
    """EPERM, which is 1, is EPERM; a known descriptor is adopted, a reused number added anew."""
    made, _ = faulty()
    (near, _), (other, _), _ = pairs
    with backends.EpollSelector(binding=made) as selector:
        with open(tmp_path / "file", "wb") as file, pytest.raises(PermissionError):
            selector.register(file, EVENT_READ)
        number = os.dup(near.fileno())
        selector.register(number, EVENT_READ)
        os.dup2(other.fileno(), number)
        selector.modify(number, EVENT_WRITE)
        assert ready(selector) == {number: EVENT_WRITE}
        fields = {"events": made.constant("EPOLLIN"), "data": other.fileno()}
        event = made.ffi.new("struct epoll_event *", fields)
        add = made.constant("EPOLL_CTL_ADD")
        made.call(made.function("epoll_ctl"), selector._descriptor.fd, add, other.fileno(), event)
        selector.register(other, EVENT_WRITE)
        assert ready(selector) == {number: EVENT_WRITE, other.fileno(): EVENT_WRITE}
        os.close(number)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            selector.modify(number, EVENT_READ)


def test_a_refused_call_whose_step_is_not_atomic(not_atomic):
    """``Binding.call`` raises EPERM, of which the negative is the -1 that every failure returns."""
    made, _ = faulty()

    def refuse(code):
        made.ffi.errno = code
        return -1

    for code, kind in ((errno.EPERM, PermissionError), (errno.EAGAIN, BlockingIOError)):
        with pytest.raises(kind):
            made.call(refuse, code)
    assert made.call(abs, -3) == 3


@pytest.mark.parametrize("cls", HERE, ids=lambda cls: cls.__name__)
def test_kernels_without_nanoseconds(cls, pairs):
    """Where the call with nanoseconds is missing milliseconds do, never too short a wait."""
    made = Binding(load().target, load().ffi, load().lib)
    made.refused.update(("epoll_pwait2", "ppoll"))
    with cls(binding=made) as selector:
        for near, _ in pairs:
            selector.register(near, EVENT_READ)
        assert ready(selector, 0.0001) == {}
        for near, far in pairs:
            far.send(b"x")
        assert ready(selector, 10) == {near.fileno(): EVENT_READ for near, _ in pairs}


@pytest.mark.parametrize("cls", [backends.PollSelector, backends.SelectSelector])
def test_a_table_is_filled_once(cls, pairs, monkeypatch):
    """What has been waited for is changed in its table; a table is not filled anew for each change."""
    first, *more, last = [end for pair in pairs for end in pair]
    with cls() as selector:
        for end in (first, *more):
            selector.register(end, EVENT_WRITE)
        assert len(ready(selector, 0)) == 5
        filled = []
        table = type(selector._idle[0])
        monkeypatch.setattr(table, "fill", lambda *arguments: filled.append(arguments))

        selector.register(last, EVENT_WRITE)

        assert len(ready(selector, 0)) == 6
        assert not filled


@pytest.mark.skipif(backends.EpollSelector not in HERE, reason="epoll is Linux's")
@pytest.mark.parametrize("code", [errno.EINTR, errno.ENOMEM])
def test_a_larger_buffer_that_cannot_be_filled(pipes, code):
    """When the call with a larger buffer fails, what the smaller one brought is returned."""
    whole = load()
    library = FaultyLibrary(whole)
    with backends.EpollSelector(binding=Binding(whole.target, whole.ffi, library)) as selector:
        for read, write in pipes:
            selector.register(read, EVENT_READ)
            os.write(write, b"x")
        library.plan["epoll_wait", library.calls["epoll_wait"] + 2] = code
        assert len(ready(selector)) == 16
        assert library.hits == 1
        assert len(ready(selector)) == 300


@pytest.mark.skipif(backends.EpollSelector not in HERE, reason="epoll is Linux's")
def test_a_larger_buffer_for_which_nothing_is_left(pipes):
    """What another thread reads between the two calls does not make the wait end with nothing."""
    whole = load()
    library = FaultyLibrary(whole)
    with backends.EpollSelector(binding=Binding(whole.target, whole.ffi, library)) as selector:
        for read, write in pipes:
            selector.register(read, EVENT_READ)
            os.write(write, b"x")

        def read_all(symbol, arguments):
            if symbol == "epoll_wait" and library.calls[symbol] == 2:
                for read, _ in pipes:
                    os.read(read, 1)
            return arguments

        library.before = read_all
        assert len(ready(selector)) == 16
        assert library.calls["epoll_wait"] == 2
        assert ready(selector) == {}


@pytest.mark.parametrize("cls", [backends.PollSelector], ids=lambda cls: cls.__name__)
def test_flags_that_nobody_asked_for(cls, pairs):
    """A kernel that reports a writer as readable only: that writer is left out."""
    whole = load()

    def odd(call):
        result = call.run()
        call.arguments[0][1].revents = whole.constant("POLLIN")
        return result

    with cls(binding=proxied(whole, odd, ("poll",))) as selector:
        selector.register(pairs[0][0], EVENT_WRITE)
        selector.register(pairs[1][0], EVENT_WRITE)
        selector.register(pairs[2][0], BOTH)
        expected = {pairs[1][0].fileno(): EVENT_WRITE, pairs[2][0].fileno(): EVENT_WRITE}
        assert ready(selector) == expected


class Sparse(_BaseSelectorImpl):
    """A third-party selector, built on the registry alone."""

    def select(self, timeout=None):
        """Nothing is ever ready."""
        return []


def test_third_party_selector():
    """The registry alone keeps keys; what needs a kernel says so."""
    near, far = socket.socketpair()
    with near, far, Sparse() as selector:
        assert selector.modify(selector.register(near, EVENT_READ).fd, BOTH).events == BOTH
        with pytest.raises(NotImplementedError, match="Sparse has no native events"):
            selector.select_raw(0)
        assert selector.unregister(near.fileno()).events == BOTH
        assert selector.select() == []
