"""The tap: a library whose every function reports its calls, and otherwise is the one below.

Wrapped and bare functions have one shape, so no caller asks whether tracing is on; it is decided
when a selector is made. ``ffi.errno`` after a call is what the call left, whatever the report
did in between.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..binding import Binding
from .decode import form_of
from .records import Source, Syscall

if TYPE_CHECKING:
    from .decode import Form, Native

__all__ = ["Called", "Tap", "tapped"]


class Called(NamedTuple):
    """What the tap saw of one call, beside its record."""

    record: Syscall
    natives: list[Native]
    """Events that it brought."""
    armed: list[tuple[int, int]]
    """(fd, token) of registrations that it made."""


Report = Callable[[Called], None]


class Tap:
    """Stands for ``binding.lib``.

    Args:
        binding: the kernel interface to watch.
        report: takes each ``Called``; must not raise.
        source: says who calls.
        decode: whether to write the arguments down.
        names: link symbol -> C function name, where they differ.
    """

    def __init__(
        self,
        binding: Binding,
        report: Report,
        source: Callable[[], Source],
        *,
        decode: bool,
        names: dict[str, str],
    ) -> None:
        self._binding = binding
        self._report = report
        self._source = source
        self._decode = decode
        self._names = names

    def __repr__(self) -> str:
        return f"Tap({self._binding.lib!r})"

    def __getattr__(self, symbol: str) -> Any:
        """Return the function of ``symbol``, wrapped; raise what the library raises."""
        function = getattr(self._binding.lib, symbol)
        if symbol.startswith("__") and symbol.endswith("__"):
            return function
        wrapped = self._wrap(self._names.get(symbol, symbol), function)
        setattr(self, symbol, wrapped)
        return wrapped

    def _wrap(self, name: str, function: Callable[..., int]) -> Callable[..., int]:
        ffi, calls = self._binding.ffi, self._binding.calls
        report, source, decode = self._report, self._source, self._decode
        form = form_of(ffi, name)
        clock = perf_counter_ns

        def call(*arguments: Any) -> int:
            texts = _enter(form, arguments) if decode else []
            result: int | None = None
            note, errno = "", 0
            left = ffi.errno  # in the end what the call left there, which is kept on success too
            begin = end = clock()
            try:
                for step in calls(function, *arguments):  # errno is safe here: see binding
                    break
                result = step
                if result < 0:
                    errno, result = ffi.errno if result == -1 else -result, -1
                left = errno or ffi.errno
                end = clock()
            except BaseException as error:
                end = clock()
                note = type(error).__name__
                raise
            finally:
                note, natives, armed = _leave(form, arguments, texts, result, note)
                record = Syscall(begin, source(), name, tuple(texts), result, errno, note, end - begin)
                report(Called(record, natives, armed))
                ffi.errno = left  # the report may have made calls of its own
            return result

        call.__name__ = call.__qualname__ = name
        return call


def _enter(form: Form, arguments: tuple[Any, ...]) -> list[str]:
    """Decode the arguments; an argument that cannot be decoded must not break the call."""
    try:
        return form.enter(arguments)
    except Exception as error:
        return [f"/* undecoded: {type(error).__name__} */"]


def _leave(
    form: Form, arguments: tuple[Any, ...], texts: list[str], result: int | None, note: str
) -> tuple[str, list[Native], list[tuple[int, int]]]:
    """Decode what the call returned: note, events, registrations."""
    if result is None or result < 0:
        return note, [], []
    try:
        if texts:
            note = form.leave(arguments, texts, result)
        return note, form.ready(arguments, result), list(form.armed(arguments))
    except Exception as error:
        return f"undecoded: {type(error).__name__}", [], []


def tapped(
    binding: Binding,
    report: Report,
    source: Callable[[], Source],
    *,
    decode: bool,
    names: dict[str, str],
) -> Binding:
    """Return a copy of ``binding`` whose calls are reported."""
    lib = Tap(binding, report, source, decode=decode, names=names)
    watched = Binding(binding.target, binding.ffi, lib)
    watched.refused = binding.refused
    return watched
