"""A library whose every call can be watched, changed, refused or replaced.

``Proxy`` stands for ``binding.lib``: it has the same C functions under the same link symbols. A
*hook* is a callable that takes each ``Call`` and decides what becomes of it: ``call.run()`` makes
the call, and what the hook returns is the result. ``fail(errno)`` makes it a failed one.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Callable

from .._abi.target import SYMBOLS
from ..binding import Binding, default

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Call", "Hook", "Proxy", "below", "name_of", "proxied", "take_note"]


class Call:
    """One call of a C function.

    A hook reads ``name``, ``symbol`` and ``arguments``, may replace ``arguments`` and set ``note``.
    """

    __slots__ = ("_function", "arguments", "binding", "errno", "name", "note", "symbol")

    def __init__(
        self,
        binding: Binding,
        name: str,
        symbol: str,
        function: Callable[..., int],
        arguments: Sequence[Any],
    ) -> None:
        self.binding: Binding = binding
        self.name: str = name  #: as in the manual: "kevent" also where the link symbol is __kevent50
        self.symbol: str = symbol
        self.arguments: tuple[Any, ...] = tuple(arguments)
        self.errno: int = 0  #: of the last ``run`` or ``fail``; 0 if it did not fail
        self.note: str = ""  #: shown behind the result in a trace, as "INJECTED"
        self._function = function

    def run(self) -> int:
        """Call the function below, with ``arguments``; return its result, -1 if it failed."""
        binding = self.binding
        for step in binding.calls(self._function, *self.arguments):
            break
        self.errno = 0 if step >= 0 else binding.errno(step)
        self.note = self.note or take_note(self._function)
        return max(step, -1)

    def fail(self, errno: int) -> int:
        """Make this call one that failed; return -1, which the hook is to return."""
        self.errno = errno
        return -1


Hook = Callable[[Call], int]


class Proxy:
    """Stands for the library of ``binding``; ``hook`` decides about the calls of ``names``.

    Args:
        binding: the kernel interface below.
        hook: takes each call, returns its result.
        names: C functions to hand to the hook; None: all.
    """

    def __init__(self, binding: Binding, hook: Hook, names: Sequence[str] | None = None) -> None:
        self._binding = binding
        self.hook = hook
        self._names = names

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._binding.lib!r})"

    def __dir__(self) -> list[str]:
        """Return the names of the library: the C functions, and nothing of ours."""
        return dir(self._binding.lib)

    def __getattr__(self, symbol: str) -> Any:
        """Return the function of a link symbol, wrapped; raise what the library raises."""
        function = getattr(self._binding.lib, symbol)
        if not callable(function) or (symbol.startswith("__") and symbol.endswith("__")):
            return function
        name = name_of(self._binding.target, symbol)
        if self._names is not None and name not in self._names:
            return function
        wrapped = self._wrap(name, symbol, function)
        setattr(self, symbol, wrapped)
        return wrapped

    def _wrap(self, name: str, symbol: str, function: Any) -> Callable[..., int]:
        binding, hook, ffi = self._binding, self.hook, self._binding.ffi
        notes: dict[int, str] = {}  # thread -> note of its last call, until it is taken

        def call(*arguments: Any) -> int:
            made = Call(binding, name, symbol, function, arguments)
            before = ffi.errno
            try:
                result = hook(made)
                if made.note:
                    notes[get_ident()] = made.note
            finally:
                # The hook may have made calls of its own; a call that succeeds leaves errno alone.
                ffi.errno = made.errno or before
            return result

        call.__name__ = call.__qualname__ = name
        call.take_note = lambda: notes.pop(get_ident(), "")  # type: ignore[attr-defined]
        return call


def below(binding: Binding | None) -> Binding:
    """Return the kernel interface whose calls are altered; None is what a selector would get.

    Raises:
        TypeError: ``binding`` is something else, as the name of a kernel.
    """
    if binding is None:
        return default()
    if not isinstance(binding, Binding):
        raise TypeError(f"binding= takes what kernel() or inject() returns, not {binding!r}")
    return binding


def proxied(binding: Binding, hook: Hook, names: Sequence[str] | None = None) -> Binding:
    """Return a copy of ``binding`` whose calls ``hook`` decides about; see ``Proxy``."""
    return binding.through(Proxy(binding, hook, names))


def take_note(function: Any) -> str:
    """Return what a proxy's function has to say of the calling thread's last call of it, once."""
    take = getattr(function, "take_note", None)
    return "" if take is None else str(take())


def name_of(target: str, symbol: str) -> str:
    """Return the C function of a link symbol, itself if it is not renamed."""
    for name, symbols in SYMBOLS[target].items():
        if symbol in symbols:
            return name
    return symbol
