"""Refusals of the system: nothing half-registered, nothing leaked, and a retry succeeds."""

from __future__ import annotations

import errno
import os

import pytest

from tests.conftest import Failing, open_descriptors
from tests.scripts import CHANGES

READ, WRITE = 1, 2
CREATORS = {
    "epoll": ("epoll_create1",),
    "kqueue": ("kqueuex", "kqueue1", "kqueue"),
    "devpoll": ("open",),
    "eventport": ("port_create",),
}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM])
@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_register_beyond_the_limit(subject, pairs, snapshot, error, events):
    """A registration refused for want of room leaves registry and kernel as they were."""
    if not subject.kernel_keeps_list:
        pytest.skip("select and poll register nothing in the kernel")
    failing = Failing(subject, CHANGES[subject.mechanism])
    with subject.cls(binding=failing.binding) as selector:
        for left, right in pairs[:3]:
            right.send(b"x")
            selector.register(left, READ)
        pairs[3][1].send(b"x")
        before = snapshot(selector)
        failing.pending.append(error)

        with pytest.raises(OSError) as caught:
            selector.register(pairs[3][0], events)

        assert (caught.value.errno, caught.value.strerror) == (error, os.strerror(error))
        assert not failing.pending
        assert snapshot(selector) == before
        key = selector.register(pairs[3][0], events)
        assert (key, events) in selector.select(0)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_creation_beyond_the_limit(subject, error):
    """A kernel object that cannot be made is the system's OSError, and leaks nothing."""
    if not subject.kernel_keeps_list:
        pytest.skip("select and poll have no kernel object")
    whole = subject.new_binding()
    creator = next(name for name in CREATORS[subject.mechanism] if whole.has(name))
    failing = Failing(subject, creator)
    failing.pending.append(error)
    before = open_descriptors()

    with pytest.raises(OSError) as caught:
        subject.cls(binding=failing.binding)

    assert caught.value.errno == error
    assert len(open_descriptors() - before) <= 1
    subject.cls(binding=failing.binding).close()


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_NOFILE is a Unix limit")
def test_process_limit(subject):
    """At the process's real limit a selector is EMFILE, and below it works again."""
    if not (subject.on_host and subject.kernel_keeps_list):
        pytest.skip("only a real kernel's object counts against the limit")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        with pytest.raises(OSError) as caught:
            subject.cls()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert caught.value.errno == errno.EMFILE
    subject.cls().close()


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_refused_wait(subject, pairs, events):
    """A wait that the kernel refuses is its OSError, and the next wait gives the events."""
    function = {
        "epoll": "epoll_wait",
        "kqueue": "kevent",
        "devpoll": "ioctl",
        "eventport": "port_getn",
    }.get(subject.mechanism, subject.mechanism)
    failing = Failing(subject, function)
    with subject.cls(binding=failing.binding) as selector:
        expected = {(selector.register(left, events), WRITE & events) for left, _ in pairs[:3]}
        failing.pending.append(10022 if subject.winsock else errno.EINVAL)

        with pytest.raises(OSError) as caught:
            selector.select(0)

        assert caught.value.errno == errno.EINVAL
        assert set(selector.select(0)) == {item for item in expected if item[1]}
