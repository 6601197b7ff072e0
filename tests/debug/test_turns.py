"""Blocked loops: the line that kept a loop from its next wait is named, and what is no loop is not."""

from __future__ import annotations

import _thread
import asyncio
import bdb
import gc
import os
import signal
import socket
import sys
import threading
import types
import warnings
import weakref
from time import monotonic, perf_counter_ns
from types import SimpleNamespace

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, debugging
from selectors_ffi.debug import BlockedLoop, ClosedWhileRegistered, Lint, blocked_after, checks, turns
from selectors_ffi.debug.loops import loop_around, refers_to
from selectors_ffi.debug.schedule import times_of
from selectors_ffi.debug.stacks import EXACT
from selectors_ffi.debug.turns import Threshold
from tests import apart, needs

pytestmark = pytest.mark.filterwarnings("ignore::selectors_ffi.debug.BlockedLoop")
exact = pytest.mark.skipif(not EXACT, reason="PyPy's frames cannot be looked at, see docs/lints.md")


@pytest.fixture(autouse=True)
def threshold():
    """A short threshold, so that nothing has to block for long."""
    before = Threshold.ns
    blocked_after(0.02)
    yield
    Threshold.ns = before


@pytest.fixture
def lints():
    """The lints of every selector that is made during the test."""
    kept = []

    def keep(record):
        if isinstance(record, Lint):
            kept.append(record)

    with debugging("checks", keep):
        yield kept


def block_until(done):
    """Keep the calling thread busy until something has happened."""
    deadline = monotonic() + 30
    while not done():
        assert monotonic() < deadline


def block(selector):
    """Keep the loop busy for as long as the threshold, and until its stack was looked at."""
    here = selector._observer.here()
    while here.samples is None or not here.samples.counts:
        pass  # the suite's own timeout ends this
    begin, spent = here.returned
    while perf_counter_ns() - begin - (here.spent.ns - spent) < Threshold.ns:
        pass


def loop(selector, work):
    """Wait some times, and work once."""
    for turn in range(3):
        selector.select(0)
        if turn == 1:
            work()


def test_a_blocked_loop_is_told_with_its_stack(backend, pairs, lints):
    """SEL010 names the function that blocked and those that called it, once for each place."""
    with backend() as selector:
        selector.register(pairs[0][0], EVENT_READ)
        for _ in range(2):
            loop(selector, lambda: block(selector))
    (lint,) = lints

    assert lint.id == BlockedLoop.id
    assert lint.place.startswith(f"{__file__}:")
    assert "the loop could not wait for 0." in lint.message
    assert "it was kept at " in lint.message
    assert " in block < " in lint.message
    assert " in <lambda>" in lint.message
    assert "in loop" not in lint.message, "the loop itself is no news"


@exact
@pytest.mark.parametrize("phase", [0.01, 0.25, 0.5, 0.75, 0.99])
def test_a_turn_that_is_hardly_too_long_has_been_seen(backend, monkeypatch, phase):
    """Whenever the looks come, a call as long as the threshold was seen for half of it at its end."""
    turns._watchdog.stop()
    monkeypatch.setattr(turns._watchdog, "running", True)  # it is called here instead
    monkeypatch.setattr(turns, "times_of", lambda thread: (0, 0, 0))
    seen = []

    def work():
        here = selector._observer.here()
        interval = turns._interval() * 1.02  # a sleep takes a little longer than asked for
        for look in range(4):
            moment = here.turn + int((look + phase) * interval)
            with monkeypatch.context() as patched:
                patched.setattr(turns, "perf_counter_ns", lambda moment=moment: moment)
                turns._watchdog._look()
        seen.extend(here.samples.counts)
        here.samples = None

    with debugging("checks", lambda record: None), backend() as selector:
        loop(selector, work)
    assert any(work.__name__ in str(place) for stack in seen for place in stack)


