"""Wakers that the process keeps for its next selectors; a test that counts descriptors closes them."""

from __future__ import annotations

from selectors_ffi.backends import wake


def close_idle_wakers() -> None:
    """Close the wakers that no selector uses."""
    for kind in (wake.Waker, wake.SocketWaker):
        while kind.pool:
            kind.pool.pop().close()
