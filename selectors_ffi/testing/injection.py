"""Faults, delays and return values, in the grammar of strace(1).

    epoll_ctl:error=ENOSPC:when=3
    epoll_wait,epoll_pwait2:error=EINTR:when=2+3
    wait:delay_enter=20ms; close:error=EIO:fd=7

An expression is C functions and keys. ``wait`` and ``control`` are the functions of whatever
mechanism is in use. Several expressions are separated by ``;``.

``error=``
    The call is not made and fails with this errno, a name or a number.
``retval=``
    The call is not made and returns this number. What it would have written is not written.
``delay_enter=``, ``delay_exit=``
    It begins or returns so much later: microseconds, or a number with s, ms, us or ns.
``when=first[..last][+[step]]``
    Which of the calls: ``3`` the third, ``3+`` the third and all later ones, ``2+3`` the second and
    every third after it, ``2..5`` the second to the fifth. Default: all. The calls of an expression
    are counted together, whatever thread or selector they come from.
``fd=``  (not in strace)
    Only calls about this descriptor: the one that is registered, closed, or handed to poll(2).
``made=1``  (not in strace)
    With ``error=``: the call is made, and reported as failed, as a close(2) that was interrupted.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import re
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn

from ..binding import Binding, default
from .ambient import Block
from .calls import CONTROL, WAIT, controls, descriptors, functions_of, waits
from .library import Proxy

if TYPE_CHECKING:
    from .library import Call

__all__ = ["Injection", "Rule", "UnreachedWarning", "inject", "injecting", "parse"]

KEYS = ("error", "retval", "delay_enter", "delay_exit", "when", "fd", "made")
_WHEN = re.compile(r"(\d+)(?:\.\.(\d+))?(\+\d*)?")
_DELAY = re.compile(r"(\d+)(s|ms|us|ns)?")
_IN_A_SECOND = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9, None: 10**6}
_LAST = 1 << 62


class UnreachedWarning(UserWarning):
    """An injection was asked for a call that was never made."""


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


class Injection:
    """The hook of a ``Proxy`` that alters the calls which the rules name."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self._counters = [itertools.count(1) for _ in rules]
        self._calls = [0] * len(rules)
        self._hits = [itertools.count(1) for _ in rules]
        self._hit = [0] * len(rules)
        self._winsock: int | None = None

    @property
    def calls(self) -> int:
        """How many calls the rules were about, altered or not."""
        return sum(self._calls)

    @property
    def hits(self) -> int:
        """How many calls have been altered."""
        return sum(self._hit)

    def unreached(self) -> list[str]:
        """Return a sentence for each rule that has altered no call."""
        return [
            f"{rule.text}: not reached, calls of {', '.join(rule.functions)}: {calls}"
            for rule, calls, hit in zip(self.rules, self._calls, self._hit)
            if not hit
        ]

    def __call__(self, call: Call) -> int:
        if call.name == "WSAGetLastError":
            return call.run() if self._winsock is None else self._winsock
        self._winsock = None
        altering = []
        for i, rule in enumerate(self.rules):
            if rule.concerns(call):
                self._calls[i] = number = next(self._counters[i])
                if rule.applies(number):
                    self._hit[i] = next(self._hits[i])
                    altering.append(rule)
        return self._alter(call, altering) if altering else call.run()

    def _alter(self, call: Call, rules: list[Rule]) -> int:
        time.sleep(sum(rule.delay_enter for rule in rules))
        chosen = next((rule for rule in rules if rule.error or rule.retval is not None), None)
        if chosen is None:
            result = call.run()
            call.note = f"{call.note}, DELAYED" if call.note else "DELAYED"
        else:
            if chosen.made:
                call.run()
            call.note = "INJECTED"
            if chosen.error:
                result = call.fail(chosen.error)
                if call.binding.target == "windows":
                    self._winsock = chosen.error  # where errors are not in errno
            else:
                result = int(chosen.retval or 0)
                call.errno = 0
        delay = sum(rule.delay_exit for rule in rules)
        if delay:
            time.sleep(delay)
        return result


