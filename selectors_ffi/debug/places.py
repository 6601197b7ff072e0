"""Places: the lines of the user's program that a call of a selector came from.

A selector is mostly called by library code, and asyncio registers every descriptor in the same line.
The place that helps is the first frame outside the standard library, asyncio and this package.
``selectors_ffi.run()`` counts as a part of asyncio.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType
    from typing import NamedTuple

__all__ = [
    "NOWHERE", "Place", "called_from", "caller_frame", "defined_at", "depth", "is_users", "place",
    "stack_of", "user_frame",
]  # fmt: skip

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_EVENT_LOOP = os.path.join(_OURS, "event_loop.py")
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

_INTERPRETER = ("<frozen ", "<builtin>")  # the latter of PyPy

_USER, _LIBRARY, _PACKAGE = range(3)
_kinds: dict[str, int] = {}


if TYPE_CHECKING:

    class _Fields(NamedTuple):
        file: str
        line: int
        function: str
        note: str = ""
        users: bool = True

else:
    _Fields = namedtuple("Place", "file line function note users", defaults=("", True))


class Place(_Fields):
    """A line of code; ``str()`` of it is ``file:line in function``.

    Attributes:
        note: what the line did if it did not call the selector itself, e.g. ``subprocess.run``.
        users: it is the user's program, not a library's.
    """

    __slots__ = ()

    def __str__(self) -> str:
        text = f"{self.file}:{self.line} in {self.function}"
        return f"{text} ({self.note})" if self.note else text


#: Where nothing is known.
NOWHERE = Place("?", 0, "?")


def _kind_of(file: str) -> int:
    """Tell whose code a file has; cached, since it is asked for every frame."""
    kind = _kinds.get(file)
    if kind is None:
        if file.startswith(_OURS):
            kind = _LIBRARY if file == _EVENT_LOOP else _PACKAGE
        elif file.startswith(_INTERPRETER) or (
            file.startswith(_STDLIB) and not any(part in file for part in _INSTALLED)
        ):
            kind = _LIBRARY
        else:
            kind = _USER
        if len(_kinds) < 10_000:  # generated code may have a new name each time
            _kinds[file] = kind
    return kind


def is_users(frame: FrameType) -> bool:
    """Tell whether a frame is of the user's program: not of the standard library, nor of ours.

    ``python -m http.server`` runs a module of the standard library as the program.
    """
    kind = _kind_of(frame.f_code.co_filename)
    return kind == _USER or (kind == _LIBRARY and frame.f_globals.get("__name__") == "__main__")


def defined_at(code: CodeType) -> Place | None:
    """Return where a function of the user's program is defined; None if it is a library's."""
    if _kind_of(code.co_filename) != _USER:
        return None
    return Place(code.co_filename, code.co_firstlineno, code.co_name)


def caller_frame(frame: FrameType | None) -> FrameType | None:
    """Return the first frame outside this package: of the code that called it."""
    while frame is not None and _kind_of(frame.f_code.co_filename) == _PACKAGE:
        frame = frame.f_back
    return frame


def user_frame(frame: FrameType | None) -> tuple[FrameType | None, FrameType | None]:
    """Return the first frame of the user's program, and the library's frame that it called.

    Where the program has no frame of its own, the first is the innermost frame outside this package.
    """
    innermost = frame = caller_frame(frame)
    called = None
    while frame is not None and _kind_of(frame.f_code.co_filename) != _PACKAGE:
        if is_users(frame):
            return frame, called
        called, frame = frame, frame.f_back
    return innermost, None


def place(limit: int = 1) -> tuple[Place, ...]:
    """Return where the user's program called the package, innermost first.

    Args:
        limit: how many frames of the user's program at most.
    """
    return called_from(limit)[0]


def called_from(limit: int) -> tuple[tuple[Place, ...], FrameType | None]:
    """Return ``place(limit)``, and the innermost frame outside this package if it is a library's."""
    innermost = caller_frame(sys._getframe(1))
    frame, called = user_frame(innermost)
    if frame is None:
        return (NOWHERE,), None
    places = [_place(frame, "" if called is None else _function(called))]
    frame = frame.f_back
    while frame is not None and len(places) < limit and is_users(frame):
        places.append(_place(frame))
        frame = frame.f_back
    return tuple(places), innermost if called is not None else None


def _place(frame: FrameType, note: str = "") -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, note)


def _function(frame: FrameType) -> str:
    """Return ``module.function`` of a frame."""
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)  # 3.11
    return f"{frame.f_globals.get('__name__', '?')}.{name}"


def depth() -> int:
    """Return the ``stacklevel`` for ``warnings.warn`` in the caller that names the user's line."""
    here = sys._getframe(1)
    wanted, _ = user_frame(here)
    level = 1
    frame: FrameType | None = here
    while frame is not None and frame is not wanted:
        frame = frame.f_back
        level += 1
    return level if frame is not None else 2


def stack_of(frames: Iterable[FrameType]) -> tuple[Place, ...]:
    """Return the places of frames, without those of this package."""
    return tuple(
        _place(frame)._replace(users=is_users(frame))
        for frame in frames
        if _kind_of(frame.f_code.co_filename) != _PACKAGE
    )
