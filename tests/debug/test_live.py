"""Live: debugging that is switched on and off in a running process, by a call or by a signal."""

from __future__ import annotations

import copy
import gc
import os
import selectors
import signal
import socket
import sys
import threading
from time import monotonic

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi.backends.base import _BaseSelectorImpl
from selectors_ffi.binding import Binding
from selectors_ffi.debug import (
    BusyLoop,
    ClosedWhileRegistered,
    Debug,
    DescriptorReused,
    Event,
    Lint,
    Registration,
    RingSink,
    Syscall,
    Wait,
    describe,
    live,
    stats,
    switch,
    switched,
    watch,
)
from selectors_ffi.debug import signalled as by_signal
from selectors_ffi.debug.tap import Tap
from selectors_ffi.debug.watch import Living
from tests import apart, needs
from tests.alarms import alarm

from .conftest import HERE

STDLIB = [name for name in HERE if hasattr(selectors, name)]
#: What a selector of ours makes anew for another library, or when it is first asked for its map.
MADE_ANEW = {"_facts", "_idle", "_latest", "_log", "_view", "_woken"}


@pytest.fixture(params=[*HERE, *(f"selectors.{name}" for name in STDLIB)])
def cls(request):
    """Each class of ours that this host can run, and each of the standard library's."""
    module, _, name = request.param.rpartition(".")
    return getattr(selectors if module else backends, name)


@pytest.fixture
def known():
    """The selectors that a switch finds, for tests of what it does with them.

    It looks through all objects for them, which takes PyPy a third of a second among those of pytest.
    """
    found = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(live, "alive", lambda: [one for one in tuple(found) if live._usable(one)])
        yield found


def names(kept):
    """Return the kinds of records."""
    return [type(record).__name__ for record in kept]


def test_a_living_selector_is_seen_and_then_left_as_it_was(cls, pairs):
    """Between switching on and off everything is told; before and after it nothing is."""
    (near, far), (other, _), _ = pairs
    kept = []
    with cls() as selector:
        selector.register(near, EVENT_READ, "near")
        far.send(b"x")
        assert len(selector.select(0)) == 1
        before = dict(vars(selector))

        with switch("events", kept.append) as made:
            assert isinstance(selector, cls)
            assert type(selector).__name__ == cls.__name__
            assert made.on
            assert switched() is made
            assert [(key.data, events) for key, events in selector.select(0)] == [("near", EVENT_READ)]
            selector.register(other, EVENT_WRITE)
            selector.modify(other, EVENT_READ)
            selector.unregister(other)

        assert not made.on
        assert switched() is None
        assert type(selector) is cls
        assert vars(selector).keys() ^ before.keys() <= {"_view"}
        changed = {name for name in before if vars(selector)[name] is not before[name]}
        assert changed <= MADE_ANEW
        assert len(selector.select(0)) == 1
    assert names(kept)[:2] == ["Event", "Wait"]
    assert kept[0].fd == near.fileno()
    assert kept[0].events == EVENT_READ
    actions = [record.action for record in kept if isinstance(record, Registration)]
    assert [action for action in actions if action == "modify"] == ["modify"]
    assert actions[-1] == "unregister"


@pytest.mark.parametrize("drop", [False, True])
def test_a_copy_is_seen_as_its_original_is(cls, known, pair, drop):
    """Also if only one of the two is left when debugging is switched off."""
    kept = []
    selector = cls()
    selector.register(pair[0], EVENT_READ)
    other = copy.copy(selector)
    known += [selector, other]
    with switch("events", kept.append) as made:
        for one in (selector, other):
            one.select(0)
            assert names(kept) == ["Wait"]
            kept.clear()
        assert made.ours + made.others == 2
        if drop:
            known.clear()
            del one, selector
            gc.collect()
    other.modify(pair[0], EVENT_WRITE)
    assert len(other.select(0)) == 1
    assert type(other) is cls
    assert not kept
    assert "_observer" not in vars(other)
    for one in (other, *known):  # the standard library's are closed one by one
        one.close()
    gc.collect()  # and are in a cycle with their map


