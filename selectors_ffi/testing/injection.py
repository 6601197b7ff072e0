"""Faults: a library whose calls fail, wait or return as a text says; see ``grammar`` for the text."""

from __future__ import annotations

import itertools
import warnings
from errno import EINTR
from typing import TYPE_CHECKING

from ..backends.process import sleep
from ..backends.windows import OLD
from ..debug.places import place
from .answers import answer_of
from .blocks import Block
from .calls import CONTROL, WAIT, controls, functions_of, waits
from .grammar import Rule, parse
from .library import below, proxied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..binding import Binding
    from .library import Call

__all__ = ["Injection", "UnreachedWarning", "inject", "injecting"]


#: What a wait calls for whole milliseconds -> what it calls for any other timeout.
_PRECISE = {"epoll_wait": "epoll_pwait2", "poll": "ppoll"}
_WINSOCK = {number: winsock for winsock, number in OLD.items()}  # its numbers for those of C


class UnreachedWarning(UserWarning):
    """An injection was asked for a call that was never made."""


class Injection:
    """The hook of a ``Proxy`` that alters the calls which the rules name."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self._counters = [itertools.count(1) for _ in rules]
        self._calls = [0] * len(rules)
        self._hits = [itertools.count(1) for _ in rules]
        self._hit = [0] * len(rules)
        self._winsock: int | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'; '.join(rule.text for rule in self.rules)!r})"

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
            + ("" if calls else _hint(rule))
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
        sleep(sum(rule.delay_enter for rule in rules))
        chosen = next((rule for rule in rules if rule.error or rule.retval is not None), None)
        if chosen is None:
            result = call.run()
            call.note = f"{call.note}, DELAYED" if call.note else "DELAYED"
        else:
            if chosen.made or (chosen.error == EINTR and call.name == "kevent" and controls(call)):
                call.run()
            call.note = "INJECTED"
            if chosen.error:
                result = call.fail(chosen.error)
                if call.binding.target == "windows":
                    self._winsock = _WINSOCK.get(chosen.error, chosen.error)  # not in errno
            else:
                result = _answer(call, int(chosen.retval or 0))
                call.errno = 0
        delay = sum(rule.delay_exit for rule in rules)
        if delay:
            sleep(delay)
        return result


def _hint(rule: Rule) -> str:
    """Return which of two functions a wait calls, if the rule is about one of them."""
    for usual, precise in _PRECISE.items():
        if (usual in rule.functions) != (precise in rule.functions):
            return (
                f"; a wait calls {usual} if it has no timeout or one of whole milliseconds,"
                f" else {precise}, and {WAIT!r} stands for both"
            )
    return ""


def _answer(call: Call, wanted: int) -> int:
    """Return what a call is to return: at most as many events as there is room for."""
    room = answer_of(call).room() if waits(call) else 0
    return min(wanted, room) if room else wanted


def inject(text: str, binding: Binding | None = None) -> Binding:
    """Return a binding whose chosen calls fail, are delayed, or return what is asked for.

    How often each rule was met is ``binding.lib.hook``, an ``Injection``.

    Args:
        text: expressions, see ``selectors_ffi.testing.grammar``.
        binding: the kernel interface whose calls are altered; None is what a selector would get.

    Raises:
        ValueError: an expression is wrong; the message says where, and lists what is known.
        TypeError: ``binding`` is no binding.
    """
    binding = below(binding)
    rules = parse(text, functions_of(binding))
    names: list[str] | None = None
    if not any({WAIT, CONTROL}.intersection(rule.functions) for rule in rules):
        names = [name for rule in rules for name in rule.functions]
        names += ["WSAGetLastError"]
    return proxied(binding, Injection(rules), names)


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
        self._place = place()[0]  # the block may end elsewhere: in contextlib, or after a test
        inject(text)  # what is wrong is told before anything runs

    def make(self) -> Binding:
        return inject(self.text)

    def __enter__(self) -> Injection:
        hook: Injection = super().__enter__().hook
        self._injection = hook
        return hook

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if error[0] is None:
            for sentence in self._injection.unreached():
                where = self._place
                warnings.warn_explicit(sentence, UnreachedWarning, where.file, where.line)
