"""Watch: the subclass of a selector class, and the tap on its binding, that show what happens.

``backends.base`` calls ``instrument`` in a selector's constructor while flags are in force. The
selector's ``__class__`` becomes a subclass of the same name, made once per class and flags; its
``_bind`` puts a tap on the kernel interface. Without flags nothing of this is reached.
"""

from __future__ import annotations

from errno import ENOENT
from typing import TYPE_CHECKING, Any

from ..backends.base import Backend
from .ambience import arm, resolve
from .flags import TAPPED, Debug
from .leaks import CALLS, LEAK, Leak, LeakGuard, LeakGuarded, Mixed, new_subclass, subclass
from .lints import REUSED, mended
from .observer import Observer
from .records import Lint, Marks, here, now
from .sinks import Sink, emitter_of
from .tap import tapped
from .telling import announce

if TYPE_CHECKING:
    from ..binding import Binding
    from .counts import Stats
    from .flags import FlagsLike

__all__ = [
    "Living", "Observed", "Tapped", "instrument", "is_made", "observe", "release", "seen", "stats",
]  # fmt: skip


class _ToldLeak(Leak):
    """A leak that a sink is told of."""

    def __init__(self, selector: object, sink: Sink, name: str) -> None:
        self._name = name
        self._emit = emitter_of(sink)
        super().__init__(selector)

    def _tell(self, message: str, warning: Warning) -> None:
        lint = Lint(now(), here(self._name), LEAK, -1, message, self._created)
        announce(self._emit, lint, warning, CALLS + 1, source=self)


def _below(cls: type[Any], selector: Any, name: str) -> Any:
    """Return a method of a selector as it is below ours.

    Another thread may switch debugging off in the middle of a call. The selector then has its own class.
    """
    try:
        return getattr(super(cls, selector), name)
    except TypeError:
        return getattr(selector, name)


def _observer_of(selector: Any) -> Observer | None:
    """Return a selector's observer; None if debugging is off by now.

    Another thread, or a signal handler, may just have switched it off, or while the selector was being
    made. Of such a selector this is the first call, see ``release``.
    """
    found: Observer | None = vars(selector).get("_observer")
    if found is not None and found.stopped:
        release(selector)
        return None
    return found


def _change(observer: Observer, make: Any, args: Any, kwargs: Any) -> Any:
    """Return ``make(*args, **kwargs)``; the lints must know that the registry is being changed."""
    checks = observer.checks
    return make(*args, **kwargs) if checks is None else checks.change(make, args, kwargs)


class Tapped(Mixed):
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
        others_wait = getattr(self, "_in_call", bool)
        uncertain = others_wait()
        key = modify(*args, **kwargs)
        if here.errno == ENOENT:
            if self._mechanism != "epoll" or uncertain or others_wait():
                # kqueue says so of a filter that may be there and is not, as each change asks it to be
                # deleted; on epoll, a wait in another thread may be repairing the set.
                here.errno = 0
            else:
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
        return _changed(self, "register", args, kwargs)

    def unregister(self, *args: Any, **kwargs: Any) -> Any:
        return _changed(self, "unregister", args, kwargs)

    def modify(self, *args: Any, **kwargs: Any) -> Any:
        return _changed(self, "modify", args, kwargs)

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


def _changed(selector: Any, action: str, args: Any, kwargs: Any) -> Any:
    """Change a registration. It is no method: the selector may have its own class again by now."""
    observer, change = _observer_of(selector), _below(Observed, selector, action)
    if observer is None:
        return change(*args, **kwargs)
    observer.used()
    try:
        key = _change(observer, change, args, kwargs)
    except OSError as error:
        observer.refused(action, selector, args, kwargs, error)
        raise
    observer.changed(action, key)
    return key


class Living(Observed):
    """An ``Observed`` of a selector that was made without flags."""

    class_without_flags: type[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Become one of the class without flags: ``type(selector)()`` has made it."""
        self.__class__ = self.class_without_flags
        type(self).__init__(self, *args, **kwargs)


#: What the constructors set last: those with a descriptor in the kernel, and those with tables.
_LAST = ("_descriptor", "_asleep")

#: The flags that need more than the system calls.
BEYOND_CALLS = Debug.EVENTS | Debug.STATS | Debug.CHECKS


def instrument(selector: Any, debug: FlagsLike) -> None:
    """Let a selector that is being made show what ``debug``, or else the ambience, asks for."""
    around = resolve(debug)
    flags = around.flags
    if not flags:
        return
    sink = around.emitter
    Marks.made += 1
    cls = type(selector)
    if issubclass(cls, Mixed):
        flags = cls.debug_flags  # made of an observed selector's own class, with its flags
    name = cls.__name__
    if flags & TAPPED:
        selector._observer = observer = Observer(selector, flags, sink)
        name = observer.name
    if Debug.LEAKS in flags:
        selector._leak_guard = LeakGuard(_ToldLeak(selector, sink, name))
    if not issubclass(cls, Mixed):
        mixed: list[type[Any]] = [LeakGuarded] if Debug.LEAKS in flags else []
        if flags & TAPPED:
            mixed.append(Observed if flags & BEYOND_CALLS else Tapped)
        selector.__class__ = subclass(cls, flags, *mixed)
    if around.made is not None:
        around.made(selector)


def observe(selector: Any, flags: Debug, sink: Sink) -> bool:
    """Let a living selector, ours or any other with a ``_fd_to_key``, show what ``flags`` ask for.

    The class is made for it alone, so that it goes when the selector is released.

    Returns:
        Whether it does now. It does not if another call has taken it first.

    Raises:
        TypeError: its class has a layout of its own, and cannot be replaced.
    """
    flags &= TAPPED
    observer = Observer(selector, flags, sink)
    found = vars(selector).setdefault("_observer", observer)
    if found is not observer:
        observer.stop()
        if found.selector() is selector or found.stopped:
            return False
        # A copy of an observed selector, with which it shares all but the class.
        selector.__class__ = new_subclass(type(selector), flags, Living)
        return True
    try:
        selector.__class__ = new_subclass(type(selector), flags, Living)
    except TypeError:
        observer.stop()
        del selector._observer
        raise
    tokens: dict[int, int] = {}
    if "_binding" in vars(selector):  # else it is not ours
        observer.below = selector._binding
        tokens = selector._rebind(tapped(selector._binding, observer))
    observer.adopt(tokens)
    return True


def release(selector: Any) -> None:
    """Undo ``observe``, or what ``instrument`` has done; a call that is under way ends unseen.

    The constructor ends as it began, too: a selector that is being made only says nothing any more. Its
    first call, or the next switch, does the rest.
    """
    observer, plain = vars(selector).get("_observer"), vars(type(selector)).get("class_without_flags")
    if plain is None:
        return
    if observer is None:  # released already, by a copy
        selector.__class__ = plain
        return
    observer.stop()
    if not is_made(selector) or not observer.given_up():
        return
    try:
        selector.__class__ = plain
        if observer.below is not None and "_binding" in vars(selector):
            selector._rebind(observer.below)
    finally:
        del selector._observer  # last: until then no other call may observe it anew


def seen(selector: Any) -> bool:
    """Tell whether a selector shows something already."""
    return isinstance(selector, Tapped) and _observer_of(selector) is not None


def is_made(selector: Any) -> bool:
    """Tell whether the constructor of a selector of ours has set all that it sets."""
    return not isinstance(selector, Backend) or any(name in vars(selector) for name in _LAST)


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
