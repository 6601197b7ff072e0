"""Filters: which of the records are shown, in strace's terms.

``trace=epoll_ctl,epoll_wait`` (or ``trace=!close``) chooses calls by name, a descriptor or a path
chooses what it is about, and two more choose what failed and what was slow.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..binding import load
from .decode import FORMS
from .flags import Debug, flags_of
from .naming import link_of, socket_of
from .records import Event, Lint, Registration, Syscall, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .records import Record
    from .sinks import Sink

__all__ = ["Calls", "Chosen", "Filter", "about", "calls_of", "chosen", "nanoseconds_of"]

_DELETED = " (deleted)"  # Linux adds it to the path of a file that has none any more
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
#: Stand for the functions of whatever mechanism is in use, as in ``selectors_ffi.testing.inject``.
_GROUPS = {
    "wait": (
        *("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "kevent", "ioctl"),
        "port_getn",
    ),
    "control": ("epoll_ctl", "kevent", "write", "port_associate", "port_dissociate"),
}


class Calls(NamedTuple):
    """Which system calls are shown."""

    names: frozenset[str]
    negated: bool = False

    def has(self, name: str) -> bool:
        """Tell whether a call is shown."""
        return (name in self.names) is not self.negated


class Chosen(NamedTuple):
    """What ``-e`` asks for."""

    flags: Debug
    calls: Calls


ALL = Calls(frozenset(), negated=True)


def chosen(expressions: Iterable[str], default: str) -> Chosen:
    """Return flags and calls from the values of ``-e``: ``FLAGS`` or ``trace=CALLS`` each.

    Args:
        expressions: the values; none means ``default``.
        default: the flags if no expression has any; ``trace=`` adds ``syscalls``.

    Raises:
        ValueError: an unknown flag or call, and the message lists what is known; or a value that
            asks for nothing.
    """
    flags, calls = Debug(0), None
    for expression in expressions:
        name, equals, value = expression.partition("=")
        if not equals:
            found = flags_of(expression, "-e")
            if not found:
                raise ValueError(f"-e: {expression!r} names no flag")
            if not found & ~Debug.STATS:
                raise ValueError("-e: stats alone shows no line; --summary prints its table")
            flags |= found
        elif name == "trace":
            more = calls_of(value)
            if calls is not None and calls.negated == more.negated:
                more = Calls(calls.names | more.names, more.negated)
            calls = more
        else:
            raise ValueError(f"-e: {expression!r} is neither FLAGS nor trace=CALLS")
    if calls is not None:
        return Chosen(flags | Debug.SYSCALLS, calls)
    return Chosen(flags or flags_of(default, "-e"), ALL)


def calls_of(text: str) -> Calls:
    """Return the calls that ``epoll_ctl,epoll_wait`` or ``!close`` names.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    negated = text.startswith("!")
    names: set[str] = set()
    known = known_calls()
    for name in filter(None, re.split(r"[\s,]+", text[negated:])):
        if name == "all":
            names.update(known)
        elif name in _GROUPS:
            names.update(_GROUPS[name])
        elif name in known:
            names.add(name)
        else:
            listed = ", ".join([*known, *_GROUPS, "all"])
            raise ValueError(f"-e: unknown call {name!r} in trace=; known are {listed}")
    if not names:
        raise ValueError("-e: trace= names no call")
    return Calls(frozenset(names), negated)


def known_calls() -> list[str]:
    """Return the C functions that can appear in a trace here, sorted."""
    names = set(FORMS)
    try:
        lib = load().lib
    except OSError:  # nothing is known of this system; a simulated kernel can be traced
        return sorted(names)
    declared = {name.lstrip("_") for name in dir(lib)}
    return sorted(names | {name for name in declared if name.isidentifier() and name.islower()})


def about(text: str) -> Callable[[int], bool]:
    """Return what tells whether a descriptor is the one that ``-P`` names, by number or by path.

    A path is that of a file, a device, a named pipe or a Unix socket. A number may be given out
    again, so each is asked anew.

    Raises:
        ValueError: neither a number nor a path.
    """
    if text.isdecimal():
        return int(text).__eq__
    if os.sep not in text and not os.path.exists(text):
        raise ValueError(f"-P: {text!r} is neither a descriptor's number nor an existing path")
    path = os.path.abspath(text)

    def names(fd: int) -> bool:
        try:
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return True
        except (OSError, OverflowError):
            pass
        return bool({path, text} & _paths_of(fd))

    return names


def _paths_of(fd: int) -> set[str]:
    """Return the paths of a descriptor: of a Unix socket, those of both ends."""
    found = set()
    with suppress(OSError, ValueError, OverflowError), socket_of(fd, None) as sock:
        for ask in (sock.getsockname, sock.getpeername):
            with suppress(OSError):
                found.add(_path(ask()))
    link = link_of(fd)
    return {*found, link, link[: -len(_DELETED)] if link.endswith(_DELETED) else link} - {""}


