"""Beyond the standard library: more events, and triggers.

A plain mask of ``EVENT_READ`` and ``EVENT_WRITE`` takes the short way through every backend. Anything
else becomes an ``Interest``: the mask, still an int, that knows how it is watched. It is the ``events``
of its key. So what makes the kernel agree with the registry, at whatever time, finds all of it there.

A backend that has made an ``Interest`` has ``_beyond`` set. It looks for one only then.
"""

from __future__ import annotations

from selectors import EVENT_READ, EVENT_WRITE

from .native import Directions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding

__all__ = [
    "EDGE", "EVENT_HANGUP", "EVENT_PRIORITY", "LEVEL", "ONESHOT", "Bits", "EpollBits", "Interest",
    "PollBits", "adopt", "differ", "flag_of", "watched",
]  # fmt: skip

# Not the next bits: ``register(fd, select.POLLOUT)``, which is 4, stays a ValueError.
EVENT_PRIORITY = 1 << 16
EVENT_HANGUP = 1 << 17

LEVEL = "level"
EDGE = "edge"
ONESHOT = "oneshot"

_TRIGGERS = (LEVEL, EDGE, ONESHOT)
_NAMES = {LEVEL: "LEVEL", EDGE: "EDGE", ONESHOT: "ONESHOT"}
_MORE = EVENT_PRIORITY | EVENT_HANGUP
_ALL = EVENT_READ | EVENT_WRITE | _MORE


class Interest(int):
    """A mask of events, and how they are watched. Each registration and each change has a new one."""

    trigger: str
    exclusive: bool
    _armed: bool
    ended = False  # ``EVENT_HANGUP`` was reported; kqueue's to know

    def __new__(cls, events: int, trigger: str = LEVEL, exclusive: bool = False) -> Interest:
        self = int.__new__(cls, events)
        self.trigger = trigger
        self.exclusive = exclusive
        self._armed = True
        return self

    @property
    def armed(self) -> bool:
        """Whether it may still be reported: not so after the one report of ``ONESHOT``."""
        return "_armed" in self.__dict__

    def fire(self, fired: list[Interest]) -> bool:
        """Tell whether it may be reported now. With ``ONESHOT`` one caller of all is told so.

        Args:
            fired: takes it, to be armed again if an exception comes before the caller has the report.
        """
        fired.append(self)  # first: the exception may come right after
        if self.trigger is not ONESHOT or self.__dict__.pop("_armed", False):
            return True
        fired.pop()
        return False

    def arm(self) -> None:
        """Have it reported once more: the caller was not told."""
        self._armed = True


_PLAIN = Interest(0)


def watched(events: int) -> int:
    """Return what the kernel is to watch for: 0 after the one report of ``ONESHOT``."""
    return 0 if type(events) is Interest and not events.armed else events


def adopt(selector: Any, events: int, trigger: str | None, exclusive: bool | None, was: int = 0) -> int:
    """Return what a key is to hold for these arguments of ``register`` or ``modify``.

    Args:
        was: what the key held before; None as an argument stands for what it says.

    Raises:
        ValueError: a bit or a trigger that does not exist.
        NotImplementedError: this selector cannot do it.
    """
    if not events or events & ~_ALL:
        raise ValueError(f"Invalid events: {events!r}")
    before = was if isinstance(was, Interest) else _PLAIN
    if trigger is None:
        trigger = before.trigger
    elif trigger not in _TRIGGERS:
        raise ValueError(f"Invalid trigger: {trigger!r}; there are LEVEL, EDGE and ONESHOT")
    if exclusive is None:
        exclusive = before.exclusive
    if trigger == LEVEL and not exclusive and not events & _MORE:
        return int(events) if isinstance(events, Interest) else events
    interest = Interest(events, _TRIGGERS[_TRIGGERS.index(trigger)], bool(exclusive))
    lacks = selector._lacks(interest)
    if lacks:
        binding = getattr(selector, "_binding", None)
        name = f"{selector._mechanism} ({binding.target})" if binding else type(selector).__name__
        raise NotImplementedError(f"{name} {lacks}")
    selector._go_beyond()
    return interest


def differ(was: int, events: int) -> bool:
    """Tell whether the kernel must hear of a change of a mask to an equal one."""
    before, after = (
        (one.trigger, one.exclusive) if isinstance(one, Interest) else (LEVEL, False)
        for one in (was, events)
    )
    return before != after or after[0] is ONESHOT


