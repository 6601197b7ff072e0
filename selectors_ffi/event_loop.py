"""asyncio over this package's selectors: ``new_event_loop`` and ``run``.

``new_event_loop`` is what asyncio calls a loop factory. Nothing here uses an event loop policy,
which Python 3.14 deprecates.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .debug import Debug

__all__ = ["new_event_loop", "run"]

T = TypeVar("T")


def new_event_loop(*, debug: Debug | str | None = None) -> asyncio.SelectorEventLoop:
    """Return a new asyncio event loop over our ``DefaultSelector``.

    Use it as a loop factory: ``asyncio.Runner(loop_factory=selectors_ffi.new_event_loop)``.

    Args:
        debug: what the loop's selector shows, such as ``"syscalls"``. This is not asyncio's own
            debug mode, which ``loop.set_debug(True)`` or ``PYTHONASYNCIODEBUG=1`` turns on.

    Raises:
        OSError: no selector of this package works on this system.
    """
    import selectors_ffi

    if not hasattr(selectors_ffi, "DefaultSelector"):
        raise OSError("no selector of selectors_ffi works here; python -m selectors_ffi says why")
    selector = selectors_ffi.DefaultSelector(debug=debug)
    try:
        return asyncio.SelectorEventLoop(selector)
    except BaseException:
        selector.close()  # the loop could not open its socket pair
        raise


def run(main: Coroutine[Any, Any, T], *, debug: Debug | str | None = None) -> T:
    """Run a coroutine in an event loop over our ``DefaultSelector``, as ``asyncio.run`` does.

    Args:
        main: the coroutine.
        debug: what the loop's selector shows, such as ``"syscalls"``; see ``new_event_loop``.

    Returns:
        What ``main`` returns.

    Raises:
        RuntimeError: an event loop is already running in this thread.
        OSError: no selector of this package works on this system.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("selectors_ffi.run() cannot be called from a running event loop")
    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=lambda: new_event_loop(debug=debug)) as runner:
            return runner.run(main)
    return _run_until_3_10(main, debug)


def _run_until_3_10(main: Coroutine[Any, Any, T], debug: Debug | str | None) -> T:
    """Do what ``asyncio.run`` does in Pythons that have no ``asyncio.Runner``."""
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = new_event_loop(debug=debug)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            asyncio.runners._cancel_all_tasks(loop)  # type: ignore[attr-defined] # what asyncio.run calls
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
