"""Lints: the warnings of ``Debug.CHECKS``, one class each, with ids that stay.

``docs/lints.md`` has cause and cure of each. Silence one as any warning:
``warnings.filterwarnings("ignore", category=selectors_ffi.debug.BusyLoop)``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = [
    "LEAK",
    "LINTS",
    "BlockingDescriptor",
    "BusyLoop",
    "ClosedWhileRegistered",
    "DescriptorReused",
    "GhostRegistration",
    "RegularFile",
    "SelectorWarning",
    "UsedAfterFork",
    "WriteInterestLeftOn",
    "action_on",
]


#: The id of the record of a leak, of which Python is warned with ResourceWarning.
LEAK = "SEL009"


class SelectorWarning(UserWarning):
    """A mistake in the use of a selector; ``id`` names it for good."""

    id = "SEL000"
    sentence = ""

    def __init__(self, message: str) -> None:
        super().__init__(f"{self.id}: {message}. {self.sentence}")


class ClosedWhileRegistered(SelectorWarning):
    """A registered descriptor has been closed."""

    id = "SEL001"
    sentence = "Unregister before closing: the kernel forgets, reports or refuses it, as it likes."


class DescriptorReused(SelectorWarning):
    """A registered descriptor's number names another file now."""

    id = "SEL002"
    sentence = "Its file was closed without unregister, and the number was given out again."


class GhostRegistration(SelectorWarning):
    """The kernel reports a descriptor that is not registered."""

    id = "SEL003"
    sentence = "A duplicate (dup, fork) keeps the closed file, and so its registration, alive."


class BusyLoop(SelectorWarning):
    """The same readiness returns again and again with nothing done about it."""

    id = "SEL004"
    sentence = "Readiness is a level: it returns until the cause is read away or unregistered."


class WriteInterestLeftOn(SelectorWarning):
    """EVENT_WRITE is asked for with nothing to write."""

    id = "SEL005"
    sentence = "Ask for EVENT_WRITE only while output is pending: a socket is writable most times."


class BlockingDescriptor(SelectorWarning):
    """A blocking socket is among non-blocking ones."""

    id = "SEL006"
    sentence = "One call that blocks stops the whole loop: setblocking(False) was forgotten."


class UsedAfterFork(SelectorWarning):
    """A selector made before fork() is used in the child."""

    id = "SEL007"
    sentence = "The kernel object is shared: changes in the child are changes in the parent."


class RegularFile(SelectorWarning):
    """A regular file is registered."""

    id = "SEL008"
    sentence = "poll and select report it always, kqueue not at its end, epoll refuses it."


LINTS: tuple[type[SelectorWarning], ...] = (
    ClosedWhileRegistered,
    DescriptorReused,
    GhostRegistration,
    BusyLoop,
    WriteInterestLeftOn,
    BlockingDescriptor,
    UsedAfterFork,
    RegularFile,
)


def action_on(warning: Warning, frame: FrameType | None) -> str:
    """Return what the warning filters say of a warning at ``frame``: "error", "ignore", ...

    It is what ``warnings.warn`` will do, which cannot be asked without doing it.
    """
    text = str(warning)
    module = frame.f_globals.get("__name__", "") if frame is not None else ""
    line = frame.f_lineno if frame is not None else 0
    for action, message, category, where, at in warnings.filters:
        if (
            issubclass(type(warning), category)
            and _matches(message, text)
            and _matches(where, str(module))
            and at in (0, line)
        ):
            return action
    return warnings.defaultaction  # type: ignore[attr-defined,no-any-return] # older than typeshed


def _matches(pattern: object, text: str) -> bool:
    """Tell whether a filter's pattern fits: None, text (CPython's own filters), or compiled."""
    if pattern is None:
        return True
    if isinstance(pattern, str):
        return pattern == text
    return pattern.match(text) is not None  # type: ignore[attr-defined]
