"""kqueue(2): macOS and the BSDs; on Linux libkqueue.

Facts.  The kernel keys a registration by (descriptor, filter): reading and writing are two, and
either may be refused alone.  With room for no events, kevent(2) applies its changes in order, stops
at the first that fails, and returns -1; those before it stay applied.  Interrupted by a signal, it
has applied them all.  close(2) removes the registrations of a descriptor.  A kqueue is not
inherited by fork(2): in the child its number is closed, or somebody else's.

Decision.  Both filters go in one call; if the second is refused, the first is taken back.  Events
of one descriptor become one result, as the documentation promises.  ``udata`` carries a serial, new
with each registration, so that an event of a closed and reused number is recognised.

https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
"""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EINTR
from itertools import count
from time import monotonic
from weakref import WeakSet

from ..binding import INT_MAX, nanoseconds
from .base import EVENT_READ, EVENT_WRITE, PATIENCE, SelectorKey, _BaseSelectorImpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .directions import Pair

__all__ = ["KqueueSelector"]

# macOS refuses a longer wait with EINVAL; so long a one is made of several.
_LONGEST_NS = 1_000_000 * 1_000_000_000
_selectors: WeakSet[KqueueSelector] = WeakSet()


class KqueueSelector(_BaseSelectorImpl):
    """Kqueue-based selector."""

    _mechanism = "kqueue"

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__()
        self._kqfd = -1
        self._binding = binding = self._bind(binding)
        self._ffi = binding.ffi
        self._kevent = binding.function("kevent")
        constant = binding.constant
        self._ADD, self._DELETE = constant("EV_ADD"), constant("EV_DELETE")
        self._ERROR = constant("EV_ERROR")
        read, write = constant("EVFILT_READ"), constant("EVFILT_WRITE")
        self._filters = ((EVENT_READ, read), (EVENT_WRITE, write))
        self._events_of = {read: EVENT_READ, write: EVENT_WRITE}
        self._serials = count(1)
        self._serial: dict[int, int] = {}
        self._largest_serial = 2 ** (8 * self._ffi.sizeof("uintptr_t")) - 1
        self._capacity = 64
        self._idle: list[Any] = []
        self._kqfd = self._open()
        _selectors.add(self)

    def _open(self) -> int:
        binding = self._binding
        if binding.has("kqueuex"):
            return binding.call(binding.function("kqueuex"), binding.constant("KQUEUE_CLOEXEC"))
        if binding.has("kqueue1"):
            return binding.call(binding.function("kqueue1"), os.O_CLOEXEC)
        fd = binding.call(binding.function("kqueue"))
        with suppress(OSError):  # EBADF: the number is a simulated kernel's, not this process's
            os.set_inheritable(fd, False)
        return fd

    def fileno(self) -> int:
        """Return the kqueue descriptor.

        Raises:
            ValueError: the selector is closed, or this is a child of the process that opened it.
        """
        if self._kqfd < 0:
            raise ValueError("I/O operation on closed selector")
        return self._kqfd

    def _add(self, fd: int, events: int) -> None:
        if fd > INT_MAX:
            raise OverflowError("Python int too large to convert to C int")
        serial = next(self._serials) & self._largest_serial
        changes = [(f, self._ADD, serial) for e, f in self._filters if events & e]
        try:
            self._kevents(fd, changes)
        except OSError:
            self._undo(fd, [(f, self._DELETE, 0) for f, _, _ in changes[:-1]])
            raise
        self._serial[fd] = serial
        if 2 * len(self._fd_to_key) + 2 > self._capacity:
            self._capacity *= 2
            self._idle = []

    def _remove(self, fd: int) -> None:
        # EBADF, ENOENT: close(2) has removed it.  Each filter is tried, whatever the other's fate.
        key = self._fd_to_key.get(fd)
        events = key.events if key else EVENT_READ | EVENT_WRITE
        self._undo(fd, [(f, self._DELETE, 0) for e, f in self._filters if events & e])

    def _change(self, key: SelectorKey, events: int) -> None:
        fd, serial = key.fd, self._serial[key.fd]
        wanted = [(f, self._ADD, serial) for e, f in self._filters if events & e]
        try:
            self._kevents(fd, wanted)
        except OSError:
            kept = [(f, self._ADD, serial) for e, f in self._filters if key.events & e]
            added = [f for e, f in self._filters if events & e and not key.events & e]
            self._undo(fd, [(f, self._DELETE, 0) for f in added] + kept)
            raise
        unwanted = [f for e, f in self._filters if key.events & e and not events & e]
        self._undo(fd, [(f, self._DELETE, 0) for f in unwanted])

    def _undo(self, fd: int, changes: list[tuple[int, int, int]]) -> None:
        """Apply each change on its own; one that is refused has nothing to change."""
        for change in changes:
            try:
                self._kevents(fd, [change])
            except OSError:
                continue

    def _kevents(self, fd: int, changes: list[tuple[int, int, int]]) -> None:
        """Apply a changelist of (filter, flags, serial); stops at the first that is refused."""
        ffi = self._ffi
        changelist = ffi.new("struct kevent[]", len(changes))
        for kevent, (filt, flags, serial) in zip(changelist, changes):
            kevent.ident = fd
            kevent.filter = filt
            kevent.flags = flags
            kevent.udata = serial
        arguments = (changelist, len(changes), ffi.NULL, 0, ffi.NULL)
        try:
            self._binding.call(self._kevent, self.fileno(), *arguments)
        except InterruptedError:
            return  # all changes have been applied, kevent(2)

    def select(self, timeout: float | None = None) -> list[Pair]:
        deadline = None if timeout is None or timeout <= 0 else monotonic() + timeout
        until = 0.0
        while True:
            result, n = self._select(timeout)
            over = timeout is not None and timeout <= 0
            if result or not n or over or (until and monotonic() > until):
                return result
            # What came is of no registration, see PATIENCE.
            until = until or monotonic() + PATIENCE
            if deadline is not None:
                timeout = deadline - monotonic()

    def _select(self, timeout: float | None) -> tuple[list[Pair], int]:
        """Wait once; return what is ready of the registered, and how many events there were."""
        buffer, n = self._wait(timeout)
        events: dict[int, int] = {}  # in order of first appearance
        for i in range(n):
            kevent = buffer[i]
            fd = kevent.ident
            if self._is_current(kevent):
                events[fd] = events.get(fd, 0) | self._events_of.get(kevent.filter, 0)
        self._idle.append(buffer)
        result = []
        for fd, ready in events.items():
            key = self._fd_to_key.get(fd)
            if key and ready & key.events:
                result.append((key, ready & key.events))
        return result, n

    def close(self) -> None:
        kqfd, self._kqfd = self._kqfd, -1
        _selectors.discard(self)
        super().close()
        if kqfd >= 0:
            self._binding.close(kqfd)

    def __del__(self) -> None:
        # As the C object does that the stdlib's selector owns.  A failed __init__ has no _kqfd.
        if getattr(self, "_kqfd", -1) >= 0:
            KqueueSelector.close(self)

    def _is_current(self, kevent: Any) -> bool:
        """Tell an event of a current registration from an error, or one of a former file."""
        return not kevent.flags & self._ERROR and self._serial.get(kevent.ident) == kevent.udata

    def _wait(self, timeout: float | None) -> tuple[Any, int]:
        """Wait; return (buffer, n).  The buffer belongs to this call until it is put back."""
        ffi, timespec, deadline = self._ffi, self._ffi.NULL, None
        if timeout is not None:
            timespec = ffi.new("struct timespec *")
            if not timeout <= 0:
                nanoseconds(timeout)  # refuses what cannot be waited for
                deadline = monotonic() + timeout
        try:
            buffer = self._idle.pop()
        except IndexError:
            buffer = ffi.new("struct kevent[]", self._capacity)
        while True:
            remaining = 0
            if deadline is not None and timeout is not None:
                remaining = nanoseconds(timeout) if timeout > 0 else 0
                now = min(remaining, _LONGEST_NS)
                timespec.tv_sec, timespec.tv_nsec = divmod(now, 1_000_000_000)
            arguments = (ffi.NULL, 0, buffer, len(buffer), timespec)
            for n in self._binding.calls(self._kevent, self.fileno(), *arguments):
                break
            if n > 0 or (n == 0 and remaining <= _LONGEST_NS):
                return buffer, n
            errno = ffi.errno if n == -1 else -n
            if n < 0 and errno != EINTR:
                self.fileno()
                raise self._binding.error(errno)
            if deadline is not None:
                timeout = deadline - monotonic()

    def _raw(self, timeout: float | None) -> list[tuple[Any, ...]]:
        buffer, n = self._wait(timeout)
        return [
            (
                self._fd_to_key.get(kevent.ident) if self._is_current(kevent) else None,
                kevent.ident,
                kevent.flags,
                kevent.fflags,
                kevent.data,
                kevent.filter,
            )
            for kevent in (buffer[i] for i in range(n))
        ]


def _forget_in_child() -> None:
    """Take from the selectors of a forked child the numbers that are not theirs; fork(2)."""
    for selector in list(_selectors):
        selector._kqfd = -1
        _selectors.discard(selector)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
