"""What poll(2) and select(2) have in common: the interest lives in this process.

Facts.  The kernel keeps nothing between two calls; each is handed the whole interest, and writes
its answer.  The arguments must neither change nor move while a call is using them.

Decision.  One table holds the arguments, made ready to pass.  A change touches the registry alone and
notes the descriptor in ``_changed``; a call takes the table out of ``_tables``, brings it up to date
with what was noted, and puts it back when it is through.  A second call at the same time finds no
table and makes its own, for once.  Each step is one atomic operation of a list or a dict, so there
is no lock.

Cost.  A change while another thread is waiting takes effect with the next call.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from .base import SelectorKey, _BaseSelectorImpl

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from ..binding import Binding


class Table(Protocol):
    """The arguments of a call, kept from one to the next."""

    def put(self, key: SelectorKey) -> None:
        """Have ``key``'s descriptor watched for ``key.events``, whatever was there before."""

    def drop(self, fd: int) -> None:
        """Have ``fd`` watched no more, if it was."""


TableT = TypeVar("TableT", bound=Table)


class TableSelector(_BaseSelectorImpl, Generic[TableT]):
    """A selector whose interest is in a table of its own, not in the kernel."""

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__()
        self._changed: dict[int, None] = {}
        self._table = self._new_table()
        self._tables = [self._table]  # empty while a call is using the table
        self._closed = False

    @abstractmethod
    def _new_table(self) -> TableT:
        """Return an empty table."""

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        self._check_open()
        key = super().register(fileobj, events, data)
        self._changed[key.fd] = None
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        key = super().unregister(fileobj)
        self._changed[key.fd] = None
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        key = super().modify(fileobj, events, data)
        self._changed[key.fd] = None
        return key

    def close(self) -> None:
        self._closed = True
        self._tables = []
        super().close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed selector")

    def _take(self) -> TableT:
        """Return an up-to-date table that nobody else is using; ``_put_back`` it."""
        self._check_open()
        tables = self._tables
        if not tables:
            return self._private_table()
        try:
            table = tables.pop()
        except IndexError:
            return self._private_table()
        changed = self._changed
        try:
            while changed:
                try:
                    fd = next(iter(changed))
                except (StopIteration, RuntimeError):
                    continue  # another thread has changed the dict meanwhile
                self._bring_up_to_date(table, fd)
        except BaseException:
            tables.append(table)
            raise
        return table

    def _put_back(self, table: TableT) -> None:
        if table is self._table:
            self._tables.append(table)

    def _private_table(self) -> TableT:
        table = self._new_table()
        for key in list(self._fd_to_key.values()):
            table.put(key)
        return table

    def _bring_up_to_date(self, table: TableT, fd: int) -> None:
        try:
            self._changed.pop(fd, None)  # first, lest a change that comes meanwhile be lost
            key = self._fd_to_key.get(fd)
            if key is None:
                table.drop(fd)
            else:
                table.put(key)
        except BaseException:
            self._changed[fd] = None
            raise
