"""A block in which selectors wait as on another system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ambient import Block
from .kernels import kernel

if TYPE_CHECKING:
    from ..binding import Binding

__all__ = ["on_kernel"]


class on_kernel(Block):
    """Within the block, every selector that is made without ``binding=`` is on ``kernel(name)``.

    The class must be one that the kernel has: ``backends.KqueueSelector`` on "darwin". To run a whole
    program, with the ``DefaultSelector`` of that system, set SELECTORS_FFI_KERNEL.

    Args:
        name: see ``kernel``.
        options: see ``kernel``.

    Yields:
        The simulated kernel.

    Raises:
        ValueError: there is no such kernel or option; the message lists what there is.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self._made = kernel(name, **options)

    def make(self) -> Binding:
        return self._made

    def __enter__(self) -> Any:
        super().__enter__()
        return self._made.lib.kernel
