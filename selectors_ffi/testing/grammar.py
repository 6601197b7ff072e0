"""The grammar of faults, delays and return values, which is that of strace(1).

    epoll_ctl:error=ENOSPC:when=3
    epoll_wait,epoll_pwait2:error=EINTR:when=2+3
    wait:delay_enter=20ms; close:error=EIO:fd=7

An expression is C functions and keys. ``wait`` and ``control`` are the functions of whatever
mechanism is in use. Several expressions are separated by ``;``.

``error=``
    The call is not made and fails with this errno, a name or a number; also Winsock's, as WSAENOTSOCK.
``retval=``
    The call is not made and returns this number, a wait at most what it has room for. What it would
    have written is not written.
``delay_enter=``, ``delay_exit=``
    It begins or returns so much later: microseconds, or a number with s, ms, us or ns.
``when=first[..last][+[step]]``
    Which of the calls: ``3`` the third, ``3+`` the third and all later ones, ``2+3`` the second and
    every third after it, ``2..5`` the second to the fifth. Default: all. The calls of an expression
    are counted together, whatever thread or selector they come from.
    They are calls, not registrations: one that was refused is followed by up to three calls that undo
    what it may have done, and these are counted, too. ``trace`` shows them.
``fd=``  (not in strace)
    Only calls about this descriptor: the one that is registered, closed, or handed to poll(2).
``made=1``  (not in strace)
    With ``error=``: the call is made, and reported as failed, as a close(2) that was interrupted. It
    goes without saying for EINTR of a kevent(2) with changes: "all changes in the changelist have been
    applied" then, kqueue(2).
"""

from __future__ import annotations

import difflib
import errno
import re
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn

from ..binding import INT_MAX
from ..debug.decode.grammar import WINSOCK
from .calls import CONTROL, WAIT, controls, descriptors, waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .library import Call

__all__ = ["KEYS", "Rule", "parse"]

KEYS = ("error", "retval", "delay_enter", "delay_exit", "when", "fd", "made")
_WHEN = re.compile(r"(\d+)(?:\.\.(\d+))?(\+\d*)?")
_DELAY = re.compile(r"(\d+)(s|ms|us|ns)?")
_IN_A_SECOND = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9, None: 10**6}
_LAST = 1 << 62
_ERRNOS = (range(1, 4096), range(10000, 12000))  # of system calls, as strace has it; of Winsock
_WINSOCK = {name: number for number, name in WINSOCK.items()}
#: The longest delay in seconds. What time_t cannot hold would be an OverflowError within the call.
_LONGEST = 1_000_000


class Rule(NamedTuple):
    """One expression."""

    text: str
    functions: tuple[str, ...]
    error: int = 0
    retval: int | None = None
    delay_enter: float = 0.0
    delay_exit: float = 0.0
    first: int = 1
    last: int = _LAST
    step: int = 1
    fd: int = -1
    made: bool = False

    def concerns(self, call: Call) -> bool:
        """Tell whether the rule is about a call, whichever its number is."""
        named = (
            call.name in self.functions
            or (WAIT in self.functions and waits(call))
            or (CONTROL in self.functions and controls(call))
        )
        return named and (self.fd < 0 or self.fd in descriptors(call))

    def applies(self, number: int) -> bool:
        """Tell whether the rule alters the call with this number, counted from 1."""
        return self.first <= number <= self.last and (number - self.first) % self.step == 0


def parse(text: str, known: Sequence[str]) -> list[Rule]:
    """Return the rules of a text.

    Args:
        text: expressions, separated by ``;``.
        known: the C functions that there are.

    Raises:
        ValueError: an expression is wrong; the message says where, and lists what is known.
    """
    if not isinstance(text, str):
        raise ValueError(f"an injection is a text, not {text!r}; write {_FORM}")
    rules, place = [], 0
    for expression in text.split(";"):
        if expression.strip():
            rules.append(_Expression(text, place, expression, known).rule())
        place += len(expression) + 1
    if not rules:
        raise ValueError(f"no injection in {text!r}; write {_FORM}")
    return rules