def test_c_code_that_lets_no_other_thread_run(monkeypatch):
    """What the loop's thread computed while ours could not look counts, unless ours had no processor."""
    watchdog = turns._Watchdog()
    watchdog._native = 1
    here = SimpleNamespace(source=SimpleNamespace(thread=2), used=10**9)

    def held(computed, lacked, slices):
        times = {1: (0, lacked, slices), 2: (10**9 + computed, 0, 0)}
        monkeypatch.setattr(turns, "times_of", lambda thread: times.get(thread, (0, 0, 0)))
        return watchdog._held(here)

    assert held(10**9, 0, 200) > 9 * 10**8
    assert held(10**9, 10**9, 200) > 9 * 10**8, "it woke up often, and the lock was not free"
    assert held(10**9, 10**9, 3) == 0, "it got no processor"
    assert held(0, 0, 0) == 0, "the process was stopped"
    assert held(10**9, 0, 0) == 0, "of ours nothing is known"


def test_the_first_turn_is_measured_from_its_begin(backend):
    """C code may keep the lock before ours has looked once: the thread's time is taken after a wait."""
    with debugging("checks"), backend() as selector:
        selector.select(0)
        here = selector._observer.here()
        assert here.used or not any(times_of(here.source.thread))


def test_the_warning_points_at_the_line_that_blocked(backend):
    """Python's warning has the file and the line of the function that blocked."""
    with debugging("checks"), backend() as selector, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop(selector, lambda: block(selector))
    assert [one.category for one in caught] == [BlockedLoop]
    assert caught[0].filename == __file__


def test_asyncio_names_the_task(lints):
    """In asyncio the task that blocked is named from the first turn on; on PyPy, its function."""

    async def handler():
        block(asyncio.get_running_loop()._selector)
        await asyncio.get_running_loop().run_in_executor(None, int)

    event_loop = asyncio.SelectorEventLoop(selectors_ffi.DefaultSelector())
    event_loop.run_until_complete(handler())
    event_loop.close()
    assert " in handler" in lints[0].message
    if EXACT:
        assert "it was kept by task 'Task-" in lints[0].message
        assert "test_asyncio_names_the_task.<locals>.handler at " in lints[0].message


def test_a_program_that_has_left_its_loop_is_not_blocked(backend, lints):
    """What runs between two runs of a loop is not the loop's, however long it takes."""
    with backend() as selector:
        for _ in range(2):
            loop(selector, lambda: None)
            end = monotonic() + 0.1
            block_until(lambda end=end: monotonic() > end)
    assert lints == []


def test_waits_in_a_row_are_no_loop(backend, lints):
    """A program that waits, works, and waits again has no loop, nor has one that has left it."""

    def work():
        end = monotonic() + 0.1
        block_until(lambda: monotonic() > end)

    def program():
        selector.select(0)
        work()
        selector.select(0)
        for _ in range(3):
            selector.select(0)
        work()
        selector.select(0)

    def run():
        program()

    with backend() as selector:
        run()
    assert lints == []


def test_a_loop_that_waits_through_functions(backend, lints):
    """The function that waits need not be the one that loops."""
    with backend() as selector:

        def wait():
            return selector.select(0)

        for turn in range(2):
            wait()
            if not turn:
                block(selector)
    assert len(lints) == 1


@exact
def test_many_short_callbacks_are_none_to_blame(lints):
    """A turn is long, too, when very many callbacks are due; no one of them has blocked."""
    event_loop = asyncio.SelectorEventLoop(selectors_ffi.DefaultSelector())
    ends = []

    def short():
        end = monotonic() + 0.001
        block_until(lambda: monotonic() > end)
        ends.append(monotonic())

    async def main():
        for _ in range(100):
            event_loop.call_soon(short)
        await event_loop.run_in_executor(None, int)

    for _ in range(10):
        event_loop.run_until_complete(main())
        if max(later - end for end, later in zip(ends, ends[1:])) < 0.04:
            break
        ends.clear()  # the machine is so busy that a callback was not short
        lints.clear()
    event_loop.close()
    assert lints == []


