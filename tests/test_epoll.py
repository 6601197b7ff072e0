"""The epoll backend where it is like no other: tokens, caches of results, calls that are missing."""

from __future__ import annotations

import copy
import errno
import gc
import os
import socket
import struct
import sys
from selectors import EVENT_READ, EVENT_WRITE

import pytest

import selectors_ffi
from selectors_ffi import binding
from selectors_ffi.backends import epoll_buffer
from selectors_ffi.backends.epoll_buffer import CHUNK, Buffer, Facts, Records
from selectors_ffi.backends.epoll_set import WAKE
from selectors_ffi.binding import REFUSALS
from selectors_ffi.testing import inject

from .kernels.faulty import FaultyLibrary
from .kernels.machines import MACHINES
from .test_async_exceptions import Interrupter

BOTH = EVENT_READ | EVENT_WRITE
KERNELS = [machine for machine in MACHINES if machine.mechanism == "epoll"]
SIMULATED = [machine for machine in KERNELS if machine.simulated]
PRECISE = [
    (machine, name)
    for machine in MACHINES
    for mechanism, name in (("epoll", "epoll_pwait2"), ("poll", "ppoll"))
    if machine.mechanism == mechanism and machine.boot().binding.has(name)
]

pytestmark = pytest.mark.skipif(not KERNELS, reason="the simulated kernels work on Unix descriptors")


@pytest.fixture(params=KERNELS, ids=str)
def machine(request):
    """The host's epoll and the simulated one."""
    return request.param


@pytest.fixture
def pairs():
    """Four connected pairs of sockets, in each of which a byte waits."""
    made = [socket.socketpair() for _ in range(4)]
    for _, far in made:
        far.send(b"x")
    yield made
    for pair in made:
        for end in pair:
            end.close()


@pytest.fixture
def readable(pairs):
    """A socket with something to read."""
    return pairs[0][0]


def tokens(session, selector):
    """The kernel's 64 bits per descriptor."""
    # fileno() would say that the caller may add registrations of its own.
    handle = session.kernel.handles[selector._descriptor.fd]
    return {fd: interest.data for (fd, _), interest in handle.interests.items()}


@pytest.mark.parametrize("machine", SIMULATED, ids=str)
@pytest.mark.parametrize("change", ["modify", "replace"])
def test_a_change_during_a_wait_has_a_new_token(machine, pairs, change):
    """While another call is in flight a changed registration gets a token that it never had."""
    session = machine.boot()
    near, idle = pairs[0][0], pairs[1][0]
    idle.recv(1)
    fd = near.fileno()
    with session.selector() as selector:
        selector.register(idle, EVENT_READ)
        selector.register(near, EVENT_READ)
        selector.select(0)
        assert tokens(session, selector) == {fd: fd, idle.fileno(): idle.fileno()}
        # A call in flight has its buffer out of the idle ones.
        buffer = selector._idle.pop()
        if change == "modify":
            selector.modify(near, EVENT_WRITE)
        else:
            selector.unregister(near)
            selector.register(near, EVENT_WRITE)
        selector._idle.append(buffer)
        assert selector._tokens[fd] != fd
        assert tokens(session, selector)[fd] == selector._tokens[fd]
        assert selector._tokens[fd] & 0xFFFF_FFFF == fd
        assert [key.fd for key, _ in selector.select(0)] == [fd]


@pytest.mark.parametrize("machine", SIMULATED, ids=str)
def test_a_change_after_two_calls_keeps_its_token(machine, pairs):
    """Two calls at once leave nothing behind: when both are through, a token is the bare number."""
    session = machine.boot()
    near = pairs[0][0]
    fd = near.fileno()
    with session.selector() as selector:
        selector.register(near, EVENT_READ)
        selector.select(0)
        first = selector._idle.pop()
        selector.select(0)
        selector._idle.append(first)
        assert len(selector._idle) == len(selector._made) == 2  # nobody is in a call any more
        selector.modify(near, EVENT_WRITE)
        assert tokens(session, selector) == {fd: fd}
        selector.unregister(near)
        selector.register(near, EVENT_READ)
        assert tokens(session, selector) == {fd: fd}
        assert len(selector.select(0)) == 1


