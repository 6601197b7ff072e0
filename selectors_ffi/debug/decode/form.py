"""Form: how one system call's arguments are written down, before and after the call.

Input arguments are read before the call, since the kernel may overwrite them (the bitmaps of
select(2)); output arguments can only be read after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...binding import pointer_to
from .grammar import ELLIPSIS_AFTER, Bits, address, array, is_null

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Arguments", "FlagsAlone", "Form", "Native", "integer", "records"]


class Native(NamedTuple):
    """One event as the kernel reported it."""

    fd: int
    token: int | None
    """What the backend attached to the registration (epoll's ``data``, kqueue's ``udata``)."""
    decoded: str
    """The event in strace's grammar, e.g. ``EPOLLIN|EPOLLHUP``."""
    hangup: bool
    """It says that the peer is gone or an error is pending."""


class Form:
    """The default form: integers as they are, pointers as addresses. One instance per function.

    Args:
        ffi: the declarations of the target whose memory the arguments are.
    """

    #: What a result of 0 means, in parentheses ("Timeout").
    zero = ""
    #: Successful calls bring events.
    waits = False
    #: ``armed`` tells of registrations.
    arms = False
    #: The kernel remembers registrations, so that it can report what is no longer registered.
    remembers = False
    #: The kernel's object is replaced by another.
    replaces = False
    #: ``keep`` and ``kept`` copy what the arguments point to, so that they can be decoded later.
    lazy = False

    def __init__(self, ffi: Any) -> None:
        self.ffi = ffi

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        """Return the arguments as text; outputs provisionally."""
        return [integer(self.ffi, argument) for argument in arguments]

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        """Replace outputs in ``texts``; return the note that follows the result, or "".

        Of calls that have not failed only.
        """
        return self.zero if result == 0 else ""

    def keep(self, arguments: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments with copies of what they point to, before the call."""
        return arguments

    def kept(self, kept: Sequence[Any], arguments: Sequence[Any], result: int) -> Sequence[Any]:
        """Return ``kept`` with copies of what a successful call wrote."""
        return kept

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        """Return the events that a wait brought, whose result is above 0."""
        return []

    def armed(self, arguments: Sequence[Any]) -> Iterable[tuple[int, int]]:
        """Return (fd, token) of each registration that a successful call made."""
        return ()


class FlagsAlone(Form):
    """The form of calls that take flags, or nothing."""

    names: Iterable[str]
    """The names of the flags."""

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.flags: Bits = Bits.of(ffi, self.names)

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        return [self.flags(int(flags)) for flags in arguments]


class Arguments(Sequence[str]):
    """The arguments of a call as text, decoded when they are first looked at."""

    __slots__ = ("_form", "_kept", "_result", "_texts")

    def __init__(self, form: Form, kept: Sequence[Any], result: int) -> None:
        self._form = form
        self._kept = kept
        self._result = result
        self._texts: Sequence[str] | None = None

    def _decoded(self) -> Sequence[str]:
        texts = self._texts
        if texts is None:
            try:
                made = self._form.enter(self._kept)
                if self._result >= 0:
                    self._form.leave(self._kept, made, self._result)
                texts = made
            except Exception as error:
                texts = [f"/* undecoded: {type(error).__name__} */"]
            self._texts, self._kept = texts, ()
        return texts

    def __len__(self) -> int:
        return len(self._decoded())

    def __getitem__(self, index: Any) -> Any:
        return self._decoded()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def integer(ffi: Any, value: Any) -> str:
    """Return a number, also from an integer's cdata; anything else as an address."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, ffi.CData) and ffi.typeof(value).kind in ("primitive", "enum"):
        return str(int(value))
    return address(ffi, value)


def records(ffi: Any, value: Any, ctype: str, count: int, render: Callable[[Any], str]) -> str:
    """Return an array of ``count`` structs, NULL, or an address if it cannot be read."""
    if is_null(ffi, value):
        return "NULL"
    if count < 0:
        return address(ffi, value)
    pointer = pointer_to(ffi, ctype, value)
    return array([render(pointer[index]) for index in range(min(count, ELLIPSIS_AFTER + 1))])
