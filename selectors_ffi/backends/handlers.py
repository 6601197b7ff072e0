"""Signal handlers: an exception that a handler raises must come out of the call that it interrupts."""

from __future__ import annotations

__all__ = ["of_handler"]

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
