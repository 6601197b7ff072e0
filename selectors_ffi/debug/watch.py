"""Watch: the subclass of a selector class, and the tap on its binding, that show what happens.

``backends.base`` calls ``instrument`` in a selector's constructor while flags are in force. The
selector's ``__class__`` becomes a subclass of the same name, made once per class and flags; its
``_bind`` puts a tap on the kernel interface. Without flags nothing of this is reached.
"""

from __future__ import annotations

import os
from errno import ENOENT
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .flags import TAPPED, Debug, FlagsLike, arm, resolve
from .lints import LEAK
from .mended import REUSED, mended
from .observer import Observer
from .places import place
from .records import Lint, Marks, here, now
from .sinks import Emitter, Sink
from .tap import copied, tapped
from .telling import announce

if TYPE_CHECKING:
    from ..backends.base import _BaseSelectorImpl as _Mixin  # they stand before one in the bases
    from ..binding import Binding
    from .stats import Stats
else:
    _Mixin = object

__all__ = [
    "LeakGuard",
    "LeakGuarded",
    "Living",
    "Observed",
    "Tapped",
    "instrument",
    "observe",
    "release",
]


class LeakGuard:
    """Warns when it is collected while its selector is open.

    An object of its own, since a ``__del__`` of the selector's class would keep a selector in a
    cycle, and PyPy looks for one only when an object is made, not when its class is switched.
    """

    armed: bool = False
    """Not before it is complete: a forked child may find one that another thread was just making."""

    def __init__(self, selector: object, sink: Sink, name: str) -> None:
        cls = type(selector)
        self._name = name
        # Not by repr(): that of a class of the caller's may need what its constructor sets later.
        self._shown = f"<{cls.__module__}.{cls.__qualname__} object at {id(selector):#x}>"
        self._created = " < ".join(map(str, place(4)))
        self._pid = os.getpid()
        self._emit = Emitter(sink)
        self.armed = True

    def __del__(self) -> None:
        # A child process must not warn of what its parent has open.
        if not self.armed or self._pid != os.getpid():
            return
        message = f"unclosed {self._shown}"
        lint = Lint(now(), here(self._name), LEAK, -1, message, self._created)
        warning = ResourceWarning(f"{message}, created at {self._created}")
        announce(self._emit, lint, warning, 2, source=self)


class _Mixed(_Mixin):
    """What the two classes below share: they are mixed into a class without its being told."""

    debug_flags: Debug

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the ``__init_subclass__`` of a caller's class from seeing ours."""


class LeakGuarded(_Mixed):
    """Carries a ``LeakGuard``, which is armed while the selector is open."""

    _leak_guard: LeakGuard

    def _bind(self, binding: Binding | None) -> Binding:
        guard = self._leak_guard
        guard.armed = False
        bound = super()._bind(binding)
        if hasattr(self, "fileno"):
            # There is a descriptor to leak as soon as it has been made, and none if that fails.
            return copied(bound, _Creation(bound.lib, guard))
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


def _below(cls: type[Any], selector: Any, name: str) -> Any:
    """Return a method of a selector as it is below ours.

    Another thread may switch debugging off in the middle of a call. The selector then has its own class.
    """
    try:
        return getattr(super(cls, selector), name)
    except TypeError:
        return getattr(selector, name)


def _observer_of(selector: Any) -> Observer | None:
    """Return a selector's observer; None if another thread has just switched debugging off."""
    found: Observer | None = vars(selector).get("_observer")
    return found


class Tapped(_Mixed):
    """Reports its system calls to an ``Observer``, and what it has mended.

    A class of the caller's may have methods with parameters of their own: all are handed on.
    """

    _observer: Observer

    def _bind(self, binding: Binding | None) -> Binding:
        bound = super()._bind(binding)
        self._observer.below = bound
        return tapped(bound, self._observer)

    def _reopen(self) -> None:
        observer, reopen = _observer_of(self), _below(Tapped, self, "_reopen")
        if observer is not None:
            observer.reopening = True
        try:
            reopen()
        finally:
            if observer is not None:
                observer.reopening = False

    def modify(self, *args: Any, **kwargs: Any) -> Any:
        observer, modify = _observer_of(self), _below(Tapped, self, "modify")
        if observer is None:
            return modify(*args, **kwargs)
        here = observer.here()
        here.errno = 0
        key = modify(*args, **kwargs)
        if here.errno == ENOENT:
            mended(REUSED)
        return key

    def select(self, *args: Any, **kwargs: Any) -> Any:
        observer, select = _observer_of(self), _below(Tapped, self, "select")
        try:
            return select(*args, **kwargs)
        except BaseException as error:
            if observer is not None:
                observer.raised(error)
            raise


