"""The kqueue backend on every simulated system: what it asks of kevent(2), and what is its alone."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from selectors_ffi import EDGE, LEVEL, ONESHOT
from selectors_ffi.backends import EVENT_READ, EVENT_WRITE, KqueueSelector, kqueue
from selectors_ffi.binding import Binding
from selectors_ffi.testing.kernels.bsd import VARIANTS, SimulatedBSD
from selectors_ffi.testing.library import proxied

from .kernels.machines import no_descriptor_left

pytestmark = pytest.mark.skipif(os.name != "posix", reason="simulated on poll(2)")
BOTH = EVENT_READ | EVENT_WRITE
EVENTS = (EVENT_READ, EVENT_WRITE, BOTH)
PATIENCE = 30


@pytest.fixture(params=sorted(VARIANTS))
def kernel(request):
    """Each of the simulated systems that have kqueue."""
    return SimulatedBSD(request.param)


def make(kernel, hook):
    """Return a selector on a kernel whose kevent(2) a hook decides."""
    return KqueueSelector(binding=proxied(kernel.binding(), hook, ["kevent"]))


def is_wait(call):
    """Tell a kevent(2) that waits from one that changes."""
    return call.arguments[4] > 0


def watched(kernel, selector):
    """Return what the kernel watches; fileno() would say that the caller may add to it."""
    return kernel.watched(selector._descriptor.fd)


def asleep(kernel, selector, count=1):
    """Wait until so many threads sleep in kevent(2)."""
    end = time.monotonic() + PATIENCE
    while len(kernel.handles[selector._descriptor.fd].sleepers) < count:
        assert time.monotonic() < end
        os.sched_yield()


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_one_call_for_each_change(kernel, pair, old, new):
    """Registering, modifying and unregistering are one kevent(2) each, whatever the directions."""
    calls = []
    near, _ = pair
    with make(kernel, lambda call: calls.append(call) or call.run()) as selector:
        selector.register(near, old)
        selector.modify(near, new)
        selector.unregister(near)
    assert len(calls) == (2 if old == new else 3)


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_what_is_left_behind_does_not_matter(kernel, pairs, old, new):
    """What the kernel has and the registry has not, of a call that was interrupted, is replaced."""
    near, far = pairs[0]
    far.send(b"x")
    with KqueueSelector(binding=kernel.binding()) as selector:
        selector.register(near, old)
        del selector._fd_to_key[near.fileno()]
        key = selector.register(near, new)
        assert selector.select(0) == [(key, new)]
        assert watched(kernel, selector) == {near.fileno(): new}
        selector.unregister(near)
        assert watched(kernel, selector) == {}


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_modify_where_the_kernel_has_forgotten(kernel, pairs, old, new):
    """A number that was closed and opened again gets what it is modified to (K4)."""
    near, _ = pairs[0]
    other, peer = pairs[1]
    peer.send(b"x")
    with KqueueSelector(binding=kernel.binding()) as selector:
        fd = near.detach()
        selector.register(fd, old)
        os.dup2(other.fileno(), fd)
        try:
            key = selector.modify(fd, new, "data")
            assert selector.select(0) == [(key, new)]
            assert watched(kernel, selector) == {fd: new}
        finally:
            os.close(fd)


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_a_refused_change_is_taken_back(kernel, pair, old, new):
    """When the second of two changes is refused, the kernel watches what it did before."""
    if new & ~old == 0:
        pytest.skip("nothing is added")
    near, _ = pair
    filters = {EVENT_READ: kernel.variant.read, EVENT_WRITE: kernel.variant.write}
    with KqueueSelector(binding=kernel.binding()) as selector:
        key = selector.register(near, old)
        kernel.refusals[near.fileno(), filters[new & ~old]] = errno.ENOMEM
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            selector.modify(near, new)
        assert selector.get_key(near) is key
        assert watched(kernel, selector) == {near.fileno(): old}
        kernel.refusals.clear()
        assert selector.modify(near, new).events == new
        assert watched(kernel, selector) == {near.fileno(): new}


@pytest.mark.parametrize("system", ["netbsd", "netbsd11"])
def test_a_pipe_without_a_reader_keeps_its_entry(system, pipe):
    """NetBSD answers EBADF for a pipe whose other end is closed: the descriptor is open all the same."""
    kernel = SimulatedBSD(system)
    reader, writer = pipe
    with KqueueSelector(binding=kernel.binding()) as selector:
        key = selector.register(writer, EVENT_READ, "data")
        os.close(reader)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            selector.modify(writer, EVENT_WRITE)
        assert selector.get_key(writer) is key
        assert watched(kernel, selector) == {writer: EVENT_READ}
        os.close(writer)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            selector.modify(writer, EVENT_WRITE)
        assert not selector.get_map()


@pytest.mark.parametrize("system", ["freebsd", "netbsd", "dragonfly", "darwin"])
@pytest.mark.parametrize("trigger", [EDGE, ONESHOT])
@pytest.mark.parametrize("earlier", [False, True], ids=["", "which its number had before"])
def test_a_pipe_that_has_lost_its_reader_beside_a_trigger(system, pair, pipe, trigger, earlier):
    """It can be modified, and is reported, though a filter of it that was deleted could not be added."""
    kernel = SimulatedBSD(system)
    reader, writer = pipe
    with KqueueSelector(binding=kernel.binding()) as selector:
        selector.register(pair[0], EVENT_READ, trigger=trigger)
        if earlier:
            selector.register(writer, EVENT_WRITE, trigger=trigger)
            selector.unregister(writer)
        selector.register(writer, EVENT_WRITE, "before")
        os.close(reader)

        key = selector.modify(writer, EVENT_WRITE, "after")

        assert selector.select(0) == [(key, EVENT_WRITE)]
        assert selector.modify(writer, EVENT_READ).events == EVENT_READ
        assert watched(kernel, selector)[writer] == EVENT_READ


def test_a_level_after_a_trigger(kernel, pair):
    """A number that had a trigger, was unregistered and comes back has the level."""
    near, far = pair
    far.send(b"x")
    with KqueueSelector(binding=kernel.binding()) as selector:
        for change in (selector.register, selector.modify):
            change(near, EVENT_READ, trigger=EDGE)
            assert len(selector.select(0)) == 1
            if change == selector.register:
                selector.unregister(near)
                key = selector.register(near, EVENT_READ)
            else:
                key = selector.modify(near, EVENT_READ, trigger=LEVEL)
            for _ in range(3):
                assert selector.select(0) == [(key, EVENT_READ)]


@pytest.mark.parametrize("system", ["freebsd", "freebsd11", "netbsd"])
def test_a_reused_number_of_which_both_interests_are_refused(system, pair, pipe):
    """A pipe without reader took a number: neither the new interest nor the old one leaves a filter."""
    kernel = SimulatedBSD(system)
    read_end, write_end = pipe
    os.close(read_end)
    number = os.dup(pair[0].fileno())
    try:
        with KqueueSelector(binding=kernel.binding()) as selector:
            selector.register(number, EVENT_WRITE)
            os.dup2(write_end, number)

            with pytest.raises(OSError):
                selector.modify(number, BOTH)

            assert selector.get_key(number).events == EVENT_WRITE
            assert watched(kernel, selector) == {}
    finally:
        os.close(number)


def test_an_error_is_no_readiness(kernel, pair):
    """An event with EV_ERROR is not returned, and the wait takes its time."""
    near, far = pair

    def hook(call):
        result = call.run()
        if is_wait(call) and result > 0 and errors:
            call.arguments[3][0].flags |= errors.pop()
        return result

    binding = kernel.binding()
    with make(kernel, hook) as selector:
        key = selector.register(near, EVENT_READ)
        far.send(b"x")
        errors = [binding.constant("EV_ERROR")]
        assert selector.select(0) == []
        assert selector.select(0) == [(key, EVENT_READ)]


def test_a_number_that_this_process_does_not_have():
    """Where the kernel's numbers are its own, none can be told not to be inherited: no error."""
    whole = SimulatedBSD("darwin").binding()
    closed = []

    def close(number):
        closed.append(number)
        return 0

    library = SimpleNamespace(kqueue=lambda: 999_999, kevent=None, close=close)

    KqueueSelector(binding=Binding(whole.target, whole.ffi, library)).close()

    assert closed == [999_999]


