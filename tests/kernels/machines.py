"""The machines that the reliability tests run on: every backend on every kernel."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Callable

from .. import kernels, tally
from ..wakers import close_idle_wakers
from . import KERNELS, host


class Machine:
    """One backend class on one kernel, the host's own or a simulated one."""

    def __init__(self, name: str, backend: str, make: Callable[[], Any] | None = None) -> None:
        self.name = name
        self.backend = backend
        self.mechanism = backend[: -len("Selector")].lower()
        self.simulated = make is not None
        self._make = make

    def __repr__(self) -> str:
        return self.name

    def boot(self, lib: Callable[[Any], Any] | None = None) -> Session:
        """A fresh binding; ``lib`` may wrap its library."""
        from selectors_ffi.binding import Binding, load

        whole = load() if self._make is None else self._make()
        kernel = whole.lib.kernel if self.simulated else None
        if lib is not None:
            whole = Binding(whole.target, whole.ffi, lib(whole))
        return Session(self, whole, kernel)


class Session:
    """A binding of a machine, and what can be learned from its kernel."""

    def __init__(self, machine: Machine, binding: Any, kernel: Any) -> None:
        self.machine = machine
        self.binding = binding
        self.kernel = kernel

    def selector(self) -> Any:
        """A new selector of the machine's class."""
        backends = importlib.import_module("selectors_ffi.backends")
        return getattr(backends, self.machine.backend)(binding=self.binding)

    def watched(self, selector: Any) -> dict[int, int] | None:
        """The kernel's own list, {descriptor: EVENT_*}; None where it keeps none."""
        if self.kernel is not None:
            # fileno() would say that the caller may add registrations of its own.
            found = self.kernel.watched(selector._descriptor.fd)
            if self.machine.mechanism == "eventport":  # the next wait associates these again
                registry = selector._fd_to_key
                found.update((fd, registry[fd].events) for fd, _ in selector._spent if fd in registry)
            if selector._waker is not None:
                found.pop(selector._waker.reader, None)
            return found
        if self.machine.mechanism != "epoll":
            return None
        return epoll_list(selector._descriptor.fd)

    def busy(self) -> bool:
        """Whether the caller, a signal handler, runs inside the simulated kernel's own code.

        A real kernel has no such moments; a handler that uses it should come later.
        """
        return self.kernel is not None and self.kernel.lock._is_owned()

    def closed(self, fd: int) -> None:
        """Say that ``fd`` is closed; needed where the host cannot tell (kqueue's K4)."""
        if self.machine.mechanism == "kqueue":
            self.kernel.closed(fd)


def epoll_list(epfd: int) -> dict[int, int]:
    """What the host's epoll watches, as it says itself in proc(5)'s fdinfo."""
    found: dict[int, int] = {}
    with open(f"/proc/self/fdinfo/{epfd}") as lines:
        for line in lines:
            if line.startswith("tfd:"):
                fd, events = int(line.split()[1]), int(line.split()[3], 16)
                # EPOLLIN is 1 and EPOLLOUT 4 on every Linux.
                found[fd] = found.get(fd, 0) | (events & 1) | (events >> 1 & 2)
    return found


def _machines() -> list[Machine]:
    mechanisms = ["poll", "select"] if os.name == "posix" else ["select"]
    if sys.platform.startswith("linux"):
        mechanisms.insert(0, "epoll")
    elif sys.platform != "win32" and not sys.platform.startswith("sunos"):
        mechanisms.insert(0, "kqueue")
    found = [Machine(name, name.capitalize() + "Selector") for name in mechanisms]
    if os.name == "posix":
        found += [Machine(*kernel) for kernel in KERNELS]
    return found


MACHINES = _machines()

#: The host's, and of the others one of each peculiarity, for tests that would take too long on all:
#: those that are about a backend, and not about a kernel. The long profile has all.
SOME = [
    machine
    for machine in MACHINES
    if not machine.simulated or (machine.name, machine.backend) in kernels.SOME or tally.long_profile()
]


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing that was opened inside is open afterwards."""
    close_idle_wakers()
    before = host.open_descriptors()
    yield
    close_idle_wakers()
    left = [fd for fd in host.open_descriptors() if fd not in before]
    assert not left, f"descriptors left open: {left}"
    tally.count("searches for leaked descriptors")