def test_nothing_is_kept_while_another_call_is_in_flight(machine, pairs):
    """The other call may hold an event of an older interest, which has the same token."""
    near, other = pairs[0][0], pairs[1][0]
    with machine.boot().selector() as selector:
        selector.register(other, EVENT_READ)
        for _ in range(3):  # until there is what reads a buffer fast
            selector.select(0)
        selector.unregister(other)
        in_flight = selector._idle.pop()
        key = selector.register(near, EVENT_READ)
        for _ in range(3):
            assert selector.select(0) == [(key, EVENT_READ)]
            assert not remembered(selector)
        selector._idle.append(in_flight)
        for _ in range(2):
            assert selector.select(0) == [(key, EVENT_READ)]
        assert remembered(selector)


def test_the_event_of_a_former_file_alone(machine, pairs):
    """It has the number of another file, which is registered now and has nothing to read."""
    (near, far), (idle, _), (warm, _), _ = pairs
    near.recv(1)
    idle.recv(1)
    with machine.boot().selector() as selector:
        selector.register(warm, EVENT_READ)
        for _ in range(3):
            selector.select(0)
        selector.unregister(warm)
        number = near.detach()
        selector.register(number, EVENT_READ)
        copy_of_it = os.dup(number)
        os.close(number)
        selector.unregister(number)
        try:
            assert os.dup2(idle.fileno(), number) == number
            key = selector.register(number, EVENT_READ)
            far.send(b"x")
            assert selector.select(0) == []
            pairs[1][1].send(b"x")
            assert selector.select(0) == [(key, EVENT_READ)]
        finally:
            os.close(copy_of_it)
            os.close(number)


@pytest.mark.parametrize("machine", SIMULATED, ids=str)
def test_a_buffer_that_an_exception_took_is_no_call_in_flight(machine, pairs):
    """A signal handler may raise when a call has its buffer and cannot give it back yet."""
    session = machine.boot()
    near = pairs[0][0]
    fd = near.fileno()
    with session.selector() as selector:
        selector.register(near, EVENT_READ)
        selector.select(0)
        selector._idle.pop()  # lost
        for _ in range(3):  # PyPy may take more than one
            gc.collect()
        assert not selector._in_call()
        assert selector.select(0)
        assert not selector._several
        selector.modify(near, EVENT_WRITE)
        assert tokens(session, selector) == {fd: fd}
        assert len(selector._made) == 1


def test_a_large_buffer_that_is_replaced_is_counted_no_longer(machine, pairs, monkeypatch):
    """Each time that a large buffer has been used up, another takes its place."""
    monkeypatch.setattr(epoll_buffer, "_LARGE_STEPS", 2)
    copies = [os.dup(pairs[0][0].fileno()) for _ in range(epoll_buffer.CHUNK + 1)]
    try:
        with machine.boot().selector() as selector:
            for fd in copies:
                selector.register(fd, EVENT_READ)
            for _ in range(8):
                assert len(selector.select(0)) == len(copies)
            assert len(selector._made) == 1
    finally:
        for fd in copies:
            os.close(fd)


@pytest.mark.parametrize("interests", [
    (EVENT_READ,), (EVENT_READ, EVENT_WRITE, EVENT_READ), (BOTH,), (BOTH, EVENT_READ, EVENT_WRITE),
])  # fmt: skip
def test_what_was_decoded_once_is_looked_up(machine, pairs, monkeypatch, interests):
    """From the third wait on no event is decoded in Python, of whatever keys it is."""
    with machine.boot().selector() as selector:
        expected = {
            selector.register(near, events): events for events, (near, _) in zip(interests, pairs)
        }
        for _ in range(2):  # a buffer that is used once keeps nothing
            assert dict(selector.select(0)) == expected

        def fail(*_):
            raise AssertionError("decoded again")

        monkeypatch.setattr(selector, "_decode", fail)
        for timeout in (0, None, 1):
            assert dict(selector.select(timeout)) == expected


def remembered(selector):
    """The results that a selector keeps, by what the kernel reports."""
    return {**selector._pairs, **(selector._records.pairs if selector._records else {})}


