"""Stale registrations: what epoll still reports of a number that was closed while a duplicate lives.

epoll(7), question 6: no call can remove one. But a new set without it can take the old one's number.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from itertools import count

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("epoll is Linux's", allow_module_level=True)

from selectors_ffi.backends import EVENT_READ, EVENT_WRITE, EpollSelector, epoll_set
from selectors_ffi.binding import load

from .crew import PATIENCE, Crew, asleep
from .kernels.machines import epoll_list, no_descriptor_left
from .scripts import Script

BOTH = EVENT_READ | EVENT_WRITE
STEPS = ("epoll_create1", "epoll_ctl", "dup3")  # of the replacement of a set


@pytest.fixture
def script():
    """What is to happen at the calls of ``selector``."""
    EpollSelector().close()  # its self-test tells which calls do not work here
    return Script(load())


@pytest.fixture
def selector(script):
    """A selector whose calls follow the script."""
    with EpollSelector(binding=script.binding) as selector:
        yield selector


@pytest.fixture
def others(selector, new_pair):
    """Three more registrations."""
    pairs = [new_pair() for _ in range(3)]
    for i, (near, _) in enumerate(pairs):
        selector.register(near, EVENT_READ, i)
    return pairs


@pytest.fixture
def make_stale(new_pair):
    """A function that leaves a stale, readable registration in a selector, and returns its number."""
    duplicates = []

    def make(selector):
        near, far = new_pair()
        selector.register(near, EVENT_READ)
        number = near.fileno()
        duplicates.append(near.dup())
        near.close()
        selector.unregister(near)
        far.send(b"x")
        return number

    yield make
    for duplicate in duplicates:
        duplicate.close()


@pytest.fixture
def stale(selector, make_stale):
    """The number of a stale registration in ``selector``."""
    return make_stale(selector)


def watched(selector):
    """What the kernel watches for the selector, without its waker.

    ``fileno()`` would say that the caller may add registrations of its own.
    """
    found = epoll_list(selector._descriptor.fd)
    if selector._waker is not None:
        found.pop(selector._waker.reader, None)
    return found


def wanted(selector):
    """What the kernel is to watch."""
    return {key.fd: key.events for key in selector.get_map().values()}


def labels(selector, timeout=PATIENCE):
    """The data of what is ready."""
    return sorted(key.data for key, _ in selector.select(timeout))


def waits(script):
    """How often the kernel was asked for events."""
    return script.calls["epoll_wait"] + script.calls["epoll_pwait2"]


# -- one thread


@pytest.mark.parametrize("timeout", [0.2, 0.05])
def test_the_wait_takes_its_time_and_seldom_asks(selector, script, others, stale, timeout):
    """A stale registration does not keep the processor busy: it is gone after the first wait."""
    begin = time.monotonic()
    assert selector.select(timeout) == []
    assert time.monotonic() - begin >= timeout
    assert waits(script) <= 4
    assert watched(selector) == wanted(selector)
    assert script.calls["dup3"] == 1


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_every_stale_registration_is_removed(selector, script, others, make_stale, timeout):
    """The second and the hundredth are removed like the first, within the timeout."""
    for i in range(100):
        make_stale(selector)
        before = waits(script)
        for _ in range(2 if timeout else 3):
            begin = time.monotonic()
            assert selector.select(timeout) == []
            assert time.monotonic() - begin >= timeout
        assert script.calls["dup3"] == i + 1
        assert waits(script) - before <= 5
    assert watched(selector) == wanted(selector)
    others[1][1].send(b"x")
    assert labels(selector) == [1]


def test_several_are_removed_at_once(selector, script, others, make_stale):
    """One new set does without all stale registrations that were reported."""
    for _ in range(10):
        make_stale(selector)
    assert selector.select(0.01) == []
    assert watched(selector) == wanted(selector)
    assert script.calls["dup3"] == 1


def test_a_wait_without_timeout_ends_with_the_next_event(selector, others, stale):
    """A wait for ever is not ended by a stale registration, and hears what is registered."""
    crew = Crew()
    found = []
    thread = crew.start(lambda: found.extend(selector.select(None)))
    asleep(thread, "epoll")
    others[0][1].send(b"x")
    crew.join()
    assert [(key.data, events) for key, events in found] == [(0, EVENT_READ)]
    assert watched(selector) == wanted(selector)


def test_what_comes_together_with_a_stale_registration_is_returned(selector, others, stale):
    """An event beside it is neither lost nor late."""
    others[2][1].send(b"x")
    for _ in range(3):
        assert labels(selector, 0) == [2]
    assert watched(selector) == wanted(selector)


def test_everything_else_stays(selector, others, stale):
    """The new set has the old one's number, and reports what is registered, in both directions."""
    number = selector._descriptor.fd
    assert selector.select(0.01) == []
    assert selector._descriptor.fd == number
    assert not os.get_inheritable(number)
    for _, far in others:
        far.send(b"x")
    assert [(key.data, events) for key, events in selector.select(PATIENCE)] == [
        (0, EVENT_READ), (1, EVENT_READ), (2, EVENT_READ)]  # fmt: skip
    selector.modify(others[1][0], BOTH, 1)
    assert (selector.get_key(others[1][0]), BOTH) in selector.select(PATIENCE)


