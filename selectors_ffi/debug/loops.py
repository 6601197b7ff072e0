"""Loops: which loop of the program a wait belongs to, seen from its code.

A function that waits in a loop has a jump back over the call. One without such a jump waits for its
caller: asyncio's ``_run_once`` is called in the loop of ``run_forever``. As long as a frame of that code
stands within the bounds of the loop, the program is in its loop; afterwards it has left it.
"""

from __future__ import annotations

import dis
import gc
import types
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["Loop", "loop_around", "refers_to"]

#: Functions that may stand between a wait and its loop: the one that waits, and its caller. Almost every
#: program runs in another loop, if one looks far enough. asyncio's own functions do not count.
DEPTH = 2
#: References from a variable of the loop to its selector, and objects to look at.
REFERENCES = 5
OBJECTS = 2000


class Loop(NamedTuple):
    """A loop in a function's code."""

    code: CodeType
    begin: int
    """Offset of its first instruction."""
    end: int
    """Offset of the last jump back."""

    def runs(self, frame: FrameType) -> bool:
        """Tell whether a frame stands in this loop."""
        return frame.f_code is self.code and self.begin <= frame.f_lasti <= self.end


def loop_around(frame: FrameType | None) -> Loop | None:
    """Return the innermost loop in which a frame or one of its callers stands; None if there is none."""
    depth = 0
    while frame is not None and depth < DEPTH:
        at = frame.f_lasti
        around = [loop for loop in _loops_of(frame.f_code) if loop.begin <= at <= loop.end]
        if around:
            return min(around, key=lambda loop: loop.end - loop.begin)
        depth += frame.f_globals.get("__name__") != "asyncio.base_events"
        frame = frame.f_back
    return None


@lru_cache(maxsize=256)
def _loops_of(code: CodeType) -> tuple[Loop, ...]:
    """Return the loops of a function's code: what lies between a jump back and its target."""
    ends: dict[int, int] = {}
    for one in dis.get_instructions(code):
        jumps = one.opcode in dis.hasjrel or one.opcode in dis.hasjabs
        # An await is a loop, too, in which a coroutine is asked again.
        if jumps and one.argval <= one.offset and "NO_INTERRUPT" not in one.opname:
            ends[one.argval] = one.offset
    return tuple(Loop(code, begin, end) for begin, end in ends.items())


def refers_to(frame: FrameType, selector: object) -> bool:
    """Tell whether a variable of a frame leads to the selector: two loops may run the same code."""
    level: list[Any] = list(frame.f_locals.values())
    seen = 0
    for _ in range(REFERENCES):
        following: list[Any] = []
        for one in level:
            seen += 1
            if one is selector:
                return True
            if seen > OBJECTS:
                return False
            if type(one) is types.FunctionType:
                following += one.__closure__ or ()
            elif not isinstance(one, _NO_WAY):
                following += gc.get_referents(one)
        level = following
    return False


# Through these everything is reached from everything.
_NO_WAY = (type, types.ModuleType, types.FrameType, types.CodeType, types.BuiltinFunctionType)