@pytest.mark.parametrize("events", [EVENT_READ, BOTH])
@pytest.mark.parametrize("n", [1, 2, 300])
def test_a_new_registration_alone_is_decoded(machine, n, events):
    """An event of a new registration is remembered alone, whatever comes with it."""
    reader, writer = socket.socketpair()
    with machine.boot().selector() as selector, reader, writer:
        known = [os.dup(reader.fileno()) for _ in range(n - 1)]
        try:
            writer.send(b"x")
            expected = {selector.register(fd, events): events for fd in known}
            for _ in range(3):
                assert dict(selector.select(0)) == expected
            before = remembered(selector)
            key = selector.register(reader, events)
            for _ in range(2):
                found = selector.select(0)
                assert dict(found) == {**expected, key: events}
                assert len(found) == n
            tables = events == EVENT_READ or sys.implementation.name != "pypy"
            learned = [one for of, one in remembered(selector).items() if before.get(of) is not one]
            assert [pair[0] for pair in learned] == ([key] if tables else [])
        finally:
            for fd in known:
                os.close(fd)


def test_a_selector_that_is_used_once_keeps_no_results(machine, pairs):
    """Many selectors are used for one wait; that one fills no cache."""
    with machine.boot().selector() as selector:
        for events, (near, _) in zip((EVENT_READ, EVENT_WRITE), pairs):
            selector.register(near, events)
        assert len(selector.select(0)) == 2
        assert not selector._pairs
        assert not selector._records


def test_narrowing_the_last_key_with_both_directions(machine, pairs):
    """When no key has both directions any more, results are looked up by their tokens again."""
    (one, _), (two, _), _, _ = pairs
    with machine.boot().selector() as selector:
        selector.register(one, BOTH)
        selector.register(two, EVENT_READ)
        selector.modify(one, BOTH, "data")
        assert list(selector._duplex) == [one.fileno()]
        selector.modify(one, EVENT_READ)
        assert not selector._duplex
        selector.modify(one, BOTH)
        selector.unregister(one)
        assert not selector._duplex
        assert [key.fileobj for key, _ in selector.select(0)] == [two]


@pytest.mark.parametrize("events", [EVENT_READ, BOTH])
def test_a_key_that_changes_while_it_is_decoded(machine, pairs, events):
    """A result that is out of date when it is stored is forgotten at once."""
    near = pairs[0][0]
    with machine.boot().selector() as selector:
        selector.register(near, events, "older")
        selector.select(0)
        selector.modify(near, events, "old")

        class ChangedByAnotherThread(dict):
            """A registry that another thread changes after the key has been looked up."""

            changes = 0

            def get(self, fd, default=None):
                key = super().get(fd, default)
                self.changes += 1
                if self.changes == 1:
                    selector.modify(near, events, "new")
                return key

        selector._fd_to_key = ChangedByAnotherThread(selector._fd_to_key)
        assert len(selector.select(0)) == 1
        assert selector.get_key(near).data == "new"
        for _ in range(3):
            assert [key.data for key, _ in selector.select(0)] == ["new"]


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_records_that_are_dropped_while_they_are_looked_at(machine, pairs, looks):
    """A signal handler may remove the last key of both directions at any step of a wait."""

    class Dropping(selectors_ffi.EpollSelector):
        """Has no records any more after so many looks at them."""

        @property
        def _records(self):
            self.looks -= 1
            return self.kept if self.looks >= 0 else None

        @_records.setter
        def _records(self, records):
            self.kept, self.looks = records, looks

    with Dropping(binding=machine.boot().binding) as selector:
        key = selector.register(pairs[0][0], BOTH)
        for _ in range(6):
            selector._records = Records()
            assert selector.select(0) == [(key, BOTH)]


