"""``wakeup()``: on every backend it ends the wait of another thread, or the next one of this thread."""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi import EVENT_READ as READ
from selectors_ffi import EVENT_WRITE as WRITE
from selectors_ffi import ONESHOT
from selectors_ffi.backends import wake
from selectors_ffi.testing.calls import sleeps, waits
from selectors_ffi.testing.library import Proxy

from . import tally
from .bytecodes import AtBytecode
from .crew import PATIENCE, Crew
from .kernels.machines import SOME, no_descriptor_left
from .test_async_exceptions import Interrupter
from .test_fork import in_child
from .wakers import close_idle_wakers

pytestmark = pytest.mark.ours

BOTH = READ | WRITE


@pytest.fixture(params=SOME, ids=str)
def machine(request):
    """Every backend, on one kernel of each peculiarity."""
    return request.param


@pytest.fixture
def stage(machine):
    """A selector, and what happens when a wait is about to sleep."""
    return on_stage(machine)


def on_stage(machine):
    """Return a booted machine whose sleeping waits call ``stage.arrive``."""
    stage = SimpleNamespace(arrive=bool, sleeping=0, ended=threading.Semaphore(0))

    def hook(call):
        if waits(call) and sleeps(call):
            stage.sleeping += 1
            stage.arrive()
        return call.run()

    stage.session = machine.boot(lambda whole: Proxy(whole, hook))
    stage.selector = stage.session.selector
    return stage


def waiting(stage, selector, timeout=None):
    """Start a thread that waits in ``selector``; return its crew and where its result will be."""
    arrived, found = threading.Event(), []
    stage.arrive = arrived.set
    crew = Crew()

    def wait():
        found.append(selector.select(timeout))
        stage.ended.release()

    crew.start(wait)
    assert arrived.wait(PATIENCE)
    stage.arrive = bool
    return crew, found


def takes(selector, seconds):
    """Tell whether a wait with nothing ready takes its time."""
    begin = time.monotonic()
    found = selector.select(seconds)
    return found == [] and time.monotonic() - begin >= seconds


# -- one thread


@pytest.mark.parametrize("timeout", [None, PATIENCE, 0])
@pytest.mark.parametrize("used", ["never", "once", "twice"])
def test_the_next_wait_ends_at_once(stage, pair, timeout, used):
    """A wake-up before the wait ends it with [], and only that one."""
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        for _ in range(["never", "once", "twice"].index(used)):
            selector.select(0)
        selector.wakeup()
        assert selector.select(timeout) == []
        assert takes(selector, 0.02)


@pytest.mark.parametrize("timeout", [None, PATIENCE, 0])
def test_several_wakeups_end_one_wait(stage, pair, timeout):
    """Wake-ups are coalesced: however many there were, the wait after the next takes its time."""
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        for _ in range(3):
            selector.wakeup()
        assert selector.select(timeout) == []
        assert takes(selector, 0.02)


@pytest.mark.parametrize("events", [READ, BOTH])
@pytest.mark.parametrize("timeout", [None, PATIENCE, 0])
def test_what_is_ready_is_returned(stage, pairs, events, timeout):
    """The wait that a wake-up ends returns what is ready; the wake-up itself is no result."""
    with stage.selector() as selector:
        for near, far in pairs:
            selector.register(near, events)
            far.send(b"x")
        expected = {near.fileno(): events for near, _ in pairs}
        for _ in range(3):
            selector.wakeup()
            assert {key.fd: ready for key, ready in selector.select(timeout)} == expected
        for near, _ in pairs:
            near.recv(1)
            selector.unregister(near)
        assert takes(selector, 0.02)


def test_it_is_not_in_the_map(stage, pair):
    """A wake-up adds nothing to the registrations, and raw events do not report it."""
    with stage.selector() as selector:
        key = selector.register(pair[0], WRITE)
        selector.wakeup()
        assert [(event.key, event.fd) for event in selector.select_raw(PATIENCE)] in (
            [(key, key.fd)],
            [],
        )
        selector.wakeup()
        assert selector.select(None) == [(key, WRITE)]
        assert list(selector.get_map()) == [key.fd]


def test_a_closed_selector_has_no_wakeup(stage):
    """After close() it is a ValueError, as every method is."""
    selector = stage.selector()
    selector.close()
    with pytest.raises(ValueError, match="closed selector"):
        selector.wakeup()


