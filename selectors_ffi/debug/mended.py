"""Mended: faults of a program that these selectors have made good, told at the end of a trace.

Without this a trace would hide the fault that it was made for.
"""

from __future__ import annotations

__all__ = ["REPLACED", "REUSED", "forget", "mended", "sentences"]

REPLACED = (
    "stale registration: the epoll set was made anew, {}. With the standard library's selectors this"
    " loop would spin. Call unregister() before close(). (docs/lints.md#sel003-staleregistration)"
)
REUSED = (
    "reused number: modify() met a file that was never registered, and registered it, {}. The standard"
    " library's selectors raise FileNotFoundError."
    " Call unregister() before close(). (docs/lints.md#sel002-descriptorreused)"
)

_counts: dict[str, int] = {}


def mended(what: str) -> None:
    """Count one of the above."""
    _counts[what] = _counts.get(what, 0) + 1


def sentences() -> list[str]:
    """Return what this process has mended so far."""
    times = {what: "once" if count == 1 else f"{count} times" for what, count in _counts.items()}
    return [what.format(count) for what, count in times.items()]


def forget() -> None:
    """Count anew: this process is a forked child, and its parent tells what came before."""
    _counts.clear()