@pytest.mark.parametrize("early", [True, False])
def test_switching_off_in_the_middle_of_a_call(cls, known, pairs, monkeypatch, early):
    """A call goes on unseen if another thread switches off after it has begun, or just before."""
    near = pairs[0][0]
    look = watch._observer_of
    made = []

    def look_and_switch_off(selector):
        if early:
            made.pop().off()
        found = look(selector)
        if not early:
            made.pop().off()
        return found

    with cls() as selector:
        known.append(selector)
        for method, arguments in (
            ("register", (near, EVENT_READ)), ("modify", (near, EVENT_WRITE)), ("select", (0,)),
            ("unregister", (near,)), ("close", ()),
        ):  # fmt: skip
            made.append(switch("events", print))
            with monkeypatch.context() as patched:
                patched.setattr(watch, "_observer_of", look_and_switch_off)
                result = getattr(selector, method)(*arguments)
            assert not made
            assert type(selector) is cls
            assert method != "select" or len(result) == 1


@pytest.mark.parametrize("step", [(_BaseSelectorImpl, "_bind"), (Binding, "facts")])
@pytest.mark.parametrize("on", [True, False])
def test_switching_while_a_selector_is_made(backend, pairs, monkeypatch, on, step):
    """The constructor ends as it began; whatever was switched, the selector works and is left clean."""
    kept = []
    made = [] if on else [switch("events,checks", kept.append)]
    function = getattr(*step)

    def step_and_switch(*arguments):
        monkeypatch.undo()
        if on:
            made.append(switch("events,checks", kept.append))
        else:
            made[0].off()
        return function(*arguments)

    monkeypatch.setattr(*step, step_and_switch)
    with backend() as selector:
        monkeypatch.undo()
        selector.register(pairs[0][0], EVENT_WRITE)
        assert len(selector.select(0)) == 1
        made[0].off()
        assert type(selector) is backend
        assert "_observer" not in vars(selector)
        assert not isinstance(selector._binding.lib, Tap)
        assert kept == []
        with switch("events", kept.append):
            assert len(selector.select(0)) == 1
        assert names(kept) == ["Event", "Wait"]