def test_nothing_is_left_of_a_wakeup(stage, pair):
    """A selector that was woken, and closed with or without a wait, leaves no descriptor open."""
    with no_descriptor_left():
        for wait in (False, True):
            with stage.selector() as selector:
                selector.register(pair[0], READ)
                selector.wakeup()
                if wait:
                    assert selector.select(PATIENCE) == []


@pytest.mark.parametrize("moment", ["before the call", "in the call"])
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_signal_handler_wakes_the_thread_that_it_interrupts(stage, pair, moment, timeout):
    """A handler that runs just before the system call, or interrupts it, ends the wait."""
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        if moment == "before the call":

            def arrive():
                stage.arrive = bool
                selector.wakeup()

            stage.arrive = arrive
            assert selector.select(timeout) == []
        else:
            previous = signal.signal(signal.SIGALRM, lambda *_: selector.wakeup())
            # The signal comes again: the first one may come just before the call.
            stage.arrive = lambda: signal.setitimer(signal.ITIMER_REAL, 0.005, 1.0)
            try:
                assert selector.select(timeout) == []
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, previous)
            stage.arrive = bool
        assert takes(selector, 0.02)


# -- other threads


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("registered", [0, READ, BOTH])
def test_another_thread_is_woken(stage, pair, timeout, registered):
    """Its wait returns [], again and again; then it hears of events as before."""
    near, far = pair
    with stage.selector() as selector:
        if registered:
            selector.register(near, registered & READ)
        for _ in range(3):
            crew, found = waiting(stage, selector, timeout)
            selector.wakeup()
            crew.join()
            assert found == [[]]
        key = selector.modify(near, READ, 1) if registered else selector.register(near, READ)
        crew, found = waiting(stage, selector, timeout)
        far.send(b"x")
        crew.join()
        assert found == [[(key, READ)]]


def test_each_wakeup_ends_a_wait(stage, pair):
    """Of three threads that wait, three wake-ups end three, each after the one before."""
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        crews = [waiting(stage, selector) for _ in range(3)]
        for _ in crews:
            selector.wakeup()
            assert stage.ended.acquire(timeout=PATIENCE)
        for crew, found in crews:
            crew.join()
            assert found == [[]]


def test_close_ends_the_waits(stage, pair):
    """close() by another thread ends every wait with []; the last one gives the wakers back."""
    with no_descriptor_left():
        selector = stage.selector()
        selector.register(pair[0], READ)
        crews = [waiting(stage, selector, timeout) for timeout in (None, PATIENCE, None)]
        selector.close()
        for crew, found in crews:
            crew.join()
            assert found == [[]]
        with pytest.raises(ValueError, match="closed selector"):
            selector.wakeup()


def test_a_wait_that_is_about_to_begin_ends_with_its_selector(stage, pair):
    """It does not go on in a selector that was made meanwhile and would have the same number."""
    arrived, go_on, found = threading.Event(), threading.Event(), []
    selector = stage.selector()
    selector.register(pair[0], READ)

    def arrive():
        arrived.set()
        assert go_on.wait(PATIENCE)

    stage.arrive, crew = arrive, Crew()
    crew.start(lambda: found.append(selector.select()))
    assert arrived.wait(PATIENCE)
    selector.close()
    with stage.selector() as new:
        key = new.register(pair[0], READ, trigger=ONESHOT)
        stage.arrive = bool
        go_on.set()
        crew.join()
        assert found == [[]]
        pair[1].send(b"x")
        assert new.select(0) == [(key, READ)]
    if hasattr(selector, "_descriptor"):
        assert not selector._descriptor.numbers


def test_a_wait_that_ends_while_close_wakes_it(stage, pair):
    """The descriptor stays until close() has rung, so that it rings in no other selector."""
    selector = stage.selector()
    if not hasattr(selector, "_descriptor"):
        pytest.skip("its kernel keeps nothing")
    selector.register(pair[0], READ)
    crew, found = waiting(stage, selector, 0.05)
    interrupt = selector._interrupt

    def late():
        crew.join()
        assert selector._descriptor.numbers
        interrupt()

    selector._interrupt = late
    selector.close()
    assert found == [[]]
    assert not selector._descriptor.numbers


