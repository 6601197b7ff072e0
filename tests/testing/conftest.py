"""Descriptors to watch, and every backend on every kernel that can be had here."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import Subject


@pytest.fixture(autouse=True)
def nothing_ambient() -> Iterator[None]:
    """Every test leaves selectors as it found them: with the kernel of this host."""
    from selectors_ffi import binding

    before = binding.ambient
    yield
    assert binding.ambient is before


@pytest.fixture
def many() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Ten connected pairs of non-blocking sockets."""
    made = [socket.socketpair() for _ in range(10)]
    for pair in made:
        for sock in pair:
            sock.setblocking(False)
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


@pytest.fixture
def below(subject: Subject) -> object:
    """A fresh binding of the subject's kernel."""
    return subject.new_binding()
