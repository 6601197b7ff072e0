"""Measure this package against the standard library, on this machine and interpreter.

Both run in one process, taking turns, so that what slows the machine down slows both. A figure is
the median over the turns of the ratio (standard library's time / ours); above 1 we are faster.
The bare row is the limit: the same system calls through the same ABI-mode functions, and nothing
else. Descriptors are pipes; where both directions are watched, connected sockets.
"""

from __future__ import annotations

import os
import platform
import selectors
import sys
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import _cffi_backend

from .bare import BareCalls
from .rows import Row, Timed, Watch, descriptors, has_bare, work, work_bare

WARM = 0.4 if platform.python_implementation() == "PyPy" else 0.02  # seconds before measuring

#: What is measured, beside ``stdlib`` and ``ours``: name -> a module like ``selectors``.
Others = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """A row's nanoseconds per call, and the ratios of them, by contestant."""

    row: Row
    times: dict[str, Spread]
    ratios: dict[str, Spread]  # contestant's time / ours


def available(row: Row) -> bool:
    """Tell whether both packages have the row's class here."""
    import selectors_ffi

    if (row.work == "forked" and not hasattr(os, "fork")) or (row.work == "beside" and os.name == "nt"):
        return False
    return hasattr(selectors, row.cls) and hasattr(selectors_ffi, row.cls)


def measure_rows(
    rows: list[Row], turns: int, others: Others | None = None, watch: Watch = descriptors
) -> list[Result]:
    """Measure each row, telling on standard error how far it is."""
    results = []
    for i, row in enumerate(rows, 1):
        print(f"\r[{i}/{len(rows)}] {row.name:<45}", end="", file=sys.stderr, flush=True)
        try:
            results.append(measure_row(row, turns, others or {}, watch))
        except OSError as error:  # too many open files, usually
            print(f"\rleft out: {row.name}: {error}", file=sys.stderr)
    print(f"\r{'':60}\r", end="", file=sys.stderr)
    return results


def measure_row(row: Row, turns: int, others: Others, watch: Watch = descriptors) -> Result:
    """Measure one row, watching what ``watch`` opens.

    Raises:
        OSError: the process may not open so many descriptors.
    """
    import selectors_ffi

    modules = {"stdlib": selectors, "ours": selectors_ffi, **others}
    with watch(row) as (watched, peers):
        contestants = {}
        made: list[Any] = []
        try:
            for name, module in modules.items():
                selector = getattr(module, row.cls)()
                made.append(selector)
                contestants[name] = work(row, selector, watched, peers)
            bare = BareCalls(row.backend)
            made.append(bare)
            if has_bare(row):
                contestants["bare"] = work_bare(row, bare, watched, peers)
            times = interleave(contestants, turns)
        finally:
            for selector in made:
                selector.close()
    return compare(row, times)


def compare(row: Any, times: dict[str, list[float]]) -> Result:
    """Return medians and quartiles of times and of ratios; turn is compared with turn."""
    ratios = {
        name: spread([other / ours for other, ours in zip(turns, times["ours"])])
        for name, turns in times.items()
        if name != "ours"
    }
    nanoseconds = {name: spread([1e9 * time for time in turns]) for name, turns in times.items()}
    return Result(row, nanoseconds, ratios)


def spread(values: list[float]) -> Spread:
    """Return median and quartiles."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
    return Spread(median(values), low, high)


def interleave(
    contestants: dict[str, Timed], turns: int, target: float = 0.001
) -> dict[str, list[float]]:
    """Let the contestants take turns of about ``target`` seconds; return seconds per call.

    The order is another one at each turn, so that nobody always comes after the same one.
    """
    calls = {}
    for name, timed in contestants.items():
        n = 1
        while timed(n) < target:
            n *= 2
        calls[name] = n
    for name, timed in contestants.items():
        spent = 0.0
        while spent < WARM:
            spent += timed(calls[name])
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(contestants[name](calls[name]) / calls[name])
    return times


def report(results: list[Result]) -> dict[str, Any]:
    """Return everything that a chart or a comparison needs, as JSON takes it."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pypy": ".".join(map(str, getattr(sys, "pypy_version_info", ())[:3])),
        "cffi": _cffi_backend.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "results": [asdict(result) for result in results],
    }


def table(results: list[Result]) -> str:
    """Return the figures as text."""
    lines = [
        f"{platform.python_implementation()} {platform.python_version()},"
        " microseconds per call; ratio: stdlib / ours (quartiles); to bare: ours / bare call",
        f"{'':<42}{'stdlib':>9}{'ours':>9}{'bare':>9}  {'ratio':<20}{'to bare':>6}",
    ]
    for result in results:
        times, ratio = result.times, result.ratios["stdlib"]
        line = f"{result.row.name:<42}{times['stdlib'].median / 1000:9.2f}"
        line += f"{times['ours'].median / 1000:9.2f}"
        line += f"{times['bare'].median / 1000:9.2f}" if "bare" in times else f"{'':9}"
        line += f"  {ratio.median:5.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
        if "bare" in times:
            line = f"{line:<89}{1 / result.ratios['bare'].median:6.2f}"
        lines.append(line)
    return "\n".join(lines)
