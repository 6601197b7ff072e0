"""What another thread or a signal handler changes while a call of ``select`` is under way.

Most tests do without a second thread: ``Script`` makes the change before the system call, or after it
has returned and before its answer is decoded.
"""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from selectors_ffi import EVENT_READ as READ
from selectors_ffi import EVENT_WRITE as WRITE
from selectors_ffi.testing.library import proxied

from . import needs
from .crew import PATIENCE, Crew
from .scripts import WAITS, Script

BOTH = READ | WRITE


@pytest.fixture
def script(subject):
    """What happens at the calls of ``selector``."""
    return Script(subject.new_binding(), WAITS[subject.mechanism])


@pytest.fixture
def selector(subject, script):
    """An open selector whose calls follow the script."""
    with subject.cls(binding=script.binding) as selector:
        yield selector


@pytest.fixture
def then(subject, script):
    """A function that has something done when the next wait has returned."""
    return lambda action: script.once_after(WAITS[subject.mechanism], action)


def ready(selector, timeout=0):
    """Return fd -> events of what is ready, having seen that each comes once with its key."""
    found = {}
    for key, events in selector.select(timeout):
        assert key is selector.get_key(key.fd)
        assert events
        assert not events & ~key.events
        assert key.fd not in found
        found[key.fd] = events
    return found


def make_ready(pairs):
    """Make the near ends readable."""
    for _, far in pairs:
        far.send(b"x")


def test_unregistered_after_the_kernel_has_answered(selector, then, pairs):
    """What is unregistered after the kernel has answered is not returned, and the rest is."""
    for near, _ in pairs:
        selector.register(near, READ)
    make_ready(pairs)
    gone, *rest = [near for near, _ in pairs]
    ready(selector)  # whatever the decoder keeps, it has now

    then(lambda: selector.unregister(gone))

    assert ready(selector) == {near.fileno(): READ for near in rest}


@pytest.mark.parametrize("before", [READ, BOTH])
def test_modified_after_the_kernel_has_answered(selector, then, pairs, before):
    """What comes back has the interest of its current key, or it is left for the next call."""
    for near, _ in pairs:
        selector.register(near, before)
    make_ready(pairs)
    changed, *rest = [near for near, _ in pairs]
    ready(selector)

    then(lambda: selector.modify(changed, WRITE, "new"))
    found = {key.fileobj: (key, events) for key, events in selector.select(0)}

    others = {end: events for end, (_, events) in found.items() if end in rest}
    assert others == dict.fromkeys(rest, before)
    if changed in found:
        key, events = found[changed]
        assert (key.events, key.data, events) == (WRITE, "new", WRITE)
    assert ready(selector)[changed.fileno()] == WRITE


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("events", [READ, BOTH])
@pytest.mark.parametrize("timeout", [0, 30])
def test_closed_after_the_kernel_has_answered(selector, then, pairs, n, events, timeout):
    """A selector that is closed during a wait has nothing to report."""
    for near, _ in pairs[:n]:
        selector.register(near, events)
    make_ready(pairs)
    ready(selector)

    then(selector.close)
    assert selector.select(timeout) == []
    with pytest.raises(ValueError, match="closed selector"):
        selector.select(0)


@needs.dup2_of_sockets
def test_number_reused_after_the_kernel_has_answered(subject, selector, then, pairs, new_pair):
    """The event of a closed file is not reported of the new file that has its number."""
    if subject.mechanism == "devpoll":
        pytest.skip("struct pollfd has no room for a token, and the interest is the kernel's")
    for near, _ in pairs:
        selector.register(near, READ, "old")
    make_ready(pairs)
    old = pairs[0][0]
    number = old.fileno()
    idle = new_pair()[0]
    ready(selector)

    def reuse():
        selector.unregister(old)
        old.close()
        os.dup2(idle.fileno(), number)
        selector.register(number, READ, "new")

    then(reuse)
    try:
        assert set(ready(selector)) == {near.fileno() for near, _ in pairs[1:]}
        assert number not in ready(selector)
        selector.unregister(number)
    finally:
        os.close(number)


@needs.dup2_of_sockets
def test_a_callback_closes_others_of_its_batch(selector, pairs, new_pair):
    """What the first callback closes is not reported again, nor of the new file with its number."""
    for near, _ in pairs:
        selector.register(near, READ)
    make_ready(pairs)
    assert len(ready(selector)) == len(pairs)

    idle, numbers = new_pair()[0], []
    for near, _ in pairs[1:]:
        numbers.append(near.fileno())
        selector.unregister(near)
        near.close()
        os.dup2(idle.fileno(), numbers[-1])
        selector.register(numbers[-1], READ)

    try:
        assert ready(selector) == {pairs[0][0].fileno(): READ}
    finally:
        for number in numbers:
            selector.unregister(number)
            os.close(number)


def test_an_event_of_a_duplicate_that_is_open(subject, selector, pairs, new_pair):
    """A file that lives on in a duplicate is not reported of the file that has its old number."""
    if subject.mechanism != "epoll":
        pytest.skip("only epoll keeps the registration of a closed descriptor")
    for near, _ in pairs:
        selector.register(near, READ)
    make_ready(pairs)
    assert len(ready(selector)) == len(pairs)
    old, idle = pairs[0][0], new_pair()[0]
    number, duplicate = old.fileno(), old.dup()
    old.close()
    selector.unregister(number)
    os.dup2(idle.fileno(), number)
    selector.register(number, READ)
    rest = {near.fileno(): READ for near, _ in pairs[1:]}

    try:
        assert ready(selector) == rest
        assert ready(selector) == rest
    finally:
        selector.unregister(number)
        os.close(number)
        duplicate.close()