def test_the_same_code_of_another_loop(backend, lints):
    """A selector whose loop has ended is not blocked by another one that runs the same code."""
    with backend() as first, backend() as second:
        loop(first, lambda: None)
        loop(second, lambda: block(second))
    (lint,) = lints
    assert lint.source.selector == second._observer.name


def test_what_leads_to_a_selector():
    """A loop's selector is found in its variables, attributes and closures; not through modules."""

    class Holder:
        """Holds a thing."""

        def __init__(self, thing):
            self.thing = thing

    def in_variable(thing):
        return refers_to(sys._getframe(), wanted)

    def in_closure():
        nested = Holder(lambda: wanted)
        return refers_to(sys._getframe(), nested.thing.__closure__[0].cell_contents)

    def nowhere(*others):
        return refers_to(sys._getframe(), object())

    wanted = object()
    assert in_variable(Holder(Holder(wanted)))
    assert in_closure()
    assert not nowhere(sys, int, list(range(10_000)), [[[] for _ in range(50)] for _ in range(50)])
    assert not nowhere()


def test_what_leads_to_a_selector_beside_huge_containers():
    """However much else a program keeps, a selector in an attribute is found."""

    class Server:
        """Has many clients, in many tables, and a selector in an object of its own."""

        def __init__(self, selector):
            self.clients = {number: SimpleNamespace(number=number) for number in range(3000)}
            self.tables = [[SimpleNamespace() for _ in range(300)] for _ in range(30)]
            self.poller = SimpleNamespace(selector=selector)

        def serves(self, what):
            return refers_to(sys._getframe(), what[0]())

    wanted = Server(object())
    assert wanted.serves([lambda: wanted.poller.selector])
    assert not wanted.serves([object])


GLOBALS = """
class Server:
    held = selector

    def method(self):
        return selector

    def by_instance(self):
        return refers_to(sys._getframe(), wanted())

    @classmethod
    def by_class(cls):
        return refers_to(sys._getframe(), wanted())

def by_name():
    selector
    return refers_to(sys._getframe(), wanted())

def by_function():
    wait
    return refers_to(sys._getframe(), wanted())

def by_module():
    module.selector
    return refers_to(sys._getframe(), wanted())

def elsewhere():
    module
    return refers_to(sys._getframe(), wanted())

class Other(Server):
    held = None

    def by_method(self):
        return refers_to(sys._getframe(), wanted())

def wait():
    return selector

selector
at_module_level = refers_to(sys._getframe(), wanted())
"""


def test_what_leads_to_a_selector_that_is_no_local_variable():
    """A loop's selector may be a global that the code names, or an attribute of a class or a module."""
    module = types.ModuleType("program")
    names, selector = vars(module), selectors_ffi.SelectSelector()
    names.update(refers_to=refers_to, sys=sys, module=module, selector=selector)
    names["wanted"] = weakref.ref(selector)
    exec(GLOBALS, names)

    assert names["at_module_level"]
    assert names["by_name"]()
    assert names["by_function"]()
    assert names["by_module"]()
    assert names["Server"].by_class()
    assert names["Server"]().by_instance()
    assert not names["Other"]().by_method(), "through methods everything is reached"
    assert not names["elsewhere"]()


def test_a_person_who_debugs_blocks_nothing(backend, lints):
    """A program that stands in a debugger is late for a good reason."""
    names = {"block_until": block_until, "__name__": "bdb", "monotonic": monotonic}
    exec(
        compile("def stop(end):\n    block_until(lambda: monotonic() > end)", bdb.__file__, "exec"),
        names,
    )
    with backend() as selector:
        loop(selector, lambda: names["stop"](monotonic() + 0.1))
    assert lints == []


def test_what_is_ours_blocks_nothing(backend, lints):
    """The time that this package takes is not the program's."""
    code = "def work():\n    end = monotonic() + 0.1\n    while monotonic() < end:\n        pass"
    names = {"monotonic": monotonic}
    exec(compile(code, turns.__file__, "exec"), names)
    with backend() as selector:
        loop(selector, names["work"])
    assert lints == []


