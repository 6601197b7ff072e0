"""What a kernel gives: the object behind a selector, and events."""

from __future__ import annotations

from collections import namedtuple

from .handlers import of_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from ..binding import Binding
    from .interface import SelectorKey

__all__ = ["Descriptor", "NativeEvent"]

if TYPE_CHECKING:

    class NativeEvent(NamedTuple):  # noqa: D101 - below
        key: SelectorKey | None
        fd: int
        flags: int
        fflags: int = 0
        data: int = 0
        filter: int = 0

else:
    NativeEvent = namedtuple(
        "NativeEvent", ["key", "fd", "flags", "fflags", "data", "filter"], defaults=[0, 0, 0]
    )
    NativeEvent.__doc__ = """One event as the kernel reported it; ``key`` is None for no registration.

``flags`` are ``events`` of epoll, ``revents`` of poll and /dev/poll, ``flags`` of kqueue, and of
select(2), which has none, the ``EVENT_*`` of its sets. The last three fields are kqueue's.
"""


class Descriptor:
    """The kernel object of a selector, which is closed with its last reference.

    It is outside every reference cycle, and has the only finaliser. So a dropped selector gives its
    descriptor back at once, and a copied selector shares it with the original.
    """

    __slots__ = ("_binding", "_open", "fd")

    def __init__(self, binding: Binding, fd: int) -> None:
        self._binding = binding
        self._open = [fd]
        self.fd: int = fd

    def rebind(self, binding: Binding) -> None:
        """Have it closed through another library of the same kernel."""
        self._binding = binding

    def close(self) -> None:
        """Close the descriptor once, whatever other threads and signal handlers do."""
        if not self._open:
            return
        try:
            fd = self._open.pop()
        except IndexError as error:
            if of_handler(error):
                raise
            return  # another thread was faster
        self.fd = -1
        self._binding.close(fd)

    def __del__(self) -> None:
        try:
            if self._open:
                self.close()
        except (AttributeError, OSError, TypeError):
            # An exception has ended __init__, or the process has closed all its descriptors, or it ends,
            # and the modules of a library that stands before the kernel's are empty.
            pass
