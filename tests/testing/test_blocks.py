"""Blocks that decide for the kernel: threads and signal handlers may enter and leave them any time."""

from __future__ import annotations

import sys

from selectors_ffi import binding
from selectors_ffi.testing import blocks


class Block(blocks.Block):
    """A block whose binding has a name in place of a library."""

    def __init__(self, name):
        super().__init__()
        self._name = name

    def make(self):
        return binding.load().through(self._name)


def test_a_handler_enters_a_block_in_the_middle():
    """At every line of entering, asking and leaving, another block may come and go, as in a handler."""
    seen = []

    def handler(frame, event, argument):
        if frame.f_code.co_filename != blocks.__file__:
            return None
        sys.settrace(None)
        with Block(f"handler {len(seen)}"):
            seen.append(binding.default().lib)
        sys.settrace(handler)
        return handler

    before = binding.ambient
    sys.settrace(handler)
    try:
        with Block("outer"):
            assert binding.default().lib == "outer"
    finally:
        sys.settrace(None)
    assert seen == [f"handler {number}" for number in range(len(seen))]
    assert len(seen) > 10
    assert binding.ambient is before


def test_the_last_block_is_left_meanwhile(monkeypatch):
    """Where another thread has just left the last block, the process's own binding is given."""
    monkeypatch.setattr(blocks, "_stack", [])
    assert blocks._current() is binding.load()
