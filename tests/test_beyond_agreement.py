"""Random programs with ONESHOT and EVENT_HANGUP: every mechanism returns what epoll does."""

from __future__ import annotations

import socket
import sys

import pytest

from selectors_ffi import EVENT_HANGUP, EVENT_READ, EVENT_WRITE, LEVEL, ONESHOT, backends
from selectors_ffi.binding import load

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is what they agree with"),
]

BOTH = EVENT_READ | EVENT_WRITE
HANGUPS = (EVENT_HANGUP, EVENT_READ | EVENT_HANGUP, BOTH | EVENT_HANGUP)
PAIRS = 3
SELECT = ("select", 0, None, None)
#: Backend, kernel, and whether there is an EVENT_HANGUP to agree about.
OTHERS = [
    ("PollSelector", "host", False),
    ("PollSelector", "host", True),
    ("SelectSelector", "host", False),
    ("EpollSelector", "linux", True),
    ("KqueueSelector", "freebsd", True),
    ("KqueueSelector", "netbsd", True),
    ("KqueueSelector", "darwin", True),
    ("SelectSelector", "darwin", False),
    ("DevpollSelector", "illumos", False),
    ("EventPortSelector", "solaris11", False),
]


def operations(masks):
    """Return what a program is made of."""
    triggers = st.sampled_from([LEVEL, ONESHOT, None])
    changes = st.sampled_from(["register", "modify"])
    index = st.integers(0, PAIRS - 1)
    return st.one_of(
        st.tuples(changes, index, st.sampled_from(masks), triggers),
        st.tuples(st.sampled_from(["unregister", "send", "drain"]), index, st.none(), st.none()),
        st.just(SELECT),
    )


def run(selector, program, end):
    """Run a program on sockets of its own; return what its waits have returned."""
    pairs = [socket.socketpair() for _ in range(PAIRS)]
    numbers = {left.fileno(): i for i, (left, _) in enumerate(pairs)}
    told = []
    for near, far in pairs:
        near.setblocking(False)
        far.setblocking(False)
    for name, i, events, trigger in [*program, SELECT, *end, SELECT, SELECT]:
        near, far = pairs[i]
        try:
            if name in ("register", "modify"):
                getattr(selector, name)(near, events, trigger=trigger)
            elif name == "unregister":
                selector.unregister(near)
            elif name == "send":
                far.send(b"x")
            elif name == "drain":
                near.recv(100)
            elif name == "shutdown":
                far.shutdown(socket.SHUT_WR)
            else:
                told.append({numbers[key.fd]: int(events) for key, events in selector.select(0)})
        except (KeyError, BlockingIOError):
            told.append(None)
    selector.close()
    for pair in pairs:
        for end in pair:
            end.close()
    return told


@pytest.mark.parametrize(("backend", "system", "hangups"), OTHERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_agrees_with_epoll(backend, system, hangups, data):
    """The same program brings the same results, wait by wait."""
    cls = getattr(backends, backend)
    if system == "host":
        binding = load()
    else:
        from selectors_ffi.testing import kernel

        binding = kernel(system)
    masks = [EVENT_READ, EVENT_WRITE, BOTH, *(HANGUPS if hangups else ())]
    program = data.draw(st.lists(operations(masks), max_size=25))
    end = [("shutdown", i, None, None) for i in range(PAIRS)] if hangups else []

    assert run(cls(binding=binding), program, end) == run(backends.EpollSelector(), program, end)
