"""Known: what the debug package remembers of one registration.

Made when it is registered, which is the only moment that knows the place. What takes a system call or a
walk through objects (kind, address, owner) is found out when a record or a lint first needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .addresses import address_of
from .naming import HAVE_FSTAT, interest, kind_of, shown
from .output import file_of
from .owners import owner_of, owner_on_stack
from .places import NOWHERE, called_from

if TYPE_CHECKING:
    from selectors import SelectorKey

    from .places import Place

__all__ = ["Identity", "Known", "identity_of"]

_UNKNOWN = (-1, -1)

Identity = tuple[int, int]


class Known:
    """A registration as it was made, and what was told of it."""

    __slots__ = (
        "_asked", "_due", "_found", "_kind", "_owner", "_shown", "fd", "identity", "key", "last",
        "places", "told",
    )  # fmt: skip

    def __init__(self, key: SelectorKey, places: tuple[Place, ...] = (NOWHERE,)) -> None:
        self.key: SelectorKey = key
        fd = int(key.fd)
        self.fd: int = fd
        self.places: tuple[Place, ...] = places
        self.identity: Identity | None = identity_of(fd, key.fileobj)
        self.last: str = ""
        """Native flags that the kernel reported last."""
        self.told: set[str] = set()
        """Ids of the lints that were told."""
        self._kind = self._shown = self._owner = ""
        self._asked = self._due = 0
        self._found = ""  # the owner that only the stack of the registration knew

    @classmethod
    def now(cls, key: SelectorKey, limit: int) -> Known:
        """Return what is known of a registration that is being made.

        Args:
            key: the registration.
            limit: how many frames of the program to keep.
        """
        places, called = called_from(limit)
        known = cls(key, places)
        if called is not None:
            known._found = owner_on_stack(key, called)
        return known

    def changed(self, key: SelectorKey) -> None:
        """Take over a changed key: its data may name another owner."""
        if key.fileobj is not self.key.fileobj:
            self._shown = ""
        self.key = key
        self._due = self._asked

    @property
    def kind(self) -> str:
        """What the descriptor is: socket, pipe, ..."""
        if not self._kind:
            self._kind = kind_of(self.fd)
        return self._kind

    @property
    def shown(self) -> str:
        """The file object's repr, as it was when it was first asked for."""
        if not self._shown:
            self._shown = shown(self.key.fileobj)
        return self._shown

    @property
    def owner(self) -> str:
        """Which part of the program it belongs to; "" where only a number is known.

        To find an owner takes longer than to write a record, so it is kept. It is looked for again at
        the first event, when the task that reads has begun to wait, and then after ever more events.
        """
        if self._asked >= self._due:
            self._due = max(1, 8 * self._due)
            owner = self._found or owner_of(self.key)
            self._owner = "" if owner == "int" else owner
        self._asked += 1
        return self._owner

    def reported(self, flags: str) -> tuple[str, str, str]:
        """Take note of the native flags of an event; return kind, file object and owner."""
        self.last = flags
        return self._kind or self.kind, self._shown or self.shown, self.owner

    @property
    def place(self) -> str:
        """Where it was registered; "-" if that was before debugging was switched on."""
        return "-" if self.places[0] is NOWHERE else str(self.places[0])

    def about(self, *, addressed: bool = True) -> str:
        """Return number, owner, address, interest and place.

        Args:
            addressed: whether the number names the file that was registered, and so has its address.
        """
        address = address_of(self.fd, self.key.fileobj) if addressed else ""
        owner = self._found or owner_of(self.key)  # now: a task may have begun to wait since
        who = f"{owner}, {address}" if address else owner
        where = "at " + " < ".join(map(str, self.places))
        if self.places[0] is NOWHERE:
            where = "before debugging was switched on"
        return f"fd {self.fd} ({who}, registered for {interest(self.key.events)} {where})"


def identity_of(fd: int, fileobj: object) -> Identity | None:
    """Return (device, inode), which tells files apart; None if closed.

    On Windows the socket object is asked whether it is closed.
    """
    if not HAVE_FSTAT:
        return None if _says_closed(fileobj) else _UNKNOWN
    return file_of(fd)


def _says_closed(fileobj: Any) -> bool:
    """Tell whether a file object says of itself that it is closed."""
    if isinstance(fileobj, int):
        return False
    try:
        return int(fileobj.fileno()) < 0
    except ValueError:
        return True  # io objects: "I/O operation on closed file"
    except Exception:
        return False
