"""Instrumentation: the subclass of a selector class that shows what it does.

``backends.base`` asks ``instrument`` when a selector is made. No flag: the class itself, not a
line of it changed. Flags: a subclass of the same name, made once per class and flags.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..backends.base import SelectorKey, _BaseSelectorImpl
from .ambient import resolve
from .flags import TAPPED, Debug, FlagsLike
from .lints import LEAK
from .naming import place, shown
from .observer import Observer
from .records import Lint, here, now
from .sinks import Emitter

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from ..binding import Binding
    from .stats import Stats

__all__ = ["LeakGuarded", "Observed", "instrument"]


class LeakGuarded(_BaseSelectorImpl):
    """Warns when it is collected unclosed, and releases its kernel object."""

    _created = "?"
    _pid = -1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._created = place(4)
        self._pid = os.getpid()
        self._leak_sink = Emitter(resolve(kwargs.get("debug")).sink)
        super().__init__(*args, **kwargs)

    def __del__(self) -> None:
        # A constructor that raised has left nothing; a child process must not close for its parent.
        if getattr(self, "_map", None) is None or self._pid != os.getpid():
            return
        message = f"unclosed {shown(self)}"
        try:
            self._leak_sink(Lint(now(), here(type(self).__name__), LEAK, -1, message, self._created))
            message = f"{message}, created at {self._created}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self.close()


class Observed(_BaseSelectorImpl):
    """Reports what it does to an ``Observer``."""

    debug_flags: Debug
    _observer: Observer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sink = resolve(kwargs.get("debug")).sink
        self._observer = Observer(self, type(self).debug_flags, sink)
        super().__init__(*args, **kwargs)

    def _bind(self, binding: Binding | None) -> Binding:
        return self._observer.watch(super()._bind(binding))

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        self._observer.used()
        try:
            key = super().register(fileobj, events, data)
        except OSError as error:
            # The kernel refused it, so its number is known to be good.
            refused = SelectorKey(fileobj, self._fileobj_lookup(fileobj), events, data)
            self._observer.changed("register", refused, shown(error))
            raise
        self._observer.changed("register", key)
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        self._observer.used()
        key = super().unregister(fileobj)
        self._observer.changed("unregister", key)
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        self._observer.used()
        key = super().modify(fileobj, events, data)
        self._observer.changed("modify", key)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        observer = self._observer
        begun = observer.begin()
        try:
            result = super().select(timeout)  # type: ignore[safe-super] # it is a mixin
        except BaseException as error:
            observer.failed(begun, timeout, error)
            raise
        observer.end(begun, timeout, result)
        return result

    def close(self) -> None:
        open_ = self._map is not None
        super().close()
        if open_:
            self._observer.closed()

    def stats(self) -> Stats:
        """Return counts and times so far.

        Raises:
            RuntimeError: the selector was made without ``Debug.STATS``.
        """
        if self._observer.stats is None:
            raise RuntimeError("stats() needs debug=Debug.STATS")
        return self._observer.stats


_classes: WeakKeyDictionary[type[Any], dict[Debug, type[Any]]] = WeakKeyDictionary()


def instrument(cls: type[Any], debug: FlagsLike) -> type[Any]:
    """Return the class to make an instance of: ``cls``, or its subclass that shows what it does."""
    if issubclass(cls, (Observed, LeakGuarded)):
        return cls
    flags = resolve(debug).flags
    if not flags:
        return cls
    made = _classes.setdefault(cls, {})
    if flags not in made:
        made[flags] = _subclass(cls, flags)
    return made[flags]


def _subclass(cls: type[Any], flags: Debug) -> type[Any]:
    bases: tuple[type[Any], ...] = (cls,)
    if flags & TAPPED:
        bases = (Observed, *bases)
    if Debug.LEAKS in flags:
        bases = (LeakGuarded, *bases)
    # Under the class's own name: code that looks at the name, and reprs, see what they know.
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "debug_flags": flags,
    }
    made: type[Any] = type(cls).__call__(type(cls), cls.__name__, bases, namespace)
    return made
