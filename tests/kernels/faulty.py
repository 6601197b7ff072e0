"""A library whose calls fail where a plan says so."""

from __future__ import annotations

import collections
from typing import Any, Callable


class FaultyLibrary:
    """Another library's functions, of which chosen calls fail.

    ``plan`` maps (symbol, n) to the errno of that symbol's n-th call, counted
    from 1. A symbol of ``applied`` does its work before it fails: close(2) has
    released the descriptor and an interrupted kevent(2) has applied its changes.
    """

    def __init__(self, binding: Any) -> None:
        self._ffi = binding.ffi
        self._lib = binding.lib
        self.calls: collections.Counter[str] = collections.Counter()
        self.plan: dict[tuple[str, int], int] = {}
        self.applied: set[str] = set()
        self.hits = 0
        #: Called as before(symbol, arguments); what it returns replaces the arguments.
        self.before: Callable[[str, tuple[Any, ...]], tuple[Any, ...]] | None = None

    def __getattr__(self, symbol: str) -> Any:
        function = getattr(self._lib, symbol)

        def call(*arguments: Any) -> int:
            self.calls[symbol] += 1
            code = self.plan.get((symbol, self.calls[symbol]))
            if self.before is not None:
                arguments = self.before(symbol, arguments)
            if code is None:
                return int(function(*arguments))
            self.hits += 1
            if symbol in self.applied:
                function(*arguments)
            self._ffi.errno = code
            return -1

        return call
