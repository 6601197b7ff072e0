"""What a program that uses private names of the standard library's ``selectors`` gets from us.

Two uses are common. Programs change epoll's native flags with
``loop._selector._selector.modify(fd, flags)``: while ``install()`` is in force, ``_selector`` of our
epoll selector is an object that does this. And programs derive a class whose methods work on the
standard library's attributes: such a class stays derived from the standard library's, with a
warning that says so. A mixin's methods count as the class's own.

A class may also have an attribute of its own that happens to have such a name. So a name counts only if
the standard library's class of the same name has it. ``_readers``, ``_writers`` and ``_max_events`` do
not count if the class defines them in its body or assigns them in its ``__init__``.
"""

from __future__ import annotations

import dis
import warnings
from itertools import chain
from selectors import BaseSelector
from types import CodeType, ModuleType
from typing import Any

from ..backends.base import _BaseSelectorImpl, _fileobj_to_fd
from ..binding import load
from .modules import PACKAGE, module_of

__all__ = ["keep_out", "let_in"]

_POLL_LIKE = {
    "_EVENT_READ", "_EVENT_WRITE", "_PollLikeSelector", "_key_from_fd", "_selector", "_selector_cls"
}  # fmt: skip
#: Private names of each of the standard library's classes that ours does not have.
_PRIVATE = {
    "DevpollSelector": _POLL_LIKE,
    "EpollSelector": _POLL_LIKE,
    "KqueueSelector": {"_key_from_fd", "_max_events", "_selector"},
    "PollSelector": _POLL_LIKE,
    "SelectSelector": {"_key_from_fd", "_readers", "_select", "_writers"},
}
#: Those that a class may well have for its own.
_ORDINARY = {"_max_events", "_readers", "_writers"}


class NativeEpoll:
    """The epoll set of a selector, with the methods of ``select.epoll`` that change it.

    What is changed here is not in the selector's registry: ``select()`` still returns the events
    that were registered there.
    """

    def __init__(self, selector: Any) -> None:
        self._owner = selector

    def fileno(self) -> int:
        """Return the descriptor of the epoll set."""
        return int(self._owner.fileno())

    def register(self, fd: Any, eventmask: int) -> None:
        """Add a descriptor with native flags, see ``epoll_ctl(2)``."""
        self._control("EPOLL_CTL_ADD", fd, eventmask)

    def modify(self, fd: Any, eventmask: int) -> None:
        """Give a descriptor other native flags."""
        self._control("EPOLL_CTL_MOD", fd, eventmask)

    def unregister(self, fd: Any) -> None:
        """Take a descriptor out of the set."""
        self._control("EPOLL_CTL_DEL", fd, 0)

    def _control(self, operation: str, fd: Any, flags: int) -> None:
        binding, number = load(), _fileobj_to_fd(fd)
        event = binding.ffi.new("struct epoll_event *", {"events": flags, "data": number})
        control = binding.function("epoll_ctl")
        binding.call(control, self.fileno(), binding.constant(operation), number, event)


class _Native:
    """The attribute ``_selector`` of our epoll selector; a program may assign another value."""

    def __get__(self, selector: Any, owner: type) -> NativeEpoll:
        if selector is None:
            raise AttributeError("_selector is an attribute of instances")
        return NativeEpoll(selector)


def keep_out(package: ModuleType, stdlib: dict[str, type]) -> None:
    """Begin to serve the private names: called when our classes are installed."""
    base: Any = _BaseSelectorImpl
    ours = {getattr(package, name): cls for name, cls in stdlib.items() if hasattr(package, name)}

    def __init_subclass__(cls: type[Any], /, **options: Any) -> None:
        super(base, cls).__init_subclass__(**options)
        names = [ours[one].__name__ for one in cls.__bases__ if one in ours]
        used = _used(cls, set().union(*(_PRIVATE[name] for name in names)))
        if used and module_of(cls).partition(".")[0] != PACKAGE:
            cls.__bases__ = tuple(ours.get(one, one) for one in cls.__bases__)
            warnings.warn(
                f"{cls.__module__}.{cls.__qualname__} uses {', '.join(sorted(used))} of the standard"
                f" library's selectors, so it is derived from the standard library's class."
                f" If the class has an attribute of its own by that name, rename it",
                RuntimeWarning,
                stacklevel=3,
            )

    base.__init_subclass__ = classmethod(__init_subclass__)
    epoll = getattr(package, "EpollSelector", None)
    if epoll is not None:
        epoll._selector = _Native()


def let_in(package: ModuleType) -> None:
    """End what ``keep_out`` began."""
    base: Any = _BaseSelectorImpl
    if "__init_subclass__" in vars(base):
        del base.__init_subclass__
    epoll = getattr(package, "EpollSelector", None)
    if epoll is not None and "_selector" in vars(epoll):
        del epoll._selector


def _used(cls: type, private: set[str]) -> set[str]:
    """Return which of these names a class or a mixin of it defines or names, but not its own."""
    bodies = [vars(one) for one in cls.__mro__ if one is cls or not issubclass(one, BaseSelector)]
    used = private.intersection(chain(*bodies))
    own = _ORDINARY & used.union(*(_assigned_in(body.get("__init__")) for body in bodies))
    codes: list[CodeType] = []
    for value in chain(*(body.values() for body in bodies)):
        value = getattr(value, "__func__", getattr(value, "fget", value))
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType):  # PyPy's own functions have another
            codes.append(code)
    while codes:
        code = codes.pop()
        used |= private.intersection(code.co_names)
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return used - own


def _assigned_in(function: object) -> set[str]:
    """Return the names of the attributes that a function assigns."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return set()
    return {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_ATTR"}
