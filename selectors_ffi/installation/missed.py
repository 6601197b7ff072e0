"""What ``install()`` cannot change: the places that still refer to the standard library's classes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from functools import lru_cache, partial, partialmethod
from reprlib import repr as short_repr
from types import FunctionType
from typing import Any, NamedTuple

from .modules import PACKAGE, Module, is_a, loaded_modules, module_of

__all__ = ["Missed", "search"]

#: How many containers in one another are searched.
_DEPTH = 4
_CACHED = type(lru_cache(len))
_REPLACE = "replace the item, or import the module after install()"


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


def search(classes: dict[str, type]) -> Iterator[Missed]:
    """Search the loaded modules for what still refers to ``classes``, which are given by name."""
    for name, cls in classes.items():
        for derived in _derived(cls):
            place = f"{module_of(derived)}.{derived.__qualname__}"
            cure = f"define it after install(), or derive it from {PACKAGE}.{name}"
            yield Missed(place, name, cure)
    by_id = {id(cls): name for name, cls in classes.items()}
    for module in loaded_modules():
        seen: set[int] = set()
        for name, value in list(module.names.items()):
            if is_a(value, FunctionType) and value.__module__ != module.name:
                continue  # it is found in its own module
            for place, cls, cure in _held(f"{module.name}.{name}", value, module, seen):
                if id(cls) in by_id:
                    yield Missed(place, by_id[id(cls)], cure)


def _derived(cls: type) -> Iterator[type]:
    subclasses: list[type] = type.__subclasses__(cls)
    for derived in subclasses:
        if module_of(derived).partition(".")[0] != PACKAGE:
            yield derived
            yield from _derived(derived)


def _held(
    place: str, value: Any, module: Module, seen: set[int], cure: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, type, str]]:
    """Yield (place, class, cure) of every class that a value is, or holds in a place of its own."""
    if is_a(value, type) and module_of(value) != module.name:
        if not cure:
            works = hasattr(sys.modules[PACKAGE], value.__name__)
            cure = "assign it again after install()" if works else f"{PACKAGE} has no such class here"
        yield place, value, cure
    elif depth and id(value) not in seen:
        seen.add(id(value))
        for inner_place, inner, inner_cure in _parts(place, value):
            yield from _held(inner_place, inner, module, seen, inner_cure or cure, depth - 1)


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield (place, value, cure) of each thing that a value holds; a cure may be empty."""
    if is_a(value, type):
        for name, inner in list(vars(value).items()):
            if not name.startswith("__annotate"):  # Python 3.14's keeps the names of the class body
                yield f"{place}.{name}", inner, ""
    elif is_a(value, (staticmethod, classmethod)):
        yield place, value.__func__, ""
    elif is_a(value, property):
        yield place, value.fget, ""
    elif is_a(value, FunctionType):
        yield from _parts_of_function(place, value)
    elif is_a(value, _CACHED):
        yield place, value.__wrapped__, ""
    elif is_a(value, (partial, partialmethod)):
        cure = "make it again after install()"
        yield f"{place} (partial)", value.func, cure
        for inner in (*value.args, *value.keywords.values()):
            yield f"{place} (partial)", inner, cure
    elif is_a(value, dict):
        for key, inner in list(value.items()):
            yield f"{place}[{short_repr(key)}]", inner, _REPLACE
    elif is_a(value, (list, tuple, deque)):
        for position, inner in enumerate(list(value)):
            yield f"{place}[{position}]", inner, _REPLACE
    elif is_a(value, (set, frozenset)):
        for inner in list(value):
            yield f"{place}{{...}}", inner, _REPLACE


def _parts_of_function(place: str, function: Any) -> Iterator[tuple[str, Any, str]]:
    code = function.__code__  # PyPy has functions of the interpreter here, too
    positional = code.co_varnames[: code.co_argcount][::-1]
    defaults = list(zip(positional, (function.__defaults__ or ())[::-1]))
    for argument, default in [*defaults, *(function.__kwdefaults__ or {}).items()]:
        cure = "pass the argument, or import the module after install()"
        yield f"{place}({argument}=)", default, cure
    for name, inner in vars(function).items():
        # The function that a decorator has wrapped is the one that the place names.
        yield (place if name == "__wrapped__" else f"{place}.{name}"), inner, ""
    for variable, cell in zip(getattr(code, "co_freevars", ()), function.__closure__ or ()):
        try:
            inner = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield f"{place}: {variable}", inner, "make the function again after install()"
