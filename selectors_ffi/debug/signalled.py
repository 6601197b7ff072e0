"""Signalled: a signal that switches debugging on and off, where ``SELECTORS_FFI_SIGNAL`` asks for it.

Where a flight recorder is in force, the signal writes what it has kept instead.
"""

from __future__ import annotations

import os
import signal
import warnings
from typing import TYPE_CHECKING, Any

from .ambience import ambient
from .complaints import complain
from .flags import TAPPED, Debug, flags_of
from .live import alive, switch, switched
from .naming import shown
from .sinks import standard_error

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["VARIABLE", "begin", "signal_of"]

VARIABLE = "SELECTORS_FFI_SIGNAL"

#: Cannot be caught, or come for another reason: an error, Ctrl-C, a child that ended, a closed pipe.
_NOT_OURS = frozenset(
    (
        *("SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"),
        *("SIGINT", "SIGCHLD", "SIGPIPE"),
    )
)
_DEFAULT = "checks"
_acting: list[str] = []


def signal_of(text: str) -> tuple[signal.Signals, Debug]:
    """Return signal and flags of a value such as ``USR1`` or ``USR1:syscalls,events``.

    Raises:
        ValueError: no such signal, or no such flag, and the message lists the known ones; or no flag
            that can be switched on.
    """
    name, colon, flags = text.partition(":")
    names = (one.name for one in signal.Signals if one.name not in _NOT_OURS)
    known = {name[3:]: signal.Signals[name] for name in names if name.startswith("SIG")}
    number = known.get(name.strip().upper().replace("SIG", "", 1))
    if number is None:
        raise ValueError(
            f"{VARIABLE}={text!r}: no signal {name!r} can be used; known are {', '.join(known)}"
        )
    chosen = flags_of(flags if colon else _DEFAULT, VARIABLE) & TAPPED
    if not chosen:
        raise ValueError(f"{VARIABLE}={text!r}: {flags!r} names no flag that can be switched on")
    return number, chosen


def begin() -> None:
    """Do what the variable asks for.

    Raises:
        ValueError: it names no signal, or an unknown flag.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return
    number, flags = signal_of(text)
    before = signal.getsignal(number)
    if before not in (signal.SIG_DFL, signal.SIG_IGN):
        _warn(f"{VARIABLE}: the program handles {number.name} already ({shown(before)}), and keeps it")
        return

    def act(number: int, frame: FrameType | None) -> None:
        _act(signal.Signals(number).name, flags)

    try:
        signal.signal(number, act)
    except ValueError:
        _warn(f"{VARIABLE}: import selectors_ffi in the main thread; only there a signal can be handled")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _act(name: str, flags: Debug) -> None:
    """Write what the flight recorders have kept; where there is none, switch on or off."""
    if _acting:
        return  # a signal that comes while one is dealt with says nothing new
    _acting.append(name)
    try:
        recorders = _recorders()
        for recorder in recorders:
            recorder.dump(f"{name} came")
        if recorders:
            return
        current = switched()
        if current is not None:
            current.off()
            standard_error.note(f"{name}: switched off")
        else:
            standard_error.note(f"{name}: {switch(flags)}")
    except Exception as error:  # of a sink; it must not get into the program
        complain(f"selectors_ffi: {name}: {type(error).__name__}: {error}")
    finally:
        _acting.clear()


def _recorders() -> list[Any]:
    """Return the sinks in force that keep records until they are asked for."""
    observers = [getattr(selector, "_observer", None) for selector in alive()]
    sinks = [observer.emit.sink for observer in observers if observer is not None]
    if ambient().flags:
        sinks.append(ambient().sink)
    return list({id(sink): sink for sink in sinks if callable(getattr(sink, "dump", None))}.values())
