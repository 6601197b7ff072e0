"""Signal handlers: an exception that a handler raises must come out of the call that it interrupts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["of_handler", "take"]

_PACKAGE = f"{__name__.rpartition('.backends')[0]}."


def of_handler(error: BaseException) -> bool:
    """Tell whether a signal handler has raised ``error``, and not this package."""
    if isinstance(error, OSError):
        return error.errno is None  # that of a system call has one
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    return not f"{traceback.tb_frame.f_globals.get('__name__')}.".startswith(_PACKAGE)


def take(pool: list[T]) -> T | None:
    """Take the last one out of a list that other threads take from, too; return None if it is empty."""
    try:
        return pool.pop()
    except IndexError as error:
        if of_handler(error):
            raise
        return None