def test_a_number_that_names_another_file_now(selector, others, stale):
    """The registration that has the stale one's number stays."""
    left, right = socket.socketpair()
    with left, right:
        if left.fileno() != stale:
            os.dup2(left.fileno(), stale)
        key = selector.register(stale, EVENT_READ, "reused")
        assert selector.select(0.01) == []
        assert watched(selector) == wanted(selector)
        right.send(b"x")
        assert selector.select(PATIENCE) == [(key, EVENT_READ)]
        selector.unregister(stale)
        if left.fileno() != stale:
            os.close(stale)


def test_a_number_that_names_another_file_before_unregister(selector, others, new_pair):
    """unregister of a number that was closed and reused leaves a stale registration, too."""
    (near, far), (left, right) = new_pair(), new_pair()
    number = near.fileno()
    selector.register(number, EVENT_READ)
    with near.dup():
        os.dup2(left.fileno(), number)
        selector.unregister(number)
        far.send(b"x")
        assert selector.select(0.01) == []
        assert watched(selector) == wanted(selector)
        selector.register(number, EVENT_READ, 9)
        right.send(b"x")
        assert labels(selector) == [9]
        selector.unregister(number)


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="os has no eventfd(2)")
def test_a_file_without_an_inode_of_its_own(selector, script, others):
    """eventfds share one inode; a stale one is removed though another has its number."""
    number = os.eventfd(1)
    selector.register(number, EVENT_READ)
    duplicate = os.dup(number)
    os.close(number)
    selector.unregister(number)
    assert os.eventfd(0) == number
    for _ in range(2):
        begin = time.monotonic()
        assert selector.select(0.05) == []
        assert time.monotonic() - begin >= 0.05
    assert script.calls["dup3"] == 1
    os.close(number)
    os.close(duplicate)


def test_what_is_registered_and_closed_is_not_lost(selector, script, others, stale, new_pair):
    """Where something registered cannot be named either, the set stays as it is."""
    near, far = new_pair()
    selector.register(near, EVENT_READ, 7)
    with near.dup():
        near.close()
        assert selector.select(0.01) == []
        assert script.calls["dup3"] == 0
        far.send(b"x")
        assert labels(selector) == [7]
        selector.unregister(near)
    for _ in range(2):
        assert selector.select(0.01) == []
    assert watched(selector) == wanted(selector)


def test_one_file_under_many_numbers(selector, script, new_pair, stale):
    """A file that is registered under hundreds of numbers is registered so in the new set."""
    near, far = new_pair()
    duplicates = [os.dup(near.fileno()) for _ in range(510)]
    try:
        for duplicate in duplicates:
            selector.register(duplicate, EVENT_READ)
        assert selector.select(0.01) == []
        assert script.calls["dup3"] == 1
        far.send(b"x")
        assert len(selector.select(PATIENCE)) == len(duplicates)
    finally:
        for duplicate in duplicates:
            selector.unregister(duplicate)
            os.close(duplicate)


