"""Kernels that are not here: other systems' calls in Python, over the descriptors of this host.

``kernel("freebsd")`` returns a binding. A selector made with it waits as it would on FreeBSD, in
FreeBSD's own struct layouts, for real sockets and pipes of this process. Each module is a family of
systems: it says which clauses of the manual are modelled, which are not, and which systems differ.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from errno import ENOSYS
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...binding import Binding

__all__ = ["NAMES", "kernel", "options_of"]

#: What ``kernel()`` can be asked for.
NAMES = (
    "freebsd", "freebsd11", "netbsd", "netbsd11", "openbsd", "dragonfly", "darwin",
    "illumos", "solaris11", "solaris10", "linux", "windows",
)  # fmt: skip

#: What an option may be, by its annotation.
_TYPES = {
    "int": int, "bool": bool, "str": str, "tuple": tuple, "struct.Struct": Struct, "None": type(None),
}  # fmt: skip


def kernel(name: str, **options: Any) -> Binding:
    """Return a binding whose system calls are those of another system, simulated.

    The simulated kernel itself is ``binding.lib.kernel``. Each call makes a fresh one.

    Args:
        name: one of ``selectors_ffi.testing.KERNELS``.
        options: what the system is to do differently, see ``options_of``.

    Raises:
        ValueError: there is no such kernel, or it has no such option; the message lists what
            there is. Or an option does not have such values; the message says which it has.
        OSError: ENOSYS, this host is no Unix.
    """
    known = _options(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        listed = ", ".join(known) or "none"
        raise ValueError(f"unknown option {unknown[0]!r} of the kernel {name}; known: {listed}")
    for option, value in options.items():
        default, annotation = known[option]
        if not _is_of(value, annotation):
            like = f"{annotation}, as {default!r} is"
            raise ValueError(f"the option {option} of the kernel {name} is {like}, not {value!r}")
    if os.name != "posix":
        raise OSError(ENOSYS, f"{os.strerror(ENOSYS)}: simulated kernels need a Unix host")
    family, system = _family(name)
    return family(*system, **options).binding()  # type: ignore[no-any-return] # see _family


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a kernel and their defaults, which are what the system does.

    Each is documented where it is defined: ``Variant`` in ``bsd_systems`` and in ``solaris``, the
    classes' constructors otherwise.

    Raises:
        ValueError: there is no such kernel; the message lists what there is.
    """
    return {option: default for option, (default, _) in _options(name).items()}


def _options(name: str) -> dict[str, tuple[Any, str]]:
    """Return {option: (default, annotation)} of a kernel."""
    if name not in NAMES:
        known = ", ".join(NAMES).replace("darwin", "darwin (macOS)")
        raise ValueError(f"unknown kernel {name!r}; known: {known}")
    if os.name != "posix":
        return {}
    family, system = _family(name)
    skipped = ("system", "ffi", "options")
    found = {
        one.name: (one.default, one.annotation)
        for one in inspect.signature(family).parameters.values()
        if one.name not in skipped
    }
    if system:
        variant = inspect.getmodule(family).VARIANTS[name]  # type: ignore[union-attr]
        for field in dataclasses.fields(variant):
            if field.name != "target":
                found[field.name] = getattr(variant, field.name), field.type
    return found


def _is_of(value: Any, annotation: str) -> bool:
    """Tell whether ``value`` is of a type that an annotation such as "tuple[int, int] | None" names."""
    names = [one.partition("[")[0] for one in annotation.split(" | ")]
    return isinstance(value, tuple(_TYPES[name] for name in names))


def _family(name: str) -> tuple[Any, tuple[str, ...]]:
    """Return (class, its positional arguments). Imported late: fcntl is not on Windows."""
    if name == "linux":
        from .linux import SimulatedLinux

        return SimulatedLinux, ()
    if name == "windows":
        from .windows import SimulatedWindows

        return SimulatedWindows, ()
    if name in ("illumos", "solaris11", "solaris10"):
        from .solaris import SimulatedSolaris

        return SimulatedSolaris, (name,)
    from .bsd import SimulatedBSD

    return SimulatedBSD, (name,)
