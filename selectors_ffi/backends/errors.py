"""Errors: whose exception it is, and what a refusal of the kernel does not say by itself.

An exception that a signal handler raises must come out of the call that it interrupts.
"""

from __future__ import annotations

import os
import stat
from errno import EBADF, EINVAL, EPERM

from ..binding import unpatched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "OF_FILES",
    "REGISTERED",
    "advised",
    "explain",
    "from_outside",
    "fstat",
    "is_open",
    "leaving_nothing",
    "left_nothing",
    "of_handler",
    "take",
]

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
    return not f"{name}.".startswith(_PACKAGE)


def take(pool: list[T]) -> T | None:
    """Take the last one out of a list that other threads take from, too; return None if it is empty."""
    try:
        return pool.pop()
    except IndexError as error:
        if of_handler(error):
            raise
        return None


fstat = unpatched(os.fstat)

#: What a mechanism says of a file that it cannot watch, and poll(2) can.
OF_FILES = {"epoll": EPERM, "kqueue": EINVAL}
_WATCHED = ("a pipe", "a socket")  # by every mechanism
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def explain(error: OSError, fd: int, mechanism: str) -> None:
    """Say in ``error`` which descriptor was refused, what it is, and what to do.

    The exception keeps its type and errno. The sentence is a note (PEP 678). Before CPython 3.11, where
    a traceback shows no notes, it is a part of the text, too.
    """
    note = _note(error.errno, fd, mechanism)
    if not note:
        return
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.strerror = f"{error.strerror}: {note}"
        error.__dict__.setdefault("__notes__", []).append(note)


#: What to do where ``register`` finds the number in the registry.
REGISTERED = (
    "call modify() to change a registration. If the registered file was closed and its number given out"
    " again, call unregister() before close()"
)


def advised(error: KeyError, note: str) -> KeyError:
    """Return ``error`` with a note (PEP 678); before CPython 3.11, as it is."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    return error


def leaving_nothing(error: OSError) -> OSError:
    """Say in ``error`` that the kernel has taken nothing of an addition, so nothing is to be removed."""
    vars(error)["_left_nothing"] = True
    return error


def left_nothing(error: BaseException) -> bool:
    """Tell whether ``leaving_nothing`` has said so."""
    return "_left_nothing" in vars(error)


def _note(errno: int | None, fd: int, mechanism: str) -> str:
    kind = _kind(fd)
    if errno == EBADF and kind is None:
        return f"descriptor {fd} is not open: unregister a file object before you close it"
    if kind is None or errno not in (EPERM, EINVAL, EBADF):
        return ""
    if errno == EBADF:
        return f"descriptor {fd} is {kind} that {mechanism} does not accept in this state"
    if kind in _WATCHED:
        return f"descriptor {fd} is {kind}, which {mechanism} can watch: a sandbox may forbid it"
    if errno != OF_FILES.get(mechanism):
        return f"descriptor {fd} is {kind} that {mechanism} has refused"
    return (
        f"descriptor {fd} is {kind}, which {mechanism} cannot watch: make the selector with"
        " regular_files='ready', or use PollSelector"
    )


def _kind(fd: int) -> str | None:
    """Return what a descriptor is, None if it is closed."""
    try:
        mode = fstat(fd).st_mode
        if os.isatty(fd):
            return "a terminal"
    except (OSError, OverflowError) as error:
        if from_outside(error):
            raise
        return None
    name = next((name for test, name in _KINDS if test(mode)), "a file")
    return f"/dev/null ({name})" if name == "a character device" and _is_null(fd) else name


def is_open(fd: int) -> bool:
    """Tell whether a descriptor is open. NetBSD says EBADF of a pipe whose other end is closed, too."""
    try:
        fstat(fd)
    except (OSError, OverflowError) as error:
        if from_outside(error):
            raise
        return False
    return True


def _is_null(fd: int) -> bool:
    try:
        return os.path.samestat(fstat(fd), os.stat(os.devnull))
    except OSError as error:
        if of_handler(error):
            raise
        return False
