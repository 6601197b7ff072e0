"""Two calls of ``select`` on one selector at the same time."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from selectors_ffi.backends import EVENT_READ, EpollSelector, PollSelector, SelectSelector
from selectors_ffi.binding import Binding, load


class Gates:
    """The host's library, in which the wait of a chosen thread stops at a gate before the kernel."""

    def __init__(self, wait):
        self.waits = {}
        self.binding = Binding(load().target, load().ffi, self)
        self._wait = load().find(wait)[0]  # its link symbol here

    def __getattr__(self, name):
        function = getattr(load().lib, name)
        if name != self._wait:
            return function

        def gated(*arguments):
            gate = self.waits.get(threading.get_ident())
            if gate:
                gate.entered.set()
                assert gate.opened.wait(30)
            return function(*arguments)

        return gated

    def start(self, select):
        """Call ``select(0)`` in a thread, up to its gate; return the gate."""
        gate = SimpleNamespace(entered=threading.Event(), opened=threading.Event(), result=None)

        def run():
            self.waits[threading.get_ident()] = gate
            gate.result = select(0)

        gate.thread = threading.Thread(target=run)
        gate.thread.start()
        assert gate.entered.wait(30)
        return gate

    @staticmethod
    def finish(gate):
        """Open a gate; return what the call behind it returned."""
        gate.opened.set()
        gate.thread.join(30)
        return gate.result


@pytest.mark.parametrize(
    ("backend", "wait"),
    [(SelectSelector, "select"), (PollSelector, "poll"), (EpollSelector, "epoll_wait")],
)
@pytest.mark.parametrize("change", ["unregister", "modify"])
def test_change_during_the_second_of_two_calls(backend, wait, change):
    """A call does not return a key that has changed meanwhile, even if another call knew first.

    The first call has the table that changes are noted for, and is through before the change; a
    third deals with the note; the second has a table of its own and must notice by itself.
    """
    gates = Gates(wait)
    stays, peer = socket.socketpair()
    changes, other = socket.socketpair()
    with backend(binding=gates.binding) as selector, stays, peer, changes, other:
        selector.register(stays, EVENT_READ)
        selector.register(changes, EVENT_READ, "old")
        peer.send(b"x")
        other.send(b"x")
        first, second = gates.start(selector.select), gates.start(selector.select)
        assert {key.fileobj for key, _ in gates.finish(first)} == {stays, changes}

        if change == "unregister":
            selector.unregister(changes)
        else:
            selector.modify(changes, EVENT_READ, "new")
        selector.select(0)

        assert "old" not in [key.data for key, _ in gates.finish(second)]
        assert stays in [key.fileobj for key, _ in selector.select(0)]
