"""The loaded modules, and which names of the standard library's ``selectors`` their sources use."""

from __future__ import annotations

import ast
import linecache
import selectors
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

__all__ = [
    "PACKAGE", "Module", "Place", "classes_in", "is_a", "loaded_modules", "module_of", "names_in_source"
]  # fmt: skip

PACKAGE = __name__.partition(".")[0]


class Module(NamedTuple):
    """A loaded module, by what can be learned without asking it: a lazy module would be imported."""

    name: str
    names: dict[str, Any]


class Place(NamedTuple):
    """A name of a module, or of a class in it, that holds a class."""

    module: Module
    owner: dict[str, Any] | type
    name: str
    value: type
    path: str
    """``module.NAME`` or ``module.Class.NAME``."""


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether a value's type is one of ``kinds``; ``isinstance`` would import a lazy module."""
    return issubclass(type(value), kinds)


def module_of(cls: type) -> str:
    """Return the name of a class's module, which may be None, or missing."""
    return str(getattr(cls, "__module__", None))


def loaded_modules() -> list[Module]:
    """Return every module but this package's own, which names the stdlib's classes on purpose.

    A module that has several names, as multiprocessing gives ``__main__``, is there once, by its own.
    """
    found: dict[int, Module] = {}
    for name, module in {**sys.modules}.items():
        # By its type, since the libraries of cffi pass for modules.
        if name.partition(".")[0] != PACKAGE and is_a(module, ModuleType):
            names = ModuleType.__getattribute__(module, "__dict__")
            if id(names) not in found or names.get("__name__") == name:
                found[id(names)] = Module(name, names)
    # First of all selectors, so that what another thread imports meanwhile finds our classes.
    return sorted(found.values(), key=lambda module: module.name != selectors.__name__)


def classes_in(module: Module, owner: type | None = None) -> Iterator[Place]:
    """Yield the names of a module, and of the classes that it defines, that hold a class."""
    names = module.names if owner is None else vars(owner)
    prefix = "" if owner is None else f"{owner.__qualname__}."
    for name, value in {**names}.items():
        if is_a(value, type):
            yield Place(module, owner or module.names, name, value, f"{module.name}.{prefix}{name}")
            if module_of(value) == module.name and value.__qualname__ == prefix + name:
                yield from classes_in(module, value)


def names_in_source(module: Module, name: str) -> set[str]:
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