def test_serials_do_not_end(selector, script, others, make_stale, monkeypatch):
    """After the last serial comes the first one."""
    monkeypatch.setattr(epoll_set, "_serials", count(2**32 - 3))  # a multiple of all that there are
    for _ in range(6):
        number = make_stale(selector)
        duplicate = os.dup2(others[0][0].fileno(), number)
        selector.register(duplicate, EVENT_READ, 9)
        assert selector.modify(duplicate, BOTH, 9).events == BOTH
        assert labels(selector) == [9]
        selector.unregister(duplicate)
        os.close(duplicate)
        for _ in range(2):
            assert selector.select(0.01) == []
    assert watched(selector) == wanted(selector)


def test_a_set_without_stale_registrations_is_not_replaced(selector, script, new_pair):
    """One thread registers and unregisters what is ready, another waits: no set is replaced."""
    near, far = new_pair()
    far.send(b"x")
    rounds = 3000

    def change():
        for _ in range(rounds):
            selector.register(near, EVENT_READ)
            selector.unregister(near)

    crew = Crew()
    thread = crew.start(change)
    while thread.is_alive():
        selector.select(0.001)
    crew.join()
    assert script.calls["dup3"] == 0


# -- a set that is not ours alone


def test_a_set_that_the_caller_has_asked_for_stays(selector, script, others, stale):
    """After ``fileno()`` another epoll may watch the set: it keeps its watcher, and select() returns."""
    with selectors.EpollSelector() as outer:
        outer.register(selector, EVENT_READ)
        for timeout in (None, PATIENCE, 0):
            before = waits(script)
            assert selector.select(timeout) == []
            assert waits(script) == before + 1
        assert script.calls["dup3"] == 0
        others[0][1].send(b"x")
        assert labels(selector) == [0]
        assert [key.fileobj for key, _ in outer.select(PATIENCE)] == [selector]


def test_a_duplicate_of_the_descriptor_is_the_same_set(selector, script, others, stale):
    """A duplicate that the caller has made goes on reporting what is registered afterwards."""
    duplicate = os.dup(selector.fileno())
    assert selector.select(0.01) == []
    assert script.calls["dup3"] == 0
    others[0][1].send(b"x")
    with select.epoll.fromfd(duplicate) as other:
        assert (others[0][0].fileno(), select.EPOLLIN) in other.poll(0)


def test_what_the_caller_has_added_stays(selector, others, new_pair):
    """Events of descriptors that the caller has added itself are not removed, and end the wait."""
    near, far = new_pair()
    with select.epoll.fromfd(os.dup(selector.fileno())) as other:
        other.register(near, select.EPOLLIN)
        far.send(b"x")
        assert selector.select(None) == []
        assert selector.select(0) == []
        assert other.poll(0) == [(near.fileno(), select.EPOLLIN)]
        other.unregister(near)


@pytest.mark.parametrize("half", [0, 0x081BF914, 0x5655A000, 0xF7FB3000, 0xFFFFD000, 0x7FFF, 0x3FF00000])
def test_what_a_caller_leaves_in_a_token(selector, new_pair, half):
    """select.epoll leaves in half of a token what was in memory: a pointer of any process, a number."""
    near, far = new_pair()
    key = selector.register(near, EVENT_READ)
    call, ffi = selector._binding.call, selector._binding.ffi
    event = ffi.new("struct epoll_event *", {"events": select.EPOLLIN})
    event.data = near.fileno() | half << 32
    epoll_ctl, change = (
        selector._binding.function("epoll_ctl"),
        selector._binding.constant("EPOLL_CTL_MOD"),
    )

    call(epoll_ctl, selector.fileno(), change, near.fileno(), event)
    far.send(b"x")

    assert selector.select(PATIENCE) == [(key, EVENT_READ)]


def test_what_the_caller_has_widened_stays(selector, others):
    """An interest to which the caller has added EPOLLPRI is left alone, and is reported as reading."""
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far, select.epoll.fromfd(os.dup(selector.fileno())) as other:
            key = selector.register(near, EVENT_READ, "urgent")
            other.modify(near, select.EPOLLPRI)
            far.send(b"!", socket.MSG_OOB)
            for _ in range(3):
                assert selector.select(PATIENCE) == [(key, EVENT_READ)]
            # Widened, too, in a direction that the registry does not know of.
            other.modify(near, select.EPOLLPRI | select.EPOLLOUT)
            near.recv(1, socket.MSG_OOB)
            assert selector.select(PATIENCE) == []
            assert (near.fileno(), select.EPOLLOUT) in other.poll(0)
            selector.unregister(near)


