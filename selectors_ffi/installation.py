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

import ast
import linecache
import selectors
import sys
from collections.abc import Iterator
from threading import RLock
from types import FunctionType, ModuleType, TracebackType
from typing import Any, NamedTuple

from .private_names import keep_out, let_in

__all__ = ["Installation", "Missed", "install", "uninstall"]

#: The standard library's order of preference for its ``DefaultSelector``.
_NAMES = ("KqueueSelector", "EpollSelector", "DevpollSelector", "PollSelector", "SelectSelector")
_DEFAULT = "DefaultSelector"
_PACKAGE = __name__.partition(".")[0]


class Missed(NamedTuple):
    """A place that still refers to a class of the standard library."""

    place: str
    """Where: ``module.Class``, ``module.function(argument=)``, ``module.NAME['key']``."""
    name: str
    """The standard library's name of the class."""
    cure: str
    """What makes the place use this package."""

    def __str__(self) -> str:
        return f"{self.place} still uses selectors.{self.name}: {self.cure}"


class _Change(NamedTuple):
    """One name that was changed."""

    owner: dict[str, Any] | type
    name: str
    old: Any
    new: Any
    place: str


class Installation:
    """What one call of ``install()`` changed. As a context manager, it changes that back at the end."""

    def __init__(self, changes: list[_Change]) -> None:
        self._changes = changes

    @property
    def changed(self) -> list[str]:
        """The names that this call changed: ``["selectors.DefaultSelector", ...]``."""
        return [change.place for change in self._changes]

    @property
    def missed(self) -> list[Missed]:
        """The places that still refer to the standard library's classes, found when asked for.

        Loaded modules are searched for derived classes, default arguments, and values in lists and
        dictionaries. Objects that a program made are not searched, and selectors that were made
        before stay what they are.
        """
        return list(_missed(_stdlib_classes()))

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _lock:
            _undo(self._changes)
            if self in _installed:
                _installed.remove(self)
            if not _installed:
                _withdraw()

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
    package = sys.modules[_PACKAGE]
    if not hasattr(package, _DEFAULT):
        raise OSError(f"no selector of {_PACKAGE} works here; python -m {_PACKAGE} says why")
    with _lock:
        _stdlib.update(_stdlib_classes())
        _twice_named.update(_meant_by_default())
        changes = [
            change for module in _loaded_modules() for change in _changes_in(module, vars(package))
        ]
        installation = Installation(changes)
        if not _installed:
            keep_out(package, _stdlib)
        _installed.append(installation)
    return installation


def uninstall() -> list[str]:
    """Put the standard library's classes back, also where a module took ours from ``selectors`` since.

    A name that something else has changed meanwhile is left alone. Without ``install()`` before,
    this does nothing.

    Returns:
        The names that were changed back.
    """
    with _lock:
        changes = [change for one in _installed for change in one._changes]
        _installed.clear()
        return _undo(changes) + _withdraw()


_lock = RLock()
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


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether a value's type is one of ``kinds``; ``isinstance`` would import a lazy module."""
    return issubclass(type(value), kinds)


class _Module(NamedTuple):
    """A loaded module, by what can be learned without asking it: a lazy module would be imported."""

    name: str
    names: dict[str, Any]


def _loaded_modules() -> list[_Module]:
    """Return every module but this package's own, which names the stdlib's classes on purpose."""
    found = []
    for name, module in list(sys.modules.items()):
        # By its type, since the libraries of cffi pass for modules.
        if name.partition(".")[0] != _PACKAGE and _is(module, ModuleType):
            found.append(_Module(name, ModuleType.__getattribute__(module, "__dict__")))
    # First of all selectors, so that what another thread imports meanwhile finds our classes.
    found.sort(key=lambda module: module.name != selectors.__name__)
    return found


def _changes_in(module: _Module, ours: dict[str, Any]) -> Iterator[_Change]:
    """Change a module's names and the attributes of its classes; yield the changes made."""
    by_class = {cls: name for name, cls in _stdlib.items()}
    for name, value in list(module.names.items()):
        if not _is(value, type):
            continue
        if value in by_class:
            new = ours.get(_called(module, name, value))
            if new is not None:
                module.names[name] = new
                yield _Change(module.names, name, value, new, f"{module.name}.{name}")
        elif value.__module__ == module.name:
            yield from _changes_in_class(module, value, by_class, ours)


def _changes_in_class(
    module: _Module, owner: type, by_class: dict[type, str], ours: dict[str, Any]
) -> Iterator[_Change]:
    for name, value in list(vars(owner).items()):
        if _is(value, type) and value in by_class:
            new = ours.get(_called(module, name, value))
            if new is None:
                continue
            try:
                setattr(owner, name, new)
            except (AttributeError, TypeError):
                continue  # the class forbids it: one of the missed
            yield _Change(owner, name, value, new, f"{module.name}.{owner.__qualname__}.{name}")


