"""Native flags to directions, for the mechanisms whose flags are a bit mask."""

from __future__ import annotations

from .base import EVENT_READ, EVENT_WRITE, SelectorKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    Pair = tuple[SelectorKey, int]
    _Table = dict[int, int]
else:
    _Table = dict  # dict[...] as a base is slower to look up on 3.9

BOTH = EVENT_READ | EVENT_WRITE


class Directions(_Table):
    """Native flags -> the directions they are readiness for.

    Any bit but the one for writing ends the wait of a reader, and the reverse: so hang-ups and
    errors reach whatever was asked for.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read = read
        self._write = write

    def __missing__(self, flags: int) -> int:
        events = 0
        if flags & ~self._write:
            events |= EVENT_READ
        if flags & ~self._read:
            events |= EVENT_WRITE
        self[flags] = events
        return events