def start_child(function):
    """Run a function in a forked child, whose status is 0 if it returned true."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if function() else 1
        finally:
            os._exit(code)
    return child


def test_a_set_that_a_child_shares_stays(selector, script, others, make_stale):
    """After fork(2) parent and child share the set: neither replaces it."""

    def child():
        return selector.select(0.01) == [] and script.calls["dup3"] == 0

    make_stale(selector)
    assert os.waitpid(start_child(child), 0)[1] == 0
    assert selector.select(0.01) == []
    assert script.calls["dup3"] == 0


def test_what_a_child_registers_is_left_to_it(selector, others, new_pair):
    """The parent does not remove what the child has registered in the shared set, nor the reverse."""
    near, far = new_pair()
    parent_end, child_end = socket.socketpair()
    parent_end.settimeout(PATIENCE)
    child_end.settimeout(PATIENCE)

    def child():
        selector.register(near, EVENT_READ, 5)
        child_end.send(b"registered")
        return child_end.recv(9) == b"go on" and labels(selector) == [5]

    with parent_end, child_end:
        pid = start_child(child)
        assert parent_end.recv(20) == b"registered"
        far.send(b"x")
        for timeout in (0.01, None):
            assert selector.select(timeout) == []
        parent_end.send(b"go on")
        assert os.waitpid(pid, 0)[1] == 0


# -- refusals


def test_a_set_that_cannot_be_replaced_is_tried_once_a_wait(selector, script, others, stale):
    """A wait does not try again and again to replace a set; it returns [] as the standard library's."""
    for wait in range(1, 4):
        script.failing["dup3"] = errno.EMFILE
        assert selector.select(None) == []
        assert script.calls["dup3"] == wait
    assert selector.select(0.01) == []
    assert watched(selector) == wanted(selector)


def test_a_kernel_without_dup3(script, make_stale, new_pair):
    """Where there is no dup3(2) the set stays, and select() returns [] for it."""
    script.binding.refused.add("dup3")
    try:
        with EpollSelector(binding=script.binding) as selector:
            near, far = new_pair()
            selector.register(near, EVENT_READ, 1)
            make_stale(selector)
            assert selector.select(None) == []
            far.send(b"x")
            assert labels(selector) == [1]
    finally:
        script.binding.refused.discard("dup3")


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_the_kernel_refuses(selector, script, others, stale, name, threads):
    """When the kernel refuses a step the old set stays, and no descriptor is left."""
    leave = threading.Event()
    crew = Crew()
    if threads:
        crew.start(leave.wait, PATIENCE)

    def refuse():
        script.failing[name] = errno.EMFILE

    script.before["epoll_create1"] = refuse
    with no_descriptor_left():
        assert selector.select(0.02) == []
        if selector._rung:
            selector._rung.close()  # it is kept for the next time
            selector._rung = None
    assert script.calls["dup3"] == (name == "dup3")
    others[2][1].send(b"x")
    assert labels(selector) == [2]
    leave.set()
    crew.join()


