"""Heard: what a wait was told by its calls, and what it told its caller."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

from .decode import Native
from .naming import interest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .decode import Form

    Heard = list[tuple[Form, Any, int]]
    """Function, arguments and result of each call that brought events, undecoded where that can wait."""

__all__ = ["count_of", "given_of", "natives_of", "portable", "ready_of", "seconds_of"]


def ready_of(form: Form, arguments: Sequence[Any], result: int) -> list[Native]:
    """Return the events that a call brought; what cannot be decoded must not break it."""
    try:
        return form.ready(arguments, result)
    except Exception:
        return []


def natives_of(heard: Heard | None) -> list[Native]:
    """Return the events of a wait."""
    found: list[Native] = []
    for form, kept, result in heard or ():
        found += ready_of(form, kept, result) if form.lazy else kept
    return found


def portable(given: dict[int, int]) -> list[Native]:
    """Return events in the words of the interface, where the kernel's own cannot be heard."""
    return [
        Native(fd, None, interest(events).replace("EVENT_", ""), False) for fd, events in given.items()
    ]


def given_of(result: Any) -> dict[int, int]:
    """Return descriptor -> ``EVENT_*`` of what select() returned; {} for what is no list of keys."""
    given: dict[int, int] = {}
    try:
        for key, events in result:  # two of a descriptor: the standard library's kqueue
            fd = int(key.fd)
            given[fd] = given[fd] | events if fd in given else events
    except Exception:  # a class of the caller's returns something else
        return {}
    return given


def count_of(result: Any) -> int:
    """Return how many keys select() returned; 0 for what cannot be counted."""
    try:
        return len(result)
    except Exception:
        return 0


def seconds_of(timeout: Any) -> float | None:
    """Return a timeout of any kind of number as ``select()`` was given it; NaN for none at all."""
    try:
        return None if timeout is None else float(timeout)
    except Exception:
        return nan
