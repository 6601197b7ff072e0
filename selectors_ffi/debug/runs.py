"""Runs: waits in a row that found the same descriptor ready, and what that proves.

Counting is all that is done in most waits. After every ``STEP`` waits that reported the same descriptor
for the same events, the kernel's evidence on it is compared with that of the step before.
"""

from __future__ import annotations

from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING

from .evidence import NOTHING, Arrivals, Evidence, descriptors_left, evidence_of, listens
from .lints import BusyLoop, NeverSleeps, OutOfDescriptors, SelectorWarning, WriteInterestLeftOn
from .presence import other_threads

if TYPE_CHECKING:
    from collections.abc import Iterable
    from selectors import SelectorKey

__all__ = ["FINAL", "FROZEN", "IDLE", "EmptyWaits", "Runs"]

#: Waits in a row between two looks at the evidence.
STEP = 50
#: Waits in a row that prove a loop busy with a state that cannot end by itself: end of file, hang-up.
FINAL = 100
#: The same, of a descriptor that could still be read or written.
FROZEN = 1000
#: Nanoseconds that a run must last as well if the program has other threads. One of them may be about to
#: read or unregister the descriptor, and waits for its turn.
PATIENCE = 500_000_000
#: Waits in a row with a timeout of 0 that found nothing.
IDLE = 5000
#: In so many waits from then on it is asked what the loop runs: tasks that need each other take turns.
LOOKS = 8
#: A loop slower than this per turn burns no processor worth a warning; nanoseconds.
TURN = 5_000_000
#: The same for a loop that finds nothing: it may compute between its waits.
IDLE_TURN = 1_000_000

Verdict = tuple[type[SelectorWarning], str]


class _Run:
    """Waits in a row that found one descriptor ready for the same events."""

    __slots__ = ("count", "events", "evidence", "final", "frozen", "serial", "since", "starved", "step")

    def __init__(self, events: int, serial: int, now: int) -> None:
        self.events = events
        self.serial = serial
        self.count = 1
        self.since = self.step = now
        self.evidence = NOTHING
        self.final = self.frozen = self.starved = 0


class Runs:
    """The runs of one selector."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._serial = 0
        self._arrivals = Arrivals()

    def forget(self, fd: int) -> None:
        """End the run of ``fd``: its registration has changed."""
        if self._runs.pop(fd, None) is not None:
            self._arrivals.forget(fd)

    def after(
        self, ready: Iterable[tuple[SelectorKey, int]], now: int
    ) -> list[tuple[SelectorKey, type[SelectorWarning], str]]:
        """Count a wait; return (key, lint, what was seen) of runs that prove a lint.

        Args:
            ready: what the wait returned.
            now: nanoseconds, without the time that this package took.
        """
        self._serial = serial = self._serial + 1
        runs = self._runs
        found = []
        for key, events in ready:
            run = runs.get(key.fd)
            if run is None or run.serial != serial - 1 or run.events != events:
                # The standard library's kqueue returns both directions of a descriptor by themselves.
                if run is None or run.serial != serial:
                    runs[key.fd] = _Run(events, serial, now)
                continue
            run.serial = serial
            run.count += 1
            if not run.count % STEP:
                verdict = self._look(run, key, now)
                if verdict is not None:
                    found.append((key, *verdict))
        return found

    def _look(self, run: _Run, key: SelectorKey, now: int) -> Verdict | None:
        """Compare the evidence with that of the step before."""
        fd = int(key.fd)
        slow = now - run.step > TURN * STEP
        run.step = now
        before = run.evidence
        run.evidence = after = evidence_of(fd, key.fileobj)
        arrived = None
        if after.counters is None and after.unread:
            arrived = self._arrivals.since_last(fd)
        if slow or run.count == STEP:
            run.since = now
            run.final = run.frozen = run.starved = 0
            return None
        same = _nothing_done(run.events, before, after, arrived=arrived)
        run.final = run.final + STEP if _is_final(run.events, before, after) else 0
        run.frozen = run.frozen + STEP if same else 0
        starved = run.events & EVENT_READ and listens(fd) and not descriptors_left(fd)
        run.starved = run.starved + STEP if starved else 0
        if not (run.final or run.frozen or run.starved):
            run.since = now
        if other_threads() and now - run.since < PATIENCE:
            return None
        return _judge(run, (now - run.since) / 1e9)


def _is_final(events: int, before: Evidence, after: Evidence) -> bool:
    """Tell whether, between two looks, only unregistering could have ended this readiness."""
    return all(
        not evidence.unread
        and (evidence.hangup or (bool(events & EVENT_READ) and evidence.ended and evidence.unread == 0))
        for evidence in (before, after)
    )


def _nothing_done(events: int, before: Evidence, after: Evidence, *, arrived: bool | None) -> bool:
    """Tell whether nothing was read, written or accepted between two looks."""
    if before.unread != after.unread:
        return False
    if after.counters is not None:
        return before.counters == after.counters
    # Without counters, equal numbers prove something only of reading, and only if nothing arrived.
    return events == EVENT_READ and bool(after.unread) and arrived is False


def _judge(run: _Run, seconds: float) -> Verdict | None:
    if run.starved >= FINAL:
        return OutOfDescriptors, (
            f"was reported in {run.starved} waits in {seconds:.3f} s: a connection waits to be accepted,"
            " and this process has no descriptor left for it"
        )
    if run.final >= FINAL:
        return BusyLoop, (
            f"was reported in {run.final} waits in {seconds:.3f} s: end of file or hung up,"
            " with nothing left to read"
        )
    if run.frozen < FROZEN:
        return None
    if run.events == EVENT_WRITE:
        return WriteInterestLeftOn, (
            f"was writable in {run.frozen} waits in {seconds:.3f} s, and nothing was written"
        )
    if not run.evidence.stream:
        return BusyLoop, (
            f"was reported in {run.frozen} waits in {seconds:.3f} s, and none of the connections"
            f" that wait ({run.evidence.unread}) was accepted"
        )
    return BusyLoop, (
        f"was reported in {run.frozen} waits in {seconds:.3f} s, and none of the bytes"
        f" that wait ({run.evidence.unread}) was read"
    )


class EmptyWaits:
    """Waits in a row with a timeout of 0 that found nothing."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0

    def after(self, timeout: float | None, ready: int, now: int) -> Verdict | None:
        """Count a wait; return a lint when the row is long enough.

        Args:
            timeout: what the caller asked for.
            ready: how many keys the wait returned.
            now: nanoseconds, without the time that this package took.
        """
        if ready or timeout is None or timeout > 0:
            self._count = 0
            return None
        if not self._count:
            self._since = now
        self._count += 1
        if self._count < IDLE:
            return None
        seconds = (now - self._since) / 1e9
        slow = seconds > IDLE_TURN * IDLE / 1e9
        if slow or self._count >= IDLE + LOOKS:
            self._count = 0
        if slow:
            return None
        return NeverSleeps, (
            f"select() was called {IDLE} times in {seconds:.3f} s with a timeout of 0,"
            " and each time nothing was ready"
        )

    def told(self) -> None:
        """Begin a new row."""
        self._count = 0
