"""Descriptors to watch, a sink that keeps records, and every backend with every kernel here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

import selectors_ffi
from selectors_ffi import backends
from selectors_ffi.debug import Debug, debugging
from selectors_ffi.debug.records import Marks
from tests.conftest import Pair

HERE = [
    name
    for name in ("EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector")
    if hasattr(selectors_ffi, name)
]


@pytest.fixture(autouse=True)
def first_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines look as in a program whose first selector is made in this test."""
    monkeypatch.setattr(Marks, "selectors", 0)


@pytest.fixture(params=HERE)
def backend(request: pytest.FixtureRequest) -> Any:
    """Each class that this host can run."""
    return getattr(backends, request.param)


@pytest.fixture
def records() -> Iterator[list[Any]]:
    """The records of every selector made during the test, with all flags on."""
    kept: list[Any] = []
    with debugging(Debug.SYSCALLS | Debug.EVENTS | Debug.STATS | Debug.CHECKS, kept.append):
        yield kept


@pytest.fixture
def pairs(new_pair: Callable[[], Pair]) -> list[Pair]:
    """Three pairs of connected sockets."""
    return [new_pair() for _ in range(3)]


class Owner:
    """Closes its selector in its finaliser. It is in a cycle, with the selector."""

    def __init__(self, selector: Any) -> None:
        self.selector, self.itself = selector, self

    def __del__(self) -> None:
        self.selector.close()