class Observed(Tapped):
    """Reports what it is asked to do, too."""

    def register(self, *args: Any, **kwargs: Any) -> Any:
        observer, register = _observer_of(self), _below(Observed, self, "register")
        if observer is None:
            return register(*args, **kwargs)
        observer.used()
        try:
            key = register(*args, **kwargs)
        except OSError as error:
            observer.refused(self, args, kwargs, error)
            raise
        observer.changed("register", key)
        return key

    def unregister(self, *args: Any, **kwargs: Any) -> Any:
        return self._changed("unregister", args, kwargs)

    def modify(self, *args: Any, **kwargs: Any) -> Any:
        return self._changed("modify", args, kwargs)

    def _changed(self, action: str, args: Any, kwargs: Any) -> Any:
        observer, change = _observer_of(self), _below(Observed, self, action)
        if observer is None:
            return change(*args, **kwargs)
        observer.used()
        key = change(*args, **kwargs)
        observer.changed(action, key)
        return key

    def reopen(self) -> None:
        observer = _observer_of(self)
        _below(Observed, self, "reopen")()
        if observer is not None:
            observer.reopened()

    def select(self, *args: Any, **kwargs: Any) -> Any:
        # Not by way of the method above, which a wait that reports itself does not need.
        observer, select = _observer_of(self), _below(Tapped, self, "select")
        if observer is None:
            return select(*args, **kwargs)
        timeout = args[0] if args else kwargs.get("timeout")
        begun = observer.begin()
        try:
            result = select(*args, **kwargs)
        except BaseException as error:
            observer.failed(begun, timeout, error)
            raise
        observer.end(begun, timeout, result)
        return result

    def close(self, *args: Any, **kwargs: Any) -> None:
        observer, close = _observer_of(self), _below(Observed, self, "close")
        open_ = self.get_map() is not None
        close(*args, **kwargs)
        if open_ and observer is not None:
            observer.closed()


class Living(Observed):
    """An ``Observed`` of a selector that was made without flags."""

    class_without_flags: type[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Become one of the class without flags: ``type(selector)()`` has made it."""
        self.__class__ = self.class_without_flags
        type(self).__init__(self, *args, **kwargs)


#: The flags that need more than the system calls.
BEYOND_CALLS = Debug.EVENTS | Debug.STATS | Debug.CHECKS

_classes: WeakKeyDictionary[type[Any], dict[Debug, type[Any]]] = WeakKeyDictionary()


def instrument(selector: Any, debug: FlagsLike) -> None:
    """Let a selector that is being made show what ``debug``, or else the ambience, asks for."""
    around = resolve(debug)
    flags, sink = around.flags, around.sink
    if not flags:
        return
    Marks.made += 1
    cls = type(selector)
    if issubclass(cls, _Mixed):
        flags = cls.debug_flags  # made of an observed selector's own class, with its flags
    name = cls.__name__
    if flags & TAPPED:
        selector._observer = observer = Observer(selector, flags, sink)
        name = observer.name
    if Debug.LEAKS in flags:
        selector._leak_guard = LeakGuard(selector, sink, name)
    if not issubclass(cls, _Mixed):
        selector.__class__ = _subclass(cls, flags)
    if around.made is not None:
        around.made(selector)


def observe(selector: Any, flags: Debug, sink: Sink) -> None:
    """Let a living selector, ours or any other with a ``_fd_to_key``, show what ``flags`` ask for.

    The class is made for it alone, so that it goes when the selector is released.

    Raises:
        TypeError: its class has a layout of its own, and cannot be replaced.
    """
    flags &= TAPPED
    selector._observer = observer = Observer(selector, flags, sink)
    try:
        selector.__class__ = _new_subclass(type(selector), flags, Living)
    except TypeError:
        del selector._observer
        raise
    tokens: dict[int, int] = {}
    if "_binding" in vars(selector):  # else it is not ours, or not yet made
        observer.below = selector._binding
        tokens = selector._rebind(tapped(selector._binding, observer))
    observer.adopt(tokens)


def release(selector: Any) -> None:
    """Undo ``observe``, or what ``instrument`` has done; a call that is under way ends unseen."""
    observer, plain = vars(selector).get("_observer"), vars(type(selector)).get("class_without_flags")
    if observer is None or plain is None:
        return
    observer.stop()
    selector.__class__ = plain
    if observer.below is not None and "_binding" in vars(selector):
        selector._rebind(observer.below)
    del selector._observer


def _subclass(cls: type[Any], flags: Debug) -> type[Any]:
    """Return the subclass of ``cls`` that shows what ``flags`` ask for."""
    made = _classes.setdefault(cls, {})
    if flags not in made:
        made[flags] = _new_subclass(cls, flags, Observed if flags & BEYOND_CALLS else Tapped)
    return made[flags]


def _new_subclass(cls: type[Any], flags: Debug, observed: type[Any]) -> type[Any]:
    bases: tuple[type[Any], ...] = (cls,)
    if flags & TAPPED:
        bases = (observed, *bases)
    if Debug.LEAKS in flags:
        bases = (LeakGuarded, *bases)
    # Under the class's own name: code that looks at the name, and reprs, see what they know.
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "debug_flags": flags,
        "class_without_flags": cls,
    }
    made: type[Any] = type(cls).__call__(type(cls), cls.__name__, bases, namespace)
    return made


def stats(selector: Any) -> Stats:
    """Return counts and times of a selector so far.

    Raises:
        RuntimeError: it was made without ``Debug.STATS``.
    """
    observer = getattr(selector, "_observer", None)
    if observer is None or observer.stats is None:
        raise RuntimeError("stats() needs a selector made with debug=Debug.STATS")
    found: Stats = observer.stats
    return found


arm(instrument)
