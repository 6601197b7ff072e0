"""I/O readiness over many file objects: the standard library's ``selectors``, bound by cffi.

``import selectors_ffi as selectors`` is all it takes. Beside the standard library's names it has
``backends`` with all six classes on every system, ``debug`` to see what the kernel said, ``testing`` to
decide what it says, and ``binding``, the kernel interface.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

try:
    import _cffi_backend  # all else needs it
except ImportError as _error:
    from ._first_contact import explain_missing_cffi

    explain_missing_cffi(_error)

from . import backends, binding
from .backends import EDGE as EDGE
from .backends import EVENT_HANGUP as EVENT_HANGUP
from .backends import EVENT_PRIORITY as EVENT_PRIORITY
from .backends import EVENT_READ as EVENT_READ
from .backends import EVENT_WRITE as EVENT_WRITE
from .backends import LEVEL as LEVEL
from .backends import ONESHOT as ONESHOT
from .backends import BaseSelector as BaseSelector
from .backends import SelectorKey as SelectorKey
from .backends.base import _BaseSelectorImpl
from .backends.base import _fileobj_to_fd as _fileobj_to_fd
from .selftest import SHORTAGE, TESTS, SelfTestError, require

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time those that this host can run, see below
    from typing import Any

    from . import debug as debug
    from . import testing as testing
    from .backends import DevpollSelector as DevpollSelector
    from .backends import EpollSelector as EpollSelector
    from .backends import EventPortSelector as EventPortSelector
    from .backends import KqueueSelector as KqueueSelector
    from .backends import PollSelector as PollSelector
    from .backends import SelectSelector as SelectSelector
    from .backends.base import Backend as _Backend
    from .debug import Debug as Debug
    from .debug import RawEvent as RawEvent
    from .debug import debugging as debugging
    from .event_loop import new_event_loop as new_event_loop
    from .event_loop import run as run
    from .installation import Installation as Installation
    from .installation import install as install
    from .installation import uninstall as uninstall

    class DefaultSelector(_Backend):
        """The most efficient class of this host, or the one that SELECTORS_FFI_BACKEND names."""

        def select(  # type: ignore[override]
            self, timeout: float | None = None
        ) -> list[tuple[SelectorKey, int]]: ...
        def fileno(self) -> int: ...


__version__ = "0.1.0"

#: Mechanism -> class; the stdlib's order, most efficient first, and then what it does not have.
_CLASSES = {
    "kqueue": "KqueueSelector",
    "epoll": "EpollSelector",
    "devpoll": "DevpollSelector",
    "poll": "PollSelector",
    "select": "SelectSelector",
    "eventport": "EventPortSelector",
}


# Mechanisms without a kernel object. Their classes are imported when they are first asked for.
_TABLES = ("poll", "select")
#: Names of classes that are usable, and not imported yet.
_pending: set[str] = set()


def _can_use(name: str) -> bool:
    """Tell whether a selector of a mechanism can be made here."""
    try:
        kernel = binding.default()
        if not kernel.has(TESTS[name][0]):
            return False  # before the module of the class is imported
        if name in _TABLES:
            require(kernel, name)
        else:
            getattr(backends, _CLASSES[name])().close()
    except SelfTestError:
        return False
    except OSError as error:  # that no descriptor is left says nothing about the mechanism
        return error.errno in SHORTAGE
    return True


def _choose(usable: list[str]) -> str | None:
    """Return the mechanism of ``DefaultSelector``."""
    wanted = os.environ.get("SELECTORS_FFI_BACKEND")
    if wanted and wanted not in usable:
        known = ", ".join(usable) or "none"
        raise ValueError(f"SELECTORS_FFI_BACKEND={wanted!r} is not usable here; usable: {known}")
    return wanted or next(iter(usable), None)


def _load_debug() -> Any:
    """Import the debug package when it is first asked for, and return its public names."""
    return import_module(".debug.public", __name__)


def _instrument_first(selector: Any, debug: Any) -> None:
    """Import the debug package, which takes the place of this, for the first selector that is made."""
    _load_debug().instrument(selector, debug)


def _guard(selector: Any, debug: Any) -> None:
    """Warn if the selector is not closed: all that development mode asks for without any flag."""
    import_module(".debug.leaks", __name__).instrument(selector)


def _choose_classes() -> None:
    """Export the classes that can be made now, and those alone."""
    global _pending
    names = globals()
    for name in _CLASSES.values():
        names.pop(name, None)
    usable = [name for name in _CLASSES if _can_use(name)]
    default = _choose(usable)
    _pending = {_CLASSES[name] for name in usable if name in _TABLES and name != default}
    for name in usable:
        if _CLASSES[name] not in _pending:
            names[_CLASSES[name]] = getattr(backends, _CLASSES[name])
    if default is not None:  # pragma: no branch: Android, AIX, Hurd and others without a known ABI
        names["DefaultSelector"] = names[_CLASSES[default]]


def _begin() -> None:
    """Find the usable classes, and do what the environment asks for.

    Raises:
        ValueError: a variable has a wrong value.
    """
    selftest = os.environ.get("SELECTORS_FFI_SELFTEST", "1")
    if selftest not in ("0", "1", ""):
        raise ValueError(f"SELECTORS_FFI_SELFTEST={selftest!r} is not 0 (skip the self-test) or 1")
    # What decides for the kernel must be there before the first selector: see ``testing.ambient``.
    decided = any(os.environ.get(f"SELECTORS_FFI_{what}") for what in ("KERNEL", "CHAOS", "INJECT"))
    if decided:
        import_module(".testing.ambient", __name__).begin_kernel_of_environment()
    _choose_classes()
    if decided:
        import_module(".testing.ambient", __name__).begin()
    backends.interface.load_debug = _load_debug
    # Flags are looked at when a selector is made, so they must be known before the first one.
    if "SELECTORS_FFI_DEBUG" in os.environ or "SELECTORS_FFI_BLOCKED_AFTER" in os.environ:
        _load_debug()
    elif sys.flags.dev_mode:
        sink = os.environ.get("SELECTORS_FFI_SINK")
        backends.base.instrument = _instrument_first if sink else _guard
    if "SELECTORS_FFI_SIGNAL" in os.environ:
        import_module(".debug.signalled", __name__).begin()


try:
    _begin()
except ValueError as _error:
    from ._first_contact import end_of_command

    end_of_command(_error, 2)
    raise


# Names whose modules are imported when they are first asked for.
_LATER = {
    "Debug": ".debug",
    "RawEvent": ".debug",
    "debugging": ".debug",
    "Installation": ".installation",
    "install": ".installation",
    "uninstall": ".installation",
    "new_event_loop": ".event_loop",
    "run": ".event_loop",
}


# Packages of the same kind.
_PACKAGES = {"debug": ".debug", "testing": ".testing"}
# What is here for this module itself.
_OWN = {"SHORTAGE", "TESTS", "TYPE_CHECKING", "annotations", "import_module", "os", "require", "sys"}


def __getattr__(name: str) -> Any:
    names = globals()
    if name in _pending:
        names[name] = getattr(backends, name)
        _pending.discard(name)  # it can be deleted, as any name of a module
    if name in names:
        return names[name]  # now, or another thread was faster
    if name == "__all__":
        return [name for name in {*names, *_pending} - _OWN if not name.startswith("_")]
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    if name in _PACKAGES:
        return import_module(_PACKAGES[name], __name__)
    unusable = name == "DefaultSelector" or name in _CLASSES.values()
    reason = f" on this system; python -m {__name__} says why" if unusable else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{reason}")


def __dir__() -> list[str]:
    names = {*globals(), *_pending, *_LATER, *_PACKAGES} - _OWN
    return sorted(name for name in names if not name.startswith("_") or name.startswith("__"))
