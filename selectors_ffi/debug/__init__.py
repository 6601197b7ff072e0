"""Debug: shows what a selector asked the kernel and what the kernel said.

Importing this package is what makes ``debug=``, ``debugging()`` and ``SELECTORS_FFI_DEBUG`` work;
selectors that are made without any of them stay exactly what they are without it.
See ``docs/debugging.md``.
"""

from __future__ import annotations

from .flags import VARIABLE, Debug, debugging
from .inspect import Description, describe
from .lints import (
    LINTS,
    BlockedLoop,
    BlockingDescriptor,
    BusyLoop,
    ClosedWhileRegistered,
    DescriptorReused,
    NeverSleeps,
    OutOfDescriptors,
    RegularFile,
    SelectorWarning,
    StaleRegistration,
    UsedAfterFork,
    WriteInterestLeftOn,
)
from .live import Switched, switch, switched
from .perfetto import PerfettoSink
from .raw import RawEvent, select_raw
from .records import Event, Lint, Record, Registration, Source, Syscall, Wait
from .report import ReportSink
from .sinks import FileSink, JsonSink, LogSink, RingSink, Sink, tee
from .stats import Stats
from .turns import blocked_after
from .watch import instrument as instrument
from .watch import stats as stats

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
