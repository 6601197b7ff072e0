"""Leaks: warn of a selector that is collected while it is open.

In development mode without any flag this is all of the package that is imported. So it imports no
module that reports calls or events.
"""

from __future__ import annotations

import os
import sys
import warnings
from weakref import WeakKeyDictionary

from ..backends.native import IN_ORDER, when_freed
from .complaints import complain
from .flags import Debug
from .places import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from ..backends.base import _BaseSelectorImpl as _Mixin  # they stand before one in the bases
    from ..binding import Binding
else:
    _Mixin = object

__all__ = [
    "CALLS", "LEAK", "Leak", "LeakGuard", "LeakGuarded", "Mixed", "action_on", "instrument",
    "new_subclass", "subclass",
]  # fmt: skip


#: The id of the record of a leak, for which Python has a warning of its own, ResourceWarning.
LEAK = "SEL009"

#: From where a selector was collected to ``Leak._tell``: how many calls.
CALLS = 4


class Leak:
    """What is told of a selector that is collected while it is open."""

    def __init__(self, selector: object) -> None:
        cls = type(selector)
        # Not by repr(): that of a class of the caller's may need what its constructor sets later.
        self._shown = f"<{cls.__module__}.{cls.__qualname__} object at {id(selector):#x}>"
        self._created = " < ".join(map(str, place(4)))
        self._pid = os.getpid()

    def tell(self) -> None:
        """Warn, in the process that made the selector: a child has what its parent has open, too."""
        if self._pid == os.getpid():
            message = f"unclosed {self._shown}"
            self._tell(message, ResourceWarning(f"{message}, created at {self._created}"))

    def _tell(self, message: str, warning: Warning) -> None:
        """Warn where the selector was collected."""
        if action_on(warning, sys._getframe(CALLS - 1).f_back) != "ignore":
            warnings.warn(warning, stacklevel=CALLS + 1, source=self)
            return
        # Development mode asks for it, whatever the filters say.
        complain(f"{LEAK} at {self._created}: {message}")


class LeakGuard:
    """Tells a leak when it is freed while its selector is open.

    An object of its own, since a ``__del__`` of the selector's class would keep a selector in a
    cycle, and PyPy looks for one only when an object is made, not when its class is switched.
    """

    def __init__(self, leak: Leak) -> None:
        self._leak = leak
        self._leaks: list[Leak] = []
        self.armed = True

    @property
    def armed(self) -> bool:
        """Whether the selector is open."""
        return bool(self._leaks)

    @armed.setter
    def armed(self, armed: bool) -> None:
        self._leaks[:] = [self._leak] if armed else []

    def __del__(self) -> None:
        # A forked child may find one that another thread was just making.
        if leaks := getattr(self, "_leaks", None):
            # As the interpreter ends, nothing of this module may be left when it is freed.
            self._leaks = when_freed(leaks, Leak.tell, IN_ORDER or sys.is_finalizing())


class Mixed(_Mixin):
    """What the classes share that are mixed into a selector's class without its being told."""

    debug_flags: Debug

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the ``__init_subclass__`` of a caller's class from seeing ours."""


class LeakGuarded(Mixed):
    """Carries a ``LeakGuard``, which is armed while the selector is open."""

    _leak_guard: LeakGuard

    def _bind(self, binding: Binding | None) -> Binding:
        guard = self._leak_guard
        guard.armed = False
        bound = super()._bind(binding)
        if hasattr(self, "fileno"):
            # There is a descriptor to leak as soon as it has been made, and none if that fails.
            return bound.through(_Creation(bound.lib, guard), tells=bound.tells)
        # Of a selector with tables; the binding keeps them. It fails where the system has none of it.
        bound.facts(self._make_facts)  # type: ignore[attr-defined]
        guard.armed = not self._closed
        return bound

    def close(self, *args: Any, **kwargs: Any) -> None:
        self._leak_guard.armed = False
        super().close(*args, **kwargs)


class _Creation:
    """A library that arms a guard when a call has made the selector's descriptor."""

    _NAMES = ("epoll_create", "kqueue", "open", "__open")

    def __init__(self, lib: Any, guard: LeakGuard) -> None:
        self._lib = lib
        self._guard = guard

    def __getattr__(self, symbol: str) -> Any:
        function = getattr(self._lib, symbol)
        if not symbol.startswith(self._NAMES):
            return function
        guard = self._guard

        def create(*arguments: Any) -> int:
            result: int = function(*arguments)
            guard.armed = result >= 0
            return result

        return create


_classes: WeakKeyDictionary[type[Any], dict[Debug, type[Any]]] = WeakKeyDictionary()


def instrument(selector: Any) -> None:
    """Guard a selector that is being made in development mode without any flag."""
    selector._leak_guard = LeakGuard(Leak(selector))
    cls = type(selector)
    if not issubclass(cls, Mixed):  # else it is made of a guarded selector's own class
        selector.__class__ = subclass(cls, Debug.LEAKS, LeakGuarded)


def subclass(cls: type[Any], flags: Debug, *mixed: type[Any]) -> type[Any]:
    """Return the subclass of ``cls`` for ``flags``, which is made once."""
    made = _classes.setdefault(cls, {})
    if flags not in made:
        made[flags] = new_subclass(cls, flags, *mixed)
    return made[flags]


def new_subclass(cls: type[Any], flags: Debug, *mixed: type[Any]) -> type[Any]:
    """Return a new subclass of ``cls`` with the classes of ``mixed`` before it."""
    # Under the class's own name: code that looks at the name, and reprs, see what they know.
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "debug_flags": flags,
        "class_without_flags": cls,
    }
    made: type[Any] = type(cls).__call__(type(cls), cls.__name__, (*mixed, cls), namespace)
    return made


def action_on(warning: Warning, frame: FrameType | None) -> str:
    """Return what the warning filters say of a warning at ``frame``: "error", "ignore", ...

    It is what ``warnings.warn`` will do, which cannot be asked without doing it.
    """
    text = str(warning)
    module = frame.f_globals.get("__name__", "") if frame is not None else ""
    line = frame.f_lineno if frame is not None else 0
    for action, message, category, where, at in warnings.filters:
        if (
            issubclass(type(warning), category)
            and _matches(message, text)
            and _matches(where, str(module))
            and at in (0, line)
        ):
            return action
    return warnings.defaultaction  # type: ignore[attr-defined,no-any-return] # older than typeshed


def _matches(pattern: object, text: str) -> bool:
    """Tell whether a filter's pattern fits: None, text (CPython's own filters), or compiled."""
    if pattern is None:
        return True
    if isinstance(pattern, str):
        return pattern == text
    return pattern.match(text) is not None  # type: ignore[attr-defined]
