"""What the simulated kernels share: handles, an errno, sleepers and their bells."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any, Callable

from . import host

_UPPER = 500


def _move_up(fd: int) -> int:
    """The same open file at a number that nobody closes, reuses or watches."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD, _UPPER)  # PyPy lacks F_DUPFD_CLOEXEC
    except OSError:
        moved = fd  # the limit is lower than that
    else:
        os.close(fd)
        os.set_inheritable(moved, False)
    os.set_blocking(moved, False)
    return moved


class Sleepers:
    """The threads asleep on one handle, each with a pipe that wakes it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._bells: set[int] = set()

    def __len__(self) -> int:
        return len(self._bells)

    @contextlib.contextmanager
    def bell(self) -> Iterator[int]:
        """A descriptor that becomes readable when somebody rings."""
        with self._lock:
            listen, strike = map(_move_up, os.pipe())
            self._bells.add(strike)
        try:
            yield listen
        finally:
            # Closed under the lock, or ring() could write to a reused number.
            with self._lock:
                self._bells.discard(strike)
                os.close(strike)
                os.close(listen)

    def ring(self) -> None:
        """Wake every sleeper."""
        with self._lock:
            for strike in self._bells:
                with contextlib.suppress(BlockingIOError):
                    os.write(strike, b"!")

    @staticmethod
    def silence(listen: int) -> None:
        """Take what was rung so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(listen, 4096)

    def forget(self) -> None:
        """In the child of a fork: the sleepers stayed behind, their pipes did not."""
        for strike in self._bells:
            with contextlib.suppress(OSError):
                os.close(strike)
        self._bells.clear()


class Handle:
    """A descriptor that the kernel handed out: a real one of this host.

    It is an unbound datagram socket: it has an inode of its own, so that a
    reused number is recognised, and it never becomes readable by itself.
    """

    def __init__(self, lock: Any, cloexec: bool) -> None:
        placeholder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        placeholder.set_inheritable(not cloexec)
        self.fd = placeholder.detach()
        self.file = host.file_of(self.fd)
        self.sleepers = Sleepers(lock)
        self.closed = False

    def current(self) -> bool:
        """Whether the number still names this handle."""
        return not self.closed and host.file_of(self.fd) == self.file


class SimulatedKernel:
    """A kernel whose C functions are Python methods with C semantics.

    Each returns an int, and on failure -1 after setting ``ffi.errno``. Entries
    of ``lib`` are the link symbols, as the dynamic linker would find them.
    """

    target: str

    def __init__(self, target: str, ffi: Any = None) -> None:
        if ffi is None:
            from selectors_ffi._abi import load_ffi

            ffi = load_ffi(target)
        self.target = target
        self.ffi = ffi
        # Re-entrant: a signal handler that runs inside a simulated call may make another.
        self.lock = threading.RLock()
        self.handles: dict[int, Any] = {}
        self.refusals: dict[Any, int] = {}
        _kernels.add(self)

    def functions(self) -> dict[str, Callable[..., int]]:
        """Link symbol -> C function."""
        raise NotImplementedError

    @property
    def lib(self) -> Any:
        """The shared object that the dynamic linker would open; ``kernel`` is what it calls."""
        return types.SimpleNamespace(**self.functions(), kernel=self)

    def binding(self) -> Any:
        """The kernel, plugged into the seam."""
        from selectors_ffi.binding import Binding

        return Binding(self.target, self.ffi, self.lib)

    def watched(self, fd: int) -> dict[int, int]:
        """What handle ``fd`` watches: {descriptor: EVENT_READ | EVENT_WRITE}."""
        raise NotImplementedError

    def fail(self, code: int) -> int:
        """Fail like a C function."""
        self.ffi.errno = code
        return -1

    def handle(self, fd: int) -> Any:
        """The open handle with number ``fd``; None when it is something else."""
        found = self.handles.get(fd)
        if found is not None and not found.current():
            # os.close() or a dup2 over it: the kernel was not called, but it is gone.
            self.forget(found)
            found = None
        return found

    def forget(self, handle: Any) -> None:
        """Drop a handle whose number is closed, and wake those asleep on it."""
        if self.handles.get(handle.fd) is handle:
            del self.handles[handle.fd]
        handle.closed = True
        handle.sleepers.ring()

    def close(self, fd: int) -> int:
        """close(2), of a handle or any other descriptor."""
        with self.lock:
            try:
                os.close(fd)
            except OSError as error:
                return self.fail(error.errno or 0)
            found = self.handles.get(fd)
            if found is not None:
                self.forget(found)
            return 0

    def after_fork_in_child(self) -> None:
        """What fork(2) does to the child's copy."""
        self.lock = threading.RLock()
        for handle in self.handles.values():
            handle.sleepers.forget()
            handle.sleepers = Sleepers(self.lock)

    def bytes_at(self, pointer: Any, size: int) -> Any:
        """The caller's memory, ``size`` bytes of it; None for EFAULT.

        An array that is too small for what the call says is a defect of the
        caller; a real kernel would read past its end.
        """
        if isinstance(pointer, (bytes, bytearray, memoryview)):
            assert len(pointer) >= size, "the kernel reads past the end"
            return pointer
        if pointer == self.ffi.NULL:
            return None
        kind = self.ffi.typeof(pointer)
        if kind.kind == "array":
            assert self.ffi.sizeof(pointer) >= size, "the kernel reads past the end"
        return self.ffi.buffer(self.ffi.cast("char *", pointer), size)


_kernels: weakref.WeakSet[SimulatedKernel] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for kernel in list(_kernels):
        kernel.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
