"""What a kernel gives: the object behind a selector, events, and flags, which mean directions."""

from __future__ import annotations

import sys
from collections import namedtuple
from selectors import EVENT_READ, EVENT_WRITE

from .errors import of_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

    from ..binding import Binding
    from .interface import SelectorKey

    Pair = tuple[SelectorKey, int]
    _Table = dict[int, int]
    _List = list[Any]
else:
    _Table, _List = dict, list  # dict[...] as a base is slower to look up on 3.9

__all__ = ["IN_ORDER", "RINGING", "RUNG", "Descriptor", "Directions", "NativeEvent", "when_freed"]

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


#: PyPy finalises an owner before what it owns.
IN_ORDER = sys.implementation.name == "pypy"


def when_freed(items: list[Any], end: Callable[[Any], object], at_once: bool = IN_ORDER) -> list[Any]:
    """Return a list with the same items, which calls ``end`` for what it has when it is freed.

    For finalisers, which put it in the place of ``items``. CPython finalises what is in a cycle in any
    order, and frees it after that: the finaliser of an owner may come after ours, and still use its
    selector. What is made meanwhile, as this list, is finalised when it is freed.

    Args:
        at_once: call ``end`` now.
    """
    if not at_once:
        return _WhenFreed(items, end)
    while items:
        end(items.pop())
    return items


class _WhenFreed(_List):
    __slots__ = ("_end",)

    def __init__(self, items: list[Any], end: Callable[[Any], object]) -> None:
        super().__init__(items)
        self._end = end

    def __del__(self, _when_freed: Any = when_freed) -> None:  # bound: modules may be empty by then
        _when_freed(self, self._end, True)


def _closing(binding: Binding) -> Callable[[int], None]:
    """Return what closes a number, as far as that is possible."""

    def close(fd: int) -> None:
        try:
            binding.close(fd)
        except (AttributeError, OSError, TypeError):
            # The process has closed all its descriptors, or it ends, and the modules of a library that
            # stands before the kernel's are empty.
            pass

    return close


# States of ``Descriptor.closing``: ``close`` is waking the threads that wait, and it has woken them.
RINGING, RUNG = 1, 2


class Descriptor:
    """The kernel object of a selector, which is closed with its last reference.

    It is outside every reference cycle, and has the only finaliser. So a dropped selector gives its
    descriptor back at once, and a copied selector shares it with the original.

    ``closing`` is not 0 once the selector is closed, or a copy of it; then ``fd`` is -1. A thread may be
    about to wait on the number, which must not be another file's yet. So the last call closes it, and
    not while ``close`` is ``RINGING``.
    """

    __slots__ = ("_binding", "_open", "closing", "fd")

    def __init__(self, binding: Binding, fd: int) -> None:
        self._binding = binding
        self._open = [fd]
        self.fd: int = fd
        self.closing: int = 0

    @property
    def numbers(self) -> list[int]:
        """Its number, until it is closed."""
        return [*self._open]

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
                self._open = when_freed(self._open, _closing(self._binding))
                if not self._open:
                    self.fd = -1
        except (AttributeError, TypeError):
            pass  # an exception has ended __init__, or the process ends


class Directions(_Table):
    """Native flags of a mechanism whose flags are a bit mask -> the directions they are readiness for.

    Any bit but the one for writing ends the wait of a reader, and the reverse: so hang-ups and
    errors reach whatever was asked for.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read = read
        self._write = write

    def __missing__(self, flags: int) -> int:
        events = 0
        if flags & ~self._write:
            events |= EVENT_READ
        if flags & ~self._read:
            events |= EVENT_WRITE
        self[flags] = events
        return events
