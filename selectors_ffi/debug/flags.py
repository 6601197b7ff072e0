"""Flags: what the debug package may be asked to show."""

from __future__ import annotations

import enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    #: What ``debug=`` takes: flags, their names separated by commas or ``|``, or None.
    FlagsLike = Union["Debug", str, None]

__all__ = ["ALL", "TAPPED", "Debug", "flags_of"]


class Debug(enum.Flag):
    """What to show of a selector's work. Combine with ``|``; chosen when a selector is made."""

    SYSCALLS = enum.auto()
    """One line per system call, in strace's grammar."""
    EVENTS = enum.auto()
    """Each event the kernel reported and what became of it; registrations."""
    STATS = enum.auto()
    """Counts and times; ``selector.stats()``."""
    CHECKS = enum.auto()
    """Warnings about common mistakes; see ``docs/lints.md``."""
    LEAKS = enum.auto()
    """ResourceWarning, with the place of creation, for a selector collected unclosed."""


def flags_of(value: FlagsLike, source: str = "debug") -> Debug:
    """Return flags from flags, from names ("syscalls,events", "all"), or from None (no flag).

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: neither flags nor text.
    """
    if value is None:
        return Debug(0)
    if isinstance(value, Debug):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{source} must be Debug flags or their names, not {value!r}")
    flags = Debug(0)
    for name in value.lower().replace(",", " ").replace("|", " ").split():
        if name == "all":
            flags |= ALL
        elif name not in _BY_NAME:
            known = ", ".join(_BY_NAME)
            raise ValueError(f"{source}: unknown debug flag {name!r}; known are {known}, all")
        else:
            flags |= _BY_NAME[name]
    return flags


_BY_NAME = {str(flag.name).lower(): flag for flag in Debug}

ALL = Debug.SYSCALLS | Debug.EVENTS | Debug.STATS | Debug.CHECKS | Debug.LEAKS
#: The flags that need the system calls tapped; LEAKS does not.
TAPPED = ALL & ~Debug.LEAKS
