"""Signal handlers: an exception that a handler raises must come out of the call that it interrupts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["from_outside", "of_handler", "take"]

_PACKAGE = f"{__name__.rpartition('.backends')[0]}."


def of_handler(error: BaseException) -> bool:
    """Tell whether a signal handler has raised ``error``, and not this package."""
    if isinstance(error, OSError):  # a library may have put a function of its own in ``os``
        return error.errno is None  # that of a system call has one
    return from_outside(error)


def from_outside(error: BaseException) -> bool:
    """Tell whether code outside this package has raised ``error``.

    It tells a handler's OSError from one of ours, whose errno may be the same, where only this package
    is called.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    name = traceback.tb_frame.f_globals.get("__name__")
    return name != "functools" and not f"{name}.".startswith(_PACKAGE)  # PyPy's ``partial`` is Python


def take(pool: list[T]) -> T | None:
    """Take the last one out of a list that other threads take from, too; return None if it is empty."""
    try:
        return pool.pop()
    except IndexError as error:
        if of_handler(error):
            raise
        return None
