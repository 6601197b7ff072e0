"""A block in which selectors wait as on another system."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .ambient import choose_classes, keep_classes
from .blocks import Block, shared
from .kernels import kernel

if TYPE_CHECKING:
    from ..binding import Binding

__all__ = ["on_kernel"]


class on_kernel(Block):
    """Within the block, every selector that is made without ``binding=`` is on ``kernel(name)``.

    ``selectors_ffi.DefaultSelector``, ``run()`` and ``new_event_loop()`` are that system's, and so is
    ``selectors.DefaultSelector`` after ``install()``. A class that was taken before must be one that the
    kernel has: ``backends.KqueueSelector`` on "darwin". To run a whole program on it, set
    SELECTORS_FFI_KERNEL.

    Args:
        name: see ``kernel``.
        options: see ``kernel``.

    Yields:
        The simulated kernel.

    Raises:
        ValueError: there is no such kernel or option; the message lists what there is. Or
            SELECTORS_FFI_BACKEND names what it does not have.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self._made = kernel(name, **options)

    def make(self) -> Binding:
        return self._made

    def __enter__(self) -> Any:
        with shared._lock:
            keep_classes()
            super().__enter__()
            try:
                choose_classes()
            except BaseException:
                self.__exit__(*sys.exc_info())
                raise
        return self._made.lib.kernel
