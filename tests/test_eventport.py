"""EventPortSelector: a level, made of events that come once."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi.backends import EventPortSelector
from selectors_ffi.testing import kernel
from selectors_ffi.testing.kernels import ports
from selectors_ffi.testing.library import proxied
from tests import apart

from .crew import Crew

BOTH = EVENT_READ | EVENT_WRITE


@pytest.fixture
def pairs():
    """Thirty pairs of connected sockets."""
    made = [socket.socketpair() for _ in range(30)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


class Calls:
    """A binding of illumos that notes its calls; ``failing``: name -> errno, or what runs instead."""

    def __init__(self):
        self.names = []
        self.failing = {}
        self.after = {}
        self.binding = proxied(kernel("illumos"), self.decide)
        self.kernel = self.binding.lib.kernel

    def decide(self, call):
        self.names.append(call.name)
        if call.name in self.failing:
            failure = self.failing.pop(call.name)
            return failure(call) if callable(failure) else call.fail(failure)
        result = call.run()
        action = self.after.pop(call.name, None)
        if action:
            action()
        return result

    def take(self):
        """Return the calls since the last time."""
        names, self.names = self.names, []
        return names


@pytest.fixture
def calls():
    """A binding that notes its calls."""
    return Calls()


@pytest.fixture
def selector(calls):
    """A selector on illumos."""
    with EventPortSelector(binding=calls.binding) as made:
        calls.take()
        yield made


def test_ready_until_it_is_read(selector, calls, pairs):
    """Each call returns what is ready; only what was returned is associated again, before the next."""
    (near, far), (idle, _) = pairs[:2]
    key = selector.register(near, EVENT_READ)
    selector.register(idle, EVENT_READ)
    far.send(b"x")
    calls.take()

    assert selector.select(0) == [(key, EVENT_READ)]
    assert calls.take() == ["port_getn", "poll"]
    assert selector.select(None) == [(key, EVENT_READ)]
    assert calls.take() == ["port_associate", "port_getn", "poll"]
    near.recv(1)
    assert selector.select(0) == []
    assert calls.take() == ["port_associate", "port_getn"]
    assert selector.select(0) == []
    assert calls.take() == ["port_getn"]


def test_an_event_that_is_no_longer_true(selector, calls, pairs):
    """What the port still has queued, and was read meanwhile, is not returned, and comes again."""
    near, far = pairs[0]
    key = selector.register(near, EVENT_READ)
    for _ in range(3):
        far.send(b"x")
        calls.kernel.fire()
        near.recv(1)
        assert selector.select(0) == []
        assert selector.select_raw(0) == []
    far.send(b"x")
    assert selector.select(30) == [(key, EVENT_READ)]
    (event,) = selector.select_raw(30)
    assert (event.key, event.decoded, event.readable) == (key, "POLLIN", True)


def test_more_than_a_buffer_holds(selector, pairs):
    """Everything that is ready is returned by one call, and by the next one, too."""
    expected = {(selector.register(near, BOTH), EVENT_WRITE) for near, _ in pairs}

    for _ in range(3):
        assert set(selector.select(0)) == expected


def test_modified_and_unregistered_while_spent(selector, calls, pairs):
    """What was returned and changed since is associated as the registry says; what is gone is not."""
    near, far = pairs[0]
    far.send(b"x")
    key = selector.register(near, EVENT_READ)
    assert selector.select(0) == [(key, EVENT_READ)]
    key = selector.modify(near, EVENT_WRITE)
    assert selector.select(0) == [(key, EVENT_WRITE)]
    selector.unregister(near)
    calls.take()
    assert selector.select(0) == []
    assert calls.take() == ["port_getn"]
    assert calls.kernel.watched(selector.fileno()) == {}


def test_closed_while_spent(selector, pairs):
    """A descriptor that is closed after it was returned is silent, and the others go on."""
    (near, _), (other, _) = pairs[:2]
    selector.register(near, EVENT_WRITE)
    key = selector.register(other, EVENT_WRITE)
    assert len(selector.select(0)) == 2
    near.close()

    for _ in range(2):
        assert selector.select(0) == [(key, EVENT_WRITE)]
    assert selector.discard(near).events == EVENT_WRITE


def test_closed_and_reused_in_the_middle(selector, calls, pairs):
    """Another thread unregisters and closes it before it is associated again; the number is reused."""
    near, other = pairs[0][0], pairs[1][0]
    selector.register(near, EVENT_WRITE)
    key = selector.register(other, EVENT_WRITE)
    assert len(selector.select(0)) == 2
    number = near.fileno()

    def reuse(call):
        selector.unregister(number)
        near.close()
        reused.append(os.dup(other.fileno()))
        return call.fail(errno.EBADF)

    reused = []
    calls.failing["port_associate"] = reuse
    assert selector.select(0) == [(key, EVENT_WRITE)]
    os.close(reused[0])
    assert reused == [number]


def test_associating_again_that_is_refused(selector, calls, pairs):
    """select() raises what the kernel says, and the next one associates what is missing."""
    keys = {(selector.register(near, EVENT_WRITE), EVENT_WRITE) for near, _ in pairs[:3]}
    assert set(selector.select(0)) == keys
    calls.failing["port_associate"] = errno.EAGAIN

    with pytest.raises(BlockingIOError):
        selector.select(0)
    assert set(selector.select(0)) == keys


def test_a_look_that_is_refused(selector, calls, pairs):
    """If poll(2) fails, what the port has handed out is not lost. EINTR is no failure."""
    key = selector.register(pairs[0][0], EVENT_WRITE)
    calls.failing["poll"] = errno.ENOMEM
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        selector.select(0)
    calls.failing["poll"] = errno.EINTR
    assert selector.select(0) == [(key, EVENT_WRITE)]


def test_etime_with_events(pairs):
    """port_getn may say ETIME and bring events all the same."""

    def decide(call):
        result = call.run()
        late = call.name == "port_getn" and result == 0
        return call.fail(getattr(errno, "ETIME", errno.ETIMEDOUT)) if late else result

    with EventPortSelector(binding=proxied(kernel("illumos"), decide)) as selector:
        key = selector.register(pairs[0][0], EVENT_WRITE)
        for _ in range(2):
            assert selector.select(0) == [(key, EVENT_WRITE)]


def test_a_thread_that_waits_hears_of_what_another_was_given(pairs):
    """Two threads wait for one descriptor: both return it, though the port hands it out once."""
    near, far = pairs[0]
    found = []
    with EventPortSelector(binding=kernel("illumos")) as selector:
        key = selector.register(near, EVENT_READ)
        crew = Crew()
        for _ in range(2):
            crew.start(lambda: found.append(selector.select(30)))
        while len(selector._waits) < 2:
            os.sched_yield()
        far.send(b"x")
        crew.join()
    assert found == [[(key, EVENT_READ)]] * 2


def test_a_wait_that_begins_just_after_another_was_given_the_event(pairs):
    """It returns at once what is still ready, though the port has handed it to the other wait."""
    near, far = pairs[0]
    found, crew = [], Crew()
    with EventPortSelector(binding=kernel("illumos")) as selector:
        key = selector.register(near, EVENT_READ)
        far.send(b"x")
        note, (port,) = selector._note_spent, selector._binding.lib.kernel.handles.values()

        def begin(buffer):
            if not crew.threads:
                crew.start(lambda: found.append(selector.select(30)))
                while not len(port.sleepers):
                    os.sched_yield()
            return note(buffer)

        selector._note_spent = begin
        begun = time.monotonic()
        assert selector.select(30) == [(key, EVENT_READ)]
        crew.join()
        assert found == [[(key, EVENT_READ)]]
        assert time.monotonic() - begun < 20


def test_a_wait_whose_event_another_was_given_and_has_returned(pairs):
    """A look at what is ready finds it, though the other wait ends before the port's answer is read."""
    near, far = pairs[0]
    found, crew = [], Crew()
    given, asked = threading.Event(), threading.Event()

    def decide(call):
        if call.name != "port_getn" or asked.is_set():
            return call.run()
        if crew.threads:  # the other wait
            result = call.run()
            given.set()
            asked.wait(30)
            return result
        crew.start(lambda: found.append(selector.select(0)))
        given.wait(30)
        result = call.run()
        asked.set()
        crew.join()
        return result

    with EventPortSelector(binding=proxied(kernel("illumos"), decide)) as selector:
        key = selector.register(near, EVENT_READ)
        far.send(b"x")
        assert selector.select(0) == [(key, EVENT_READ)]
        assert found == [[(key, EVENT_READ)]]