@pytest.mark.parametrize("again", [True, False])
def test_a_selector_that_was_made_as_debugging_was_switched_off(backend, monkeypatch, again):
    """Its first call leaves nothing of the debugging; a switch before that shows it."""
    bind = _BaseSelectorImpl._bind
    made = switch("events", lambda record: None)

    def bind_and_switch_off(*arguments):
        made.off()
        return bind(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(_BaseSelectorImpl, "_bind", bind_and_switch_off)
        selector = backend()
    kept = []
    with selector:
        if again:
            with switch("events", kept.append):
                selector.select(0)
        selector.select(0)
        assert type(selector) is backend
        assert "_observer" not in vars(selector)
    assert names(kept) == (["Wait"] if again else [])


@pytest.mark.parametrize("method", ["modify", "unregister"])
def test_switching_off_just_as_a_method_begins(cls, known, pairs, method):
    """A method that was looked up before works for a selector that has its own class again."""
    near = pairs[0][0]
    with cls() as selector:
        known.append(selector)
        selector.register(near, EVENT_READ)
        with switch("events", print):
            bound = getattr(selector, method)
        bound(*([near, EVENT_WRITE] if method == "modify" else [near]))
        assert len(selector.get_map()) == (method == "modify")


def test_a_selector_that_cannot_be_released(backend, known, monkeypatch):
    """The others are released all the same."""
    with backend() as first, backend() as second, backend() as third:
        known += (first, second, third)
        made = switch("events", lambda record: None)
        monkeypatch.setattr(second, "_rebind", lambda binding: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.off()
        monkeypatch.undo()
        assert {type(first), type(second), type(third)} == {backend}
        assert not made.on
        made.off()
        with switch("events", lambda record: None) as made:
            assert not made.left
            assert type(second) is not backend


def test_two_threads_release_at_once(backend, monkeypatch):
    """One of them does; the other one does not undo a switch that has been made meanwhile."""
    kept, again = [], []
    with backend() as selector:
        made = switch("syscalls", kept.append)

        def switch_meanwhile(selector):
            monkeypatch.undo()
            watch.release(selector)
            again.append(switch("syscalls,events", kept.append))
            return True

        monkeypatch.setattr(watch, "is_made", switch_meanwhile)
        made.off()
        selector.select(0)
        assert names(kept) == ["Syscall", "Wait"]
        again[0].off()
        assert type(selector) is backend
        assert "_observer" not in vars(selector)
        assert not isinstance(selector._binding.lib, Tap)
        selector.select(0)
    assert len(kept) == 2


def test_switching_off_while_selectors_are_looked_for(cls, monkeypatch):
    """What another thread switches off in the middle of ``switch()`` is off, and nothing is left on."""
    find = live.alive

    def find_and_switch_off():
        found = find()
        switched().off()
        return found

    with cls() as selector:
        monkeypatch.setattr(live, "alive", find_and_switch_off)
        made = switch("events", print)
        monkeypatch.undo()
        assert not made.on
        assert switched() is None
        assert type(selector) is cls
        with cls() as another:
            assert type(another) is cls


def test_two_threads_switch_at_once(cls, known, monkeypatch):
    """A selector is shown by the one that has taken it first."""
    first, second = [], []
    with cls() as selector:
        known.append(selector)
        with monkeypatch.context() as patched:
            patched.setattr(live, "seen", lambda selector: False)
            one = switch("events", first.append)
            patched.setattr(live, "_current", [])
            two = switch("events", second.append)
            selector.select(0)
            two.off()
        one.off()
        assert type(selector) is cls
    assert names(first) == ["Wait"]
    assert second == []


@pytest.mark.parametrize("walk", [True, False])
def test_threads_that_switch_while_others_work(cls, request, pairs, walk):
    """Nothing gets into calls that are under way as debugging is switched.

    Once with the walk through all objects, and many times without it.
    """
    known = [] if walk else request.getfixturevalue("known")
    near = pairs[0][0]
    failures = []
    ended = threading.Event()

    def work():
        try:
            while not ended.is_set():
                with cls() as selector:
                    known.append(selector)
                    for _ in range(20):
                        selector.register(near, EVENT_WRITE)
                        selector.modify(near, EVENT_READ | EVENT_WRITE)
                        assert len(selector.select(0)) == 1
                        selector.unregister(near)
                known.remove(selector)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(1 if walk else 20):
            with switch("events,checks", lambda record: None):
                ended.wait(0.001)
            ended.wait(0.001)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_system_calls_of_a_living_selector(backend, pairs):
    """Calls of ours are tapped from the next one on, also those that are bound already."""
    kept = []
    with backend() as selector:
        selector.register(pairs[0][0], EVENT_WRITE)
        for timeout in (0, None, 0.5):
            for _ in range(3):
                assert len(selector.select(timeout)) == 1
        with switch("syscalls", kept.append):
            for timeout in (0, None, 0.5):
                assert len(selector.select(timeout)) == 1
            waits = len(kept)
        for timeout in (0, None, 0.5):
            assert len(selector.select(timeout)) == 1
    assert set(names(kept)) == {"Syscall"}
    assert len(kept) == waits == 3


def test_the_name_of_the_kernel_object_is_closed_seen(backend):
    """A selector that is closed while it is seen shows that, too."""
    kept = []
    selector = backend()
    with switch("syscalls,events", kept.append):
        selector.close()
    assert isinstance(kept[-1], Registration)
    assert kept[-1].action == "close"
    if hasattr(selector, "fileno"):
        assert [record.name for record in kept if isinstance(record, Syscall)] == ["close"]


def test_a_selector_that_is_made_meanwhile(backend, pairs):
    """It is seen from its first call on, and no longer once it is switched off."""
    kept = []
    with switch("syscalls,events", kept.append):
        selector = backend()
        selector.register(pairs[0][0], EVENT_WRITE)
    seen = len(kept)
    assert seen
    with selector:
        assert type(selector) is backend
        assert len(selector.select(0)) == 1
    assert len(kept) == seen
    assert type(backend()) is backend


def test_closed_while_registered_before(cls, known, pairs):
    """A check tells of a registration that is older than the check, and says that it is."""
    selector = cls()
    known.append(selector)
    near = pairs[0][0]
    selector.register(near, EVENT_READ)
    near.close()
    with switch("checks", lambda record: None), pytest.warns(ClosedWhileRegistered) as told:
        try:
            selector.select(0)
        except OSError:
            pass  # of select(2)
    assert "registered for EVENT_READ before debugging was switched on" in str(told[0].message)
    selector.close()


@pytest.mark.skipif(not hasattr(selectors, "EpollSelector"), reason="needs epoll")
def test_a_reused_number_that_the_standard_library_refuses():
    """Its modify() raises FileNotFoundError; the lint says what the number was before."""
    kept = []
    first, second = os.pipe(), ()
    with selectors.EpollSelector() as selector, switch("checks", kept.append):
        selector.register(first[0], EVENT_READ)
        os.close(first[0])
        os.close(first[1])
        second = os.pipe()
        assert second == first
        with pytest.warns(DescriptorReused), pytest.raises(FileNotFoundError):
            selector.modify(second[0], EVENT_WRITE)
    for number in second:
        os.close(number)
    assert [(lint.id, lint.fd) for lint in kept] == [("SEL002", first[0])]


def test_stats_and_describe_of_the_standard_library(pairs):
    """Functions answer for a selector that has no such methods."""
    with selectors.DefaultSelector() as selector, switch("stats", lambda record: None):
        selector.register(pairs[0][0], EVENT_WRITE)
        selector.select(0)
        assert stats(selector).waits.count == 1
        assert "EVENT_WRITE" in str(describe(selector))


def test_a_wait_that_is_under_way(cls, known, pairs):
    """It ends as it began, and the next one is seen; switching off in the middle is as quiet."""
    near, far = pairs[0]
    kept = []
    steps = threading.Semaphore(0)
    results = []
    with cls() as selector:
        known.append(selector)
        selector.register(near, EVENT_READ)

        def wait():
            for _ in range(3):
                steps.release()
                results.append(len(selector.select(60)))
                near.recv(1)

        thread = threading.Thread(target=wait)
        thread.start()
        for number in range(1, 4):
            steps.acquire()
            if number == 1:
                made = switch("events", kept.append)
            elif number == 3:
                made.off()
            far.send(b"x")
            deadline = monotonic() + 30
            while len(results) < number:
                assert monotonic() < deadline
        thread.join()
    assert results == [1, 1, 1]
    assert type(selector) is cls
    assert "_observer" not in vars(selector)
    assert len([record for record in kept if isinstance(record, Wait)]) <= 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="setitimer(2) is needed")
def test_a_signal_handler_switches_in_the_middle_of_a_wait(cls, pairs):
    """A handler that runs within select() may switch; the wait goes on and its result is right."""
    near, far = pairs[0]
    kept = []
    begun = []
    made = []

    def handler(number, frame):
        # It may come just before the system call, and run after it: so it comes again.
        if not begun:
            begun.append(True)
            made.append(switch("events", kept.append))
        elif made:
            made[0].off()
            far.send(b"x")

    with cls() as selector:
        selector.register(near, EVENT_READ)
        with alarm(handler, 0.01, 0.01):
            ready = selector.select(30)
        assert [key.fileobj for key, _ in ready] == [near]
        assert switched() is None
        assert type(selector) is cls
        assert len(selector.select(0)) == 1


def test_what_has_flags_already_is_left(backend):
    """A selector that was made with flags keeps them, and its sink."""
    first, second = [], []
    with debugging("events", first.append):
        selector = backend()
    with selector:
        cls = type(selector)
        with switch("events", second.append) as made:
            selector.select(0)
            assert made.left == 1
            assert "1 left as they are, with flags of their own" in str(made)
        assert type(selector) is cls
        selector.select(0)
    assert names(first) == ["Wait", "Wait", "Registration"]
    assert second == []


def test_one_switch_at_a_time(backend, known):
    """A second call takes the place of the first; none at all switches off."""
    first, second = [], []
    with backend() as selector:
        known.append(selector)
        one = switch("events", first.append)
        two = switch(Debug.EVENTS, second.append)
        selector.select(0)
        assert (one.on, two.on) == (False, True)
        switch(None)
        assert not two.on
        one.off()
        selector.select(0)
        assert type(selector) is backend
    assert first == []
    assert names(second) == ["Wait"]


def test_what_is_said_of_a_switch(pairs):
    """One line says what is on, for how many selectors of which kind."""
    gc.collect()
    with selectors.DefaultSelector() as theirs, selectors_ffi.DefaultSelector() as ours:
        with switch("checks,events", lambda record: None) as made:
            assert str(made).startswith("events,checks switched on for selectors: ")
            assert f"{made.ours} of selectors_ffi, {made.others} of the standard library" in str(made)
            assert made.ours >= 1
            assert made.others >= 1
            assert repr(made).startswith("<Switched: events")
            assert type(theirs) is not selectors.DefaultSelector
            assert type(ours) is not selectors_ffi.DefaultSelector


def test_system_calls_of_the_standard_library_are_told_to_be_unseen(capfd):
    """Where they are asked for, one line says that they cannot be shown."""
    with selectors.DefaultSelector(), switch("syscalls"):
        pass
    assert "made in C and cannot be shown" in capfd.readouterr().err


def test_a_note_that_cannot_be_written(capsys):
    """It is told as for records, and ``switch()`` returns what it has switched on."""

    class Full:
        def __call__(self, record):
            pass

        def note(self, text):
            raise OSError("full disk")

    with selectors.DefaultSelector(), switch("syscalls", Full()) as made:
        assert made.on
    assert capsys.readouterr().err.count("full disk") == 1


@pytest.mark.usefixtures("backend", "known")
def test_bad_flags_switch_nothing():
    """An unknown name lists the known ones, and what is on stays on."""
    with switch("events", lambda record: None) as made:
        with pytest.raises(ValueError, match=r"switch\(\): unknown debug flag 'evnts'; known are"):
            switch("evnts")
        with pytest.raises(TypeError, match="a sink is"):
            switch("events", object())
        assert made.on


def test_a_class_that_is_made_of_a_living_one(cls, pair):
    """``type(selector)()`` makes what the class without flags makes."""
    with cls() as selector, switch("events", lambda record: None):
        with type(selector)() as other:
            other.register(pair[0], EVENT_READ)
            assert other.select(0) == []
        made_later = type(selector)
    with made_later() as another:
        assert type(another) is cls


def test_a_selector_that_is_derived_from_the_registry_alone():
    """A third-party selector without a kernel interface is seen by its methods."""

    class Mine(_BaseSelectorImpl):
        def select(self, timeout=None):
            return [(key, key.events) for key in self._fd_to_key.values()]

    kept = []
    with Mine() as selector:
        selector.register(0, EVENT_READ)
        with switch("events", kept.append):
            selector.select(0)
        assert type(selector) is Mine
    assert names(kept) == ["Event", "Wait"]


def test_a_layout_of_its_own_is_left_out(pair):
    """A selector whose class cannot be replaced is neither seen nor harmed."""

    class Odd(selectors.SelectSelector):
        __slots__ = ("one",)

    with Odd() as selector:
        selector.register(pair[0], EVENT_READ)
        with switch("events", lambda record: None) as made:
            assert selector.select(0) == []
        assert made.ours + made.others >= 0
        assert type(selector) is Odd
        assert "_observer" not in vars(selector)


@pytest.mark.skipif(
    sys.implementation.name == "pypy",
    reason="what PyPy has compiled may keep a class that nothing refers to",
)
@needs.interpreter_lock
def test_nothing_stays(cls, pair):
    """The class that was made for a living selector goes with the switch."""
    selector = cls()
    selector.register(pair[0], EVENT_READ)
    with switch("all", lambda record: None):
        selector.select(0)
        assert any(issubclass(one, Living) for one in type.__subclasses__(cls))
    for _ in range(3):
        gc.collect()
    assert not any(issubclass(one, Living) for one in type.__subclasses__(cls))
    selector.close()


def test_the_watchdog_ends(backend):
    """The thread that looks for blocked loops ends with the last selector that is checked."""
    from selectors_ffi.debug import turns

    with backend() as selector:
        with switch("checks", lambda record: None):
            selector.select(0)
            assert turns._watchdog.running
        deadline, never = monotonic() + 30, threading.Event()
        while turns._watchdog.running:
            gc.collect()
            never.wait(0.01)  # lets the thread run: PyPy collects a large heap at one go
            assert monotonic() < deadline


# The signal


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        pytest.param("USR1", "SIGUSR1", Debug.CHECKS, marks=needs.user_signals),
        ("sigterm", "SIGTERM", Debug.CHECKS),
        ("TERM:events,stats", "SIGTERM", Debug.EVENTS | Debug.STATS),
    ],
)
def test_values_of_the_variable(text, name, flags):
    """A name with or without SIG, in any case, perhaps with flags."""
    assert by_signal.signal_of(text) == (signal.Signals[name], flags)


