"""Ambient flags: what selectors made without ``debug=`` show, and where everything goes.

Process-wide, not per thread or per task: a loop that is started in the block and runs in a
thread of its own is to be seen too.
"""

from __future__ import annotations

import logging
import os
import sys
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from .flags import Debug, FlagsLike, flags_of
from .sinks import FileSink, LogSink, Sink, SinkLike, sink_of

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["VARIABLE", "Ambient", "ambient", "debugging", "resolve"]

VARIABLE = "SELECTORS_FFI_DEBUG"


class Ambient(NamedTuple):
    """Flags and sink in force."""

    flags: Debug
    sink: Sink


class debugging:
    """Within the block, every selector that is made shows what ``flags`` ask for.

    Args:
        flags: ``Debug`` flags or their names.
        sink: where to: a callable that takes a record, a path, a descriptor, a text file;
            None is the logger ``selectors_ffi``. A path is closed at the end of the block.

    Yields:
        The sink.
    """

    def __init__(self, flags: FlagsLike, sink: SinkLike = None) -> None:
        self.flags = flags_of(flags, "debugging()")
        self._target = sink
        self._ambient: Ambient | None = None

    def __enter__(self) -> Sink:
        sink = sink_of(self._target)
        self._ambient = Ambient(self.flags, sink)
        with _lock:
            _stack.append(self._ambient)
        return sink

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        entered, self._ambient = self._ambient, None
        if entered is None:
            raise RuntimeError("debugging() was not entered")
        with _lock:
            _stack[:] = [one for one in _stack if one is not entered]
        if isinstance(entered.sink, FileSink) and entered.sink is not self._target:
            entered.sink.close()


def ambient() -> Ambient:
    """Return what the innermost block asks for, else the environment."""
    with _lock:
        return _stack[-1]


def resolve(debug: FlagsLike) -> Ambient:
    """Return flags and sink of a selector that is made with ``debug=``; None is the ambience."""
    around = ambient()
    return around if debug is None else Ambient(flags_of(debug), around.sink)


class _EnvironmentSink(LogSink):
    """The logger, made visible: nobody who sets a variable should have to configure logging."""

    def __init__(self) -> None:
        super().__init__()
        if not self.logger.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            self.logger.addHandler(handler)
            self.logger.setLevel(logging.DEBUG)
            self.logger.propagate = False


def _from_environment() -> Ambient:
    text = os.environ.get(VARIABLE)
    flags = flags_of(text, VARIABLE)
    if text is None and (sys.flags.dev_mode or os.environ.get("PYTHONDEVMODE")):
        flags = Debug.LEAKS
    return Ambient(flags, _EnvironmentSink() if text and flags else LogSink())


_lock = Lock()
_stack: list[Ambient] = [_from_environment()]