def test_no_threshold_no_lint(backend, lints):
    """0 switches the lint off; other values are seconds."""
    blocked_after(0)
    with backend() as selector:
        end = monotonic() + 0.1
        for _ in range(2):
            selector.select(0)
            block_until(lambda: monotonic() > end)
    assert lints == []
    for bad in (-1, float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match="takes seconds, 0 to 1,000,000, not"):
            blocked_after(bad)


@pytest.mark.parametrize(
    ("value", "fits"), [("0.25", True), ("soon", False), ("-1", False), ("1e300", False)]
)
def test_the_variable(value, fits):
    """SELECTORS_FFI_BLOCKED_AFTER sets the threshold; what is no number of seconds is told."""
    code = "from selectors_ffi.debug import turns; print(turns.Threshold.ns)"
    done = apart.python("-c", code, **{turns.BLOCKED_AFTER: value})
    if fits:
        assert done.stdout == "250000000\n"
    else:
        assert f"must be seconds, 0 to 1,000,000, not {value!r}" in done.stderr


@exact
def test_a_loop_that_does_not_come_back_is_told_meanwhile(backend, lints, monkeypatch):
    """After two seconds the lint does not wait for the end of the turn."""
    monkeypatch.setattr(turns, "HANGS", 0.05)
    with backend() as selector:
        loop(selector, lambda: block_until(lambda: lints))
    (lint,) = lints
    assert "no wait for 0." in lint.message
    assert " s so far: it was kept at " in lint.message


@exact
def test_a_function_that_hangs_in_every_turn_is_told_of_once(backend, lints, monkeypatch):
    """A later turn in which the same function hangs is not told of again."""
    monkeypatch.setattr(turns, "HANGS", 0.05)
    with backend() as selector:
        here = selector._observer.here()

        def hang():
            while here.samples is None or here.samples.told <= turns.HANGS * 1e9:
                pass  # the suite's own timeout ends this

        loop(selector, hang)
        told = len(lints)
        loop(selector, hang)
    assert 1 <= told == len(lints)


@exact
def test_an_error_is_raised_in_the_loop(backend, lints, monkeypatch):
    """A lint that is an error by the filters is raised by select(), though our thread has found it."""
    monkeypatch.setattr(turns, "HANGS", 0.05)
    with warnings.catch_warnings(), backend() as selector:
        warnings.simplefilter("error", BlockedLoop)
        with pytest.raises(BlockedLoop):
            loop(selector, lambda: block_until(lambda: selector._observer.teller.pending))
        selector.select(0)


@pytest.mark.skipif(not hasattr(selectors_ffi, "EpollSelector"), reason="needs epoll")
@pytest.mark.filterwarnings("ignore::selectors_ffi.debug.ClosedWhileRegistered")
@pytest.mark.parametrize("first", [True, False])
def test_a_descriptor_that_is_closed_while_the_loop_sleeps(lints, monkeypatch, first):
    """SEL001 is told while the loop sleeps, which may be for ever: epoll forgets the descriptor.

    The wait may be the first one, and have lasted when the descriptor is closed.
    """
    monkeypatch.setattr(checks, "CREDIT", 0)
    monkeypatch.setattr(checks, "SHARE", 1 << 60)
    monkeypatch.setattr(turns, "ASLEEP", 1)
    near, far = socket.socketpair()
    read, write = os.pipe()

    def closed():
        return [lint for lint in lints if lint.id == ClosedWhileRegistered.id]

    with near, far, selectors_ffi.EpollSelector() as selector:
        selector.register(near, EVENT_READ)
        selector.register(read, EVENT_READ)
        if not first:
            selector.select(0)
        here = selector._observer.here()

        def close():
            block_until(lambda: here.next_sweep)  # all was well until then
            os.close(read)
            block_until(closed)
            far.send(b"x")

        other = threading.Thread(target=close)
        other.start()
        assert [key.fileobj for key, _ in selector.select(30)] == [near]
        other.join()
    os.close(write)
    (lint,) = closed()
    assert lint.place.startswith(f"{__file__}:")
    assert f"fd {read} (int, registered for EVENT_READ at " in lint.message


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_meets_no_thread_of_ours(backend):
    """Python warns of a fork beside threads: ours has ended by then, and begins again with a wait."""
    with debugging("checks", lambda record: None), backend() as selector:
        selector.select(0)
        assert turns._watchdog.running
        assert len(threading.enumerate()) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pid = os.fork()
        if pid == 0:
            os._exit(turns._watchdog.running)
        assert os.waitpid(pid, 0)[1] == 0
        assert not turns._watchdog.running
        selector.select(0)
        assert turns._watchdog.running


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs pthread_sigmask")
def test_a_signal_that_the_program_blocks_stays_pending(backend):
    """The kernel gives it to a thread that does not block it; one of ours would end the process."""
    with debugging("checks", lambda record: None), backend() as selector:
        selector.select(0)
        assert turns._watchdog.running
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signal.SIGUSR1 in signal.sigpending()
            assert signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_the_thread_ends_with_the_last_loop(backend):
    """Without a loop to watch there is no thread."""
    with debugging("checks", lambda record: None), backend() as selector:
        selector.select(0)
    del selector
    gc.collect()
    block_until(lambda: not turns._watchdog.running or turns._watchdog._loops)


