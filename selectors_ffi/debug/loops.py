"""Loops: which loop of the program a wait belongs to, seen from its code.

A function that waits in a loop has a jump back over the call. One without such a jump waits for its
caller: asyncio's ``_run_once`` is called in the loop of ``run_forever``. As long as a frame of that code
stands within the bounds of the loop, the program is in its loop; afterwards it has left it.
"""

from __future__ import annotations

import dis
import gc
import inspect
import types
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, FrameType

__all__ = ["Loop", "loop_around", "refers_to"]

#: Functions that may stand between a wait and its loop: the one that waits, and its caller. Almost every
#: program runs in another loop, if one looks far enough. asyncio's own functions do not count.
DEPTH = 2
#: References from a variable of the loop to its selector.
REFERENCES = 5
#: Objects to look at for each of them, and of one container.
OBJECTS = 2000
REFERENTS = 1000
#: Functions whose loops are kept.
CODES = 256


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


#: Not ``lru_cache``: that of PyPy has a lock, which a forked child may find held, and wait for ever.
_found: dict[CodeType, tuple[Loop, ...]] = {}


def _loops_of(code: CodeType) -> tuple[Loop, ...]:
    """Return the loops of a function's code: what lies between a jump back and its target."""
    found = _found.get(code)
    if found is not None:
        return found
    if len(_found) >= CODES:
        _found.clear()
    ends: dict[int, int] = {}
    for one in dis.get_instructions(code):
        jumps = one.opcode in dis.hasjrel or one.opcode in dis.hasjabs
        # An await is a loop, too, in which a coroutine is asked again.
        if jumps and one.argval <= one.offset and "NO_INTERRUPT" not in one.opname:
            ends[one.argval] = one.offset
    found = _found[code] = tuple(Loop(code, begin, end) for begin, end in ends.items())
    return found


def refers_to(frame: FrameType, selector: object) -> bool:
    """Tell whether a variable of a frame leads to the selector: two loops may run the same code."""
    level = _variables_of(frame)
    seen: set[int] = set()
    for _ in range(REFERENCES):
        if any(one is selector for one in level):
            return True
        new = [one for one in level if id(one) not in seen and not issubclass(type(one), _NO_WAY)]
        seen.update(map(id, new))
        # The smallest first, so that huge containers do not hide what is beside them.
        referents = sorted(map(_referents_of, new), key=len)
        level = [*chain.from_iterable(referents)][:OBJECTS]
    return False


def _variables_of(frame: FrameType) -> list[Any]:
    """Return what the variables of a frame hold: the local ones, and the global ones that it names."""
    code = frame.f_code
    found = _named(code, frame.f_globals)
    if code.co_flags & inspect.CO_OPTIMIZED:  # else its local variables are those of a module or a class
        found += frame.f_locals.values()
    else:
        found += _named(code, frame.f_locals)
    for module in [one for one in found if type(one) is types.ModuleType]:
        found += _named(code, vars(module))
    return found


def _named(code: CodeType, variables: Mapping[str, Any]) -> list[Any]:
    return [variables[name] for name in code.co_names if name in variables]


def _referents_of(one: Any) -> list[Any]:
    """Return what an object refers to; a part of it if that is very much."""
    if type(one) is types.FunctionType:
        return [*(one.__closure__ or ()), *_named(one.__code__, one.__globals__)]
    if issubclass(type(one), type):
        # Not its methods: they name all that a module has.
        attributes: dict[str, Any] = {}
        for base in reversed(type.mro(one)):
            attributes.update(vars(base))
        return [value for value in attributes.values() if not issubclass(type(value), _METHODS)]
    return gc.get_referents(one)[:REFERENTS]


# Through these everything is reached from everything, or nothing.
_NO_WAY = (
    types.ModuleType, types.FrameType, types.CodeType, types.BuiltinFunctionType,
    str, bytes, int, float, type(None),
)  # fmt: skip
_METHODS = (
    types.FunctionType, classmethod, staticmethod, property, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, *_NO_WAY,
)  # fmt: skip
