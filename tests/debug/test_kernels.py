"""Tracing on simulated kernels: BSD and Solaris calls decoded on any Unix host."""

from __future__ import annotations

import os
import threading
import warnings

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi.debug import Event, Lint, Syscall

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from tests.kernels import KERNELS


@pytest.fixture(params=KERNELS, ids=[f"{name}-{kernel}" for kernel, name, _ in KERNELS])
def simulated(request):
    """(kernel's name, selector on it), of every simulated system, traced."""
    kernel, name, binding = request.param
    selector = getattr(backends, name)(binding=binding())
    yield kernel, selector
    selector.close()


def test_calls_and_events_of_every_system(records, simulated, pairs):
    """Three descriptors on every simulated system: calls decoded, events with their flags."""
    _, selector = simulated
    for first, _ in pairs:
        selector.register(first, EVENT_READ)
    pairs[0][1].send(b"abcde")
    pairs[1][1].close()
    ready = {key.fd for key, _ in selector.select(0)}
    selector.modify(pairs[2][0], EVENT_WRITE)
    calls = [record for record in records if isinstance(record, Syscall)]
    events = [record for record in records if isinstance(record, Event)]
    lines = "\n".join(map(str, calls))

    assert ready == {pairs[0][0].fileno(), pairs[1][0].fileno()} == {event.fd for event in events}
    assert not any(event.dropped for event in events)
    assert "undecoded" not in lines
    assert "0x7f" not in lines, "an address where a struct should be"
    if isinstance(selector, backends.KqueueSelector):
        assert "kevent(" in lines
        assert f"{{ident={pairs[0][0].fileno()}, filter=EVFILT_READ, flags=EV_ADD" in lines
        hangup = next(event for event in events if event.fd == pairs[1][0].fileno())
        assert "EV_EOF" in hangup.flags
        data = next(event for event in events if event.fd == pairs[0][0].fileno())
        assert "data=5" in data.flags
    elif isinstance(selector, backends.DevpollSelector):
        assert lines.startswith('open("/dev/poll", O_RDWR|O_CLOEXEC)')
        fd = pairs[0][0].fileno()
        assert f"[{{fd={fd}, events=POLLREMOVE}}, {{fd={fd}, events=POLLIN}}]" in lines
        assert "DP_POLL, {dp_fds=[{fd=" in lines
    elif isinstance(selector, backends.EventPortSelector):
        fd = pairs[0][0].fileno()
        assert lines.startswith("port_create()")
        assert f", PORT_SOURCE_FD, {fd}, POLLIN, NULL) = 0" in lines
        assert f"{{portev_events=POLLIN, portev_source=PORT_SOURCE_FD, portev_object={fd}}}" in lines
        assert ", [2], {tv_sec=0, tv_nsec=0}) = 0" in lines


@pytest.mark.parametrize("before", [EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE])
@pytest.mark.parametrize("after", [EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE])
def test_modify_is_no_reuse(records, simulated, pairs, before, after):
    """No change of a registration is SEL002: kqueue is asked to delete filters that are not there."""
    _, selector = simulated
    near, _ = pairs[0]
    selector.register(near, before, "old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selector.modify(near, after, "new")
    assert not [record for record in records if isinstance(record, Lint)]


def test_raw_of_every_system(simulated, pairs):
    """select_raw() names what every simulated system says, kqueue's filter included."""
    _, selector = simulated
    for first, _ in pairs:
        selector.register(first, EVENT_READ)
    for _, second in pairs:
        second.send(b"abc")
    raw = selector.select_raw(0)

    assert {event.fd for event in raw} == {first.fileno() for first, _ in pairs}
    for event in raw:
        if isinstance(selector, backends.KqueueSelector):
            assert event.data == 3
            assert event.decoded.startswith("{filter=EVFILT_READ, flags=")
        else:
            assert event.decoded.startswith(("POLLIN", "EPOLLIN"))


def test_names_of_calls_are_those_of_c(records, pairs):
    """NetBSD's kevent is shown under the name of the manual, not of its link symbol."""
    (make,) = [binding for kernel, _, binding in KERNELS if kernel == "netbsd"]
    with backends.KqueueSelector(binding=make()) as selector:
        selector.register(pairs[0][0], EVENT_READ)
    names = {record.name for record in records if isinstance(record, Syscall)}

    assert names == {"kqueue1", "kevent", "close"}


@pytest.mark.parametrize("kernel", ["illumos", "solaris11"])
def test_wake_up_of_devpoll_is_not_stale(kernel, pairs):
    """The pipe through which a sleeping /dev/poll is woken is not taken for a stale registration."""
    (make,) = [binding for name, _, binding in KERNELS if name == kernel]
    kept = []
    with debugging("all", kept.append):
        selector = backends.DevpollSelector(binding=make())
    with selector:
        selector.register(pairs[0][0], EVENT_READ)
        asleep = threading.Event()
        selector._observer.emit.sink = lambda record: asleep.set()
        waiter = threading.Thread(target=selector.select, args=(20,))
        waiter.start()
        while not selector._waker:
            asleep.wait(0.001)
        selector._observer.emit.sink = kept.append
        selector.register(pairs[1][0], EVENT_WRITE)
        waiter.join()
    woken = [record for record in kept if isinstance(record, Event) and record.dropped]

    assert not [record for record in kept if isinstance(record, Lint)]
    assert {record.dropped for record in woken} == {"the selector's own, to be woken up by"}
