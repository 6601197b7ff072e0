"""Ambient: the kernel, chaos and injection that environment variables and options ask for.

They last for the rest of the process, see ``blocks``.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .blocks import kernel_in_force, push

if TYPE_CHECKING:
    from ..binding import Binding
    from .injection import Injection

__all__ = [
    "CHAOS",
    "INJECT",
    "KERNEL",
    "begin",
    "begin_chaos",
    "begin_injecting",
    "begin_kernel",
    "begin_kernel_of_environment",
    "choose_classes",
    "keep_classes",
    "restore_classes",
]

KERNEL = "SELECTORS_FFI_KERNEL"
CHAOS = "SELECTORS_FFI_CHAOS"
INJECT = "SELECTORS_FFI_INJECT"

#: Kernel -> the classes that are exported on it.
_kept: WeakKeyDictionary[Binding, dict[str, Any]] = WeakKeyDictionary()


def begin_kernel(name: str, where: str) -> None:
    """Run the rest of the process on a simulated kernel, with the classes that it has.

    Args:
        name: see ``kernels.kernel``.
        where: the name of the option or variable, for the message.

    Raises:
        ValueError: there is no such kernel, and the message lists what there is; or this host is
            no Unix.
    """
    _push_kernel(name, where)
    choose_classes()


def choose_classes() -> None:
    """Let ``selectors_ffi`` export the classes that the kernel of the innermost block has."""
    _package()._choose_classes()
    _tell_installation()


def keep_classes() -> None:
    """Keep what ``selectors_ffi`` exports on the kernel in force, before another one is entered."""
    names = vars(_package())
    _kept[kernel_in_force()] = {name: names[name] for name in _exported() if name in names}


def restore_classes(kernel: Binding) -> None:
    """Let ``selectors_ffi`` export what it did on a kernel when another one was entered."""
    kept = _kept.get(kernel)
    if kept is not None:
        names = vars(_package())
        for name in _exported() - kept.keys():
            names.pop(name, None)
        names.update(kept)
        _tell_installation()


def _exported() -> set[str]:
    return {*_package()._CLASSES.values(), "DefaultSelector", "_pending"}


def _tell_installation() -> None:
    """Let what ``install()`` has changed hold the classes that are exported now."""
    installation = sys.modules.get(f"{_package().__name__}.installation")
    if installation is not None:
        installation.follow()


def _package() -> Any:
    return sys.modules[__package__.partition(".")[0]]


def begin_kernel_of_environment() -> None:
    """Do what SELECTORS_FFI_KERNEL asks for, before the classes of this host are chosen.

    Raises:
        ValueError: there is no such kernel; the message lists what there is.
    """
    name = os.environ.get(KERNEL)
    if name:
        _push_kernel(name, KERNEL)


def _push_kernel(name: str, where: str) -> None:
    from .kernels import kernel

    try:
        push(kernel(name))
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from None


def begin() -> None:
    """Do what SELECTORS_FFI_CHAOS and SELECTORS_FFI_INJECT ask for, once the classes are chosen.

    What is injected lies over the chaos: the calls that are counted are the program's own.

    Raises:
        ValueError: one of them is wrong; the message says where and lists what is known.
    """
    seed = os.environ.get(CHAOS)
    if seed:
        begin_chaos(seed, CHAOS)
    text = os.environ.get(INJECT)
    if text:
        begin_injecting(text, INJECT)


def begin_chaos(text: str, where: str) -> None:
    """Have chaos for the rest of the process.

    Args:
        text: a seed, see ``chaos.parse_seed``.
        where: the name of the option or variable, for the message.

    Raises:
        ValueError: it is no seed.
    """
    from .chaos import chaos, parse_seed

    try:
        seed, spurious = parse_seed(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    push(chaos(seed, spurious=spurious))


def begin_injecting(text: str, where: str) -> None:
    """Inject for the rest of the process; what was not reached is told on standard error at its end.

    Args:
        text: see ``grammar``.
        where: the name of the option or variable, for the messages.

    Raises:
        ValueError: an expression is wrong.
    """
    from .injection import inject

    try:
        made = inject(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    push(made)
    atexit.register(_tell_unreached, made.lib.hook, where, os.getpid())


def _tell_unreached(injection: Injection, where: str, pid: int) -> None:
    if os.getpid() == pid:
        for sentence in injection.unreached():
            print(f"{where}: {sentence}", file=sys.stderr)