def test_serials_start_anew(kernel, pairs, monkeypatch):
    """After the largest serial comes the smallest again, and events are told apart as before."""
    with KqueueSelector(binding=kernel.binding()) as selector:
        largest = selector._facts.largest_serial
        monkeypatch.setattr(kqueue, "_serials", itertools.count(largest - 2))
        keys = [selector.register(near, EVENT_WRITE) for near, _ in pairs]
        assert sorted(selector._serials.values()) == [1, 2, largest - 1, largest]
        assert dict(selector.select(0)) == dict.fromkeys(keys, EVENT_WRITE)


@pytest.mark.parametrize("trigger", [LEVEL, EDGE])
def test_a_thread_that_waits_adds_what_modify_adds(pair, trigger):
    """libkqueue refuses to add it twice; that is no refusal of the change."""
    near, far = pair
    kernel, added = SimulatedBSD("libkqueue"), []

    def hook(call):
        _, changes, n, *_ = call.arguments
        if n == 1 and changes[0].flags & call.binding.constant("EV_ADD") and len(added) < 3:
            added.append(call.run())  # by the other thread
        return call.run()

    with make(kernel, hook) as selector:
        selector.register(near, EVENT_READ)
        added.clear()
        far.send(b"x")
        key = selector.modify(near, EVENT_READ, "new", trigger=trigger)
        assert len(added) == 3
        assert selector.select(0) == [(key, EVENT_READ)]


