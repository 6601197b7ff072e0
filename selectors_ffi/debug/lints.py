"""Lints: the warnings of ``Debug.CHECKS``, one class each, with ids that stay; and faults made good.

``docs/lints.md`` has cause and cure of each. Silence one like any other warning:
``warnings.filterwarnings("ignore", category=selectors_ffi.debug.BusyLoop)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from .places import Place

__all__ = [
    "LINTS",
    "BlockedLoop",
    "BlockingDescriptor",
    "BusyLoop",
    "ClosedWhileRegistered",
    "DescriptorReused",
    "Finding",
    "NeverSleeps",
    "OutOfDescriptors",
    "REPLACED",
    "REUSED",
    "RegularFile",
    "SelectorWarning",
    "StaleRegistration",
    "UsedAfterFork",
    "WriteInterestLeftOn",
    "forget_mended",
    "mended",
    "mended_so_far",
]


class SelectorWarning(UserWarning):
    """A mistake in the use of a selector.

    Attributes:
        id: the name of the lint, which never changes.
        cause: why it happens, one sentence.
        cure: what to do next, one sentence; it ends the message.
        page: where the lint is explained.
    """

    id: ClassVar[str] = "SEL000"
    cause: ClassVar[str] = ""
    cure: ClassVar[str] = ""
    page: ClassVar[str] = "docs/lints.md"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.page = f"docs/lints.md#{cls.id.lower()}-{cls.__name__.lower()}"

    def __init__(self, message: str) -> None:
        super().__init__(f"{self.id}: {self.text(message)}")

    @classmethod
    def text(cls, message: str) -> str:
        """Return what happened, what to do about it, and where to read more."""
        return f"{message}. {cls.cure} ({cls.page})"


class ClosedWhileRegistered(SelectorWarning):
    """A registered descriptor is closed."""

    id = "SEL001"
    cause = "close() was called before unregister()."
    cure = "Call unregister() before close()."


class DescriptorReused(SelectorWarning):
    """The number of a registered descriptor names another file now."""

    id = "SEL002"
    cause = "The file was closed without unregister(), and a new file got its number."
    cure = "Call unregister() before close()."


class StaleRegistration(SelectorWarning):
    """The kernel reports a descriptor that is not registered."""

    id = "SEL003"
    cause = "The descriptor was closed while a duplicate (dup, fork) kept its file open."
    cure = "Call unregister() before close(), and make duplicates non-inheritable."


class BusyLoop(SelectorWarning):
    """The kernel reports the same descriptor in every wait, and the program does nothing about it."""

    id = "SEL004"
    cause = "The kernel reports a ready descriptor in every wait until its cause is gone."
    cure = "Read the data, or unregister the descriptor: until then every wait returns at once."


class WriteInterestLeftOn(SelectorWarning):
    """A connection is registered for EVENT_WRITE, and the program has nothing to write."""

    id = "SEL005"
    cause = "A socket is writable nearly always, so EVENT_WRITE is reported in every wait."
    cure = "Register EVENT_WRITE only while there is output that send() did not take."


class BlockingDescriptor(SelectorWarning):
    """A blocking socket is registered among non-blocking ones."""

    id = "SEL006"
    cause = "setblocking(False) was forgotten; accept() returns blocking sockets."
    cure = "Call setblocking(False): one call that blocks stops the whole loop."


class UsedAfterFork(SelectorWarning):
    """A selector that was made before fork() is used in the child."""

    id = "SEL007"
    cause = "Parent and child share the kernel's object: changes in one are changes in the other."
    cure = "Call reopen() in the child first, or close the inherited selector there and make a new one."


class RegularFile(SelectorWarning):
    """A regular file is registered."""

    id = "SEL008"
    cause = "poll and select report a regular file in every wait, kqueue until its end."
    cure = "Read regular files without a selector: reading them does not wait."


class BlockedLoop(SelectorWarning):
    """The program kept the loop from its next wait for a long time."""

    id = "SEL010"
    cause = "A callback or coroutine ran a slow or blocking call in the loop's thread."
    cure = "Move the call to a thread (asyncio.to_thread), or await something that does not block."


class NeverSleeps(SelectorWarning):
    """The loop asks for events with a timeout of 0 all the time and finds none."""

    id = "SEL011"
    cause = "A callback or coroutine puts itself back in the loop's queue in every turn."
    cure = "Wait for an event or a real delay instead of sleep(0), call_soon() or call_later(0)."


class OutOfDescriptors(SelectorWarning):
    """A connection waits to be accepted, and the process has no descriptor left for it."""

    id = "SEL012"
    cause = "accept() fails with EMFILE, and the connection that it leaves is reported again."
    cure = "Raise the limit (ulimit -n), close what is idle, and unregister the listener meanwhile."


#: All of the above.
LINTS: tuple[type[SelectorWarning], ...] = tuple(SelectorWarning.__subclasses__())


class Finding(NamedTuple):
    """A lint about to be told."""

    lint: type[SelectorWarning]
    fd: int
    """-1 if it is of the whole selector."""
    message: str
    place: Place | None = None
    """Where the program made the mistake, if that is not where it called the selector."""


# Faults of a program that these selectors make good. They are told at the end of a trace, which would
# otherwise hide the fault that it was made for.
REPLACED = (
    "stale registration: the epoll set was made anew, {}. With the standard library's selectors this"
    f" loop would spin. Call unregister() before close(). ({StaleRegistration.page})"
)
REUSED = (
    "reused number: modify() met a file that was never registered, and registered it, {}. The standard"
    " library's selectors raise FileNotFoundError."
    f" {DescriptorReused.cure} ({DescriptorReused.page})"
)

_mended: dict[str, int] = {}


def mended(what: str) -> None:
    """Count one of the above."""
    _mended[what] = _mended.get(what, 0) + 1


def mended_so_far() -> list[str]:
    """Return a sentence about each of them that this process has mended."""
    times = {what: "once" if count == 1 else f"{count} times" for what, count in _mended.items()}
    return [what.format(count) for what, count in times.items()]


def forget_mended() -> None:
    """Count anew: this process is a forked child, and its parent tells what came before."""
    _mended.clear()
