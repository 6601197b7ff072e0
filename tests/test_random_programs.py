"""Random programs against an oracle, on every backend and kernel, and against the stdlib.

Hypothesis makes up programs of calls, closes, duplicates, reused numbers,
writes, shutdowns and signals; after each step registry, kernel and answers are
what the oracle of the mechanism says. On the host's own kernel the standard
library's selector runs beside ours on the same descriptors.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from . import tally
from .alarms import alarm
from .kernels.machines import MACHINES
from .oracle import BOTH, ORACLES
from .world import World

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the model of descriptors is Linux's"
)

STEPS = 200_000 if tally.long_profile() else 5_000
NUMBER = st.integers(0, 19)
EVENTS = st.sampled_from([EVENT_READ, EVENT_WRITE, BOTH])
DATA = st.integers(0, 2)


class Program(RuleBasedStateMachine):
    """One program; subclasses name the machine."""

    machine = MACHINES[0]
    steps = 0

    def __init__(self):
        super().__init__()
        self.step = 0
        self.world = World()
        self.session = self.machine.boot()
        self.start()

    def start(self):
        """A new selector, and beside it the stdlib's where there is one."""
        self.selector = self.session.selector()
        variant = getattr(self.session.kernel, "variant", None)
        self.dead_pipe = getattr(variant, "pipe_without_reader", 0)
        self.dead_reader = getattr(variant, "pipe_without_writer", 0)
        self.oracle = ORACLES[self.machine.mechanism](self.world, self)
        self.other = None
        self.apart = set()
        if not self.machine.simulated:
            self.other = getattr(selectors, self.machine.backend)()

    def teardown(self):
        self.selector.close()
        if self.other:
            self.other.close()
        self.world.end()

    # -- calls -------------------------------------------------------------------

    def registered(self, index):
        """A registered number, or any if there is none."""
        found = sorted(self.oracle.registry)
        return found[index % len(found)] if found else self.world.pick(index)

    def unregistered(self, index):
        """A number that is not registered, or any if all are."""
        found = [fd for fd in self.world.numbers if fd not in self.oracle.registry]
        return found[index % len(found)] if found else self.world.pick(index)

    @rule(index=NUMBER, events=EVENTS, data=DATA)
    def register(self, index, events, data):
        fd = self.unregistered(index)
        comparable = self.comparable(fd)
        if fd in self.oracle.registry:
            with pytest.raises(KeyError, match="is already registered"):
                self.selector.register(fd, events, data)
            return
        code = self.oracle.register(fd, events, data)
        self.expect(code, self.selector.register, fd, events, data)
        if self.other:
            theirs = 0
            try:
                self.other.register(fd, events, data)
            except OSError as error:
                theirs = error.errno
            assert theirs == code or (theirs and not comparable)

    register_more = register

    @rule(index=NUMBER)
    def unregister(self, index):
        fd = self.registered(index)
        entry = self.oracle.registry.get(fd)
        if entry is None:
            with pytest.raises(KeyError, match="is not registered"):
                self.selector.unregister(fd)
            return
        self.oracle.unregister(fd)
        assert self.selector.unregister(fd) == (fd, fd, entry.events, entry.data)
        self.reconcile()

    @rule(index=NUMBER, events=EVENTS, data=DATA)
    def modify(self, index, events, data):
        fd = self.registered(index)
        if fd not in self.oracle.registry:
            with pytest.raises(KeyError, match="is not registered"):
                self.selector.modify(fd, events, data)
            return
        entry = self.oracle.registry[fd]
        if events == entry.events and self.world.files.get(fd) is not entry.file:
            self.apart.add(fd)  # the stdlib does not tell the kernel: a deliberate difference
        code = self.oracle.modify(fd, events, data)
        self.expect(code, self.selector.modify, fd, events, data)
        if self.other and fd in self.other.get_map():
            try:
                self.other.modify(fd, events, data)
            except OSError:
                # The stdlib drops the key and leaves the kernel as it is: a deliberate difference.
                self.apart.add(fd)
        self.reconcile()

    @rule(index=NUMBER, events=st.sampled_from([0, 4, -1, 7]))
    @precondition(lambda self: self.seldom())
    def invalid_events(self, index, events):
        fd = self.registered(index)
        with pytest.raises(ValueError, match="Invalid events"):
            self.selector.register(fd, events)
        if fd in self.oracle.registry:
            with pytest.raises(ValueError, match="Invalid events"):
                self.selector.modify(fd, events)
            with pytest.raises(KeyError, match="is already registered"):
                self.selector.register(fd, EVENT_READ)

    def seldom(self):
        """One step of eight: Hypothesis gives every rule the same chance."""
        return self.step % 8 == 0

    @rule()
    def select(self):
        self.compare(0)

    @rule(timeout=st.sampled_from([0.0003, 0.002]), interrupted=st.booleans())
    @precondition(lambda self: self.seldom() and self.idle())
    def wait(self, timeout, interrupted):
        """Nothing is ready: the wait takes its time, signals or not."""
        often = alarm(lambda *_: None, timeout / 3, timeout / 3)
        started = time.monotonic()
        with often if interrupted else contextlib.nullcontext():
            self.compare(timeout)
        assert time.monotonic() - started >= timeout

    @rule()
    @precondition(lambda self: self.seldom())
    def close_selector(self):
        """A closed selector says so; a new one starts empty."""
        self.selector.close()
        assert self.selector.get_map() is None
        with pytest.raises(ValueError, match="closed"):
            self.selector.select(0)
        with pytest.raises(ValueError, match="closed"):
            self.selector.register(self.world.pick(0), EVENT_READ)
        if self.other:
            self.other.close()
        self.start()

    # -- what happens to the descriptors --------------------------------------------

    @rule(index=NUMBER)
    def send(self, index):
        self.world.send(self.world.pick(index))

    @rule(index=NUMBER)
    @precondition(lambda self: self.step % 3 == 0)
    def fill(self, index):
        self.world.fill(self.world.pick(index))

    @rule(index=NUMBER)
    def drain(self, index):
        self.world.drain(self.world.pick(index))

    @rule(index=NUMBER)
    def shutdown(self, index):
        self.world.shutdown(self.world.pick(index))

    @rule(index=NUMBER)
    def close(self, index):
        """A number that is registered, or its peer, or any other."""
        fd = self.registered(index) if index % 2 else self.world.pick(index)
        if fd in self.world.files:
            self.oracle.closing(fd)
            self.world.close(fd)
            self.session.closed(fd)
            self.oracle.closed()

    @rule(index=NUMBER)
    @precondition(lambda self: len(self.world.files) < 9)
    def dup(self, index):
        """A copy of a registered file, as often as of another."""
        self.world.dup(self.registered(index) if index % 2 else self.world.pick(index))

    @rule(index=NUMBER, over=NUMBER)
    def dup2(self, index, over):
        fd = self.world.pick(index)
        number = self.registered(over) if over % 2 else self.world.pick(over)
        if fd in self.world.files and fd != number:
            self.oracle.closing(number)
            self.world.dup2(fd, number)
            self.session.closed(number)
            self.oracle.closed()

    @rule(pipe=st.booleans())
    @precondition(lambda self: len(self.world.files) < 5)
    def new_files(self, pipe):
        """Fresh files, mostly under numbers that were used before."""
        if pipe:
            self.world.new_pipe()
        else:
            self.world.new_sockets()

    # -- what must hold -----------------------------------------------------------

    @invariant()
    def agree(self):
        """Registry and kernel are what the oracle says."""
        type(self).steps += 1
        self.step += 1
        found = {fd: (key.events, key.data) for fd, key in self.selector.get_map().items()}
        registry = self.oracle.registry
        assert found == {fd: (entry.events, entry.data) for fd, entry in registry.items()}
        if self.oracle.has_list:
            vague = self.oracle.vague() | getattr(self.oracle, "murky", set())
            kernel = self.session.watched(self.selector)
            expected = self.oracle.kernel()
            for fd in vague:
                kernel.pop(fd, None)
                expected.pop(fd, None) if fd in expected else None
            assert kernel == expected

    def expect(self, code, call, *arguments):
        """The call succeeds with the key, or fails with the errno."""
        fd, events, data = arguments
        if code:
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                call(*arguments)
            assert caught.value.errno == code
        else:
            assert call(*arguments) == (fd, fd, events, data)

    def idle(self):
        """Whether the oracle is certain that nothing is ready."""
        # A former file that is open elsewhere still ends a wait, here as in the stdlib.
        return not self.former() and self.oracle.ready() == {} and not self.oracle.vague()

    def former(self):
        """Whether the kernel watches a former file of any number."""
        strangers = getattr(self.oracle, "strangers", None)
        return strangers is not None and any(strangers(fd) for fd in self.world.numbers)

    def compare(self, timeout):
        """One select: ours, the oracle's and the stdlib's answer."""
        vague = self.oracle.vague()
        expected = self.oracle.ready()
        if isinstance(expected, int):
            for one in filter(None, (self.selector, self.other)):
                with pytest.raises(OSError, match=os.strerror(expected)):
                    one.select(timeout)
            return
        found = self.answers(self.selector.select(timeout))
        for fd in vague:
            mask = found.pop(fd, 0)
            assert not mask & ~self.oracle.registry[fd].events
            expected.pop(fd, None)
        assert found == expected
        # The stdlib has room for as many events as keys: a former file's event may take it all.
        if self.other and not self.apart and not self.former():
            theirs = self.answers(self.other.select(0))
            certain = {fd for fd in self.oracle.registry if self.comparable(fd)} - vague
            certain &= set(self.other.get_map())
            assert {fd: m for fd, m in theirs.items() if fd in certain} == {
                fd: m for fd, m in found.items() if fd in certain
            }

    def answers(self, ready):
        """{fd: mask} of a result, which has each descriptor once and no empty mask."""
        found = {key.fd: mask for key, mask in ready}
        certain = [key.fd for key, _ in ready if key.fd not in self.oracle.vague()]
        assert len(set(certain)) == len(certain)
        assert all(found.values())
        return found

    def comparable(self, fd):
        """Whether the stdlib, which cannot tell a former file from a new one, must agree."""
        if fd in self.apart:
            return False
        strangers = getattr(self.oracle, "strangers", None)
        return strangers is None or not (
            strangers(fd)
            or (any(key[0] == fd for key in self.oracle.list) and fd not in self.oracle.registry)
        )

    def reconcile(self):
        """Bring the stdlib's selector to where ours is, after a deliberate difference."""
        if self.other is None:
            return
        for fd in set(self.other.get_map()) - set(self.oracle.registry):
            self.other.unregister(fd)
        for fd, entry in self.oracle.registry.items():
            if fd not in self.other.get_map():
                with contextlib.suppress(OSError):
                    self.other.register(fd, entry.events, entry.data)


@pytest.mark.timeout(3600 if tally.long_profile() else 300)
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_random_programs(machine):
    """Each step is what the oracle says, for this machine's share of the steps."""
    program = type("Program", (Program,), {"machine": machine, "steps": 0})
    share = STEPS // len(MACHINES) + 1
    profile = settings(
        max_examples=max(8, share // 60),
        stateful_step_count=50,
        deadline=None,
        database=None,
        # What every commit is judged by must not depend on chance; the long profile explores.
        derandomize=not tally.long_profile(),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.normal,
    )
    while program.steps < share:
        run_state_machine_as_test(program, settings=profile)
    tally.count("steps of random programs", program.steps)