def test_no_descriptor_is_left(selector, others, stale):
    """With no descriptor left the set stays, and what is registered is reported."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert selector.select(None) == []
        others[0][1].send(b"x")
        assert labels(selector) == [0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert labels(selector) == [0]
    assert watched(selector) == wanted(selector)


# -- signal handlers


@pytest.mark.parametrize("timeout", [0, None])
@pytest.mark.parametrize("name", STEPS)
def test_a_signal_handler_waits_while_the_set_is_replaced(
    selector, script, others, stale, name, timeout
):
    """A call in the middle does not replace the set a second time, and does not wait for the first."""
    seen = []

    def handler():
        seen.append(selector.select(0))
        seen.append(selector.select(timeout))

    def begin():
        script.before[name] = handler

    if name == "epoll_create1":
        script.before[name] = handler
    else:
        script.before["epoll_create1"] = begin
    assert selector.select(0.01) == []
    assert seen == [[], []]
    assert script.calls["dup3"] == 1
    assert watched(selector) == wanted(selector)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_a_signal_handler_changes_registrations_meanwhile(
    selector, script, others, stale, new_pair, moment, name
):
    """What a handler registers and unregisters meanwhile is in the new set, or not in it."""
    near, far = new_pair()

    def handler():
        selector.unregister(others[0][0])
        selector.register(near, EVENT_READ, 5)
        selector.modify(others[1][0], BOTH, 1)

    def begin():
        getattr(script, moment)[name] = handler

    if name == "epoll_create1":
        begin()
    else:
        script.before["epoll_create1"] = begin
    assert labels(selector) == [1]
    assert labels(selector) == [1]
    for _, peer in others:
        peer.send(b"x")
    far.send(b"x")
    for _ in range(2):
        assert labels(selector) == [1, 2, 5]
    assert watched(selector) == wanted(selector)


class Interrupt(Exception):
    """Raised by a signal handler."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_a_signal_handler_that_raises_meanwhile(selector, script, others, stale, moment, name):
    """An exception leaves the old set or the new one, and the next wait removes the rest."""

    def handler():
        raise Interrupt

    def begin():
        getattr(script, moment)[name] = handler

    if name == "epoll_create1":
        begin()
    else:
        script.before["epoll_create1"] = begin
    with pytest.raises(Interrupt):
        selector.select(0.01)
    for _ in range(2):
        assert selector.select(0.01) == []
    assert watched(selector) == wanted(selector)
    others[1][1].send(b"x")
    assert labels(selector) == [1]


# -- threads


@pytest.fixture
def company():
    """Another thread, that does nothing."""
    leave = threading.Event()
    crew = Crew()
    crew.start(leave.wait, 60)
    yield
    leave.set()
    crew.join()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_another_thread_changes_registrations_meanwhile(
    selector, script, others, stale, new_pair, company, moment, name
):
    """The set is replaced, and is as the registry says, whatever another thread does meanwhile."""
    near, far = new_pair()

    def change():
        selector.modify(others[1][0], EVENT_WRITE, 1)
        selector.unregister(others[0][0])
        selector.register(near, EVENT_READ, 5)

    def act():
        crew = Crew()
        crew.start(change)
        crew.join()

    def begin():
        getattr(script, moment)[name] = act

    if name == "epoll_create1":
        begin()
    else:
        script.before["epoll_create1"] = begin
    assert labels(selector) == [1]
    assert labels(selector) == [1]
    assert script.calls["dup3"] == 1
    assert watched(selector) == wanted(selector)
    for _, peer in others:
        peer.send(b"x")
    far.send(b"x")
    assert labels(selector) == [1, 2, 5]