def test_closed_while_it_associates_again(selector, calls, pairs):
    """A wait whose selector is closed just then, by another thread or a handler, returns []."""
    near, far = pairs[0]
    selector.register(near, EVENT_READ)
    far.send(b"x")
    assert len(selector.select(0)) == 1

    def close(call):
        selector.close()
        return call.fail(ports.EBADFD)

    calls.failing["port_associate"] = close
    assert selector.select(30) == []


def test_many_wakeups(selector, pairs):
    """A thousand wake-ups end one wait, or a few; then waits wait."""
    for _ in range(1000):
        selector.wakeup()
    assert selector.select(30) == []
    assert selector.select(0) == []
    key = selector.register(pairs[0][0], EVENT_WRITE)
    assert selector.select(30) == [(key, EVENT_WRITE)]


def test_a_full_port(selector, calls):
    """wakeup() of a port that takes no more events is no error: what it has wakes the thread."""
    calls.failing["port_send"] = errno.EAGAIN
    selector.wakeup()
    assert selector.select(0) == []
    calls.failing["port_send"] = errno.ENOMEM
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        selector.wakeup()


def test_what_the_caller_has_associated(selector, calls, pairs):
    """After fileno() an event of the caller's own ends a wait with [], and is seen by select_raw()."""
    near = pairs[0][0].fileno()
    port, binding = selector.fileno(), calls.binding
    arguments = (port, binding.constant("PORT_SOURCE_FD"), near, binding.constant("POLLOUT"))
    for look in (selector.select, selector.select_raw):
        binding.call(binding.function("port_associate"), *arguments, binding.ffi.NULL)
        seen = look(30)
        assert [event.key for event in seen] == ([None] if look == selector.select_raw else [])


