"""Debug: shows what a selector asked the kernel and what the kernel said.

The modules are imported when ``debug=``, ``SELECTORS_FFI_DEBUG`` or one of the names below is first
used. Selectors that are made without a flag stay as they are. Development mode imports ``leaks`` alone.
See ``docs/debugging.md``.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .public import *

__all__ = [
    "Debug", "debugging", "VARIABLE",
    "Switched", "switch", "switched",
    "RawEvent", "Description", "describe", "select_raw", "Stats",
    "Record", "Syscall", "Event", "Registration", "Wait", "Lint", "Source",
    "Sink", "LogSink", "FileSink", "JsonSink", "RingSink", "PerfettoSink", "ReportSink", "tee",
    "LINTS", "SelectorWarning", "ClosedWhileRegistered", "DescriptorReused", "StaleRegistration",
    "BusyLoop", "WriteInterestLeftOn", "BlockingDescriptor", "UsedAfterFork", "RegularFile",
    "BlockedLoop", "NeverSleeps", "OutOfDescriptors", "blocked_after",
]  # fmt: skip


_NAMES = (*__all__, "stats")


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = import_module(".public", __name__)
    globals().update({each: getattr(public, each) for each in _NAMES})
    return getattr(public, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