def _called(module: _Module, name: str, cls: type) -> str:
    """Return which of the standard library's names a module means by its name for ``cls``."""
    by_class = {cls: name for name, cls in _stdlib.items()}
    if cls not in _twice_named or name == by_class[cls]:
        return by_class[cls]
    if name == _DEFAULT or _DEFAULT in _source_names(module, name):
        return _DEFAULT
    return by_class[cls]


def _source_names(module: _Module, name: str) -> set[str]:
    """Return which names of ``selectors`` a module's source binds to ``name``, in any branch of it."""
    names = module.names
    try:
        tree = ast.parse("".join(linecache.getlines(names.get("__file__") or "", names)))
    except (SyntaxError, ValueError):  # not Python, or not text
        return set()
    modules = {selectors.__name__}
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                bound = alias.asname or alias.name
                if alias.name == selectors.__name__:
                    modules.add(bound)
                elif isinstance(node, ast.ImportFrom) and node.module == selectors.__name__:
                    found.setdefault(bound, set()).add(alias.name)
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if not isinstance(target, ast.Name):
                continue
            if isinstance(value, ast.Attribute) and getattr(value.value, "id", None) in modules:
                found.setdefault(target.id, set()).add(value.attr)
            elif isinstance(value, ast.Name) and value.id in found:
                found.setdefault(target.id, set()).update(found[value.id])
    return found.get(name, set())


def _undo(changes: list[_Change]) -> list[str]:
    """Change names back, the last first; return those that still held what we had put there."""
    restored = []
    for owner, name, old, new, place in reversed(changes):
        names = owner if isinstance(owner, dict) else vars(owner)
        if names.get(name) is new:
            if isinstance(owner, dict):
                owner[name] = old
            else:
                setattr(owner, name, old)
            restored.append(place)
    return restored


def _withdraw() -> list[str]:
    """Give modules that were loaded meanwhile the classes that they asked ``selectors`` for."""
    package = sys.modules[_PACKAGE]
    let_in(package)
    ours = {name: vars(package).get(name) for name in (*_stdlib, _DEFAULT)}
    by_identity = {id(cls) for cls in ours.values() if cls is not None}
    restored = []
    for module in _loaded_modules():
        for name, value in list(module.names.items()):
            if id(value) not in by_identity:
                continue
            meant = [one for one in _source_names(module, name) if ours.get(one) is value]
            if meant and module.name != selectors.__name__:
                module.names[name] = vars(selectors)[meant[0]]
                restored.append(f"{module.name}.{name}")
    return restored


def _missed(classes: dict[str, type]) -> Iterator[Missed]:
    """Search the loaded modules for what still refers to ``classes``."""
    by_class = {cls: name for name, cls in classes.items()}
    for cls, name in by_class.items():
        for derived in _derived(cls):
            place = f"{derived.__module__}.{derived.__qualname__}"
            cure = f"define it after install(), or derive it from {_PACKAGE}.{name}"
            yield Missed(place, name, cure)
    for module in _loaded_modules():
        prefix = module.name
        for name, value in list(module.names.items()):
            yield from _missed_in(f"{prefix}.{name}", value, module, by_class)
            if _is(value, type) and value.__module__ == prefix:
                for attribute, inner in list(vars(value).items()):
                    yield from _missed_in(f"{prefix}.{name}.{attribute}", inner, module, by_class)


def _derived(cls: type) -> Iterator[type]:
    subclasses: list[type] = type.__subclasses__(cls)
    for derived in subclasses:
        if derived.__module__.partition(".")[0] != _PACKAGE:
            yield derived
            yield from _derived(derived)


def _missed_in(place: str, value: Any, module: _Module, by_class: dict[type, str]) -> Iterator[Missed]:
    """Look at one value of a module or of a class in it."""
    if _is(value, (staticmethod, classmethod)):
        value = value.__func__
    if _is(value, type) and value in by_class:
        works = hasattr(sys.modules[_PACKAGE], by_class[value])
        cure = "assign it again after install()" if works else f"{_PACKAGE} has no such class here"
        yield Missed(place, by_class[value], cure)
    elif _is(value, FunctionType) and value.__module__ == module.name:
        code = value.__code__
        positional = code.co_varnames[: code.co_argcount][::-1]
        defaults = list(zip(positional, (value.__defaults__ or ())[::-1]))
        for argument, default in [*defaults, *(value.__kwdefaults__ or {}).items()]:
            if isinstance(default, type) and default in by_class:
                cure = "pass the argument, or import the module after install()"
                yield Missed(f"{place}({argument}=)", by_class[default], cure)
    elif _is(value, (dict, list, tuple)):
        items = value.items() if _is(value, dict) else enumerate(value)
        for key, item in list(items):
            if _is(item, type) and item in by_class:
                cure = "replace the item, or import the module after install()"
                yield Missed(f"{place}[{key!r}]", by_class[item], cure)