class Stale:
    """A kernel as libkqueue: it goes on reporting a descriptor that it was told to forget."""

    def __init__(self):
        self.waits = 0

    def __call__(self, call):
        return self.wait(call) if is_wait(call) else call.run()

    def wait(self, call):
        """Return what is ready, and behind it the stale registration."""
        self.waits += 1
        kq, changes, n, events, room, _ = call.arguments
        spec = call.binding.ffi.new("struct timespec *")
        call.arguments = (kq, changes, n, events, room - 1, spec)
        found = call.run()
        stale = events[found]
        stale.ident, stale.udata, stale.flags = 999, 7, 0
        stale.filter = call.binding.constant("EVFILT_READ")
        return found + 1


@pytest.mark.parametrize("timeout", [0.2, 0, None])
def test_a_stale_registration(pair, timeout):
    """What cannot be removed neither makes a wait busy nor ends it, and hides nothing that is ready."""
    near, far = pair
    stale = Stale()
    with make(SimulatedBSD("libkqueue"), stale) as selector:
        key = selector.register(near, EVENT_READ)
        if timeout is None:
            timer = threading.Timer(0.2, far.send, [b"x"])
            timer.start()
            assert selector.select(None) == [(key, EVENT_READ)]
            timer.join()
        else:
            begin = time.monotonic()
            assert selector.select(timeout) == []
            assert time.monotonic() - begin >= timeout
        assert stale.waits < 20
        far.send(b"x")
        assert selector.select(timeout) == [(key, EVENT_READ)]


def test_a_wake_up_beside_a_stale_registration(pair):
    """wakeup() ends a wait that hears of nothing but a stale registration."""
    near, _ = pair
    with make(SimulatedBSD("libkqueue"), Stale()) as selector:
        selector.register(near, EVENT_READ)
        timer = threading.Timer(0.1, selector.wakeup)
        timer.start()
        assert selector.select(PATIENCE) == []
        timer.join()


def test_a_timeout_that_is_longer_than_macos_accepts(pair):
    """A wait of a month is made of several; each asks for less than macOS refuses."""
    near, far = pair
    asked = []

    def hook(call):
        if is_wait(call):
            asked.append(call.arguments[5].tv_sec)
            if len(asked) < 3:
                return 0
            far.send(b"x")
        return call.run()

    with make(SimulatedBSD("darwin"), hook) as selector:
        key = selector.register(near, EVENT_READ)
        assert selector.select(30 * 86400) == [(key, EVENT_READ)]
    assert asked == [1_000_000] * 3


