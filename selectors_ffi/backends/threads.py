"""The threads of this process."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["frames"]


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