CHANGES = {
    "register": lambda selector, near: selector.register(near, EVENT_READ, 5),
    "modify": lambda selector, near: selector.modify(near, BOTH, 5),
    "unregister": lambda selector, near: selector.unregister(near),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("half", ["before", "after"])
def test_a_change_that_lasts_while_the_set_is_replaced(others, new_pair, moment, name, change, half):
    """A change whose system call comes before, and whose end after the replacement, is not lost.

    The thread that waits stops at a step of the replacement. The main thread begins a change, and
    stops before or after its system call. The replacement is finished first, then the change.
    """
    script = Script(load())
    reached, begun, done = threading.Event(), threading.Event(), threading.Event()
    near, far = new_pair()
    keep, peer = new_pair()
    found = []

    def wait():
        selector.select(0.05)
        done.set()

    def stop_replacing():
        reached.set()
        assert begun.wait(PATIENCE)

    def stop_changing():
        begun.set()
        assert done.wait(PATIENCE)

    def begin():
        if name == "epoll_create1" and moment == "before":
            stop_replacing()
        else:
            getattr(script, moment)[name] = stop_replacing

    with EpollSelector(binding=script.binding) as selector:
        selector.register(keep, EVENT_READ, 1)
        if change != "register":
            selector.register(near, EVENT_READ, 0)
        stale, stale_far = new_pair()
        selector.register(stale, EVENT_READ)
        with stale.dup():
            stale.close()
            selector.unregister(stale)
            stale_far.send(b"x")
            script.before["epoll_create1"] = begin
            crew = Crew()
            crew.start(wait)
            assert reached.wait(PATIENCE)
            getattr(script, half)["epoll_ctl"] = stop_changing
            CHANGES[change](selector, near)
            crew.join()
            assert script.calls["dup3"] == 1
            assert watched(selector) == wanted(selector)
            far.send(b"x")
            peer.send(b"x")
            found = labels(selector)
            assert found == ([1] if change == "unregister" else [1, 5])


def waiter(crew, selector, heard):
    """Start a thread that waits, and return when it sleeps in the kernel."""
    thread = crew.start(lambda: heard.append(selector.select(PATIENCE)))
    asleep(thread, "epoll")
    return thread


@pytest.mark.parametrize("times", [1, 2, 20])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_that_wait_on_the_old_set_go_over(
    selector, script, others, make_stale, new_pair, times, threads
):
    """They hear what is registered in the new set, before and after, however often it is replaced."""
    heard, crew = [], Crew()
    waiters = [waiter(crew, selector, heard) for _ in range(threads)]
    before = os.listdir("/proc/self/fd")
    for i in range(times):
        number, far = new_pair()
        selector.register(number, EVENT_READ)
        with number.dup():
            number.close()
            selector.unregister(number)
            far.send(b"x")
            for _ in range(2):  # each of the threads may find and remove it
                selector.select(0)
        for thread in waiters:  # while one replaces the set, a closed number is an obstacle
            asleep(thread, "epoll")
    assert 1 <= script.calls["dup3"] <= times * (threads + 1)  # all may find it at the same time
    left, right = new_pair()
    selector.register(left, EVENT_READ, "after")
    right.send(b"x")
    crew.join()
    assert [[key.data for key, _ in found] for found in heard] == [["after"]] * threads
    assert watched(selector) == wanted(selector)
    # At most one pipe more for all of them, and the last pair.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2 + 3 + times


def test_a_thread_goes_over_to_a_registration_of_before(selector, script, others, make_stale):
    """What was registered before the replacement is heard by a thread that had waited before."""
    heard, crew = [], Crew()
    thread = waiter(crew, selector, heard)
    make_stale(selector)
    for _ in range(3):
        selector.select(0)
    asleep(thread, "epoll")
    assert script.calls["dup3"] == 1
    others[2][1].send(b"x")
    crew.join()
    assert [[key.data for key, _ in found] for found in heard] == [[2]]


def test_a_thread_that_python_did_not_start_goes_over(selector, script, others):
    """A thread of C's that waits on the old set goes over to the new one, too."""
    if sys.implementation.name == "pypy":
        pytest.skip("PyPy's callbacks wait for the thread that makes the call")
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(
        "int pthread_create(unsigned long *, void *, void *(*)(void *), void *);"
        "int pthread_join(unsigned long, void *);"
    )
    lib = ffi.dlopen(None)
    heard, found = [], []
    native = []

    @ffi.callback("void *(void *)")
    def run(_):
        native.append(threading.get_native_id())
        heard.append(selector.select(PATIENCE))
        return ffi.NULL

    near, far = socket.socketpair()
    selector.register(near, EVENT_READ)
    duplicate = near.dup()
    near.close()
    selector.unregister(near)

    made = ffi.new("unsigned long *")
    assert lib.pthread_create(made, ffi.NULL, run, ffi.NULL) == 0
    while not native:
        os.sched_yield()

    class Thread:
        native_id = native[0]

    asleep(Thread, "epoll")
    far.send(b"x")
    for _ in range(4):
        found += selector.select(0)
    asleep(Thread, "epoll")
    others[1][1].send(b"x")
    lib.pthread_join(made[0], ffi.NULL)
    assert [[key.data for key, _ in result] for result in heard] == [[1]]
    assert found == []
    duplicate.close()
    far.close()


def test_a_second_thread_waits_while_the_set_is_replaced(selector, script, others, stale):
    """A wait without timeout does not return because another thread is replacing the set."""
    reached, go_on = threading.Event(), threading.Event()
    heard, crew = [], Crew()

    def stop():
        reached.set()
        assert go_on.wait(PATIENCE)

    script.before["epoll_create1"] = stop
    crew.start(lambda: heard.append(selector.select(None)))
    assert reached.wait(PATIENCE)
    before = waits(script)
    crew.start(lambda: heard.append(selector.select(None)))
    while waits(script) < before + 5:
        os.sched_yield()
    assert heard == []
    go_on.set()
    others[0][1].send(b"x")
    crew.join()
    assert [[key.data for key, _ in found] for found in heard] == [[0], [0]]
    # What the second thread has heard of the old set by then it may answer once more.
    assert script.calls["dup3"] in (1, 2)
    assert watched(selector) == wanted(selector)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_a_wake_up_while_the_set_is_replaced(script, make_stale, name, moment):
    """wakeup() at any step of the replacement ends the wait of the thread that replaces."""
    with EpollSelector(binding=script.binding) as selector:
        make_stale(selector)
        crew = Crew()

        def begin():
            getattr(script, moment)[name] = selector.wakeup

        if name == "epoll_create1":
            begin()
        else:
            script.before["epoll_create1"] = begin
        heard = []
        crew.start(lambda: heard.append(selector.select(None)))
        crew.join()
        assert heard == [[]]
        assert selector.select(0.01) == []
        assert watched(selector) == {}


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_closing_while_the_set_is_replaced(script, make_stale, name, moment, in_thread):
    """close() at any step ends the wait, and what has got the number since is not touched."""
    crew, heard, opened = Crew(), [], []

    def close():
        selector.close()
        assert selector.get_map() is None
        while number not in opened and len(opened) < 3:
            opened.append(os.open("/dev/zero", os.O_RDONLY))

    def act():
        if in_thread:
            closing = Crew()
            closing.start(close)
            closing.join()
        else:
            close()

    def begin():
        getattr(script, moment)[name] = act

    selector = EpollSelector(binding=script.binding)
    number = selector._descriptor.fd
    make_stale(selector)
    with no_descriptor_left():
        if name == "epoll_create1":
            begin()
        else:
            script.before["epoll_create1"] = begin
        crew.start(lambda: heard.append(selector.select(None)))
        crew.join()
        assert heard == [[]]
        for number in opened:
            assert os.read(number, 1) == b"\0"
            os.close(number)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(number)
        selector._waker = selector._rung = None  # they go with the selector
        gc.collect()


def test_threads_wait_while_stale_registrations_come_and_go(selector, others, new_pair):
    """No thread dies, and every wait takes its time, while another makes stale registrations."""
    end = time.monotonic() + 0.5
    crew = Crew()

    def wait():
        while time.monotonic() < end:
            begin = time.monotonic()
            if not selector.select(0.02):
                assert time.monotonic() - begin >= 0.02

    def make():
        idle, _ = new_pair()
        while time.monotonic() < end:
            near, far = socket.socketpair()
            with near, far, near.dup():
                far.send(b"x")
                selector.register(near, EVENT_READ)
                os.dup2(idle.fileno(), near.fileno())  # what is registered is never closed
                selector.unregister(near)
                selector.select(0.001)

    for _ in range(3):
        crew.start(wait)
    crew.start(make)
    crew.join()
    assert watched(selector) == wanted(selector)
    for _, far in others:
        far.send(b"x")
    assert labels(selector) == [0, 1, 2]


# -- at every bytecode


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs signals")
def test_an_interrupt_at_every_bytecode_of_the_replacement(others, new_pair):
    """Wherever an exception comes, the next waits remove the stale registration and lose nothing."""
    from .test_async_exceptions import Interrupter

    place, interrupted = 0, True
    keep, peer = new_pair()
    peer.send(b"x")
    step = 1 if sys.implementation.name != "cpython" else 3
    while interrupted:
        place += step
        near, far = socket.socketpair()
        with near, far, EpollSelector() as selector:
            selector.register(near, EVENT_READ)
            selector.select(0)
            with near.dup():
                near.close()
                selector.unregister(near)
                far.send(b"x")
                selector.select(0)  # reported once
                selector.register(keep, EVENT_WRITE, 3)
                interrupted = Interrupter(place).run(lambda: selector.select(0))
                for _ in range(4):
                    assert labels(selector, 0) == [3]
                assert watched(selector) == wanted(selector)
    assert place > 20
