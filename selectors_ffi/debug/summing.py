"""Sums: what becomes of the records of a long trace that are too many to keep one by one.

Records are summed up over intervals. An interval is a twentieth of a second at first and grows
with the age of the trace, so that a day gives a few thousand of them.
"""

from __future__ import annotations

from typing import Any

from .records import Event, Record, Registration, Source, Syscall, Wait

__all__ = ["Sums"]

#: Nanoseconds of the shortest interval.
SHORTEST = 50_000_000
#: An interval is at least this part of the time that has been summed up.
PART = 1_000
#: How many descriptors an interval names; it counts the others together.
NAMED = 10


class Sums:
    """The sums of the interval that is not over yet, by thread and selector."""

    def __init__(self) -> None:
        self._sums: dict[Source, dict[str, Any]] = {}
        self._begun = 0
        self._end = 0
        self._begin = 0
        self._ready: dict[Source, int] = {}

    def add(self, record: Record) -> list[tuple[Source, int, dict[str, Any]]]:
        """Count a record; return the sums of the interval that it has ended, if any."""
        done = self.take() if record.time >= self._end else []
        if not self._begun:
            self._begun = record.time
        if done or not self._end:
            self._begin = record.time
            self._end = record.time + max(SHORTEST, (record.time - self._begun) // PART)
        sums = self._sums.get(record.source)
        if sums is None:
            sums = self._sums[record.source] = _nothing()
        sums["end"] = max(sums["end"], record.time - self._begin)
        if isinstance(record, Wait):
            self._wait(sums, record)
        elif isinstance(record, Syscall):
            call = sums["calls"].setdefault(record.name, [0, 0, 0])
            call[0] += 1
            call[1] += record.duration
            call[2] += bool(record.errno)
        elif isinstance(record, Event):
            sums["events"] += 1
            sums["fds"][record.fd] = sums["fds"].get(record.fd, 0) + 1
        elif isinstance(record, Registration):
            sums["registrations"] += 1
        return done

    def _wait(self, sums: dict[str, Any], record: Wait) -> None:
        sums["waits"] += 1
        sums["waiting"] += record.duration
        sums["empty"] += record.ready == 0
        sums["ready"] += max(record.ready, 0)
        before = self._ready.get(record.source)
        if before is not None:
            turn = record.turn if record.turn >= 0 else record.time - before
            sums["turns"] += turn
            if turn > sums["longest"][0]:
                sums["longest"] = [turn, before - self._begin]
        end = self._ready[record.source] = record.time + record.span
        sums["end"] = max(sums["end"], end - self._begin)

    def take(self) -> list[tuple[Source, int, dict[str, Any]]]:
        """Return source, begin and figures of the interval so far, and forget them."""
        taken, self._sums = self._sums, {}
        for sums in taken.values():
            named = sorted(sums["fds"].items(), key=lambda item: -item[1])[:NAMED]
            sums["fds"] = [list(item) for item in named]
        return [(source, self._begin, sums) for source, sums in taken.items()]


def _nothing() -> dict[str, Any]:
    return {
        "end": 0, "waits": 0, "waiting": 0, "empty": 0, "ready": 0, "turns": 0, "longest": [0, 0],
        "events": 0, "registrations": 0, "calls": {}, "fds": {},
    }  # fmt: skip
