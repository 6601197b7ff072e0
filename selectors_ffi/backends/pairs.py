"""From a kernel's event to ``(key, events)``, without Python code per event.

Readiness of a key with one direction is always the same pair, whatever bits the kernel sets.  So
pairs are made by the first event of a token (see ``epoll``) and looked up from then on, by
``dict.__getitem__`` alone.  A descriptor that is registered but idle costs nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import EVENT_READ, EVENT_WRITE, SelectorKey

if TYPE_CHECKING:
    Pair = tuple[SelectorKey, int]

BOTH = EVENT_READ | EVENT_WRITE
FD_MASK = 0xFFFF_FFFF
SERIAL_SHIFT = 32


class Directions(dict):  # type: ignore[type-arg] # dict[...] as a base is slower to look up on 3.9
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


class Keys:
    """Token -> key, for the tokens of current registrations only."""

    def __init__(self, fd_to_key: dict[int, SelectorKey], tokens: dict[int, int]) -> None:
        self.fd_to_key = fd_to_key
        self.tokens = tokens  # of the descriptors whose token is not the bare number

    def __getitem__(self, token: int) -> SelectorKey:
        fd = token & FD_MASK
        key = self.fd_to_key[fd]
        if self.tokens.get(fd, fd) != token:
            raise KeyError(token)
        return key


class Pairs(dict):  # type: ignore[type-arg] # as above
    """Token -> ``(key, key.events)``.

    Raises:
        KeyError: no current registration has the token, or its key has both directions.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __missing__(self, token: int) -> Any:
        key = self._keys[token]
        made = self[token] = self._made(key)
        # Another thread may have changed the key after it was read and before this was stored.
        # It changes the key first and pops the token then: one of us sees the other.
        if self._keys.fd_to_key.get(token & FD_MASK) is not key:
            self.pop(token, None)
        return made

    def _made(self, key: SelectorKey) -> Any:
        if key.events == BOTH:
            raise KeyError(key.fd)
        return key, key.events


class Outcomes(Pairs):
    """Token -> the pairs for no direction, READ, WRITE and both; None where none is due.

    Raises:
        KeyError: no current registration has the token.
    """

    def _made(self, key: SelectorKey) -> tuple[Pair | None, ...]:
        return tuple(
            (key, key.events & ready) if key.events & ready else None for ready in range(BOTH + 1)
        )
