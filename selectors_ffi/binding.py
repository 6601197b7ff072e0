"""Calls: a kernel interface as one object that backends can be built on.

A ``Binding`` is a target's declarations (``ffi``) and the functions behind them (``lib``).
``lib`` is anything with the C functions as attributes, under their link symbols: libc, a
traced libc, a faulty one, a simulated kernel, an emulator. Nothing above can tell which.

errno
-----
An ABI-mode function returns -1 and leaves the reason in ``ffi.errno``, a variable of the thread that
the next ABI-mode call overwrites. Between two bytecodes the interpreter may run a signal handler,
and EINTR means that one is due right now. So ``n = f(...)`` followed by ``ffi.errno`` reads the
handler's errno whenever the handler makes a failing call itself.

Therefore each call is a step of an iterator that is built of C objects, and ``errno(step)`` tells why
a step has failed::

    for n in binding.calls(function, *arguments):
        break
    if n < 0:
        errno = binding.errno(n)

CPython 3.11 and newer run handlers only at the start of a function, after a call and at a backward
jump (``CHECK_EVAL_BREAKER`` in the evaluation loop). None of these lies between the step and the
read of ``ffi.errno`` above, which is a call of a C function. Other interpreters look more often: 3.9
and PyPy before every bytecode, 3.10 also at forward jumps. There the iterator itself turns -1 into
``-errno``, which takes 40 ns a step (25 ns on PyPy). ``tests/test_errno.py`` proves both.

An iterator that has failed is spent: it must not be stepped again. Where a call that failed may be made
again as a step, to learn why, the first one can be a plain call.
"""

from __future__ import annotations

import os
import sys
from errno import EACCES, EINTR, EINVAL, ENOSYS, ENOTSUP, EPERM
from itertools import chain, repeat, starmap, takewhile
from math import ceil
from operator import invert, neg

from ._abi import load_ffi
from ._abi.target import host, presence, symbols_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Any)

__all__ = [
    "Binding",
    "default",
    "load",
    "milliseconds",
    "nanoseconds",
    "pointer_to",
    "unpatched",
]

ATOMIC_STEP = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)
if ATOMIC_STEP:
    from _functools import partial  # type: ignore[import-not-found] # functools takes 1 ms to import
INT_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
#: Why an old kernel or a sandbox refuses a call that has an older form (epoll_pwait2, ppoll).
REFUSALS = (ENOSYS, EPERM, EACCES, ENOTSUP, EINVAL)


#: What to do about a function that this host lacks.
_ELSEWHERE = (
    "DefaultSelector is a class that works here, and python -m selectors_ffi lists all of them;"
    " binding=selectors_ffi.testing.kernel(...) simulates other systems"
)
#: Set by ``selectors_ffi.testing`` while it decides what the kernel says; see ``default``.
ambient: Callable[[], Binding] | None = None


class Binding:
    """One kernel interface: ``target`` names the declarations ``ffi``, ``lib`` does the work."""

    opened = False  #: whether ``lib`` is a shared object that ``load`` has opened
    tells = False  #: see ``through``

    def __init__(self, target: str, ffi: Any, lib: Any) -> None:
        self.target = target
        self.ffi = ffi
        self.lib = lib
        #: (function, tuples of arguments) -> an iterator as of ``calls``, a step for each tuple.
        self.steps: Callable[..., Iterator[int]] = starmap
        #: (failed step) -> its errno. To be called in the function that made the step, at once.
        #: ``getattr(ffi, "errno", step)`` ignores the step: ffi always has an errno.
        self.errno: Callable[[int], int] = partial(getattr, ffi, "errno") if ATOMIC_STEP else abs
        if not ATOMIC_STEP:
            self.steps = _steps_with_errno(ffi)
        self._facts: dict[Any, Any] = {}
        self.refused: set[str] = set()  #: functions that failed a self-test, as if not there
        self.proven: set[str] = set()  #: mechanisms whose self-test need not be asked for again

    def __repr__(self) -> str:
        return f"Binding({self.target!r}, lib={self.lib!r})"

    def through(self, lib: Any, *, tells: bool = False) -> Binding:
        """Return a binding of the same kernel, which calls through ``lib``.

        Args:
            tells: a function of ``lib`` that fails returns -errno. Only where a step is not atomic.
        """
        made = Binding(self.target, self.ffi, lib)
        made.refused = self.refused
        if tells:
            made.tells, made.steps = True, starmap
        return made

    def find(self, name: str) -> tuple[str, Callable[..., int]] | None:
        """Return (link symbol, function) of the C function ``name``, None if it is not there."""
        if name in self.refused:
            return None
        for symbol in symbols_for(self.target, name):
            try:
                return symbol, getattr(self.lib, symbol)
            # A symbol that is declared but not linked: AttributeError in in-line mode,
            # ffi.error in out-of-line mode, which derives from Exception only.
            except (AttributeError, self.ffi.error):
                continue
        return None

    def has(self, name: str) -> bool:
        """Tell whether the C function ``name`` is declared and present."""
        return self.find(name) is not None

    def function(self, name: str) -> Callable[..., int]:
        """Return the C function ``name``, whatever its link symbol.

        Raises:
            OSError: ENOSYS, naming the symbols looked for.
        """
        found = self.find(name)
        if found is None:
            symbols = " or ".join(symbols_for(self.target, name))
            error = OSError(ENOSYS, f"{os.strerror(ENOSYS)}: no {symbols} in target {self.target}")
            if self.opened and hasattr(error, "add_note"):
                error.add_note(_ELSEWHERE)
            raise error
        return found[1]

    def constant(self, name: str) -> int:
        """Return the value of the C constant ``name``.

        Raises:
            OSError: ENOSYS, if the target does not have it.
        """
        try:
            return int(self.ffi.integer_const(name))
        except AttributeError:
            reason = f"{os.strerror(ENOSYS)}: no {name} in target {self.target}"
            raise OSError(ENOSYS, reason) from None

    def calls(self, function: Callable[..., int], *arguments: object) -> Iterator[int]:
        """Return an endless iterator, each step one call ``function(*arguments)``.

        A negative step is a failure; ``errno(step)`` says why. The iterator is spent then.
        """
        return self.steps(function, repeat(arguments))

    def facts(self, kind: Callable[[Binding], Any]) -> Any:
        """Return ``kind(self)``, made once for this binding and shared by its selectors."""
        facts = self._facts.get(kind)
        return self._facts.setdefault(kind, kind(self)) if facts is None else facts

    def ask(self, function: Callable[..., int], *arguments: object) -> int:
        """Call once; return the result, or -errno if it failed. Not for Winsock, which has no errno."""
        for step in self.steps(function, repeat(arguments)):
            break
        return step if step >= 0 else -self.errno(step)

    def call(self, function: Callable[..., int], *arguments: object) -> int:
        """Call once; return the result.

        Raises:
            OSError: the subclass that errno chooses, if the result is -1.
        """
        result = self.ask(function, *arguments)
        if result < 0:
            raise self.error(-result)
        return result

    @staticmethod
    def error(errno: int) -> OSError:
        """Return the exception for ``errno``: OSError picks its subclass itself."""
        return OSError(errno, os.strerror(errno))

    def close(self, fd: int) -> None:
        """Close a descriptor that this binding opened; close(2).

        Leaves ``ffi.errno`` as it was, since this also runs in finalisers. EINTR is success: the
        descriptor is gone, and a second close could hit another file that got its number.
        """
        found = None if self.opened else self.find("close")
        if found is None:  # the C library itself: the interpreter calls it faster
            try:
                _close_by_os(fd)
            except InterruptedError:
                pass
            return
        ffi = self.ffi
        before = ffi.errno
        errno = -self.ask(found[1], fd)
        if errno > 0:
            ffi.errno = before
            if errno != EINTR:
                raise self.error(errno)


