"""What calls of the simulated kernels do not depend on.

Waits need no clock of Python's and no free descriptor. A registration does not look at the others.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import threading
import time

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE
from selectors_ffi.testing import kernel
from tests.kernels import KERNELS, POLLING, host

ALL = pytest.mark.parametrize(
    ("backend", "make"),
    [pytest.param(*one, id=f"{name}-{one[0]}") for name, *one in KERNELS + POLLING],
)


def selector_of(backend, binding):
    """A selector of a class on a kernel."""
    return getattr(importlib.import_module("selectors_ffi.backends"), backend)(binding=binding)


@contextlib.contextmanager
def no_descriptor_left():
    """As many descriptors are open as the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, taken[0] + 64), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@ALL
def test_a_wait_ends_while_a_program_has_frozen_the_time(backend, make, pair, monkeypatch):
    """A kernel's clock goes on when those of ``time`` were replaced."""
    looks = []

    def frozen():
        looks.append(None)
        assert len(looks) < 1000, "the wait does not end"
        return 5

    with selector_of(backend, make()) as selector, monkeypatch.context() as patch:
        selector.register(pair[0], EVENT_READ)
        for clock in ("monotonic", "monotonic_ns", "time", "time_ns"):
            patch.setattr(time, clock, frozen)
        assert selector.select(0.01) == []


@ALL
def test_a_wait_without_a_free_descriptor(backend, make, pair):
    """epoll_wait(2), kevent(2) and their like know no EMFILE: they end by their time, or by an event."""
    near, far = pair
    late = threading.Timer(0.05, far.send, [b"x"])
    with selector_of(backend, make()) as selector:
        key = selector.register(near, EVENT_READ)
        with no_descriptor_left():
            assert selector.select(0.01) == []
            selector.modify(near, EVENT_READ, data="changed")
            late.start()
            found = selector.select(20)
        late.join()
        assert found == [(key._replace(data="changed"), EVENT_READ)]


@pytest.mark.parametrize("name", ["linux", "freebsd", "illumos"])
def test_a_change_is_seen_by_a_wait_without_a_free_descriptor(name, pair):
    """Another thread's registration ends a wait that has no descriptor through which to wake it."""
    binding = kernel(name)
    backend = {"linux": "EpollSelector", "freebsd": "KqueueSelector"}.get(name, "DevpollSelector")
    found = []
    with selector_of(backend, binding) as selector:
        selector.register(pair[0], EVENT_READ)
        selector.select(0)
        waiter = threading.Thread(target=lambda: found.extend(selector.select(20)))
        with no_descriptor_left():
            waiter.start()
            threading.Event().wait(0.02)
            key = selector.register(pair[1], EVENT_WRITE)
            waiter.join()
    assert found == [(key, EVENT_WRITE)]


@pytest.mark.parametrize(("name", "backend", "make"), KERNELS)
def test_a_registration_looks_at_one_descriptor(name, backend, make, pair, monkeypatch):
    """It takes no longer in a set that has many."""
    looks, needed = [], []
    look = host.file_of
    monkeypatch.setattr(host, "file_of", lambda fd: looks.append(fd) or look(fd))
    copies = [os.dup(pair[0].fileno()) for _ in range(40)]
    with selector_of(backend, make()) as selector:
        for fd in copies:
            before = len(looks)
            selector.register(fd, EVENT_READ)
            needed.append(len(looks) - before)
    for fd in copies:
        os.close(fd)
    assert needed[-1] == needed[1]