def lack(interest: Interest, events: int, triggers: tuple[str, ...], exclusive: bool = False) -> str:
    """Return what of ``interest`` is neither in the events nor the triggers that a mechanism has."""
    if interest & EVENT_PRIORITY & ~events:
        return "has no EVENT_PRIORITY: use PollSelector or SelectSelector"
    if interest & EVENT_HANGUP & ~events:
        return "has no EVENT_HANGUP: epoll and kqueue have it, and poll of Linux and FreeBSD 13"
    if interest.trigger not in triggers:
        return f"has no {_NAMES[interest.trigger]} trigger: epoll and kqueue have it"
    if interest.exclusive and not exclusive:
        return "has no exclusive registrations: epoll has them"
    return ""


def flag_of(binding: Binding, name: str) -> int:
    """Return a flag of the system, 0 where it has none of that name."""
    try:
        return binding.constant(name)
    except OSError:
        return 0


class Bits:
    """The native bits of epoll, poll and /dev/poll, whose names differ only in the prefix.

    ``EVENT_PRIORITY`` is told from the others, and so is ``EVENT_HANGUP``. ``EVENT_READ`` and
    ``EVENT_WRITE`` come with hang-ups and errors, as in the standard library. What would be
    lost, an error while neither is asked for, is reported as all that was asked for.
    """

    prefix: str

    def __init__(self, binding: Binding) -> None:
        def constant(name: str) -> int:
            return flag_of(binding, self.prefix + name)

        self._native = {
            EVENT_READ: constant("IN"),
            EVENT_WRITE: constant("OUT"),
            EVENT_PRIORITY: constant("PRI"),
            EVENT_HANGUP: constant("RDHUP"),
        }
        self._ended = constant("HUP") | self._native[EVENT_HANGUP]
        self._more = self._native[EVENT_PRIORITY] | self._native[EVENT_HANGUP]
        read, write = self._native[EVENT_READ], self._native[EVENT_WRITE]
        #: The native bits of a mask that is no ``Interest``, and back.
        self.flags: tuple[int, int, int, int] = (0, read, write, read | write)
        self.directions: Directions = Directions(read, write)
        #: The events that this system has.
        self.events: int = sum(event for event, native in self._native.items() if native)

    def __getitem__(self, events: int) -> int:
        """Return the native bits of a mask."""
        return sum(native for event, native in self._native.items() if events & event)

    def ready(self, flags: int, asked: int) -> int:
        """Return which of the events ``asked`` for are ready, given what the kernel has reported."""
        native, found = self._native, 0
        if flags & ~(native[EVENT_WRITE] | self._more):
            found |= EVENT_READ
        if flags & ~(native[EVENT_READ] | self._more):
            found |= EVENT_WRITE
        if flags & native[EVENT_PRIORITY]:
            found |= EVENT_PRIORITY
        if flags & self._ended:
            found |= EVENT_HANGUP
        found &= asked
        if not found and flags & ~(native[EVENT_READ] | native[EVENT_WRITE] | self._more):
            found = int(asked)
        return found

    def report(self, flags: int, asked: int, fired: list[Interest]) -> int:
        """Return what ``ready`` does, but 0 if another call has reported the ``ONESHOT`` already."""
        found = self.ready(flags, asked)
        if found and isinstance(asked, Interest) and not asked.fire(fired):
            found = 0
        return found


class PollBits(Bits):
    """Those of poll(2) and /dev/poll."""

    prefix = "POLL"
    events: int

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        if binding.target.startswith("freebsd11"):  # which ignores POLLRDHUP: it came with FreeBSD 13
            self.events &= ~EVENT_HANGUP


class EpollBits(Bits):
    """Those of epoll(7)."""

    prefix = "EPOLL"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self._triggers = {
            LEVEL: 0,
            EDGE: binding.constant("EPOLLET"),
            ONESHOT: binding.constant("EPOLLONESHOT"),
        }
        self._exclusive = binding.constant("EPOLLEXCLUSIVE")

    def __getitem__(self, events: int) -> int:
        flags = super().__getitem__(events)
        if isinstance(events, Interest):
            flags |= self._triggers[events.trigger] | (self._exclusive if events.exclusive else 0)
        return flags