def unpatched(function: F) -> F:
    """Return ``function`` as an object that libraries which replace it everywhere do not know."""
    return function.__call__  # type: ignore[no-any-return]


_close_by_os = unpatched(os.close)


def _steps_with_errno(ffi: Any) -> Callable[..., Iterator[int]]:
    """Return ``Binding.steps`` where a step is not atomic."""
    errnos = map(getattr, repeat(ffi), repeat("errno"))  # at each step what it is then

    def steps(function: Callable[..., int], arguments: Any) -> Iterator[int]:
        # ``invert`` is 0 for -1 alone. As ``neg``, it is called without a tuple of arguments: that of
        # ``(-1).__ne__`` may begin a collection, in which a finaliser makes a call of its own.
        return chain(takewhile(invert, starmap(function, arguments)), map(neg, errnos))

    return steps


def load(target: str | None = None, *, library: str | None = None) -> Binding:
    """Return the binding of this process, or of ``target``.

    Args:
        target: one of ``selectors_ffi._abi.TARGETS``; None chooses this process's own.
        library: shared object to open instead of the C library that is already loaded,
            for example ``load("libkqueue", library="libkqueue.so.0")``.

    Raises:
        OSError: ENOSYS if nothing certain is known of this system, or the library cannot be opened.
        ValueError: there is no such target.
    """
    binding = _loaded.get((target, library))
    return binding or _loaded.setdefault((target, library), _load(target, library))


def default() -> Binding:
    """Return the binding of a selector that is made without one.

    It is ``load()``'s, unless ``selectors_ffi.testing`` has set ``ambient``.
    """
    # The look-up is that of ``load``, and faster.
    return (_loaded.get((None, None)) or load()) if ambient is None else ambient()


_loaded: dict[tuple[str | None, str | None], Binding] = {}


def _load(target: str | None, library: str | None) -> Binding:
    if target is None:
        decision = host(presence(open_library))
        if decision.target is None:
            raise OSError(ENOSYS, f"{os.strerror(ENOSYS)}: {decision.reason}")
        target = decision.target
    ffi = load_ffi(target)
    if library is None and target == "windows":
        library = "ws2_32"
    binding = Binding(target, ffi, open_library(ffi, library))
    binding.opened = True
    return binding


def open_library(ffi: Any, library: str | None = None) -> Any:
    """Open a shared object, by default the process itself with the C library in it; dlopen(3)."""
    return ffi.dlopen(library)


def pointer_to(ffi: Any, ctype: str, value: Any) -> Any:
    """Return a pointer to ``ctype`` of a typed or untyped pointer, an array, or bytes.

    The result keeps no reference: it is valid while ``value`` is.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = ffi.from_buffer(value)
    return ffi.cast(f"{ctype} *", value)


def milliseconds(timeout: float) -> int:
    """Return seconds > 0 as milliseconds, rounded up so as never to wait less.

    A C int holds 24.8 days; what is longer is cut to that, and the caller waits again.

    Raises:
        OverflowError: infinite, or more than 292 years.
        ValueError: NaN.
    """
    return min(-(-nanoseconds(timeout) // 1_000_000), INT_MAX)


def nanoseconds(timeout: float) -> int:
    """Return seconds > 0 as nanoseconds, rounded up so as never to wait less.

    Raises:
        OverflowError: infinite, or more than 292 years.
        ValueError: NaN.
    """
    result = ceil(float(timeout) * 1e9)
    if result > INT64_MAX:
        raise OverflowError("timeout is too large")
    return result