def test_a_wait_that_begins_beside_close(stage, pair):
    """close() has not seen it, so it looks itself, and asks the kernel nothing."""
    selector = stage.selector()
    if not hasattr(selector, "_begin"):
        pytest.skip("its buffers tell close() of every wait")
    selector.register(pair[0], READ)
    begin = selector._begin

    def late(buffer):
        selector.close()
        begin(buffer)

    selector._begin = late
    assert selector.select() == []
    assert stage.sleeping == 0


def test_a_oneshot_that_is_armed_again_reaches_a_wait_that_sleeps(stage, pair):
    """What an exception has taken from one wait is reported by another, which slept already."""
    near, far = pair
    selector = stage.selector()
    key = selector.register(near, READ, trigger=ONESHOT)
    far.send(b"x")
    assert selector.select(5) == [(key, READ)]
    crew, found = waiting(stage, selector, 20)
    key.events.arm()
    selector._arm_again(*[[key.events]] if selector._mechanism != "epoll" else [])
    crew.join()
    assert found == [[(key, READ)]]
    selector.close()


def test_a_copy_that_is_closed_ends_the_waits_of_the_original(stage, pair):
    """They share what they have. So the original is closed, too."""
    selector = stage.selector()
    selector.register(pair[0], READ)
    crew, found = waiting(stage, selector)
    other = copy.copy(selector)
    other.close()
    crew.join()
    assert found == [[]]
    if hasattr(selector, "_descriptor"):
        assert not selector._descriptor.numbers
    with pytest.raises(ValueError, match="closed selector"):
        selector.select(0)
    selector.close()


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("turn", [1, -1], ids=["original", "copy"])
def test_a_copy_ends_the_waits_of_its_original(stage, pairs, used, turn):
    """A wake-up or a change by the one reaches a wait of the other that sleeps already."""
    (near, _), (late, _), *_ = pairs
    selector = stage.selector()
    if used:
        selector.register(near, READ)
        selector.select(0)
    one, other = (selector, copy.copy(selector))[::turn]
    for _ in range(2):
        crew, found = waiting(stage, other)
        one.wakeup()
        crew.join()
        assert found == [[]]
        assert takes(one, 0.02)
    crew, found = waiting(stage, other)
    key = one.register(late, WRITE)
    crew.join()
    assert found == [[(key, WRITE)]]
    one.modify(late, READ)
    crew, found = waiting(stage, other)
    key = one.modify(late, BOTH, "new")
    crew.join()
    assert found == [[(key, WRITE)]]
    selector.close()


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_change_is_heard_at_once(stage, pairs, timeout):
    """What another thread registers, modifies and unregisters holds for a wait that sleeps already."""
    (near, far), (other, _), *_ = pairs
    with stage.selector() as selector:
        selector.register(other, READ)
        crew, found = waiting(stage, selector, timeout)
        key = selector.register(near, WRITE)
        crew.join()
        assert found == [[(key, WRITE)]]
        selector.modify(near, READ)
        crew, found = waiting(stage, selector, timeout)
        key = selector.modify(near, BOTH, "new")
        crew.join()
        assert found == [[(key, WRITE)]]
        selector.modify(near, READ)
        crew, found = waiting(stage, selector, timeout)
        selector.unregister(near)
        far.send(b"x")
        selector.wakeup()
        crew.join()
        assert found == [[]]


# -- the order: check, arm, sleep


class Pause(AtBytecode):
    """Something is done at the n-th bytecode, or later, once."""

    def __init__(self, place, action):
        super().__init__(place)
        self.action = action
        self.where = "at the system call"

    def act(self):
        """Do it, unless it was done."""
        action, self.action = self.action, None
        if action is not None:
            before = sys.gettrace()
            sys.settrace(None)
            action()
            sys.settrace(before)


def in_thread(crew, function):
    """Run a function in another thread, to its end or until it waits for a lock of this thread's."""
    crew.start(function).join(BLOCKED)


