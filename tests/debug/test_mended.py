"""Mended: the end of a trace tells which faults of the program these selectors have made good."""

from __future__ import annotations

import sys

import pytest

from tests import apart

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll")

STALE = """
import os, selectors
selector = selectors.EpollSelector()
read, write = os.pipe()
duplicate = os.dup(write)
selector.register(write, selectors.EVENT_WRITE)
os.close(write)
selector.unregister(write)
for turn in range(5):
    selector.select(0)
"""

REUSED = """
import os, selectors
selector = selectors.EpollSelector()
read, write = os.pipe()
selector.register(write, selectors.EVENT_READ)
os.close(write)
os.dup2(1, write)
other, end = os.pipe()
os.dup2(end, write)
selector.modify(write, selectors.EVENT_WRITE)
"""

WAITING = REUSED.replace(
    "selector.modify",
    """
import threading
waiting = threading.Thread(target=selector.select)
waiting.start()
while not (selector._made and selector._in_call()):
    pass
selector.modify""",
)

HEALTHY = """
import os, selectors
selector = selectors.EpollSelector()
read, write = os.pipe()
selector.register(write, selectors.EVENT_WRITE)
selector.modify(write, selectors.EVENT_READ)
selector.unregister(write)
child = os.fork()
if not child:
    selector.reopen()
    os._exit(0)
os.waitpid(child, 0)
"""


def traced(code, *options):
    """Return the last lines of a trace."""
    done = apart.trace(*options, "-c", code)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("selectors_ffi: ")]


@linux
@pytest.mark.parametrize("options", [(), ("-e", "checks"), ("-e", "events"), ("--summary",)])
def test_a_stale_registration(options):
    """A set that was made anew is told of, whatever is shown."""
    (told,) = traced(STALE, *options)
    assert told.startswith("selectors_ffi: stale registration: the epoll set was made anew, once.")
    assert "SEL003" not in told
    assert "docs/lints.md#sel003-staleregistration" in told


@linux
@pytest.mark.parametrize("options", [(), ("-e", "checks")])
def test_a_reused_number(options):
    """A change that the standard library's selectors refuse is told of."""
    (told,) = traced(REUSED, *options)
    assert told.startswith("selectors_ffi: reused number: modify() met a file that was never registered")


@linux
def test_a_number_that_a_wait_may_have_mended():
    """While another thread waits, that may be what the change met: nothing is told."""
    assert traced(WAITING) == []


@linux
def test_nothing_was_mended():
    """A program without faults, and a child that makes a set of its own, are told nothing."""
    assert traced(HEALTHY) == []