@pytest.mark.parametrize("events", [EVENT_READ, BOTH])
@pytest.mark.parametrize("change", ["data", "events", "unregister"])
def test_a_change_forgets_what_was_made_of_the_old_key(machine, pairs, events, change):
    """No cache holds a key that a change has replaced, nor its data or its file object."""
    near = pairs[0][0]
    with machine.boot().selector() as selector:
        key = selector.register(near, events, "old")
        for _ in range(3):
            assert selector.select(0) == [(key, events)]
        if change == "data":
            selector.modify(near, events, "new")
        elif change == "events":
            selector.modify(near, EVENT_WRITE, "new")
        else:
            selector.unregister(near)
        records = selector._records
        pairs_of_both = records.pairs.values() if records else ()
        kept = [*selector._pairs.values(), *pairs_of_both, *selector._fd_to_key.values()]
        assert key not in kept
        assert not [pair for pair in kept if pair[0] is key]
        assert not records or not records.of


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize(("machine", "name"), PRECISE, ids=str)
def test_a_refused_call_with_nanoseconds_is_not_made_again(machine, name, code, first, pairs):
    """The wait is made with milliseconds then, and from then on; a sandbox may begin at any time."""
    library = []
    session = machine.boot(lambda whole: library.append(FaultyLibrary(whole)) or library[0])
    near = pairs[0][0]
    with session.selector() as selector:
        symbol = session.binding.find(name)[0]
        library[0].plan.update({(symbol, n): code for n in range(first, 10)})
        selector.register(pairs[0][1], EVENT_READ)
        for _ in range(first + 1):
            assert selector.select(0.0015) == []
        assert library[0].calls[symbol] == first
        selector.register(near, EVENT_READ)
        assert [key.fileobj for key, _ in selector.select(10.0005)] == [near]
    with session.selector() as another:
        assert another.select(0.0015) == []
        assert library[0].calls[symbol] == first


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
@pytest.mark.parametrize("timeouts", [(0,), (None,), (1,), (1, 2), (1.0005, 2.0005)], ids=str)
def test_a_large_buffer_becomes_small_again(timeouts):
    """Whatever the timeouts are, once there is less to report."""
    near, far = os.pipe()
    fds = [os.dup(near) for _ in range(CHUNK + 1)]
    try:
        os.write(far, b"x")
        with selectors_ffi.backends.EpollSelector() as selector:
            if len(timeouts) > 1 and not selector._facts.precise:
                pytest.skip("without epoll_pwait2 it stays as large while the timeout changes")
            for fd in fds:
                selector.register(fd, EVENT_READ)
            assert len(selector.select(0)) == len(fds)
            assert [buffer.capacity > CHUNK for buffer in selector._idle] == [True]
            for fd in fds[1:]:
                selector.unregister(fd)
            for _ in range(CHUNK + 1):
                for timeout in timeouts:
                    assert len(selector.select(timeout)) == 1
            assert [buffer.capacity for buffer in selector._idle] == [CHUNK]
    finally:
        for fd in (near, far, *fds):
            os.close(fd)


@pytest.mark.parametrize(("machine", "name"), PRECISE, ids=str)
@pytest.mark.parametrize("timeout", [None, 0, 1])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_refused_call_without_another_form_is_an_error(machine, name, timeout, interrupted, pairs):
    """EPERM of the plain call is no reason to do without the other: it is raised, at once or later."""
    library = []
    session = machine.boot(lambda whole: library.append(FaultyLibrary(whole)) or library[0])
    with session.selector() as selector:
        selector.register(pairs[0][0], EVENT_READ)
        plain = {"epoll_pwait2": "epoll_wait", "ppoll": "poll"}[name]
        symbol, precise = (session.binding.find(one)[0] for one in (plain, name))
        library[0].plan[symbol, 1] = errno.EINTR if interrupted else errno.EPERM
        library[0].plan[precise, 1] = library[0].plan[symbol, 2] = errno.EPERM
        with pytest.raises(PermissionError):
            selector.select(timeout)


@pytest.mark.parametrize("events", [EVENT_WRITE, BOTH])
def test_an_exception_while_what_reads_a_buffer_fast_is_made(machine, pairs, monkeypatch, events):
    """It is made by the next wait: a handler's exception leaves no half of it."""
    make, calls = Buffer.make_views, []

    def make_views(self):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        make(self)

    machine.boot().binding.facts(Facts).pool.clear()
    with machine.boot().selector() as selector:
        for near, _ in pairs:
            selector.register(near, events)
        monkeypatch.setattr(Buffer, "make_views", make_views)
        interrupts = 0
        for _ in range(5):
            try:
                assert len(selector.select(0)) == len(pairs)
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 1