def test_a_failure_of_ours_is_not_the_programs(backend, lints, monkeypatch):
    """An error in our thread prints nothing and ends nothing."""
    monkeypatch.setattr(turns, "_sample", lambda *arguments: 1 / 0)
    with backend() as selector:
        loop(selector, lambda: block_until(lambda: turns._watchdog.failed))
    assert isinstance(turns._watchdog.failed, ZeroDivisionError)
    monkeypatch.setattr(turns._watchdog, "failed", None)


def test_a_wait_without_a_caller(backend):
    """select() may be the first function of a thread."""
    kept = []
    before = max(1, _thread._count())  # pytest-timeout has a thread where there is no SIGALRM
    with debugging("checks,events", kept.append), backend() as selector:
        _thread.start_new_thread(selector.select, (0,))
        block_until(lambda: kept)
        block_until(lambda: _thread._count() <= before)
    assert loop_around(None) is None


ALONE = """
import os, sys
from time import monotonic, perf_counter_ns
import selectors_ffi
from selectors_ffi.debug import turns

def numbers():
    return len(os.listdir("/proc/self/fd"))

selector = selectors_ffi.{name}(debug="{flags}")
selector.select(0.001)
before = numbers()
deadline = monotonic() + 0.2
while monotonic() < deadline:
    selector.select(0.001)
assert turns._watchdog.running is {watched}
print(numbers() - before)
selector.close()
del selector
"""


@needs.procfs
@pytest.mark.parametrize("name", ["PollSelector", "SelectSelector"])
@pytest.mark.parametrize(("flags", "watched"), [("checks", True), ("stats", True), ("syscalls", False)])
def test_the_watchdog_is_no_thread_that_wakes(name, flags, watched):
    """A program with one thread opens no pipe for wake-ups because it is checked."""
    code = ALONE.format(name=name, flags=flags, watched=watched)
    done = apart.python("-c", code)
    assert done.stdout == "0\n", done.stderr


def test_threads_are_counted_again_without_the_watchdog(backend):
    """When the thread of ours has ended, the backends count every thread."""
    from selectors_ffi.backends import table

    turns._watchdog.stop()  # that of an earlier test may be about to end
    with backend(debug="checks") as selector:
        selector.select(0)
        assert table.other_threads() == _thread._count() - 1
    turns._watchdog.stop()
    assert table.other_threads is _thread._count


def test_a_stop_that_was_asked_for_before():
    """Asking a thread that is stuck to end again is no error."""
    watchdog = turns._Watchdog()
    assert watchdog._ended.acquire(blocking=False)
    watchdog._wake.release()
    threading.Timer(0.05, watchdog._ended.release).start()
    watchdog.stop()
    assert not watchdog.running
