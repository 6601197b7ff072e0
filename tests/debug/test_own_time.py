"""The time that the debug package itself takes is in no figure."""

from __future__ import annotations

import re
from time import perf_counter_ns

import pytest

from selectors_ffi import EVENT_READ, debugging
from selectors_ffi.debug import BusyLoop, Syscall, Wait

COST = 5_000_000  # nanoseconds that the sink takes for a record


class Slow:
    """A sink that takes its time, and not by sleeping."""

    def __init__(self, cost=COST):
        self.records = []
        self.taken = 0
        self._cost = cost

    def __call__(self, record):
        self.records.append(record)
        begin = perf_counter_ns()
        while perf_counter_ns() < begin + self._cost:
            pass
        self.taken += perf_counter_ns() - begin

    def of(self, kind):
        return [record for record in self.records if isinstance(record, kind)]


def test_a_slow_sink_is_in_no_duration(backend, pairs):
    """Calls, waits, and what the program takes between two waits are measured without the sink."""
    sink = Slow()
    with debugging("syscalls,events,stats,checks", sink), backend() as selector:
        selector.select(0)
        before = sink.taken
        for near, _ in pairs:
            selector.register(near, EVENT_READ)
        told = sink.taken - before
        for _ in range(5):
            selector.select(0)
        stats = selector.stats()
    waits = sink.of(Wait)

    assert waits[0].turn == -1, "nothing came before"
    assert 0 <= min(wait.turn for wait in waits[1:]) < COST / 2
    assert 0 <= waits[1].turn < told / 2, "the registrations were told meanwhile"
    assert 0 < min(wait.duration for wait in waits) < COST / 2
    assert min(wait.overhead for wait in waits) < COST / 2, "a call is told with its wait"
    assert all(wait.span == wait.duration + wait.overhead for wait in waits)
    assert 0 < min(call.duration for call in sink.of(Syscall)) < COST / 2
    assert stats.waits.median < COST / 2


def test_a_timeout_is_not_late_by_the_sink(backend):
    """How late a timeout came is measured without the sink."""
    cost = 10 * COST  # far more than a busy machine is late by
    with debugging("syscalls,stats", Slow(cost)), backend() as selector:
        for _ in range(5):
            selector.select(0.001)
        late = selector.stats().late

    assert late.count == 5
    assert 0 < late.median < cost


def test_a_wait_within_a_wait(backend):
    """A selector that is used in the middle of its own wait, as by a signal handler, has two waits."""
    kept = []

    class Nested(backend):
        def select(self, timeout=None):
            if timeout == 0.5:
                return super().select(0)
            return self.__class__.select(self, 0.5)

    with debugging("events", kept.append), Nested() as selector:
        selector.select(0)
        selector.select(0)
    waits = [record for record in kept if isinstance(record, Wait)]

    assert [wait.timeout for wait in waits] == [0.5, 0, 0.5, 0]
    assert [wait.turn >= 0 for wait in waits] == [False, False, False, True]


def test_a_failed_wait_is_measured_too(backend):
    """What the program takes after a wait that raised is counted from there."""
    kept = []

    class Failing(backend):
        def select(self, timeout=None):
            raise ZeroDivisionError

    with debugging("events,stats", kept.append), Failing() as selector:
        for _ in range(2):
            try:
                selector.select(0)
            except ZeroDivisionError:
                pass
    waits = [record for record in kept if isinstance(record, Wait)]

    assert [wait.ready for wait in waits] == [-1, -1]
    assert waits[1].turn >= 0


def test_a_select_that_returns_something_else(backend):
    """A class of the caller's may return what it likes."""
    kept = []

    class Odd(backend):
        def select(self, timeout=None):
            return timeout

    with debugging("all", kept.append), Odd() as selector:
        assert selector.select(7) == 7
        assert selector.select([(1, 2)]) == [(1, 2)]
        assert selector.select(()) == ()


def test_the_observer_keeps_no_selector(backend):
    """The observer holds nothing of a selector that has been dropped."""
    with backend(debug="all") as selector:
        observer = selector._observer
        assert observer.registry is selector._fd_to_key
    del selector
    import gc

    for _ in range(3):
        gc.collect()
    assert observer.registry == {}
    assert not observer._wakes(3)


def test_a_finding_counts_the_time_without_the_sink(backend, pairs):
    """A sink that takes long now and then makes no lint say a wrong, or a negative, time."""
    near, far = pairs[0]
    far.close()
    sink = Slow()

    def at_first(record):
        if isinstance(record, Wait) and len(sink.records) < 10:
            sink(record)

    with debugging("events,checks", at_first), backend() as selector:
        selector.register(near, EVENT_READ)
        with pytest.warns(BusyLoop) as caught:
            for turn in range(200):
                if turn == 40:
                    sink.records.clear()
                selector.select(0)
    (seconds,) = re.findall(r"in 100 waits in (\S+) s", str(caught[0].message))

    assert 0 <= float(seconds) < 1