def test_an_exception_in_the_middle_of_what_reads_a_buffer_fast(machine, readable):
    """Of one ready descriptor the next wait reads token and flags: both are there, or neither."""
    place, interrupted = 0, True
    while interrupted:
        place += 1
        machine.boot().binding.facts(Facts).pool.clear()
        with machine.boot().selector() as selector:
            selector._facts.pool.clear()
            key = selector.register(readable, EVENT_READ)
            assert selector.select(0) == [(key, EVENT_READ)]
            interrupter = Interrupter(place)
            interrupted = interrupter.run(lambda: selector.select(0))
            assert selector.select(0) == [(key, EVENT_READ)], interrupter.where
    assert place > 10


@pytest.mark.parametrize("code", ["ENOMEM", "EINTR"])
def test_a_full_buffer_and_no_second_answer(machine, readable, code, monkeypatch):
    """What the buffer held is returned; the failed call leaves nothing to the next wait."""
    monkeypatch.setattr(binding, "ATOMIC_STEP", False)  # a call that has failed must not be stepped
    made, fds = [], [os.dup(readable.fileno()) for _ in range(20)]
    text = f"wait:error={code}:when=2"
    session = machine.boot(lambda whole: made.append(inject(text, whole).lib) or made[0])
    with session.selector() as selector:
        for fd in fds:
            selector.register(fd, EVENT_READ)
        assert len(selector.select(0)) == 16
        assert len(selector.select(0)) == 20
    assert made[0].hook.hits == 1
    for fd in fds:
        os.close(fd)


def test_a_handlers_exception_is_no_overflow(machine, pairs):
    """struct.error says that a number is too large, unless a signal handler has raised it."""
    raised = struct.error("of a handler")

    def pack(*_arguments):
        raise raised

    with machine.boot().selector() as selector:
        selector._facts = copy.copy(selector._facts)
        selector._facts.pack = pack
        with pytest.raises(struct.error) as info:
            selector.register(pairs[0][0], EVENT_READ)
        assert info.value is raised


def test_nothing_is_kept_of_a_closed_selector(machine, pairs):
    """Closing forgets every key, and what was made of it."""
    with machine.boot().selector() as selector:
        for events, (near, _) in zip((EVENT_READ, BOTH, EVENT_WRITE), pairs):
            selector.register(near, events)
        for _ in range(3):
            assert len(selector.select(0)) == 3
        selector.unregister(pairs[1][0])
        for _ in range(3):
            assert len(selector.select(0)) == 2
    kept = (selector._pairs, selector._records or ())
    assert not any((*kept, selector._made, selector._idle))


def test_a_wakeup_that_is_taken_while_close_rings(machine):
    """It may be that of close(), so it is rung again for the other threads that wait."""
    selector = machine.boot().selector()
    selector.wakeup()
    assert selector.select(0) == []
    waker = selector._waker
    waker.ring()

    def drained():
        selector._descriptor.closing = 1
        return type(waker).drain(waker)

    waker.drain = drained
    assert not selector._waits_on(None, WAKE | os.getpid() << 32)
    assert os.read(waker.reader, 9)
    selector.close()


def test_a_handlers_exception_in_close(machine, pairs, monkeypatch):
    """It comes out, and the descriptor is closed with the last call in flight."""
    selector = machine.boot().selector()
    selector.register(pairs[0][0], EVENT_READ)
    assert len(selector.select(0)) == 1
    buffer = selector._idle.pop()  # as a call has it
    descriptor, error = selector._descriptor, TimeoutError("of a signal handler")

    def interrupted():
        raise error

    monkeypatch.setattr(selector, "_interrupt", interrupted)
    with pytest.raises(TimeoutError) as caught:
        selector.close()
    assert caught.value is error
    assert descriptor.fd == -1
    assert descriptor.numbers
    selector._end_call(buffer)
    assert not descriptor.numbers


def test_two_threads_make_what_unpacks_at_once(machine):
    """The one that needs less does not cut what the other has made in the middle."""

    class Growing(list):
        def __len__(self):
            return 0  # as it was when the slower thread looked

    with machine.boot().selector() as selector:
        facts = selector._facts
    tokens, records = facts.tokens, facts.records
    facts.tokens, facts.records = Growing(), Growing()
    try:
        facts.expect(CHUNK)
        facts.expect(16)
        assert [list.__len__(made) for made in (facts.tokens, facts.records)] == [CHUNK + 1] * 2
    finally:
        facts.tokens, facts.records = tokens, records
