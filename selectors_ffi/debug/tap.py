"""Tap: a library whose every function reports its calls, and otherwise is the one below.

Wrapped and bare functions have one shape, so that no caller asks whether debugging is on.
``ffi.errno`` after a call is what the call left, whatever the report did in between. Where a signal
handler may come between that and the caller's look at it, see ``binding``, a function that fails returns
-errno, as a step of the bare one is.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Callable

from .._abi.target import SYMBOLS
from ..binding import ATOMIC_STEP
from .decode import Arguments, form_of
from .flags import Debug
from .records import Syscall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..binding import Binding
    from .decode import Form
    from .observer import Observer

__all__ = ["Tap", "tapped"]


class Tap:
    """Stands for ``binding.lib``.

    Args:
        binding: the kernel interface to watch.
        observer: hears of the calls.
        names: link symbol -> C function name, where they differ.
    """

    def __init__(self, binding: Binding, observer: Observer, names: dict[str, str]) -> None:
        self._binding = binding
        self._observer = observer
        self._names = names

    def __repr__(self) -> str:
        return f"Tap({self._binding.lib!r})"

    def __getattr__(self, symbol: str) -> Any:
        """Return the function of ``symbol``, wrapped; raise what the library raises."""
        function = getattr(self._binding.lib, symbol)
        if (symbol.startswith("__") and symbol.endswith("__")) or symbol == "WSAGetLastError":
            return function  # the reason of a failure is in the record of the call that failed
        wrapped = self._wrap(self._names.get(symbol, symbol), function)
        setattr(self, symbol, wrapped)
        return wrapped

    def _wrap(self, name: str, function: Callable[..., int]) -> Callable[..., int]:
        form = form_of(self._binding.ffi, name)
        flags = self._observer.flags
        if flags & (Debug.SYSCALLS | Debug.STATS):
            return _recorded(self._binding, self._observer, name, form, function)
        # poll and select cannot report what is not registered, so checks need not hear of their calls.
        if form.remembers or (form.waits and Debug.EVENTS in flags):
            return _heard(self._binding, self._observer, name, form, function)
        return partial(self._binding.ask, function) if _tells(self._binding) else function


def _recorded(
    binding: Binding, observer: Observer, name: str, form: Form, function: Callable[..., int]
) -> Callable[..., int]:
    """Return ``function``, with a record of each call for the observer."""
    ffi, calls, clock = binding.ffi, binding.calls, perf_counter_ns
    reason, winsock, tells = _reason(binding), binding.target == "windows", _tells(binding)
    decode, lazy = Debug.SYSCALLS in observer.flags, form.lazy
    take_note = getattr(function, "take_note", None)  # of selectors_ffi.testing: "INJECTED"

    def call(*arguments: Any) -> int:
        entered = clock()
        here = observer.here()
        if here.held:
            observer.release(here)
        kept: Sequence[Any] = _keep(form, arguments) if lazy else arguments
        texts: Any = _enter(form, arguments) if decode and not lazy else ()
        result: int | None = None
        note, errno = "", 0
        left = ffi.errno  # in the end what the call left there, which is kept on success too
        begin = end = clock()
        try:
            for step in calls(function, *arguments):  # errno is safe here: see binding
                break
            result = step
            if result < 0:
                errno, result = reason(result), -1
                here.errno = errno
            left = ffi.errno if winsock else errno or ffi.errno
            end = clock()
        except BaseException as error:
            end = clock()
            note = type(error).__name__
            raise
        finally:
            outcome = -1 if result is None else result
            if lazy and outcome >= 0:
                kept = _kept(form, kept, arguments, outcome)
            if decode:
                if lazy:
                    texts = Arguments(form, kept, outcome)
                elif outcome >= 0:
                    note = _leave(form, arguments, texts, outcome)
            if take_note is not None:
                note = "; ".join(filter(None, (note, take_note())))
            if outcome >= 0:
                observer.heard(here, form, kept, outcome)
            observer.record(
                Syscall(begin, here.source, name, texts, result, errno, note, end - begin), here
            )
            here.spent.ns += clock() - entered - (end - begin)
            ffi.errno = left  # the report may have made calls of its own, and a handler until here
        return -errno if result < 0 and tells else result

    call.__name__ = call.__qualname__ = name
    return call


def _heard(
    binding: Binding, observer: Observer, name: str, form: Form, function: Callable[..., int]
) -> Callable[..., int]:
    """Return ``function``, which tells the observer what its successful calls bring."""
    ffi, calls, clock = binding.ffi, binding.calls, perf_counter_ns
    reason, winsock, tells = _reason(binding), binding.target == "windows", _tells(binding)

    def call(*arguments: Any) -> int:
        for step in calls(function, *arguments):  # errno is safe here: see binding
            break
        if step < 0:
            errno = observer.here().errno = reason(step)
            if not winsock:
                ffi.errno = errno
            return -errno if tells else -1
        if step or not form.waits:
            begin, left = clock(), ffi.errno
            here = observer.here()
            kept: Sequence[Any] = arguments
            if form.lazy:
                kept = _kept(form, _keep(form, arguments), arguments, step)
            observer.heard(here, form, kept, step)
            ffi.errno = left
            here.spent.ns += clock() - begin
        return step

    call.__name__ = call.__qualname__ = name
    return call


def _tells(binding: Binding) -> bool:
    return not ATOMIC_STEP and binding.target != "windows"


def _reason(binding: Binding) -> Callable[[int], int]:
    """Return what says why a step has failed; Winsock leaves errno alone."""
    if binding.target != "windows":
        return binding.errno
    last_error = binding.function("WSAGetLastError")
    return lambda step: last_error()


def _keep(form: Form, arguments: tuple[Any, ...]) -> Sequence[Any]:
    """Copy what the arguments point to; an argument that cannot be copied must not break the call."""
    try:
        return form.keep(arguments)
    except Exception:
        return arguments


def _kept(form: Form, kept: Sequence[Any], arguments: tuple[Any, ...], result: int) -> Sequence[Any]:
    """Copy what the call wrote."""
    try:
        return form.kept(kept, arguments, result)
    except Exception:
        return kept


def _enter(form: Form, arguments: tuple[Any, ...]) -> list[str]:
    """Decode the arguments; an argument that cannot be decoded must not break the call."""
    try:
        return form.enter(arguments)
    except Exception as error:
        return [f"/* undecoded: {type(error).__name__} */"]


def _leave(form: Form, arguments: tuple[Any, ...], texts: list[str], result: int) -> str:
    """Decode what the call wrote into ``texts``; return the note."""
    try:
        return form.leave(arguments, texts, result)
    except Exception as error:
        return f"undecoded: {type(error).__name__}"


def tapped(binding: Binding, observer: Observer) -> Binding:
    """Return a copy of ``binding`` whose calls the observer hears of."""
    links = SYMBOLS.get(binding.target, {})
    names = {symbol: name for name, symbols in links.items() for symbol in symbols}
    return binding.through(Tap(binding, observer, names), tells=_tells(binding))
