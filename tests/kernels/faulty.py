"""A library whose calls fail where a plan says so, for tests that plan while the program runs.

``selectors_ffi.testing.inject`` is for faults that are known before.
"""

from __future__ import annotations

import collections
from typing import Any, Callable

from selectors_ffi.testing.library import Call, Proxy


class FaultyLibrary(Proxy):
    """Another library's functions, of which chosen calls fail.

    ``plan`` maps (symbol, n) to the errno of that symbol's n-th call, counted from 1. A symbol of
    ``applied`` does its work before it fails: close(2) has released the descriptor and an
    interrupted kevent(2) has applied its changes.
    """

    def __init__(self, binding: Any) -> None:
        super().__init__(binding, self.decide)
        self.calls: collections.Counter[str] = collections.Counter()
        self.plan: dict[tuple[str, int], int] = {}
        self.applied: set[str] = set()
        self.hits = 0
        #: Called as before(symbol, arguments); what it returns replaces the arguments.
        self.before: Callable[[str, tuple[Any, ...]], tuple[Any, ...]] | None = None

    def decide(self, call: Call) -> int:
        """The hook: fail as planned."""
        self.calls[call.symbol] += 1
        code = self.plan.get((call.symbol, self.calls[call.symbol]))
        if self.before is not None:
            call.arguments = self.before(call.symbol, call.arguments)
        if code is None:
            return call.run()
        self.hits += 1
        if call.symbol in self.applied:
            call.run()
        return call.fail(code)
