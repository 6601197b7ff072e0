"""Records: what a sink is given. ``str(record)`` is its line, ``record.as_dict()`` its fields.

Times are nanoseconds of ``time.perf_counter_ns()``, durations nanoseconds. The time that the debug
package itself takes is in no duration, see ``spent``.
"""

from __future__ import annotations

import os
from math import isfinite
from threading import get_native_id, local
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from .decode.grammar import errno_name, outcome, seconds, struct
from .naming import interest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Event",
    "Lint",
    "Record",
    "Registration",
    "Source",
    "Spent",
    "Syscall",
    "Wait",
    "here",
    "now",
    "spent",
]


class Source(NamedTuple):
    """Which process, thread and selector made a record."""

    pid: int
    thread: int
    """The kernel's thread id."""
    selector: str
    """Class and serial number, e.g. ``EpollSelector-1``."""


def here(selector: str) -> Source:
    """Return the source that is the calling thread."""
    return Source(os.getpid(), get_native_id(), selector)


class Marks:
    """When the lines of this process name their source."""

    main: int = get_native_id()
    """The thread that needs no mark; 0 if every thread does."""
    made = 0
    """How many selectors were made while flags were in force."""
    selectors = 0
    """How many selectors were observed: from the second on, lines name theirs."""


def _prefix(source: Source) -> str:
    """Return strace -f's mark of another process or thread, and the selector if there are several."""
    thread = "" if source.thread == Marks.main else f"[pid {source.thread}] "
    return f"{thread}[{source.selector}] " if Marks.selectors > 1 else thread


class Syscall(NamedTuple):
    """One system call."""

    time: int
    source: Source
    name: str
    arguments: Sequence[str]
    """Decoded when first looked at; empty unless ``Debug.SYSCALLS`` is on."""
    result: int | None
    """None if the call did not return."""
    errno: int
    """0 unless the call failed."""
    note: str
    """What strace puts in parentheses; the exception's name if the call did not return."""
    duration: int

    def __str__(self) -> str:
        arguments = ", ".join(self.arguments)
        end = outcome(self.result, self.errno, self.note)
        return f"{_prefix(self.source)}{self.name}({arguments}) = {end} {seconds(self.duration)}"

    def as_dict(self) -> dict[str, Any]:
        errno = errno_name(self.errno) if self.errno else None
        return _fields("syscall", self, arguments=tuple(self.arguments), errno=errno)


class Event(NamedTuple):
    """One event that the kernel reported, and what became of it."""

    time: int
    source: Source
    fd: int
    """-1 if it is the selector's own, by which another thread wakes it."""
    kind: str
    flags: str
    events: int
    """``EVENT_*`` mask handed to the caller; 0 if the event was dropped."""
    fileobj: str
    dropped: str
    """Why it was not handed on; otherwise empty."""
    owner: str = ""
    """Which part of the program the descriptor belongs to; see ``owners``."""
    eof: bool | None = None
    """Whether a socket's peer has stopped sending, where the flags do not say it; None if unknown."""

    def __str__(self) -> str:
        _, source, fd, kind, flags, events, _, dropped, _, eof = self
        # kqueue's are several fields with names of their own.
        what = f"kind={kind}, {flags}" if "=" in flags else f"kind={kind}, events={flags}"
        if eof:
            what += ", eof"
        if fd >= 0:
            what = f"fd={fd}, {what}"
        if dropped:
            return f"{_prefix(source)}event({{{what}}}) = dropped ({dropped})"
        return f"{_prefix(source)}event({{{what}}}) = {interest(events)} ({_object(self)})"

    def as_dict(self) -> dict[str, Any]:
        return _fields("event", self)


class Registration(NamedTuple):
    """A change of the registry, made or refused."""

    time: int
    source: Source
    action: str
    """register, modify, unregister, or close."""
    fd: int
    """-1 for close."""
    kind: str
    events: int
    fileobj: str
    error: str
    """The exception that refused it; otherwise empty."""
    peer: str = ""
    """What the descriptor is connected to; see ``addresses``. Of ``register`` only."""
    owner: str = ""
    """Which part of the program the descriptor belongs to; see ``owners``."""
    place: str = ""
    """The line of the program that asked for it."""

    def __str__(self) -> str:
        prefix = _prefix(self.source)
        if self.action == "close":
            return f"{prefix}close({self.source.selector})"
        key = struct(fd=self.fd, kind=self.kind, events=interest(self.events))
        return f"{prefix}{self.action}({key}) = {self.error or _object(self)}"

    def as_dict(self) -> dict[str, Any]:
        return _fields("registration", self)


class Wait(NamedTuple):
    """One ``select()``: its timeout, how long it took, and how much was ready."""

    time: int
    source: Source
    timeout: float | None
    duration: int
    ready: int
    """How many keys it returned; -1 if it raised."""
    turn: int = -1
    """What the program took since the last wait of this selector in this thread; -1 if none was."""
    overhead: int = 0
    """What the debug package took meanwhile, which is not in ``duration``."""
    at: str = ""
    """The line that ran during a turn that took long, see ``turns``; else empty."""

    @property
    def finite_timeout(self) -> float | str | None:
        """The timeout; text for infinity and NaN, which JSON does not have."""
        return self.timeout if self.timeout is None or isfinite(self.timeout) else str(self.timeout)

    @property
    def span(self) -> int:
        """From beginning to end by the clock, for a time axis."""
        return self.duration + self.overhead

    def __str__(self) -> str:
        timeout = "None" if self.timeout is None else f"{self.timeout:g}"
        ready = "raised" if self.ready < 0 else f"{self.ready} ready"
        return f"{_prefix(self.source)}wait({timeout}) = {ready} {seconds(self.duration)}"

    def as_dict(self) -> dict[str, Any]:
        return _fields("wait", self, timeout=self.finite_timeout)


class Lint(NamedTuple):
    """A warning of ``Debug.CHECKS``."""

    time: int
    source: Source
    id: str
    fd: int
    message: str
    place: str

    def __str__(self) -> str:
        return f"{_prefix(self.source)}{self.id} at {self.place}: {self.message}"

    def as_dict(self) -> dict[str, Any]:
        return _fields("lint", self)


Record = Union[Syscall, Event, Registration, Wait, Lint]


def _object(record: Event | Registration) -> str:
    """Return the file object, and its owner if that is not just its type.

    Where a number was registered, which names nothing, it is the owner alone.
    """
    fileobj, owner = record.fileobj, record.owner
    if not owner:
        return fileobj
    if fileobj.isdecimal():
        return owner
    typed = fileobj.startswith((f"<{owner} ", f"<__main__.{owner} "))
    return fileobj if typed else f"{fileobj}, {owner}"


def _fields(type_: str, record: Any, **changed: object) -> dict[str, Any]:
    fields = {"type": type_, **record._asdict(), **record.source._asdict(), **changed}
    del fields["source"]
    return fields


now = perf_counter_ns
"""The clock of ``Record.time``."""


class Spent:
    """Nanoseconds that the debug package itself has taken in one thread.

    A figure that was measured from A to B is B - A less what was spent between them.
    """

    __slots__ = ("ns",)

    def __init__(self) -> None:
        self.ns: int = 0


_threads = local()


def spent() -> Spent:
    """Return the one of the calling thread."""
    try:
        found: Spent = _threads.spent
    except AttributeError:
        found = _threads.spent = Spent()
    return found