def inject(text: str, binding: Binding | None = None) -> Binding:
    """Return a binding of which chosen calls fail, are delayed, or return what is asked for.

    How often each rule was met is ``binding.lib.hook``, an ``Injection``.

    Args:
        text: expressions, see the module ``selectors_ffi.testing.injection``.
        binding: the kernel interface below; None is the one that a selector would get now.

    Raises:
        ValueError: an expression is wrong; the message says where, and lists what is known.
    """
    below = default() if binding is None else binding
    rules = parse(text, functions_of(below))
    names: list[str] | None = None
    if not any({WAIT, CONTROL}.intersection(rule.functions) for rule in rules):
        names = [name for rule in rules for name in rule.functions]
        names += ["WSAGetLastError"]
    made = Binding(below.target, below.ffi, Proxy(below, Injection(rules), names))
    made.refused = below.refused
    return made


class injecting(Block):
    """Within the block, every selector that is made without ``binding=`` has ``inject(text)``.

    A rule that has altered no call at the end of the block is an ``UnreachedWarning``, unless an
    exception ends the block.

    Args:
        text: see ``inject``.

    Yields:
        The ``Injection``: ``hits``, ``calls`` and ``unreached()``.

    Raises:
        ValueError: an expression is wrong; the message says where, and lists what is known.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        inject(text)  # what is wrong is told before anything runs

    def make(self) -> Binding:
        return inject(self.text)

    def __enter__(self) -> Injection:
        super().__enter__()
        hook: Any = self._binding and self._binding.lib.hook
        self._injection = hook
        return hook  # type: ignore[no-any-return] # an Injection

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            for sentence in self._injection.unreached():
                warnings.warn(sentence, UnreachedWarning, stacklevel=2)


def parse(text: str, known: Sequence[str]) -> list[Rule]:
    """Return the rules of a text.

    Args:
        text: expressions, separated by ``;``.
        known: the C functions that there are.

    Raises:
        ValueError: an expression is wrong; the message says where, and lists what is known.
    """
    rules, place = [], 0
    for expression in text.split(";"):
        if expression.strip():
            rules.append(_Expression(text, place, expression, known).rule())
        place += len(expression) + 1
    if not rules:
        raise ValueError(f"no injection in {text!r}; one is FUNCTION:error=ERRNO[:when=NUMBER]")
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
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if key.strip() not in KEYS or not equals:
                self._wrong(self.place, f"unknown key {key.strip()!r}", KEYS)
            read: Callable[[str], dict[str, Any]] = getattr(self, f"_{key.strip()}")
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
        code = int(value) if value.isdecimal() else getattr(errno, value, 0)
        if not code or not isinstance(code, int):
            self._wrong(self.place, f"unknown errno {value!r}", sorted(errno.errorcode.values()))
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
        return int(value)

    def _delay_enter(self, value: str) -> dict[str, Any]:
        return {"delay_enter": self._delay(value)}

    def _delay_exit(self, value: str) -> dict[str, Any]:
        return {"delay_exit": self._delay(value)}

    def _delay(self, value: str) -> float:
        found = _DELAY.fullmatch(value)
        if found is None:
            self._wrong(self.place, f"a delay is a number of microseconds, not {value!r}", _SUFFIXES)
        return int(found[1]) / _IN_A_SECOND[found[2]]

    def _when(self, value: str) -> dict[str, Any]:
        found = _WHEN.fullmatch(value)
        if found is None:
            self._wrong(self.place, f"when={value!r} is not first[..last][+[step]]", ())
        first, last, step = found.groups()
        fields = {"first": int(first), "last": int(last or first), "step": int((step or "+1")[1:] or 1)}
        if step and last is None:
            fields["last"] = _LAST
        if not 1 <= fields["first"] <= fields["last"] or not fields["step"]:
            self._wrong(self.place, f"when={value!r} is no call: they are counted from 1", ())
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


_SUFFIXES = ("a number and s, ms, us or ns",)