@pytest.mark.parametrize("text", ["FOO", "KILL", "SEGV", "12", "", "SIG", ":checks"])
def test_no_such_signal(text):
    """What cannot be caught, or is no signal, is refused with a list of what can be used."""
    with pytest.raises(ValueError, match=r"no signal '.*' can be used; known are (\w+, )*TERM(, \w+)*$"):
        by_signal.signal_of(text)


@pytest.mark.parametrize("flags", ["leaks", "", ","])
def test_a_signal_that_would_switch_nothing_on(flags):
    """LEAKS concerns a selector's creation: it would be told to be on, and show nothing."""
    with pytest.raises(ValueError, match="names no flag that can be switched on"):
        by_signal.signal_of(f"TERM:{flags}")


PROGRAM = """
import os, selectors, selectors_ffi, signal
selector = {module}.DefaultSelector()
for turn in range(3):
    os.kill(os.getpid(), signal.SIGUSR1)
    selector.select(0)
"""


@needs.user_signals
@pytest.mark.parametrize("module", ["selectors", "selectors_ffi"])
def test_the_signal_switches_on_and_off(module):
    """The first signal switches on, the second off, and each says so on standard error."""
    done = apart.python("-c", PROGRAM.format(module=module), SELECTORS_FFI_SIGNAL="USR1:events")
    lines = done.stderr.splitlines()
    of = "selectors_ffi" if module == "selectors_ffi" else "the standard library"
    assert lines[0] == f"selectors_ffi: SIGUSR1: events switched on for selectors: 1 of {of}"
    assert lines[1].startswith("wait(0) = 0 ready")
    assert lines[2] == "selectors_ffi: SIGUSR1: switched off"
    assert lines[3] == lines[0]
    assert lines[4].startswith("wait(0) = 0 ready")
    assert done.returncode == 0


