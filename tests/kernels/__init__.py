"""The simulated kernels of ``selectors_ffi.testing.kernels`` as subjects, and their own tests."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Callable

from selectors_ffi.testing.kernels import NAMES, kernel

#: (name, backend class, maker of a fresh binding), one for each simulated system.
KERNELS: list[tuple[str, str, Callable[[], Any]]] = []
#: poll and select of systems that differ in the words of their bitmaps and in their link symbols.
POLLING = [
    (name, backend, partial(kernel, name))
    for name in ("darwin", "netbsd", "illumos")
    for backend in ("PollSelector", "SelectSelector")
]
#: One of each mechanism and of each peculiarity, for tests that would take too long on all: layouts,
#: symbols, refusals, order, ticks and urgent data of kqueue; both lines of /dev/poll; ports; poll(2)
#: without ppoll(2); select(2) with 32-bit words under another name.
SOME = [
    ("freebsd", "KqueueSelector"),
    ("netbsd11", "KqueueSelector"),
    ("darwin", "KqueueSelector"),
    ("illumos", "DevpollSelector"),
    ("solaris11", "DevpollSelector"),
    ("illumos_ports", "EventPortSelector"),
    ("darwin", "PollSelector"),
    ("netbsd", "SelectSelector"),
]
#: Of Windows, whose errors are not in errno and whose sets take sockets only.
WINDOWS = ("windows", "SelectSelector", lambda: kernel("windows"))

if os.name == "posix":
    from selectors_ffi.testing.kernels import bsd, host, linux, solaris, windows
    from selectors_ffi.testing.kernels.linux import SimulatedLinux

    def _backend(name: str) -> str:
        if name in solaris.VARIANTS:
            return "DevpollSelector"
        return "KqueueSelector" if name in bsd.VARIANTS else "EpollSelector"

    KERNELS += [
        (name, _backend(name), lambda name=name: kernel(name))
        for name in NAMES
        if name not in ("linux", "windows")
    ]
    # Under a name of its own, since the same kernels have /dev/poll.
    KERNELS += [
        (f"{name}_ports", "EventPortSelector", partial(kernel, name))
        for name in ("illumos", "solaris11")
    ]
    KERNELS.append(("simulated_linux", "EpollSelector", lambda: SimulatedLinux("linux_x86").binding()))

    __all__ = ["KERNELS", "POLLING", "SOME", "WINDOWS", "bsd", "host", "linux", "solaris", "windows"]
