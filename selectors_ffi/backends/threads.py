"""The threads of this process."""

from __future__ import annotations

import gc
import sys
from _thread import _count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["alone", "frames"]


def frames() -> dict[int, FrameType]:
    """Return the frame of each thread; in a forked child, which ``_thread`` miscounts, of its own.

    No garbage is collected meanwhile: CPython 3.11 holds a lock of its own then, which the end of a
    ``threading.local`` takes, too, and waits for itself.
    """
    enabled = gc.isenabled()
    try:
        gc.disable()
        return sys._current_frames()
    finally:
        if enabled:
            gc.enable()


def alone() -> bool:
    """Tell whether this is the only thread.

    PyPy crashes when a thread looks at frames that another thread's compiled code is running. There
    the count must do, which may be too large in a forked child: then a waker is rung for no thread.
    """
    return not _count() if sys.implementation.name == "pypy" else len(frames()) == 1