@needs.user_signals
def test_the_signal_writes_what_a_flight_recorder_has_kept():
    """With a recorder in force the signal dumps it, with the time of each record."""
    ring = {"SELECTORS_FFI_DEBUG": "events", "SELECTORS_FFI_SINK": "ring"}
    program = PROGRAM.format(module="selectors_ffi")
    done = apart.python("-c", program, SELECTORS_FFI_SIGNAL="USR1", **ring)
    lines = done.stderr.splitlines()
    head = "selectors_ffi: last {} records, SIGUSR1 came; times are seconds before this"
    assert [lines[0], lines[1], lines[3]] == [head.format(0), head.format(1), head.format(1)]
    assert lines[2].startswith("-0.")
    assert "wait(0) = 0 ready" in lines[2]


def test_a_handler_of_the_program_stays():
    """A signal that is handled already is left alone, and a warning says so."""
    code = """
import signal, warnings
signal.signal(signal.SIGTERM, print)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import selectors_ffi
assert signal.getsignal(signal.SIGTERM) is print
print(told[0].message)
"""
    done = apart.python("-c", code, SELECTORS_FFI_SIGNAL="TERM")
    assert done.stdout.startswith("SELECTORS_FFI_SIGNAL: the program handles SIGTERM already (<built-in")


def test_imported_in_another_thread():
    """Only the main thread may handle signals; a warning says what to do."""
    code = """
import threading, warnings
warnings.simplefilter("always")
def load():
    import selectors_ffi
thread = threading.Thread(target=load)
thread.start()
thread.join()
"""
    done = apart.python("-c", code, SELECTORS_FFI_SIGNAL="TERM")
    assert "SELECTORS_FFI_SIGNAL: import selectors_ffi in the main thread" in done.stderr