PROGRAM = """
import selectors_ffi, socket
left, right = socket.socketpair()
with left, right, selectors_ffi.DefaultSelector() as selector:
    print(type(selector).__name__, selectors_ffi.EventPortSelector.__name__)
    key = selector.register(left, selectors_ffi.EVENT_WRITE)
    print(selector.select(0) == [(key, selectors_ffi.EVENT_WRITE)])
"""


@pytest.mark.parametrize(("backend", "default"), [("eventport", "EventPort"), ("", "Devpoll")])
def test_chosen_by_the_environment(backend, default):
    """The class is exported where the system has ports; the default stays the standard library's."""
    variables = {"SELECTORS_FFI_KERNEL": "illumos", "SELECTORS_FFI_BACKEND": backend}
    done = apart.python("-c", PROGRAM, **variables)
    assert done.stdout.split() == [f"{default}Selector", "EventPortSelector", "True"]


def test_not_exported_elsewhere():
    """On a system without ports there is no such name, and no instance."""
    import selectors_ffi

    if sys.platform.startswith("sunos"):
        pytest.skip("this system has them")
    assert not hasattr(selectors_ffi, "EventPortSelector")
    with pytest.raises(OSError, match="port_") as caught:
        EventPortSelector()
    assert caught.value.errno == errno.ENOSYS


ASYNCIO = """
import asyncio

async def handle(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()

async def client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(20):
        writer.write(b"0123456789")
        await writer.drain()
        assert await reader.readexactly(10) == b"0123456789"
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(client(port) for _ in range(10)))
    loop = asyncio.get_running_loop()
    print(await loop.run_in_executor(None, lambda: type(loop._selector).__name__))
    server.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", ["", "1", "2", "3"])
def test_asyncio(tmp_path, seed):
    """A server and its clients on one event loop over ports, with a thread, and under chaos."""
    program = tmp_path / "program.py"
    program.write_text(ASYNCIO, "utf-8")
    variables = {
        "SELECTORS_FFI_KERNEL": "illumos",
        "SELECTORS_FFI_BACKEND": "eventport",
        "SELECTORS_FFI_CHAOS": seed,
    }
    done = apart.python("-m", "selectors_ffi", "run", program, timeout=100, **variables)
    assert done.stdout.split() == ["EventPortSelector"], done.stderr
