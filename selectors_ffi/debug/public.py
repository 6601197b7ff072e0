"""Public: the names of the package for users. Importing this module is what makes the flags work."""

from __future__ import annotations

from .ambience import VARIABLE as VARIABLE
from .ambience import debugging as debugging
from .counts import Stats as Stats
from .flags import Debug as Debug
from .inspect import Description as Description
from .inspect import describe as describe
from .lints import LINTS as LINTS
from .lints import BlockedLoop as BlockedLoop
from .lints import BlockingDescriptor as BlockingDescriptor
from .lints import BusyLoop as BusyLoop
from .lints import ClosedWhileRegistered as ClosedWhileRegistered
from .lints import DescriptorReused as DescriptorReused
from .lints import NeverSleeps as NeverSleeps
from .lints import OutOfDescriptors as OutOfDescriptors
from .lints import RegularFile as RegularFile
from .lints import SelectorWarning as SelectorWarning
from .lints import StaleRegistration as StaleRegistration
from .lints import UsedAfterFork as UsedAfterFork
from .lints import WriteInterestLeftOn as WriteInterestLeftOn
from .live import Switched as Switched
from .live import switch as switch
from .live import switched as switched
from .perfetto import PerfettoSink as PerfettoSink
from .raw import RawEvent as RawEvent
from .raw import select_raw as select_raw
from .records import Event as Event
from .records import Lint as Lint
from .records import Record as Record
from .records import Registration as Registration
from .records import Source as Source
from .records import Syscall as Syscall
from .records import Wait as Wait
from .report import ReportSink as ReportSink
from .sinks import FileSink as FileSink
from .sinks import JsonSink as JsonSink
from .sinks import LogSink as LogSink
from .sinks import RingSink as RingSink
from .sinks import Sink as Sink
from .sinks import tee as tee
from .turns import blocked_after as blocked_after
from .watch import instrument as instrument
from .watch import stats as stats
