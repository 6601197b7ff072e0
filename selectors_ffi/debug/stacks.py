"""Stacks: where the threads of the program are, seen from a thread of ours.

CPython gives frames. PyPy aborts when a thread looks at a frame that another thread's compiled code is
running, so there faulthandler writes the stacks into a file. It names file and function, and the line
where the function begins. It does not tell two calls of a function apart, nor where in it a call is.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends.process import frames
from .complaints import complain
from .output import Held, duplicate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EXACT", "Stacks"]

#: Whether there are frames.
EXACT = sys.implementation.name != "pypy"

if not EXACT:
    import faulthandler
    from tempfile import TemporaryFile

_THREAD = re.compile(r"^(?:Current t|T)hread 0x([0-9a-fA-F]+) .*$", re.MULTILINE)
_CALL = re.compile(
    r'^  File "(.*)", line (\d+) in (.*?)(?: \[jit inlined\]| \[(jitted)\])?$', re.MULTILINE
)
#: The modules that ``turns`` and ``places`` ask a frame for.
_ASKED_FOR = ("__main__", "bdb", "asyncio.base_events", "asyncio.events")


_told: list[bool] = []


class Code(NamedTuple):
    """What is known of a function; the names are those of ``types.CodeType``."""

    co_filename: str
    co_firstlineno: int
    co_name: str


class Call(NamedTuple):
    """What is known of a call; the names are those of ``types.FrameType``."""

    f_code: Code
    f_lineno: int
    f_globals: dict[str, str]
    f_back: Call | None
    f_locals: dict[str, object] = {}  # noqa: RUF012 # never changed
    f_lasti: int = -1


class Stacks(Held):
    """Looks at stacks; on PyPy with a file, open at a high number from ``open`` to ``close``."""

    def open(self) -> None:
        """Open the file; without one, no stack is known, which is told once."""
        if EXACT:
            return
        try:
            with TemporaryFile(buffering=0) as file:
                self.take_high(duplicate(file.fileno()))
        except OSError as error:
            if not _told:
                _told.append(True)
                complain(f"selectors_ffi: no SEL010, PyPy has no temporary file for stacks: {error}")

    def now(self) -> dict[int, Any]:
        """Return the innermost frame, or ``Call``, of each thread by its ``threading.get_ident()``."""
        if EXACT:
            return dict(frames())
        if not self.ours():
            return {}
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        faulthandler.dump_traceback(self.fd, all_threads=True)
        size = os.lseek(self.fd, 0, os.SEEK_CUR)
        os.lseek(self.fd, 0, os.SEEK_SET)
        return dict(calls_in(os.read(self.fd, size).decode("utf-8", "replace")))


def calls_in(text: str) -> Iterator[tuple[int, Call]]:
    """Yield threads and their innermost calls out of what faulthandler has written."""
    _, *parts = _THREAD.split(text)
    for number, calls in zip(parts[::2], parts[1::2]):
        call = None
        for file, line, name, compiled in reversed(_CALL.findall(calls)):
            code = Code(file, int(line), name)
            # A call that has gone over to compiled code is written twice.
            if not compiled or call is None or call.f_code != code:
                call = Call(code, int(line), {"__name__": _module_of(file)}, call)
        if call is not None:
            yield int(number, 16), call


def _module_of(file: str) -> str:
    """Return the name of the module with this file if a caller may ask for it, else ""."""
    files = ((name, getattr(sys.modules.get(name), "__file__", None)) for name in _ASKED_FOR)
    return next((name for name, one in files if one == file), "")
