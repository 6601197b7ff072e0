"""Signal handlers: an exception that a handler raises must come out of the call that it interrupts."""

from __future__ import annotations

__all__ = ["of_handler"]


def of_handler(error: BaseException) -> bool:
    """Tell whether a signal handler has raised ``error``, and not the caller's ``try`` itself.

    The statements there must call no Python function that may raise it, unless it is an OSError. Then
    only the exception of a handler has a frame below the caller's.
    """
    if isinstance(error, OSError):
        return error.errno is None  # a system call's has one, and it may come from below
    traceback = error.__traceback__
    return traceback is not None and traceback.tb_next is not None
