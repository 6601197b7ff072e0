"""What poll(2) and select(2) have in common: the interest lives in this process.

Facts. The kernel keeps nothing between two calls; each is handed the whole interest, and writes
its answer. The arguments must neither change nor move while a call is using them.

Decision. One table holds the arguments, and the calls bound to them. A change touches the
registry alone and notes the descriptor in ``_changed``; a call takes the table out of ``_idle``,
brings it up to date with what was noted, and puts it back when it is through. A second call at
the same time finds no table and makes its own, for once. Each step is one atomic operation of a
deque or a dict, so there is no lock. What was noted during a call makes it look its answer up
in the registry again, entry by entry, as does a call with a table of its own, since what it missed
may have been dealt with already; otherwise the table's ready-made pairs are the answer.

Cost. A change while another thread is waiting takes effect with the next call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from functools import cache

from ..binding import INT_MAX
from .base import INVALID_EVENTS, SelectorKey, _BaseSelectorImpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from _typeshed import FileDescriptorLike

    from ..binding import Binding

    class Table(Protocol):
        """The arguments of a call, kept from one to the next, and the calls bound to them."""

        now: Iterator[int]
        forever: Iterator[int]
        bound: bool  # whether these calls have the arguments as they are now

        def until(self, timeout: float) -> Iterator[int]:
            """Return the call that waits ``timeout`` seconds > 0."""

        def bind(self) -> None:
            """Make the calls for the arguments as they are now."""

        def fill(self, keys: list[SelectorKey]) -> None:
            """Have ``keys`` watched, and nothing else, whatever state the table is in."""

        def put(self, key: SelectorKey) -> None:
            """Have ``key``'s descriptor watched for ``key.events``, whatever was there before."""

        def drop(self, fd: int) -> None:
            """Have ``fd`` watched no more, if it was."""


_make_key = tuple.__new__  # what SelectorKey(...), a Python function, calls


@cache
def zeros() -> Callable[..., Any]:
    """Return what matches zero bytes from a position on; made late, as ``re`` is slow to import."""
    from re import compile

    return compile(rb"\0*").match  # it always matches


class TableSelector(_BaseSelectorImpl):
    """A selector whose interest is in a table of its own, not in the kernel."""

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__(debug=debug)
        self._binding = self._bind(binding)
        self._ffi = self._binding.ffi
        self._closed = False
        self._changed: dict[int, None] = {}
        self._torn = False  # an exception has interrupted a change of the table
        self._table = self._new_table()
        self._idle = deque([self._table])  # empty while a call is using the table

    @abstractmethod
    def _new_table(self) -> Any:
        """Return an empty table."""

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        if self._closed:
            raise ValueError("I/O operation on closed selector")
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        fd = fileobj if type(fileobj) is int and fileobj >= 0 else self._fileobj_lookup(fileobj)
        if fd > INT_MAX:
            raise OverflowError("Python int too large to convert to C int")
        key: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        if self._fd_to_key.setdefault(fd, key) is not key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        self._changed[fd] = None
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        try:
            fd = fileobj if type(fileobj) is int and fileobj >= 0 else self._fileobj_lookup(fileobj)
            key = self._fd_to_key.pop(fd)
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None
        self._changed[fd] = None
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        key = super().modify(fileobj, events, data)
        self._changed[key.fd] = None
        return key

    def close(self) -> None:
        self._closed = True
        self._changed[-1] = None  # that a call in flight looks its answer up in the registry
        self._idle = deque()  # a call in flight puts its table back into the old one
        self._table = None
        super().close()

    def _own_table(self) -> Any:
        """Return a table for one call, at a time when another call is using the table.

        Raises:
            ValueError: there is no table because the selector is closed.
        """
        if self._closed:
            raise ValueError("I/O operation on closed selector")
        table = self._new_table()
        table.fill(list(self._fd_to_key.values()))
        table.bind()
        return table

    def _update(self, table: Any) -> None:
        """Bring the table up to date with what has been noted.

        Raises:
            ValueError: the selector has been closed meanwhile.
        """
        if self._closed:
            raise ValueError("I/O operation on closed selector")
        changed, fd = self._changed, -1
        try:
            torn, self._torn = self._torn, True
            if torn:
                table.fill(list(self._fd_to_key.values()))
            while changed:
                try:
                    fd = next(iter(changed))
                except (StopIteration, RuntimeError):
                    continue  # another thread has changed the dict meanwhile
                changed.pop(fd, None)  # first, lest a change that comes meanwhile be lost
                key = self._fd_to_key.get(fd)
                if key is None:
                    table.drop(fd)
                else:
                    table.put(key)
            if torn or not table.bound:
                table.bind()
            self._torn = False
        except BaseException:
            changed[fd] = None  # that the next call comes here
            raise
