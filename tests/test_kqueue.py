"""What KqueueSelector asks of kevent(2), on every simulated system."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from selectors_ffi.backends import EVENT_READ, EVENT_WRITE, KqueueSelector
from selectors_ffi.binding import Binding
from selectors_ffi.testing.kernels.bsd import VARIANTS, SimulatedBSD
from selectors_ffi.testing.library import proxied

pytestmark = pytest.mark.skipif(os.name != "posix", reason="simulated on poll(2)")
BOTH = EVENT_READ | EVENT_WRITE
EVENTS = (EVENT_READ, EVENT_WRITE, BOTH)


@pytest.fixture(params=sorted(VARIANTS))
def kernel(request):
    return SimulatedBSD(request.param)


@pytest.fixture
def counted(kernel):
    """A selector, and the lengths of its changelists so far."""
    changes = []

    def count(call):
        if call.name == "kevent":
            changes.append(call.arguments[2])
        return call.run()

    with KqueueSelector(binding=proxied(kernel.binding(), count)) as selector:
        yield selector, changes


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_one_call_for_each_change(counted, pair, old, new):
    """Registering, modifying and unregistering are one kevent(2) each, whatever the directions."""
    selector, changes = counted
    near, _ = pair
    selector.register(near, old)
    selector.modify(near, new)
    selector.unregister(near)
    assert len(changes) == (2 if old == new else 3)


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_what_is_left_behind_does_not_matter(kernel, pairs, old, new):
    """What the kernel has and the registry has not, of a call that was interrupted, is replaced."""
    near, far = pairs[0]
    far.send(b"x")
    with KqueueSelector(binding=kernel.binding()) as selector:
        selector.register(near, old)
        del selector._fd_to_key[near.fileno()]
        key = selector.register(near, new)
        assert selector.select(0) == [(key, new)]
        assert kernel.watched(selector.fileno()) == {near.fileno(): new}
        selector.unregister(near)
        assert kernel.watched(selector.fileno()) == {}


@pytest.mark.parametrize("old", EVENTS)
@pytest.mark.parametrize("new", EVENTS)
def test_modify_where_the_kernel_has_forgotten(kernel, pairs, old, new):
    """A number that was closed and opened again gets what it is modified to (K4)."""
    near, _ = pairs[0]
    other, peer = pairs[1]
    peer.send(b"x")
    with KqueueSelector(binding=kernel.binding()) as selector:
        fd = near.detach()
        selector.register(fd, old)
        os.dup2(other.fileno(), fd)
        try:
            if old == new:
                selector.unregister(fd)
                key = selector.register(fd, new)
            else:
                key = selector.modify(fd, new)
            assert selector.select(0) == [(key, new)]
            assert kernel.watched(selector.fileno()) == {fd: new}
        finally:
            os.close(fd)


def test_a_number_that_this_process_does_not_have():
    """Where the kernel's numbers are its own, none can be told not to be inherited: no error."""
    whole = SimulatedBSD("darwin").binding()
    closed = []

    def close(number):
        closed.append(number)
        return 0

    library = SimpleNamespace(kqueue=lambda: 999_999, kevent=None, close=close)

    KqueueSelector(binding=Binding(whole.target, whole.ffi, library)).close()

    assert closed == [999_999]
