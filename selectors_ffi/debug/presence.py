"""Presence: what one thread does with one selector: its waits, and its turns between two of them."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends import process, table
from .records import Source, Spent, here, spent

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from .heard import Heard
    from .loops import Loop
    from .places import Place
    from .records import Record

__all__ = ["Begun", "Here", "Samples", "other_threads"]


def other_threads() -> int:
    """Return how many threads the program has beside the main one."""
    # Not imported by name: ``turns`` replaces it, so that its own thread does not count.
    return int(table.other_threads())  # type: ignore[attr-defined] # not exported


class Here:
    """What one thread does with one selector."""

    __slots__ = (
        "__weakref__", "at", "child", "errno", "heard", "held", "ident", "loop", "measured",
        "next_sweep", "returned", "samples", "source", "spent", "suspects", "turn", "used",
        "wait",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.child: int = process.forks_as_child
        self.ident: int = get_ident()
        self.source: Source = here(name)
        self.spent: Spent = spent()
        self.heard: Heard | None = None
        """In a wait: what its calls brought, undecoded."""
        self.held: list[Record] = []
        """In a wait: calls that are to be shown with what they brought."""
        self.returned: tuple[int, int] | None = None
        """When the last wait ended, and what was spent until then."""
        self.errno: int = 0
        """Of the last call that failed."""
        # Of turns.py, which looks at it from a thread of its own.
        self.turn: int = 0
        self.wait: int = 0  # when it began; 0 if the thread is not in one
        self.at: tuple[CodeType, int] | None = None  # what called select()
        self.loop: Loop | None = None  # around it
        self.samples: Samples | None = None
        self.next_sweep: int = 0
        self.suspects: set[int] = set()
        self.used: int = 0  # processor time, when it was measured last
        self.measured: int = 0  # in which wait


class Samples:
    """What was seen of one turn that took long."""

    def __init__(self, turn: int, hangs: int) -> None:
        self.turn = turn
        self.counts: dict[tuple[Place, ...], int] = {}
        """Stack -> how often it was seen."""
        self.owner = ""
        self.spoken = False
        """Whether this turn was told of before its end."""
        self.told = hangs
        """After how many nanoseconds it is told of next."""
        self.call: FrameType | Place | None = None
        """The call out of the loop that is under way; kept, so that another one is not taken for it.

        Without frames, what it calls.
        """
        self.at = -1
        """Where it stands, if the loop itself is at work."""
        self.since = self.delay = 0
        """When it was first seen, and how long the thread had not got a processor until then."""

    def add(self, stack: tuple[Place, ...]) -> None:
        """Count a stack."""
        if len(self.counts) < 100:
            self.counts[stack] = self.counts.get(stack, 0) + 1

    def most(self) -> tuple[Place, ...]:
        """Return the stack that was seen most often."""
        return max(self.counts, key=self.counts.__getitem__)


class Begun(NamedTuple):
    """A wait that has begun."""

    time: int
    spent: int
    turn: int
    changes: int
    at: str
    """Where the program was for most of a turn that took long; else empty."""
    outer: Any
    """What the wait has heard that this one is in the middle of."""
