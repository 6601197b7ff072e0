"""Blocks: which binding a selector gets that is made without one.

Process-wide, not per thread or per task: a loop that is started in the block and runs in a thread
of its own is to be reached, too. Selectors that were made before the block keep their binding.

Threads enter and leave blocks one at a time, but making a selector takes no lock. A signal handler may
enter and leave blocks in the middle of that, as its thread may take the lock twice. So the blocks are a
list, whose ``append`` and ``remove`` are one step each, and ``_refresh`` looks at it again after it has
acted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import binding as interface
from ..debug.locking import Locked
from .library import Proxy

if TYPE_CHECKING:
    from ..binding import Binding

__all__ = ["Block", "kernel_in_force", "push", "shared"]

shared = Locked()
_stack: list[Binding] = []  # the innermost block last
#: Stands for that of a host on which nothing works but simulated kernels.
_NO_KERNEL = interface.Binding("", None, None)


def _current() -> Binding:
    """Return the binding of the innermost block; see ``binding.default``."""
    try:
        return _stack[-1]
    except IndexError:  # another thread has just left the last block
        return interface.load()


def push(made: Binding) -> None:
    """Have it for the rest of the process, as a block that does not end."""
    _stack.append(made)
    _refresh()


def kernel_in_force(leaving: Binding | None = None) -> Binding:
    """Return the binding of the kernel itself, below what is injected and chaos.

    Args:
        leaving: that of a block that is not to count.
    """
    inside = [made for made in _stack if made is not leaving]
    try:
        binding = inside[-1] if inside else interface.load()
    except OSError:
        return _NO_KERNEL
    while isinstance(binding.lib, Proxy):
        binding = binding.lib._binding
    return binding


def _refresh() -> None:
    """Make ``binding.ambient`` agree with the blocks; without blocks it costs nothing."""
    while True:
        inside = bool(_stack)
        interface.ambient = _current if inside else None
        if bool(_stack) is inside:  # else another thread or a signal handler has changed it meanwhile
            return


class Block:
    """A block in which selectors that are made without ``binding=`` get this one's."""

    def __init__(self) -> None:
        self._binding: Binding | None = None

    def make(self) -> Binding:
        """Return the binding of the block, made when it is entered."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        """Enter the block; return the library of its binding."""
        with shared._lock:
            if self._binding is not None:
                raise RuntimeError(f"{type(self).__name__}() is entered already")
            self._binding = self.make()
            push(self._binding)
            return self._binding.lib

    def __exit__(self, *error: object) -> None:
        with shared._lock:
            made, self._binding = self._binding, None
            if made is None:
                raise RuntimeError(f"{type(self).__name__}() was not entered")
            # Blocks may overlap. So the end of any of them may put another kernel in force. Its classes
            # come first: a handler that enters a kernel keeps what is exported for what is in force.
            kernel = kernel_in_force(leaving=made)
            if kernel is not kernel_in_force():
                from .ambient import restore_classes

                restore_classes(kernel)
            _stack.remove(made)
            _refresh()
