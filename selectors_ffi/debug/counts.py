"""Statistics: counts and times of system calls, waits, turns and events.

Durations are kept in buckets of an eighth of a power of two, so that a median costs a fixed
amount of memory; it is exact to 6 %. Totals and maxima are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .decode.grammar import errno_name
from .locking import Locked
from .records import Event, Registration, Syscall, Wait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Record, Source

__all__ = ["Durations", "Stats"]

_FINE = 3  # 2**3 buckets per power of two

#: The table names so many descriptors that woke the loop.
NAMED = 10
#: So many are told apart; a server that runs for days has had millions of connections.
_APART = 10_000
_OTHERS = "other descriptors"


class Durations:
    """A set of durations in nanoseconds: count, total, median, max."""

    def __init__(self) -> None:
        self.count: int = 0
        self.total: int = 0
        self.max: int = 0
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

    def state(self) -> dict[str, Any]:
        """Return what ``merge`` takes, as JSON can hold it."""
        return {"total": self.total, "max": self.max, "buckets": list(self._buckets.items())}

    def merge(self, state: dict[str, Any]) -> None:
        """Add the durations of another set."""
        self.total += state["total"]
        self.max = max(self.max, state["max"])
        for bucket, count in state["buckets"]:
            self.count += count
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count


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
        turns: durations of what the program did between two waits.
        longest: the line that ran in the longest turn, if that took long, and what was ready before it.
        kinds: native flags as text -> how often the kernel reported them.
        woken: descriptor and its owner -> how often it was ready.
        dropped: reason -> how many events were not handed on.
        late: by how much the waits that timed out exceeded their timeouts.
        processes: how many processes the figures cover.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self.calls: dict[str, _Call] = {}
        self.waits: Durations = Durations()
        self.empty: int = 0
        self.ready: int = 0
        self.turns: Durations = Durations()
        self.longest: str = ""
        self.kinds: dict[str, int] = {}
        self.woken: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.late: Durations = Durations()
        self.processes: int = 1
        # Of each thread and selector: what this wait has found so far, and what the last one found.
        self._found: dict[Source, list[str]] = {}
        self._before: dict[Source, list[str]] = {}

    def restart(self) -> None:
        """Begin anew, as in a forked child, whose parent has counted so far."""
        with self._lock:
            self._forget()

    def __call__(self, record: Record) -> None:
        """Count a record; a sink."""
        self.together((record,))

    def together(self, records: Iterable[Record]) -> None:
        """Count several records."""
        with self._lock:
            for record in records:
                if type(record) is Event:
                    self._event(record)
                elif type(record) is Syscall:
                    self._syscall(record)
                elif type(record) is Wait:
                    self._wait(record)
                elif type(record) is Registration and record.action == "close":
                    self._found.pop(record.source, None)
                    self._before.pop(record.source, None)

    def _event(self, record: Event) -> None:
        _, source, fd, _, flags, _, _, dropped, owner, _ = record
        self.kinds[flags] = self.kinds.get(flags, 0) + 1
        if dropped:
            self.dropped[dropped] = self.dropped.get(dropped, 0) + 1
            return
        label = f"fd {fd}, {owner}" if owner else f"fd {fd}"
        if label not in self.woken and len(self.woken) >= _APART:
            label = _OTHERS
        self.woken[label] = self.woken.get(label, 0) + 1
        self._found.setdefault(source, []).append(label)

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
        before = self._before.get(record.source, [])
        if record.turn >= 0:
            if record.turn > self.turns.max:
                after = ", ".join(before[:3]) + (", ..." if len(before) > 3 else "")
                self.longest = ", ".join(
                    filter(None, (record.at and f"at {record.at}", after and f"after {after}"))
                )
            self.turns.add(record.turn)
        if len(self._before) >= _APART:
            self._before.clear()
        self._before[record.source] = self._found.pop(record.source, [])

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
                "turns": self.turns.as_dict(),
                "longest": self.longest,
                "kinds": dict(self.kinds),
                "woken": dict(self.woken),
                "dropped": dict(self.dropped),
                "late": self.late.as_dict(),
                "processes": self.processes,
            }

    def state(self) -> dict[str, Any]:
        """Return what ``merge`` takes, as JSON can hold it."""
        with self._lock:
            return {
                "calls": {name: (call.state(), call.errors) for name, call in self.calls.items()},
                "durations": [self.waits.state(), self.turns.state(), self.late.state()],
                "counts": [self.empty, self.ready, self.processes],
                "longest": self.longest,
                "named": [self.kinds, self.woken, self.dropped],
            }

    def merge(self, state: dict[str, Any]) -> None:
        """Add the figures of another process."""
        with self._lock:
            for name, (durations, errors) in state["calls"].items():
                call = self.calls.setdefault(name, _Call())
                call.merge(durations)
                _add(call.errors, errors)
            waits, turns, late = state["durations"]
            if turns["max"] > self.turns.max:
                self.longest = state["longest"]
            self.waits.merge(waits)
            self.turns.merge(turns)
            self.late.merge(late)
            empty, ready, processes = state["counts"]
            self.empty += empty
            self.ready += ready
            self.processes += processes
            for own, theirs in zip((self.kinds, self.woken, self.dropped), state["named"]):
                _add(own, theirs)

    def __str__(self) -> str:
        with self._lock:
            return "\n".join([*self._table(), *self._sentences(), *self._lists()])

    def _table(self) -> list[str]:
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
        return lines

    def _sentences(self) -> list[str]:
        lines = [""]
        if self.processes > 1:
            lines.append(f"of {self.processes} processes")
        if self.waits.count:
            per_wait = self.ready / self.waits.count
            lines.append(
                f"select(): {self.waits.count} waits, {self.empty} empty,"
                f" {self.ready} keys ready, {per_wait:.2f} per wait"
            )
        if self.turns.count:
            whole = self.turns.total + self.waits.total
            busy = 100 * self.turns.total / whole if whole else 0.0
            longest = f" ({self.longest})" if self.longest else ""
            lines += [
                f"{whole / 1e9:.3f} s: {busy:.1f} % in the program, {100 - busy:.1f} % in select()",
                f"longest turn of the program: {self.turns.max / 1e9:.6f} s{longest}",
            ]
        if self.late.count:
            median, most = self.late.median / 1000, self.late.max / 1000
            lines.append(
                f"timeouts: {self.late.count} waits ran out,"
                f" late by {median:.0f} us (median), {most:.0f} us (max)"
            )
        return lines if len(lines) > 1 else []

    def _lists(self) -> list[str]:
        errors = {
            f"{name}: {errno}": count
            for name, call in self.calls.items()
            for errno, count in call.errors.items()
        }
        lines = _counts("errors", errors) + _counts("events by kind", self.kinds)
        lines += _counts("woke the loop most", self.woken, NAMED)
        return lines + _counts("events dropped", self.dropped)


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


def _row(call: Durations, total: int, errors: str, name: str, *, median: bool = True) -> str:
    share = 100 * call.total / total if total else 0.0
    middle = f"{call.median / 1000:.1f}" if median else ""
    return (
        f"{share:6.2f} {call.total / 1e9:11.6f} {middle:>11} {call.max / 1000:11.1f}"
        f" {call.count:9d} {errors:>9} {name}"
    )


def _counts(title: str, counts: dict[str, int], most: int = 0) -> list[str]:
    """Return a titled list, most frequent first; nothing if there is nothing to list."""
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:most] if most else ordered
    lines = ["", f"{title}:"] + [f"{count:9d}  {name}" for name, count in shown]
    if len(shown) < len(ordered):
        rest = sum(count for _, count in ordered[len(shown) :])
        lines.append(f"{rest:9d}  {len(ordered) - len(shown)} more")
    return lines