def test_two_threads_in_select(subject, selector, then, pairs):
    """A call's answer is its own: another call in between does not write over it."""
    for near, _ in pairs:
        selector.register(near, READ)
    (first, first_far), *others = pairs
    answered, looked = threading.Event(), threading.Event()
    results = []

    def pause():
        answered.set()
        assert looked.wait(20)

    then(pause)
    thread = threading.Thread(target=lambda: results.append(selector.select(20)))
    thread.start()
    first_far.send(b"x")
    assert answered.wait(20)
    first.recv(1)
    make_ready(others)

    assert ready(selector) == {near.fileno(): READ for near, _ in others}
    looked.set()
    thread.join(20)
    expected = [(first, READ)]
    if subject.mechanism == "eventport":  # it has looked again, after the call in between
        expected = [(near, READ) for near, _ in others]
    assert [[(key.fileobj, events) for key, events in found] for found in results] == [expected]
    assert ready(selector) == {near.fileno(): READ for near, _ in others}


class Gates:
    """A binding in which the wait of a chosen thread stops at a gate before the kernel."""

    def __init__(self, subject):
        self.waits = {}
        self.binding = proxied(subject.new_binding(), self._stop, WAITS[subject.mechanism])

    def _stop(self, call):
        gate = self.waits.get(threading.get_ident())
        if gate:
            gate.entered.set()
            assert gate.opened.wait(PATIENCE)
        return call.run()

    def start(self, select):
        """Call ``select(0)`` in a thread, up to its gate; return the gate."""
        gate = SimpleNamespace(entered=threading.Event(), opened=threading.Event(), result=None)

        def run():
            self.waits[threading.get_ident()] = gate
            gate.result = select(0)

        gate.thread = threading.Thread(target=run)
        gate.thread.start()
        assert gate.entered.wait(PATIENCE)
        return gate

    @staticmethod
    def finish(gate):
        """Open a gate; return what the call behind it returned."""
        gate.opened.set()
        gate.thread.join(PATIENCE)
        return gate.result


@pytest.mark.parametrize("change", ["unregister", "modify"])
def test_a_change_during_the_second_of_two_calls(subject, pairs, change):
    """A call does not return a key that has changed meanwhile, even if another call knew first.

    The first call has returned before the change. A third one deals with the change. The second must
    notice by itself.
    """
    gates = Gates(subject)
    (stays, peer), (changes, other), *_ = pairs
    with subject.cls(binding=gates.binding) as selector:
        selector.register(stays, READ)
        selector.register(changes, READ, "old")
        peer.send(b"x")
        other.send(b"x")
        first, second = gates.start(selector.select), gates.start(selector.select)
        assert {key.fileobj for key, _ in gates.finish(first)} == {stays, changes}

        if change == "unregister":
            selector.unregister(changes)
        else:
            selector.modify(changes, READ, "new")
        selector.select(0)

        assert "old" not in [key.data for key, _ in gates.finish(second)]
        assert stays in [key.fileobj for key, _ in selector.select(0)]


@pytest.mark.parametrize("timeout", [None, 30, 0])
def test_closed_before_the_call(subject, selector, script, pairs, timeout):
    """A selector that another thread closes just before the system call returns [] on every class."""
    selector.register(pairs[0][0], READ)
    for name in WAITS[subject.mechanism]:
        script.before[name] = selector.close
    assert selector.select(timeout) == []
    with pytest.raises(ValueError, match="closed selector"):
        selector.select(0)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_changed_there_and_back_after_the_kernel_has_answered(selector, then, pairs, timeout):
    """An answer to an older interest says nothing about the new one, which may look the same.

    Another thread reads what was ready, changes the interest for a while, and sets it again.
    """
    near, far = pairs[0]
    selector.register(near, READ, "data")
    far.send(b"x")
    assert ready(selector) == {near.fileno(): READ}

    def change():
        near.recv(1)
        selector.modify(near, WRITE, "data")
        selector.modify(near, READ, "data")

    then(change)
    assert selector.select(timeout) == []
    assert selector.select(timeout) == []
    far.send(b"x")
    assert ready(selector, 30) == {near.fileno(): READ}


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize(("events", "data"), [(READ, "new"), (BOTH, "new"), (WRITE, "old")])
def test_a_change_does_not_end_a_wait(subject, selector, script, pairs, timeout, events, data):
    """A wait goes on after another thread has changed a key; it returns the new one when ready."""
    near, far = pairs[0]
    selector.register(near, READ, "old")
    waiting = threading.Event()
    for name in WAITS[subject.mechanism]:
        script.before[name] = waiting.set
    found, crew = [], Crew()
    crew.start(lambda: found.extend(selector.select(timeout)))
    assert waiting.wait(PATIENCE)
    selector.modify(near, events, data)
    if events == READ:  # a socket is ready for writing at once
        far.send(b"x")
    crew.join()
    assert found == [(selector.get_key(near), events & (WRITE if events & WRITE else READ))]