def test_a_sink_that_fails_in_the_handler(monkeypatch, capsys):
    """What a recorder raises is told in one line, and does not get into the program."""
    ring = RingSink(4, dump=lambda record: 1 / 0)
    ring(Lint(0, None, "SEL000", -1, "", ""))
    monkeypatch.setattr(by_signal, "_recorders", lambda: [ring])
    by_signal._act("SIGUSR1", Debug.EVENTS)
    assert "selectors_ffi: SIGUSR1: ZeroDivisionError" in capsys.readouterr().err


def test_events_say_what_the_interface_says(pairs):
    """Of the standard library's selectors the kernel's own flags are not known."""
    kept = []
    near, far = pairs[0]
    far.send(b"x")
    with selectors.DefaultSelector() as selector:
        selector.register(near, EVENT_READ | EVENT_WRITE)
        with switch("events", kept.append):
            selector.select(0)
    (event,) = [record for record in kept if isinstance(record, Event)]
    assert event.flags == "READ|WRITE"
    assert isinstance(near, socket.socket)


class Directions(selectors.SelectSelector):
    """Returns each direction of a descriptor by itself, as the standard library's KqueueSelector."""

    def select(self, timeout=None):
        ready = super().select(timeout)
        return [(key, one) for key, events in ready for one in (EVENT_READ, EVENT_WRITE) if events & one]


