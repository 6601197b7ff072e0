"""Descriptors to watch, and every backend on every kernel that can be had here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import pytest

from tests.conftest import Pair, Subject


@pytest.fixture(autouse=True)
def nothing_ambient() -> Iterator[None]:
    """Every test leaves selectors as it found them: with the kernel of this host."""
    from selectors_ffi import binding

    before = binding.ambient
    yield
    assert binding.ambient is before


@pytest.fixture
def many(new_pair: Callable[[], Pair]) -> list[Pair]:
    """Ten connected pairs of non-blocking sockets."""
    return [new_pair() for _ in range(10)]


@pytest.fixture
def below(subject: Subject) -> object:
    """A fresh binding of the subject's kernel."""
    return subject.new_binding()