def test_buffers_grow_and_shrink(kernel):
    """All that is ready comes with one call, and the room for it is given back after the burst."""
    pipes = [os.pipe() for _ in range(100)]
    with KqueueSelector(binding=kernel.binding()) as selector:
        for reader, writer in pipes:
            selector.register(reader, EVENT_READ)
            os.write(writer, b"x")
        for _ in range(2):
            assert len(selector.select(0)) == 100
        assert [buffer.capacity for buffer in selector._idle] == [256]
        for reader, _ in pipes[1:]:
            os.read(reader, 1)
        assert len(selector.select(0)) == 1
        assert [buffer.capacity for buffer in selector._idle] == [16]
    assert selector._idle == []
    for ends in pipes:
        for end in ends:
            os.close(end)


def test_a_waker_is_added_while_threads_sleep(kernel):
    """Two threads sleep in a kqueue without a waker: each wake-up ends one wait, close() ends all."""
    with no_descriptor_left():
        selector = KqueueSelector(binding=kernel.binding())
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(selector.select(PATIENCE))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        asleep(kernel, selector, 3)
        assert selector._waker is None
        selector.wakeup()
        end = time.monotonic() + PATIENCE
        while not results:
            assert time.monotonic() < end
            os.sched_yield()
        asleep(kernel, selector, 2)
        assert len(results) == 1
        selector.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [[], [], []]
        assert selector._waker is None


def test_no_descriptor_for_one_thread(kernel, pair):
    """A selector that one thread uses has the kqueue and no other descriptor."""
    near, far = pair
    far.send(b"x")
    with KqueueSelector(binding=kernel.binding()) as selector, no_descriptor_left():
        selector.register(near, BOTH)
        assert len(selector.select(1)) == 1
        assert selector.modify(near, EVENT_READ).events == EVENT_READ
        assert len(selector.select(None)) == 1
        selector.unregister(near)
        assert selector.select(0.01) == []


def test_no_descriptor_is_left_for_a_waker(kernel, monkeypatch):
    """wakeup() says that no descriptor is left; close() ends what it can, and closes the kqueue."""

    def refuse(**_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(kqueue, "lend", refuse)
    selector = KqueueSelector(binding=kernel.binding())
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        selector.wakeup()
    assert selector.select(0) == []
    thread = threading.Thread(target=selector.select, args=(PATIENCE,))
    thread.start()
    asleep(kernel, selector)
    selector.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
def test_a_forked_child_has_no_kqueue(kernel, pair):
    """In the child every method that asks the kernel says closed, and the parent hears nothing of it."""
    near, far = pair
    with KqueueSelector(binding=kernel.binding()) as selector:
        key = selector.register(near, EVENT_READ)
        selector.wakeup()
        assert selector.select(0) == []
        child = os.fork()
        if child == 0:
            calls = (
                selector.fileno,
                selector.select,
                selector.wakeup,
                lambda: selector.select_raw(0),
                lambda: selector.register(far, EVENT_READ),
                lambda: selector.modify(near, BOTH),
                lambda: selector.unregister(near),
            )
            code = 0
            for call in calls:
                try:
                    call()
                except ValueError as error:
                    code |= "closed" not in str(error)
                else:
                    code = 2
            selector.close()
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert selector.select(0) == []
        far.send(b"x")
        assert selector.select(PATIENCE) == [(key, EVENT_READ)]


def test_two_threads_add_a_waker(kernel):
    """When two threads wake at once, one waker is used and the other is given back."""
    with no_descriptor_left(), KqueueSelector(binding=kernel.binding()) as selector:
        whole = selector._apply
        used = []

        def overtaken(fd, changes, serial):
            if not used:
                used.append(None)
                used[0] = selector._add_waker()
            return whole(fd, changes, serial)

        selector._apply = overtaken
        selector.wakeup()
        assert selector._waker is used[0]
        assert watched(kernel, selector) == {selector._waker.reader: EVENT_READ}
        assert selector.select(PATIENCE) == []
        del selector._apply


def test_results_of_two_sockets_keep_their_order(kernel):
    """A descriptor that is ready for both directions is one result, where its first event stood."""
    (one, far_one), (two, far_two) = socket.socketpair(), socket.socketpair()
    with one, far_one, two, far_two, KqueueSelector(binding=kernel.binding()) as selector:
        keys = {selector.register(one, BOTH), selector.register(two, BOTH)}
        far_one.send(b"x")
        far_two.send(b"x")
        found = selector.select(0)
        assert {key for key, _ in found} == keys
        assert [events for _, events in found] == [BOTH, BOTH]
