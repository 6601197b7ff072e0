"""Simulated kernels: the backends of systems that this host is not, run on this host.

Each is a Python object whose methods are C functions with C semantics, working
on the target's own memory layout over real descriptors. See ``base``.
"""

from __future__ import annotations

from typing import Any, Callable

from .bsd import VARIANTS as _BSD
from .bsd import SimulatedBSD
from .linux import SimulatedLinux
from .solaris import VARIANTS as _SOLARIS
from .solaris import SimulatedSolaris
from .windows import SimulatedWindows

#: (name, backend class, maker of a fresh binding), one for each simulated system.
KERNELS: list[tuple[str, str, Callable[[], Any]]] = [
    *(
        (name, "KqueueSelector", lambda name=name: SimulatedBSD(name).binding())
        for name in _BSD
        if name != "libkqueue"  # not a kernel; its one peculiarity has tests of its own
    ),
    *(
        (name, "DevpollSelector", lambda name=name: SimulatedSolaris(name).binding())
        for name in _SOLARIS
    ),
    ("simulated_linux", "EpollSelector", lambda: SimulatedLinux().binding()),
]

#: Of Windows, whose errors are not in errno and whose sets take sockets only.
WINDOWS = ("windows", "SelectSelector", lambda: SimulatedWindows().binding())

__all__ = [
    "KERNELS",
    "WINDOWS",
    "SimulatedBSD",
    "SimulatedLinux",
    "SimulatedSolaris",
    "SimulatedWindows",
]
