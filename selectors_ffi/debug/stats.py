"""Statistics: counts and times of system calls, waits and events.

Durations are kept in buckets of an eighth of a power of two, so that a median costs a fixed
amount of memory; it is exact to 6 %. Totals and maxima are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .decode.grammar import errno_name
from .locking import Locked
from .records import Event, Syscall, Wait

if TYPE_CHECKING:
    from .records import Record

__all__ = ["Durations", "Stats"]

_FINE = 3  # 2**3 buckets per power of two


class Durations:
    """A set of durations in nanoseconds: count, total, median, max."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.max = 0
        self._buckets: dict[int, int] = {}

    def add(self, duration: int) -> None:
        """Count one duration."""
        self.count += 1
        self.total += duration
        self.max = max(self.max, duration)
        # The bucket is the number cut to its leading bits, which is also its lower edge.
        shift = max(duration.bit_length() - 1 - _FINE, 0)
        bucket = duration >> shift << shift
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def median(self) -> int:
        """The middle of the bucket in which the middle duration lies; 0 if there is none."""
        rest = (self.count + 1) // 2
        for bucket in sorted(self._buckets):
            rest -= self._buckets[bucket]
            if rest <= 0:
                width = 1 << max(bucket.bit_length() - 1 - _FINE, 0)
                return min(bucket + width // 2, self.max)
        return 0

    def as_dict(self) -> dict[str, int]:
        """Return count, total, median and max."""
        return {"count": self.count, "total": self.total, "median": self.median, "max": self.max}


class _Call(Durations):
    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, int] = {}


class Stats(Locked):
    """What ``selector.stats()`` returns; ``str()`` of it is a table like that of ``strace -c``.

    Attributes:
        calls: C function name -> its ``Durations``, with ``errors``: errno name -> count.
        waits: durations of ``select()``.
        empty: how many of them returned nothing.
        ready: how many keys they returned in all.
        kinds: native flags as text -> how often the kernel reported them.
        dropped: reason -> how many events were not handed on.
        late: of waits that timed out, by how much the wait exceeded the timeout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, _Call] = {}
        self.waits = Durations()
        self.empty = 0
        self.ready = 0
        self.kinds: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.late = Durations()

    def __call__(self, record: Record) -> None:
        """Count a record; a sink."""
        with self._lock:
            if isinstance(record, Syscall):
                self._syscall(record)
            elif isinstance(record, Event):
                self._event(record.flags, record.dropped)
            elif isinstance(record, Wait):
                self._wait(record)

    def event(self, flags: str, dropped: str) -> None:
        """Count an event without its record."""
        with self._lock:
            self._event(flags, dropped)

    def _event(self, flags: str, dropped: str) -> None:
        self.kinds[flags] = self.kinds.get(flags, 0) + 1
        if dropped:
            self.dropped[dropped] = self.dropped.get(dropped, 0) + 1

    def _syscall(self, record: Syscall) -> None:
        call = self.calls.get(record.name)
        if call is None:
            call = self.calls[record.name] = _Call()
        call.add(record.duration)
        if record.errno:
            name = errno_name(record.errno)
            call.errors[name] = call.errors.get(name, 0) + 1

    def _wait(self, record: Wait) -> None:
        self.waits.add(record.duration)
        self.ready += max(record.ready, 0)
        if record.ready == 0:
            self.empty += 1
            if record.timeout is not None and record.timeout > 0:
                self.late.add(max(record.duration - int(record.timeout * 1e9), 0))

    def as_dict(self) -> dict[str, Any]:
        """Return all figures; times in nanoseconds."""
        with self._lock:
            return {
                "calls": {
                    name: {**call.as_dict(), "errors": dict(call.errors)}
                    for name, call in self.calls.items()
                },
                "waits": self.waits.as_dict(),
                "empty": self.empty,
                "ready": self.ready,
                "kinds": dict(self.kinds),
                "dropped": dict(self.dropped),
                "late": self.late.as_dict(),
            }

    def __str__(self) -> str:
        with self._lock:
            return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        total = sum(call.total for call in self.calls.values())
        lines = [
            "% time     seconds   median us      max us     calls    errors syscall",
            "------ ----------- ----------- ----------- --------- --------- ----------------",
        ]
        by_time = sorted(self.calls.items(), key=lambda item: (-item[1].total, item[0]))
        for name, call in by_time:
            errors = sum(call.errors.values())
            lines.append(_row(call, total, f"{errors}" if errors else "", name))
        lines.append(lines[1])
        everything = Durations()
        everything.total = total
        everything.count = sum(call.count for call in self.calls.values())
        everything.max = max((call.max for call in self.calls.values()), default=0)
        errors = sum(sum(call.errors.values()) for call in self.calls.values())
        lines.append(_row(everything, total, f"{errors}" if errors else "", "total", median=False))
        lines += _counts("errors", self._errors())
        if self.waits.count:
            per_wait = self.ready / self.waits.count
            lines += [
                "",
                f"select(): {self.waits.count} waits, {self.empty} empty,"
                f" {self.ready} keys ready, {per_wait:.2f} per wait",
            ]
        if self.late.count:
            median, most = self.late.median / 1000, self.late.max / 1000
            lines.append(
                f"timeouts: {self.late.count} waits ran out,"
                f" late by {median:.0f} us (median), {most:.0f} us (max)"
            )
        lines += _counts("events by kind", self.kinds)
        lines += _counts("events dropped", self.dropped)
        return lines

    def _errors(self) -> dict[str, int]:
        return {
            f"{name}: {errno}": count
            for name, call in self.calls.items()
            for errno, count in call.errors.items()
        }


def _row(call: Durations, total: int, errors: str, name: str, *, median: bool = True) -> str:
    share = 100 * call.total / total if total else 0.0
    middle = f"{call.median / 1000:.1f}" if median else ""
    return (
        f"{share:6.2f} {call.total / 1e9:11.6f} {middle:>11} {call.max / 1000:11.1f}"
        f" {call.count:9d} {errors:>9} {name}"
    )


def _counts(title: str, counts: dict[str, int]) -> list[str]:
    """Return a titled list, most frequent first; nothing if there is nothing to list."""
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ["", f"{title}:"] + [f"{count:9d}  {name}" for name, count in ordered]
