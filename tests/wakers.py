"""What the process keeps for its next selectors; a test that counts descriptors closes the wakers."""

from __future__ import annotations

from selectors_ffi.backends import wake
from selectors_ffi.binding import load


def close_idle_wakers() -> None:
    """Close the wakers that no selector uses."""
    for kind in (wake.Waker, wake.SocketWaker):
        while kind.pool:
            kind.pool.pop().close()


def empty_pools() -> None:
    """Drop the wakers, and the tables and buffers of the host's binding, that no selector uses."""
    close_idle_wakers()
    for facts in load()._facts.values():
        getattr(facts, "pool", []).clear()