def test_directions_that_are_returned_by_themselves(pair):
    """They are one event, and a loop that is kept busy by both is found."""
    kept = []
    near, far = pair
    with Directions() as selector:
        selector.register(near, EVENT_READ | EVENT_WRITE)
        far.close()
        with switch("events,checks", kept.append), pytest.warns(BusyLoop):
            for _ in range(200):
                assert len(selector.select(0)) == 2
    events = [record for record in kept if isinstance(record, Event)]
    assert len(events) == 200
    assert {event.events for event in events} == {EVENT_READ | EVENT_WRITE}


@pytest.mark.skipif(os.name != "posix", reason="simulated kernels need a Unix host")
@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("freebsd", "KqueueSelector"),
        ("darwin", "KqueueSelector"),
        ("illumos", "DevpollSelector"),
        ("illumos", "EventPortSelector"),
        ("windows", "SelectSelector"),
    ],
)
def test_selectors_of_other_systems(system, name, pairs):
    """Each mechanism is switched on with what the kernel holds already, and off again."""
    from selectors_ffi.testing.kernels import kernel

    near, far = pairs[0]
    kept = []
    cls = getattr(backends, name)
    with cls(binding=kernel(system)) as selector:
        selector.register(near, EVENT_READ)
        far.send(b"x")
        assert len(selector.select(0)) == 1
        with switch("syscalls,events", kept.append):
            assert len(selector.select(0)) == 1
            selector.modify(near, EVENT_READ | EVENT_WRITE)
            selector.unregister(near)
            selector.register(near, EVENT_READ)
        seen = len(kept)
        assert len(selector.select(0)) == 1
        assert type(selector) is cls
    assert len(kept) == seen
    assert isinstance(kept[0], Syscall)
    events = [record for record in kept if isinstance(record, Event)]
    assert [(record.fd, record.dropped) for record in events] == [(near.fileno(), "")]


@pytest.mark.skipif(sys.platform == "win32", reason="has no epoll, and other descriptors")
@pytest.mark.parametrize("waits", [0, 1, 2])
def test_switched_on_in_a_fresh_process(waits):
    """What is made with the first waits is there whenever debugging is switched on, and off."""
    code = f"""if True:
        import os, selectors_ffi
        from selectors_ffi import debug
        read, write = os.pipe()
        os.write(write, b"x")
        selector = selectors_ffi.DefaultSelector()
        watched = [os.dup(read) for _ in range(3)]
        def found():
            return len(selector.select(0)) == len(watched)
        def more(n):
            for fd in [os.dup(read) for _ in range(n)]:
                selector.register(fd, selectors_ffi.EVENT_READ)
                watched.append(fd)
        for fd in watched:
            selector.register(fd, selectors_ffi.EVENT_READ)
        right = [found() for _ in range({waits})]
        with debug.switch("syscalls", sink=lambda record: None):
            right += [found() for _ in range(3)]
            more(20)
            right += [found() for _ in range({waits})]
        right += [found() for _ in range(3)]
        more(40)
        with debug.switch("syscalls", sink=lambda record: None):
            right += [found() for _ in range(3)]
        right += [found() for _ in range(3)]
        print(all(right))
    """
    done = apart.python("-c", code)

    assert (done.stdout, done.stderr) == ("True\n", "")