BLOCKED = 0.03  # seconds: a thread that takes so long waits for a lock of this one's
LOST = 20  # seconds: a wait that takes so long was not woken
STEP = 1 if tally.long_profile() else 17 if sys.implementation.name == "cpython" else 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("by", ["thread", "handler"])
@pytest.mark.parametrize("used", [0, 2])
def test_no_wakeup_is_lost_on_the_way_to_sleep(machine, pair, by, used):
    """A wake-up at any bytecode of a wait, up to the system call, ends that wait.

    At every 17th bytecode, on PyPy at every fifth line; at every one with the long profile.
    """
    place, reached = 1, True
    while reached:
        stage = on_stage(machine)
        with stage.selector() as selector:
            selector.register(pair[0], READ)
            for _ in range(used):
                selector.select(0)
            crew = Crew()
            pause = Pause(
                place,
                selector.wakeup if by == "handler" else partial(in_thread, crew, selector.wakeup),
            )
            stage.arrive = pause.act  # the last moment
            begin = time.monotonic()
            reached = pause.run(partial(selector.select, LOST))
            stage.arrive = bool
            crew.join()
            assert time.monotonic() - begin < LOST, pause.where
            assert pause.found == [], pause.where
        place += STEP
    tally.count("wake-ups at a bytecode of a wait", place // STEP)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("used", [0, 2])
def test_no_change_is_lost_on_the_way_to_sleep(machine, pair, used):
    """What another thread registers at any bytecode of a wait without end is reported by that wait."""
    place, reached = 1, True
    while reached:
        stage = on_stage(machine)
        with stage.selector() as selector:
            for _ in range(used):
                selector.select(0)
            crew = Crew()
            register = partial(selector.register, pair[0], WRITE)
            pause = Pause(place, partial(in_thread, crew, register))
            stage.arrive = pause.act
            reached = pause.run(partial(selector.select, LOST))
            crew.join()
            assert pause.found == [(selector.get_key(pair[0]), WRITE)], pause.where
        place += STEP


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["wakeup", "close", "register"])
@pytest.mark.parametrize("used", [0, 2])
def test_a_wait_that_begins_in_the_middle_of_a_wakeup(machine, pair, what, used):
    """A thread goes to sleep while another one is at any bytecode of wakeup(), close() or register().

    The sleeper is woken when that goes on. close() may be over for it: then it is a ValueError.
    """
    with no_descriptor_left():
        begin_at_every_place(machine, pair, what, used)
        gc.collect()  # once: it takes PyPy a quarter of a second


def begin_at_every_place(machine, pair, what, used):
    """Have a wait begin at each place of an action, every third time with no other selector beside."""
    place, reached = 1, True
    while reached:
        stage = on_stage(machine)
        with contextlib.nullcontext() if place % 3 == 0 else stage.selector() as _:
            selector = stage.selector()
            for _ in range(used):
                selector.select(0)
            crew, found = Crew(), []

            def wait(selector=selector, found=found):
                try:
                    found.append(selector.select(LOST))
                except ValueError:
                    assert what == "close"
                    found.append([])

            def begin(stage=stage, crew=crew, wait=wait):
                arrived = threading.Event()
                stage.arrive = arrived.set
                thread = crew.start(wait)
                # It may have to wait for a lock of this thread's.
                deadline = time.monotonic() + BLOCKED
                while thread.is_alive() and time.monotonic() < deadline and not arrived.wait(0.001):
                    pass
                stage.arrive = bool

            begun = time.monotonic()
            act = {
                "wakeup": selector.wakeup,
                "close": selector.close,
                "register": lambda selector=selector: selector.register(pair[0], WRITE),
            }[what]
            reached = Pause(place, begin).run(act)
            crew.join()
            if reached:
                expected = [(pair[0], WRITE)] if what == "register" else []
                assert [[(key.fileobj, events) for key, events in one] for one in found] == [expected]
                assert time.monotonic() - begun < LOST, f"at bytecode {place}"
            selector.close()
        place += STEP


@pytest.mark.timeout(60)
def test_a_wakeup_that_an_exception_ends(machine, pair):
    """KeyboardInterrupt at any bytecode of wakeup(): the next wake-up ends a wait, and nothing leaks."""
    place, interrupted = 0, True
    while interrupted:
        place += 1
        stage = on_stage(machine)
        with stage.selector() as selector:
            selector.register(pair[0], READ)
            selector.select(0)
            interrupted = Interrupter(place).run(selector.wakeup)
            selector.select(0)
            selector.wakeup()
            begin = time.monotonic()
            assert selector.select(LOST) == []
            assert time.monotonic() - begin < LOST, f"at bytecode {place}"
    assert place > 3


