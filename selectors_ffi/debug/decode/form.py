"""Form: how one system call's arguments are written down, before and after the call.

Input arguments are read before the call, since the kernel may overwrite them (the bitmaps of
select(2)); output arguments can only be read after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .grammar import ELLIPSIS_AFTER, address, array, is_null

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Form", "Native", "integer", "items", "records"]


class Native(NamedTuple):
    """One event as the kernel reported it."""

    fd: int
    flags: int
    """``events``/``revents`` of epoll and poll, ``flags`` of kqueue; select(2) has none (0)."""
    fflags: int
    data: int
    """kqueue's ``data``; otherwise 0."""
    filter: str
    """kqueue's filter or select's set, by name; otherwise empty."""
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

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        """Return the events that a successful wait brought."""
        return []

    def armed(self, arguments: Sequence[Any]) -> Iterable[tuple[int, int]]:
        """Return (fd, token) of each registration that a successful call made."""
        return ()


def integer(ffi: Any, value: Any) -> str:
    """Return a number, also from an integer's cdata; anything else as an address."""
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, ffi.CData) and ffi.typeof(value).kind in ("primitive", "enum"):
        return str(int(value))
    return address(ffi, value)


def items(ffi: Any, value: Any, ctype: str) -> Any:
    """Return ``value`` (typed or void pointer, array, bytes) as a pointer to ``ctype``.

    The result keeps no reference: it is valid while ``value`` is.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = ffi.from_buffer(value)
    return ffi.cast(ctype + " *", value)


def records(ffi: Any, value: Any, ctype: str, count: int, render: Callable[[Any], str]) -> str:
    """Return an array of ``count`` structs, NULL, or an address if it cannot be read."""
    if is_null(ffi, value):
        return "NULL"
    if count < 0:
        return address(ffi, value)
    pointer = items(ffi, value, ctype)
    texts = [render(pointer[index]) for index in range(min(count, ELLIPSIS_AFTER))]
    if count > ELLIPSIS_AFTER:
        texts.append("...")
    return array(texts)