class _Expression:
    """One expression while it is parsed; ``place`` is where it begins in ``text``."""

    def __init__(self, text: str, place: int, expression: str, known: Sequence[str]) -> None:
        self.text = text
        self.expression = expression
        self.known = known
        self.place = place

    def rule(self) -> Rule:
        names, *pairs = self.expression.split(":")
        functions = self._functions(names)
        self.place += len(names) + 1
        fields: dict[str, Any] = {}
        given: set[str] = set()
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if key.strip() not in KEYS:
                self._wrong(self.place, f"unknown key {key.strip()!r}", KEYS)
            if not equals:
                self._wrong(self.place, f"{key.strip()} is without its =VALUE", ())
            read: Callable[[str], dict[str, Any]] = getattr(self, f"_{key.strip()}")
            if key.strip() in given:
                self._wrong(self.place, f"{key.strip()}= is given twice", ())
            given.add(key.strip())
            at = self.place
            self.place += len(key) + 1
            fields.update(read(value.strip()))
            self.place = at + len(pair) + 1
        if not fields.keys() & {"error", "retval", "delay_enter", "delay_exit"}:
            self._wrong(self.place - 1, "nothing to inject", KEYS[:4])
        if {"error", "retval"} <= fields.keys():
            self._wrong(self.place - 1, "error= and retval= exclude each other", ())
        if fields.get("made") and "error" not in fields:
            self._wrong(self.place - 1, "made=1 goes with error=", ())
        return Rule(self.expression.strip(), functions, **fields)

    def _functions(self, names: str) -> tuple[str, ...]:
        place, found = self.place, []
        for name in names.split(","):
            if name.strip() not in (*self.known, WAIT, CONTROL):
                self._wrong(place, f"unknown function {name.strip()!r}", (*self.known, WAIT, CONTROL))
            found.append(name.strip())
            place += len(name) + 1
        return tuple(found)

    def _error(self, value: str) -> dict[str, Any]:
        name = value.upper()
        code = int(value) if value.isdecimal() else getattr(errno, name, _WINSOCK.get(name, 0))
        if not any(code in errnos for errnos in _ERRNOS):
            known = {*errno.errorcode.values(), *_WINSOCK}
            self._wrong(self.place, f"unknown errno {value!r}", sorted(known))
        return {"error": code}

    def _retval(self, value: str) -> dict[str, Any]:
        return {"retval": self._number(value, "a result")}

    def _fd(self, value: str) -> dict[str, Any]:
        return {"fd": self._number(value, "a descriptor")}

    def _made(self, value: str) -> dict[str, Any]:
        if value not in ("0", "1"):
            self._wrong(self.place, f"made={value!r}", ("0", "1"))
        return {"made": value == "1"}

    def _number(self, value: str, what: str) -> int:
        if not value.isdecimal():
            self._wrong(self.place, f"{what} is a number >= 0, not {value!r}", ())
        if int(value) > INT_MAX:
            self._wrong(self.place, f"{what} is an int of C, at most {INT_MAX}, not {value!r}", ())
        return int(value)

    def _delay_enter(self, value: str) -> dict[str, Any]:
        return {"delay_enter": self._delay(value)}

    def _delay_exit(self, value: str) -> dict[str, Any]:
        return {"delay_exit": self._delay(value)}

    def _delay(self, value: str) -> float:
        found = _DELAY.fullmatch(value)
        if found is None:
            self._wrong(self.place, f"a delay is a number of microseconds, not {value!r}", _SUFFIXES)
        number, unit = int(found[1]), _IN_A_SECOND[found[2]]
        if number > _LONGEST * unit:
            self._wrong(self.place, f"a delay is at most {_LONGEST} seconds, not {value!r}", ())
        return number / unit

    def _when(self, value: str) -> dict[str, Any]:
        found = _WHEN.fullmatch(value)
        if found is None:
            self._wrong(self.place, f"when={value!r} is not first[..last][+[step]]", ())
        first, last, step = found.groups()
        fields = {"first": int(first), "last": int(last or first), "step": int((step or "+1")[1:] or 1)}
        if step and last is None:
            fields["last"] = _LAST
        if not fields["first"]:
            self._wrong(self.place, f"when={value!r} is no call: they are counted from 1", ())
        if fields["first"] > fields["last"] or not fields["step"]:
            self._wrong(self.place, f"when={value!r} is no call at all", ())
        return fields

    def _wrong(self, place: int, what: str, known: Sequence[str]) -> NoReturn:
        message = f"{what} at character {place + 1} of {self.text!r}"
        wrong = re.findall(r"'([^']*)'", what)
        close = difflib.get_close_matches(wrong[-1], known, 1) if wrong else []
        if close:
            message += f"; did you mean {close[0]}?"
        if known:
            message += f"; known: {', '.join(known)}"
        raise ValueError(message)


_FORM = "FUNCTION:error=ERRNO[:when=NUMBER]"
_SUFFIXES = ("a number and s, ms, us or ns",)
