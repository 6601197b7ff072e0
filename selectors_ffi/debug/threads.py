"""Threads: how a thread of our own is started. It takes no signal from the program.

The kernel gives a signal that is sent to the process to any thread that does not block it. A program
that blocks a signal, to ask for it by ``sigwait()`` or a ``signalfd``, blocks it in its own threads.
A thread of ours would be given that signal, and the default action of most signals ends the process.
"""

from __future__ import annotations

import _thread
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["start"]


def start(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in a new thread, which is not one of ``threading``'s.

    Raises:
        RuntimeError: there can be no more threads, or the interpreter ends.
    """
    _thread.start_new_thread(_run, (function, arguments))


def _run(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    if hasattr(signal, "pthread_sigmask"):  # pragma: no branch: Windows
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    function(*arguments)