# -- descriptors


def test_a_refused_wakeup_is_made_again(stage, pair, monkeypatch):
    """Where no descriptor is left, wakeup() may raise OSError; the next one that can be made works."""
    near, far = pair
    refused = []

    def refuse(waker):
        refused.append(waker)
        raise OSError(24, os.strerror(24))

    close_idle_wakers()
    with monkeypatch.context() as patch, stage.selector() as selector:
        selector.register(near, READ)
        patch.setattr(wake.Waker, "_open", refuse)
        try:
            selector.wakeup()
        except OSError:
            assert refused
        patch.undo()
        selector.wakeup()
        assert selector.select(PATIENCE) == []
        far.send(b"x")
        assert len(selector.select(PATIENCE)) == 1


def test_a_thread_waits_where_no_descriptor_is_left(stage, pair, monkeypatch):
    """A wait that can have no waker sleeps, and keeps its time; what comes is reported."""
    near, far = pair

    def refuse(waker):
        raise OSError(24, os.strerror(24))

    close_idle_wakers()
    with monkeypatch.context() as patch, stage.selector() as selector:
        key = selector.register(near, READ)
        patch.setattr(wake.Waker, "_open", refuse)
        crew, results = Crew(), []

        def wait():
            results.append(takes(selector, 0.05))
            far.send(b"x")
            results.append(selector.select(PATIENCE))

        crew.start(wait)
        crew.join()
        assert results == [True, [(key, READ)]]
        assert stage.sleeping < 10


def test_a_program_that_closed_all_descriptors(stage, pair, tmp_path):
    """The waker's numbers may name other files later, as in a daemon: nothing is written into them."""
    if stage.session.machine.mechanism in ("kqueue", "devpoll", "epoll", "eventport"):
        pytest.skip("the selector's own descriptor is gone, too")
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        crew, found = waiting(stage, selector)
        selector.wakeup()
        crew.join()
        (table,) = selector._idle
        numbers = table.waker.reader, table.waker._writer
        with open(tmp_path / "innocent", "w+b") as innocent:
            for number in numbers:
                os.dup2(innocent.fileno(), number)
            crew, found = waiting(stage, selector)
            selector.wakeup()
            crew.join()
            assert found == [[]]
            assert innocent.read() == b""
        for number in numbers:
            os.close(number)


@pytest.mark.parametrize("change", ["unregister", "modify"])
def test_a_waker_in_the_place_of_a_closed_descriptor(stage, pair, change):
    """What is closed first and unregistered or modified later gives its number to no waker."""
    if stage.session.machine.mechanism in ("poll", "select"):
        pytest.skip("a closed descriptor ends each wait, and the kernel keeps no list")
    close_idle_wakers()
    gc.collect()
    closed, far = socket.socketpair()
    with far, closed, contextlib.ExitStack() as lower, stage.selector() as selector:
        selector.register(pair[0], READ)
        selector.register(closed, READ)
        while (number := os.dup(far.fileno())) < closed.fileno():
            lower.callback(os.close, number)
        os.close(number)
        closed.close()  # now its number is the lowest that is free
        crew, found = waiting(stage, selector, PATIENCE)
        selector.wakeup()
        crew.join()
        if change == "unregister":
            selector.unregister(closed)
        else:
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                selector.modify(closed, BOTH)
        crew, found = waiting(stage, selector, PATIENCE)
        begun = time.monotonic()
        selector.wakeup()
        crew.join()
        assert found == [[]]
        assert time.monotonic() - begun < PATIENCE / 2


