"""Put this package's selectors in place of the standard library's, in a whole process.

``install()`` changes the ``selectors`` module, so whatever is imported later finds our classes there.
Modules that are loaded already may hold a class under a name of their own, as ``subprocess`` does
(``_PopenSelector = selectors.PollSelector``). These names, and attributes of classes, are changed too.

Classes are matched by name. In the standard library ``DefaultSelector`` and, on Linux,
``EpollSelector`` are one object, but only the first follows ``SELECTORS_FFI_BACKEND``. Where a
module calls that object something else, its source tells which of the two was meant.

Some places cannot be changed: a class that is already derived from one of the standard library's,
a default argument, a value inside a container. ``Installation.missed`` lists them.
"""

from __future__ import annotations

import selectors
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..debug.locking import Locked
from .missed import Missed, search
from .modules import PACKAGE, Place, classes_in, loaded_modules, names_in_source
from .private_names import keep_out, let_in

__all__ = ["Installation", "Missed", "follow", "install", "uninstall"]

#: The standard library's order of preference for its ``DefaultSelector``.
_NAMES = ("KqueueSelector", "EpollSelector", "DevpollSelector", "PollSelector", "SelectSelector")
_DEFAULT = "DefaultSelector"


class _Change(NamedTuple):
    """One name that was changed."""

    owner: dict[str, Any] | type
    name: str
    old: Any
    new: Any
    place: str
    default: bool
    """Whether ``new`` is our DefaultSelector, which another kernel may change."""


class Installation:
    """What one call of ``install()`` changed. As a context manager, it changes that back at the end.

    Where blocks overlap, as in two threads, what a block changed stays until those that began later
    have ended, too.
    """

    def __init__(self) -> None:
        self._changes: list[_Change] = []
        #: What is changed back at the end, with what was left by blocks that began before.
        self._to_undo: list[_Change] = []

    @property
    def changed(self) -> list[str]:
        """The names that this call changed: ``["selectors.DefaultSelector", ...]``."""
        return [change.place for change in self._changes]

    @property
    def missed(self) -> list[Missed]:
        """The places that still refer to the standard library's classes, found when asked for.

        Loaded modules are searched for derived classes, default arguments, variables of closures,
        and values in containers. Objects that a program made are not searched, and selectors that
        were made before stay what they are.
        """
        return list(search(_stdlib_classes()))

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *error: object) -> None:
        with _shared._lock:
            _end(self)

    def __repr__(self) -> str:
        return f"<Installation: {', '.join(self.changed) or 'nothing left to change'}>"


def install() -> Installation:
    """Make the standard library's ``selectors`` and every loaded module hand out our classes.

    A second call changes only what has been loaded since. Any thread may call. ``uninstall()``, or
    the end of a ``with install():`` block, puts everything back.

    Returns:
        The ``Installation``, whose ``changed`` and ``missed`` say what is reached and what is not.

    Raises:
        OSError: no selector of this package works on this system.
    """
    package = sys.modules[PACKAGE]
    if not hasattr(package, _DEFAULT):
        raise OSError(f"no selector of {PACKAGE} works here; python -m {PACKAGE} says why")
    installation = Installation()
    with _shared._lock:
        try:
            _stdlib.update(_stdlib_classes())
            _twice_named.update(_meant_by_default())
            if not _installed:
                keep_out(package, _stdlib)
            _installed.append(installation)
            for change in _planned(vars(package)):
                installation._to_undo.append(change)  # first, since a signal handler may raise
                if _assign(change.owner, change.name, change.new):
                    installation._changes.append(change)
        except BaseException:
            _end(installation)
            raise
    return installation


def uninstall() -> list[str]:
    """Put the standard library's classes back, also where a module took ours from ``selectors`` since.

    The module's source shows which names it took. So names that were imported meanwhile where there is
    no source, as at the interactive prompt, stay ours. A name that something else has changed meanwhile
    is left alone. Without ``install()`` before, this does nothing.

    Returns:
        The names that were changed back.
    """
    with _shared._lock:
        restored = _undo([change for one in _installed for change in one._to_undo])
        _installed.clear()  # not before: after an interruption a second call does the rest
        return restored + _withdraw()