def _path(name: object) -> str:
    """Return a Unix socket's name as ``-P`` takes it, with @ if it is abstract; "" of other names."""
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str):
        return ""
    return "@" + name[1:] if name.startswith("\0") else name


def nanoseconds_of(text: str) -> int:
    """Return a duration such as ``10ms``, ``500us`` or ``1.5s`` in nanoseconds.

    Raises:
        ValueError: it is no duration; the message says what one is.
    """
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?(ns|us|ms|s)", text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number with ns, us, ms or s, such as 10ms")
    whole, part, unit = match[1], match[2] or "", _UNITS[match[3]]
    # Not as a float, which may be infinite.
    parts: int = 10 ** len(part)
    return int(whole) * unit + int(part or "0") * unit // parts


class Filter:
    """A sink that hands on the records that are asked for.

    Args:
        sink: gets them.
        what: flags and calls.
        about: each tells whether a descriptor is meant; none means all descriptors.
        failed: only what failed.
        slower: only what took so many nanoseconds, the program's turn before a wait included.
        limit: only so many records; 0: all.
    """

    def __init__(
        self,
        sink: Sink,
        what: Chosen,
        about: tuple[Callable[[int], bool], ...] = (),
        *,
        failed: bool = False,
        slower: int = 0,
        limit: int = 0,
    ) -> None:
        self._limit = limit
        self._given = 0
        self._sink = sink
        self._what = what
        self._about = about
        self._failed = failed
        self._slower = slower

    def __call__(self, record: Record) -> None:
        if self._limit and self._given > self._limit:
            return
        if self.wants(record):
            self._given += 1
            if self._limit and self._given > self._limit:
                note = getattr(self._sink, "note", None)
                if note is not None:
                    note(f"the limit of {self._limit} records is reached, what follows is not shown")
                return
            self._sink(record)

    def together(self, records: list[Record]) -> None:
        """Hand on those of several records that are asked for."""
        together = getattr(self._sink, "together", None)
        if self._limit or together is None:
            for record in records:
                self(record)
            return
        wanted = [record for record in records if self.wants(record)]
        if wanted:
            together(wanted)

    def wants(self, record: Record) -> bool:
        """Tell whether a record is asked for."""
        if isinstance(record, Lint):
            # It says what is wrong: shown unless it is about another descriptor.
            return not self._about or record.fd < 0 or self._is_about((record.fd,))
        if isinstance(record, Syscall):
            if Debug.SYSCALLS not in self._what.flags or not self._what.calls.has(record.name):
                return False
        elif Debug.EVENTS not in self._what.flags:
            return False
        return (
            (not self._failed or _failed(record))
            and (not self._slower or _longest(record) >= self._slower)
            and (not self._about or self._is_about(_descriptors(record)))
        )

    def _is_about(self, fds: Iterable[int] | None) -> bool:
        if fds is None:
            return True  # it cannot be told
        return any(test(fd) for fd in fds for test in self._about)


def _failed(record: Record) -> bool:
    if isinstance(record, Syscall):
        return record.errno != 0 or record.result is None
    if isinstance(record, Wait):
        return record.ready < 0
    return bool(getattr(record, "error", ""))


def _longest(record: Record) -> int:
    """Return what a record says of time; 0 for what has no duration."""
    if isinstance(record, Wait):
        return max(record.duration, record.turn)
    return record.duration if isinstance(record, Syscall) else 0


_FD = re.compile(r"\b(?:fd|ident|portev_object)=(\d+)")
_DATA = re.compile(r"\bdata=(0x[0-9a-f]+)")
_NUMBER = re.compile(r"\d+")


def _descriptors(record: Record) -> set[int] | None:
    """Return the descriptors that a record is about; None if it does not show all of them."""
    if isinstance(record, (Event, Registration, Lint)):
        return {record.fd}
    if isinstance(record, Wait):
        return set()
    text = " ".join((*record.arguments, record.note))
    if "..." in text:
        return None
    found = {int(fd) for fd in _FD.findall(text)}
    if record.name in ("epoll_ctl", "port_associate", "port_dissociate"):
        found.add(int(record.arguments[2]))
    elif record.name.startswith("epoll_"):  # the lower half of the token, see decode.epoll
        found |= {int(data, 16) & 0xFFFF_FFFF for data in _DATA.findall(text)}
    elif record.name == "select":
        found |= {int(fd) for words in record.arguments[1:4] for fd in _NUMBER.findall(words)}
    elif record.name in ("close", "dup3", "read", "write") and record.arguments:
        found |= {int(fd) for fd in record.arguments[:1] if fd.isdecimal()}
    return found
