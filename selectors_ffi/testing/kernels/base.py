"""What the simulated kernels share: descriptors that they hand out, an errno, sleeping threads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat, starmap
from typing import Any, Callable

from ..._abi import load_ffi
from ...binding import Binding
from . import host

__all__ = ["Handle", "Library", "SimulatedKernel", "Sleepers"]


class _Pipe:
    """A pipe that does not block, at high numbers, where the program's own descriptors are not.

    A signal handler may raise between any two steps of a simulated call. So a number is noted when it
    is opened, or dropped when it is closed, in one step of C.
    """

    def __init__(self) -> None:
        self._open: list[int] = []
        self.reader = self.writer = -1

    def make(self) -> None:
        """Make the pipe."""
        numbers = self._open
        numbers.extend(chain.from_iterable(starmap(os.pipe, [()])))
        try:  # PyPy lacks F_DUPFD_CLOEXEC.
            numbers.extend(map(fcntl.fcntl, numbers[:], repeat(fcntl.F_DUPFD), repeat(host.UPPER)))
        except OSError:  # the limit is lower than that
            while len(numbers) > 2:
                self._close(-1)
        while len(numbers) > 2:
            self._close(0)
        for fd in numbers:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)
        self.reader, self.writer = numbers

    def _close(self, place: int) -> None:
        for _ in map(os.close, map(self._open.pop, [place])):
            pass

    def close(self) -> None:
        """Close both ends."""
        while self._open:
            with contextlib.suppress(OSError):  # the program has closed all descriptors
                self._close(-1)


class Sleepers:
    """The threads asleep on one handle, each with a pipe that wakes it.

    A kernel needs no descriptor for a sleep. So a thread for which none is left sleeps in short steps.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._writers: set[int] = set()

    def __len__(self) -> int:
        return len(self._writers)

    @contextlib.contextmanager
    def asleep(self) -> Iterator[Callable[[dict[int, int], int | None], bool]]:
        """Count the calling thread as asleep; give a ``host.sleep`` that ``wake`` ends."""
        pipe = _Pipe()
        try:
            with self._lock:
                try:
                    pipe.make()
                except OSError as error:
                    if error.errno not in host.NONE_LEFT:
                        raise
                else:
                    self._writers.add(pipe.writer)
            yield partial(_sleep, pipe.reader)
        finally:
            # Closed under the lock, or wake() could write to a reused number.
            with self._lock:
                try:
                    self._writers.discard(pipe.writer)
                finally:  # also after a handler has raised here
                    try:
                        pipe.close()
                    finally:
                        pipe.close()

    def wake(self) -> None:
        """Wake every thread that is asleep."""
        with self._lock:
            for writer in self._writers:
                with contextlib.suppress(BlockingIOError):
                    os.write(writer, b"!")

    def forget(self) -> None:
        """Close the pipes in the child of a fork: the sleepers stayed in the parent."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                os.close(writer)
        self._writers.clear()


def _sleep(reader: int, wanted: dict[int, int], timeout: int | None) -> bool:
    if reader < 0:  # there is no pipe
        return host.sleep(wanted, host.soon(timeout))
    undisturbed = host.sleep({**wanted, reader: host.IN}, timeout)
    with contextlib.suppress(BlockingIOError):
        os.read(reader, 4096)
    return undisturbed


class Handle:
    """A descriptor that the kernel handed out: a real one of this host.

    It is an unbound datagram socket. That has an inode of its own, so that a reused number is
    recognised, and it never becomes readable by itself.
    """

    def __init__(self, lock: threading.RLock, cloexec: bool) -> None:
        placeholder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        placeholder.set_inheritable(not cloexec)
        self.fd: int = placeholder.detach()
        self.file: host.File | None = host.file_of(self.fd)
        self.sleepers: Sleepers = Sleepers(lock)
        self.closed = False

    def current(self) -> bool:
        """Tell whether the number still names this handle."""
        return not self.closed and host.file_of(self.fd) == self.file


class Library:
    """The shared object that the dynamic linker would open: C functions by their link symbols.

    ``kernel`` is the simulated kernel behind them.
    """

    def __init__(self, kernel: SimulatedKernel) -> None:
        for symbol, function in kernel.functions().items():
            setattr(self, symbol, _c_function(kernel, function))
        self.kernel = kernel

    def __repr__(self) -> str:
        return f"<simulated {self.kernel.name}>"


def _c_function(kernel: SimulatedKernel, function: Callable[..., int]) -> Callable[..., int]:
    """Return a function that fails as one of C does: -1, and the reason in ``ffi.errno``.

    That is set last, since a signal handler may run before it, and make calls of its own.
    """

    def call(*arguments: Any) -> int:
        result = function(*arguments)
        return result if result >= 0 else kernel.failed(result)

    call.__name__ = call.__qualname__ = function.__name__
    return call


class SimulatedKernel:
    """A kernel whose C functions are Python methods.

    Each returns an int, on failure -errno, as a system call of Linux does. ``lib`` has them with C
    semantics. The numbers of errno are those of this host, as in the caller's ``errno`` module.

    Args:
        name: as in ``kernel(name)``.
        target: whose declarations a caller uses, see ``selectors_ffi._abi.TARGETS``.
        ffi: other declarations than the target's own, for tests of the declarations.
    """

    def __init__(self, name: str, target: str, ffi: Any = None) -> None:
        self.name = name
        self.target = target
        self.ffi: Any = load_ffi(target) if ffi is None else ffi
        # Re-entrant: a signal handler that runs inside a simulated call may make another.
        self.lock: threading.RLock = threading.RLock()
        self.handles: dict[int, Any] = {}
        #: What is refused though nothing is wrong with it; each class says what the keys are.
        self.refusals: dict[Any, int] = {}
        _kernels.add(self)

    def functions(self) -> dict[str, Callable[..., int]]:
        """Return link symbol -> C function."""
        raise NotImplementedError

    @property
    def lib(self) -> Library:
        """The shared object that the dynamic linker would open."""
        made: Library | None = self.__dict__.get("_lib")
        return made or self.__dict__.setdefault("_lib", Library(self))

    def binding(self) -> Binding:
        """Return the kernel as selectors take it: ``KqueueSelector(binding=...)``."""
        return Binding(self.target, self.ffi, self.lib)

    def watched(self, fd: int) -> dict[int, int]:
        """Return what handle ``fd`` watches: {descriptor: EVENT_READ | EVENT_WRITE}."""
        raise NotImplementedError

    def fail(self, code: int) -> int:
        """Return what a function returns that fails."""
        return -code

    def failed(self, result: int) -> int:
        """Return what the C function returns instead, and leave the reason."""
        self.ffi.errno = -result
        return -1

    def open_handle(self, make: Callable[[], Handle]) -> int:
        """Return the number of a new handle."""
        with self.lock:
            try:
                made = make()
            except OSError as error:
                return self.fail(error.errno or 0)
            self.handles[made.fd] = made
            return made.fd

    def handle(self, fd: int) -> Any:
        """Return the open handle with number ``fd``; None when it is something else."""
        found = self.handles.get(fd)
        if found is None or found.current():
            return found
        # os.close() or a dup2 over it: the kernel was not called, but the handle is gone.
        self.forget(found)
        return None

    def forget(self, handle: Any) -> None:
        """Drop a handle whose number is closed, and wake those asleep on it."""
        self.handles.pop(handle.fd, None)
        handle.closed = True
        handle.sleepers.wake()

    def close(self, fd: int) -> int:
        """Close a handle or any other descriptor; close(2)."""
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
        """Do what fork(2) does to the child's copy."""
        self.lock = threading.RLock()
        for handle in self.handles.values():
            handle.sleepers.forget()
            handle.sleepers = Sleepers(self.lock)

    def memory(self, pointer: Any, size: int) -> Any:
        """Return ``size`` bytes of the caller's memory; None for EFAULT.

        Raises:
            AssertionError: the array is smaller than the call says. That is a defect of the
                caller, and a real kernel would read past its end.
        """
        if isinstance(pointer, (bytes, bytearray, memoryview)):
            _check_size(len(pointer), size)
            return pointer
        if pointer == self.ffi.NULL:
            return None
        kind = self.ffi.typeof(pointer)
        if kind.kind == "array":
            _check_size(self.ffi.sizeof(pointer), size)
        return self.ffi.buffer(self.ffi.cast("char *", pointer), size)


def _check_size(has: int, needs: int) -> None:
    if has < needs:
        raise AssertionError(f"the kernel reads or writes {needs} bytes of an array of {has}")


_kernels: weakref.WeakSet[SimulatedKernel] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for kernel in list(_kernels):
        kernel.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
