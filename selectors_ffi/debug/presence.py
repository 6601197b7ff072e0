"""Presence: what one thread does with one selector, and a wait of its that has begun."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends import forks
from .records import Source, Spent, here, spent

if TYPE_CHECKING:
    from types import CodeType

    from .heard import Heard
    from .loops import Loop
    from .records import Record
    from .turns import Samples

__all__ = ["Begun", "Here"]


class Here:
    """What one thread does with one selector."""

    __slots__ = (
        "__weakref__", "at", "child", "errno", "heard", "held", "ident", "loop", "measured",
        "next_sweep", "returned", "samples", "source", "spent", "suspects", "swept", "turn", "used",
        "wait",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.child: int = forks.as_child
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
        self.swept: int = 0
        self.next_sweep: int = 0
        self.suspects: set[int] = set()
        self.used: int = 0  # processor time, when it was measured last
        self.measured: int = 0  # in which wait


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