def test_a_waker_that_is_half_made(monkeypatch):
    """An exception may end the making anywhere: what there is of it is dropped without a word."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    place = 1
    while Interrupter(place).run(wake.Waker):
        place += 1
        gc.collect()
    gc.collect()
    assert place > 5
    assert told == []


@pytest.mark.parametrize("kind", [wake.Waker])
def test_a_waker_leaves_other_files_alone(kind, tmp_path):
    """A waker whose numbers name other files writes, reads and closes nothing."""
    waker = kind()
    numbers = waker.reader, waker._writer
    with open(tmp_path / "innocent", "w+b") as innocent:
        innocent.write(b"untouched")
        innocent.flush()
        innocent.seek(0)
        for number in numbers:
            os.dup2(innocent.fileno(), number)
        waker.ring()
        waker.drain()
        assert innocent.read() == b"untouched"
        waker.close()
        for number in numbers:
            assert os.path.sameopenfile(number, innocent.fileno())
            os.close(number)


# -- fork(2)


@pytest.mark.parametrize("before", [False, True])
def test_parent_and_child_wake_themselves(stage, pair, before):
    """After a fork each process wakes its own wait, and not the other's, as far as it has one."""
    if stage.session.machine.mechanism == "kqueue":
        pytest.skip("a child has no kqueue")
    if stage.session.machine.mechanism == "devpoll":
        pytest.skip("a child may not use /dev/poll")
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        if before:
            selector.wakeup()
            assert selector.select(PATIENCE) == []
            crew, _ = waiting(stage, selector)
            selector.wakeup()
            crew.join()

        def child():
            selector.wakeup()
            assert selector.select(PATIENCE) == []
            crew, found = waiting(stage, selector, PATIENCE)
            selector.wakeup()
            crew.join()
            assert found == [[]]
            selector.close()

        in_child(child)
        assert takes(selector, 0.02)
        selector.wakeup()
        assert selector.select(PATIENCE) == []
        assert takes(selector, 0.02)


def test_a_child_that_closes_ends_the_waits_of_its_own_threads(stage, pair):
    """Those of the parent's threads, which it does not have, make no difference."""
    if stage.session.machine.mechanism in ("kqueue", "devpoll"):
        pytest.skip("a child has none")
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        crew, found = waiting(stage, selector)

        def child():
            crew, found = waiting(stage, selector)
            selector.close()
            crew.join()
            assert found == [[]]

        in_child(child)
        selector.wakeup()
        crew.join()
        assert found == [[]]


@pytest.mark.parametrize("shared", [False, True])
def test_a_child_of_one_thread_that_closes_rings_for_nobody(stage, pair, shared):
    """The threads of the parent that wait are not the child's to wake."""
    if stage.session.machine.mechanism == "kqueue":
        pytest.skip("a child has no kqueue")
    with stage.selector() as selector:
        selector.register(pair[0], READ)
        if shared and hasattr(selector, "fileno"):
            selector.fileno()
        crew, found = waiting(stage, selector)

        def child():
            selector.close()
            with stage.selector() as own:
                assert takes(own, 0.1)  # meanwhile the parent would hear of it

        in_child(child)
        assert (found, stage.sleeping) == ([], 1)  # it still sleeps, and has not begun anew
        selector.wakeup()
        crew.join()
        assert found == [[]]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("what", ["wakeup", "reopen", "close"])
def test_a_wakeup_is_not_heard_in_the_other_process(before, what):
    """Nor does it keep the other process busy, whoever has rung, and whatever becomes of the child's."""
    stage = on_stage(next(machine for machine in SOME if str(machine) == "epoll"))
    left, right = socket.socketpair()
    with left, right, stage.selector() as selector:
        selector.register(left, READ)
        if before:
            selector.wakeup()
            assert selector.select(PATIENCE) == []
        if what == "close":  # with a thread of the parent's in a call, and one of the child's own
            crew, found = waiting(stage, selector)
        selector.wakeup() if before and what == "wakeup" else None  # which nobody has heard yet

        def child():
            if what == "close":
                Crew().start(threading.Event().wait, PATIENCE)
                selector.close()
                return
            assert takes(selector, 0.02)
            selector.wakeup()
            if what == "reopen":
                assert selector.select(PATIENCE) == []
                selector.reopen()
                selector.wakeup()

        in_child(child)
        if before and what == "wakeup":
            assert selector.select(PATIENCE) == []
        assert takes(selector, 0.02)  # and goes on in a set of its own
        stage.sleeping = 0
        assert takes(selector, 0.02)
        assert stage.sleeping <= 2  # perhaps the other thread, too, which has yet to begin anew
        if what == "close":
            selector.wakeup()
            crew.join()
            assert found == [[]]
        right.send(b"x")
        assert [events for _, events in selector.select(PATIENCE)] == [READ]