def follow() -> None:
    """Let names that ``install()`` has made our DefaultSelector hold the one that is exported now.

    ``selectors_ffi.testing`` calls this when it has put another kernel in force.
    """
    with _shared._lock:
        default = vars(sys.modules[PACKAGE]).get(_DEFAULT)
        if default is None:
            return  # a system that has a selector on simulated kernels alone
        for installation in _installed:
            for i, change in enumerate(installation._to_undo):
                if change.default and _is_in_force(change):
                    installation._to_undo[i] = change._replace(new=default)
                    _assign(change.owner, change.name, default)


#: Holds the lock of all that follows.
_shared = Locked()
#: Those that have not ended, the oldest first.
_installed: list[Installation] = []
#: Name -> class of the standard library, as of the first ``install()``.
_stdlib: dict[str, type] = {}
#: The classes of the standard library that are its ``DefaultSelector``, too.
_twice_named: set[type] = set()


def _stdlib_classes() -> dict[str, type]:
    """Return the standard library's classes by name, whether or not they are installed over."""
    found = dict(_stdlib)
    for name in _NAMES:
        cls = vars(selectors).get(name)
        if isinstance(cls, type) and cls.__module__ == selectors.__name__:
            found[name] = cls
    return found


def _meant_by_default() -> set[type]:
    """Return the class that the standard library itself has chosen for its default, in a set."""
    can_use = getattr(selectors, "_can_use", None)
    for name in _NAMES:
        mechanism = name[: -len("Selector")].lower()
        if name in _stdlib and (mechanism == "select" or can_use is None or can_use(mechanism)):
            return {_stdlib[name]}
    return set()


def _planned(ours: dict[str, Any]) -> Iterator[_Change]:
    """Yield the changes to make in all loaded modules."""
    by_id = {id(cls): name for name, cls in _stdlib.items()}  # not every class has a hash
    for module in loaded_modules():
        for place in classes_in(module):
            if id(place.value) in by_id:
                called = _called(place, by_id[id(place.value)])
                new = ours.get(called)
                if new is not None:
                    default = called == _DEFAULT
                    yield _Change(place.owner, place.name, place.value, new, place.path, default)


def _called(place: Place, name: str) -> str:
    """Return which of the standard library's names a module means where it holds the class ``name``."""
    if place.value not in _twice_named or place.name == name:
        return name
    if place.name == _DEFAULT or _DEFAULT in names_in_source(place.module, place.name):
        return _DEFAULT
    return name


def _assign(owner: dict[str, Any] | type, name: str, value: Any) -> bool:
    """Give a name another value; False where a class forbids it: one of the missed."""
    if isinstance(owner, dict):
        owner[name] = value
        return True
    try:
        setattr(owner, name, value)
    except Exception:  # a metaclass may raise anything
        return False
    return True


def _end(installation: Installation) -> None:
    """End one ``install()``: change back what it changed, or leave that to the one that came after."""
    if installation not in _installed:
        return  # uninstall() has put everything back
    later = _installed[_installed.index(installation) + 1 :]
    if later:
        later[0]._to_undo[:0] = installation._to_undo
    else:
        _undo(installation._to_undo)
    _installed.remove(installation)
    if not _installed:
        _withdraw()


def _undo(changes: list[_Change]) -> list[str]:
    """Change names back, the last first; return those that still held what we had put there."""
    restored = []
    for change in reversed(changes):
        if _is_in_force(change) and _assign(change.owner, change.name, change.old):
            restored.append(change.place)
    return restored


def _is_in_force(change: _Change) -> bool:
    """Tell whether a name still holds what we have put there."""
    names = change.owner if isinstance(change.owner, dict) else vars(change.owner)
    return names.get(change.name) is change.new


def _withdraw() -> list[str]:
    """Give modules that were loaded meanwhile the classes that they asked ``selectors`` for."""
    package = sys.modules[PACKAGE]
    let_in(package)
    ours = {name: vars(package).get(name) for name in (*_stdlib, _DEFAULT)}
    by_identity = {id(cls) for cls in ours.values() if cls is not None}
    restored = []
    for module in loaded_modules():
        for place in classes_in(module):
            if id(place.value) not in by_identity or module.name == selectors.__name__:
                continue
            names = names_in_source(module, place.name)
            meant = [name for name in names if ours.get(name) is place.value]
            if meant and _assign(place.owner, place.name, vars(selectors)[meant[0]]):
                restored.append(place.path)
    return restored
