"""Ambience: flags and sink of the selectors that are made without ``debug=``.

They come from the innermost ``debugging()`` block, else from the environment. They are for the
process, not for a thread or a task: a loop that is made in the block and runs in a thread of its
own is seen, too.

There is no lock. The blocks are a list, whose ``append`` and ``remove`` are one step each for
other threads and for signal handlers, and ``_refresh`` looks at it again after it has acted.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Callable

from ..backends import base
from .flags import Debug, flags_of
from .sinks import Emitter, Sink, SinkLike, emitter_of, sink_of

if TYPE_CHECKING:
    from .flags import FlagsLike

__all__ = ["VARIABLE", "Ambient", "ambient", "arm", "debugging", "enter", "leave", "resolve"]

VARIABLE = "SELECTORS_FFI_DEBUG"
SINK_VARIABLE = "SELECTORS_FFI_SINK"


class Ambient:
    """Flags and sink in force. Two are never equal, so that a block removes its own."""

    def __init__(self, flags: Debug, target: SinkLike, variable: str = "") -> None:
        self.flags = flags
        self._target = target
        self._variable = variable
        self._sink: Sink | None = None
        self._emitter: Emitter | None = None
        self.made: Callable[[Any], object] | None = None
        """Hears of each selector that is made with these flags."""

    @property
    def sink(self) -> Sink:
        """The sink, which is opened when it is first asked for."""
        if self._sink is None:
            try:
                self._sink = sink_of(self._target)
            except OSError as error:
                if not self._variable:
                    raise
                raise ValueError(f"{self._variable}={self._target!r}: {error}") from None
        return self._sink

    @property
    def emitter(self) -> Emitter:
        """What gives records to the sink: one for all selectors, so that a failure is told once."""
        if self._emitter is None:
            self._emitter = emitter_of(self.sink)
        return self._emitter


class debugging:
    """Within the block, every selector that is made shows what ``flags`` ask for.

    Args:
        flags: ``Debug`` flags or their names.
        sink: where records go: a callable that takes a record, a path, a descriptor, a text file,
            "logging" for the logger ``selectors_ffi``; None is what ``SELECTORS_FFI_SINK`` names, else
            standard error. A path's file stays open as long as the selectors that were made with it.

    Yields:
        The sink.
    """

    def __init__(self, flags: FlagsLike, sink: SinkLike = None) -> None:
        self.flags: Debug = flags_of(flags, "debugging()")
        self._target = sink
        self._ambient: Ambient | None = None

    def __enter__(self) -> Sink:
        target = _stack[0].sink if self._target is None else self._target
        entered = Ambient(self.flags, target)
        sink = entered.sink
        self._ambient = entered
        enter(entered)
        return sink

    def __exit__(self, *error: object) -> None:
        entered, self._ambient = self._ambient, None
        if entered is None:
            raise RuntimeError("debugging() was not entered")
        leave(entered)


def enter(entered: Ambient) -> None:
    """Have flags and sink in force, before those that are."""
    _stack.append(entered)
    _refresh()


def leave(entered: Ambient) -> None:
    """Have them in force no more."""
    _stack.remove(entered)
    _refresh()


def ambient() -> Ambient:
    """Return what the innermost block asks for, else the environment."""
    return _stack[-1]


def resolve(debug: FlagsLike) -> Ambient:
    """Return flags and sink of a selector that is made with ``debug=``; None asks the ambience."""
    around = ambient()
    if debug is None:
        return around
    flags = flags_of(debug)
    return Ambient(flags, around.emitter if flags else None)


def arm(instrument: Callable[[Any, Any], None]) -> None:
    """Let ``instrument`` see every selector that is made while flags are in force."""
    _hook[:] = [instrument]
    _refresh()


def _refresh() -> None:
    """Make ``base.instrument`` agree with the flags in force; without flags it costs nothing."""
    while True:
        top = _stack[-1]
        base.instrument = _hook[0] if top.flags else None
        if _stack[-1] is top:  # else another thread or a signal handler has changed it meanwhile
            return


def _from_environment() -> Ambient:
    """Return what the variables ask for.

    Raises:
        ValueError: an unknown flag, or a sink that cannot be opened.
    """
    text = os.environ.get(VARIABLE)
    flags = flags_of(text, VARIABLE)
    if text is None and (sys.flags.dev_mode or os.environ.get("PYTHONDEVMODE")):
        flags = Debug.LEAKS
    around = Ambient(flags, os.environ.get(SINK_VARIABLE) or None, SINK_VARIABLE)
    if text and flags:
        _ = around.sink  # what cannot be opened is told now, not when the first selector is made
    return around


_hook: list[Callable[[Any, Any], None]] = []
_stack: list[Ambient] = [_from_environment()]
