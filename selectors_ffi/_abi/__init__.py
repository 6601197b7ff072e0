"""What each system's kernel interface looks like: structs, constants, prototypes.

Declarations only. Any target's can be loaded on any host, which is how FreeBSD's
``struct kevent`` is tested on Linux; a sizeof is then that of the running
interpreter's data model.
"""

from __future__ import annotations

import os
from _thread import RLock
from importlib import import_module

TYPE_CHECKING = False  # typing's own costs a few milliseconds to import
if TYPE_CHECKING:
    from typing import Any

TARGETS: tuple[str, ...] = (
    "linux",
    "linux_x86",
    "linux_mips",
    "linux_sparc",
    "linux_time64",
    "linux_x86_time64",
    "linux_mips_time64",
    "linux_x32",
    "linux_riscv32",
    "darwin",
    "freebsd",
    "freebsd_i386",
    "freebsd11",
    "freebsd11_i386",
    "netbsd",
    "netbsd11",
    "openbsd",
    "dragonfly",
    "sunos",
    "windows",
    "libkqueue",
)


# cffi computes a struct's size at its first use, and without a global interpreter lock shows other
# threads the struct before the size (2.1.1: "array item of unknown size"): here, one at a time.
_first_use = RLock()  # a signal handler may come in the middle and make a selector, too


def _renew() -> None:
    """In a forked child, leave the lock of a thread that stayed in the parent."""
    global _first_use
    _first_use = RLock()


if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(after_in_child=_renew)


def load_ffi(target: str) -> Any:
    """Return the ``FFI`` of one target's declarations; imports that one module.

    Args:
        target: a name of ``TARGETS``.

    Raises:
        ValueError: there is no such target.
    """
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}: one of {', '.join(TARGETS)}")
    with _first_use:
        ffi = import_module(f"{__name__}.generated.{target}").ffi
        for struct in ffi.list_types()[1]:
            ffi.sizeof(f"struct {struct}")
    return ffi


def load_probe() -> Any:
    """Return the ``FFI`` whose names tell the targets apart; see cdef/probe.h."""
    return import_module(f"{__name__}.generated.probe").ffi
