"""kqueue(2): macOS and the BSDs; on Linux libkqueue.

Facts. The kernel keys a registration by (descriptor, filter): reading and writing are two, and
either may be refused alone. With room for no events, kevent(2) applies its changes in order, stops
at the first that fails, and returns -1; those before it stay applied. Interrupted by a signal, it
has applied them all. close(2) removes the registrations of a descriptor. A kqueue is not
inherited by fork(2): in the child its number is closed, or somebody else's. libkqueue differs: it
refuses to add what it has, with the errno of a former call.

Decision. Both filters go in one call; if the second is refused, the first is taken back. Events
of one descriptor become one result, as the documentation promises. ``udata`` carries a serial, new
with each registration, so that an event of a closed and reused number is recognised.

https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
"""

from __future__ import annotations

import os
from _thread import _count as other_threads
from errno import EINTR
from itertools import count
from time import monotonic
from weakref import WeakSet

from ..binding import INT_MAX, nanoseconds
from .base import (
    EVENT_READ,
    EVENT_WRITE,
    PATIENCE,
    NativeEvent,
    SelectorKey,
    _BaseSelectorImpl,
    deadline_of,
)

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
        super().__init__(debug=debug)
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
        self._never_adds_again = binding.target == "libkqueue"
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
        try:
            os.set_inheritable(fd, False)
        except OSError:
            pass  # EBADF: the number is a simulated kernel's, not this process's
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
        additions = self._changes(self._ADD, events, serial)
        try:
            self._kevents(fd, additions)
        except OSError:
            # The first may have been applied; or, where what is there is never added again, what
            # an exception has left behind was in the way.
            deletions = self._changes(self._DELETE, events)
            deleted = [self._undo(fd, [deletion]) for deletion in deletions]
            if not (self._never_adds_again and any(deleted)):
                raise
            self._kevents(fd, additions)
        self._serial[fd] = serial
        if 2 * len(self._fd_to_key) + 2 > self._capacity:
            self._capacity *= 2
            self._idle = []

    def _remove(self, fd: int) -> None:
        # EBADF, ENOENT: close(2) has removed it.
        key = self._fd_to_key.get(fd)
        events = key.events if key else EVENT_READ | EVENT_WRITE
        self._undo(fd, self._changes(self._DELETE, events))

    def _change(self, key: SelectorKey, events: int) -> None:
        fd, serial, old = key.fd, self._serial[key.fd], key.events
        # What stays is added again, for the number may name another file now.
        changes = self._changes(self._ADD, events, serial)
        if self._never_adds_again:
            changes = self._changes(self._DELETE, old) + changes
        else:
            changes += self._changes(self._DELETE, old & ~events)
        try:
            self._kevents_or_gone(fd, changes)
        except OSError:
            before = self._changes(self._ADD, old, serial)
            self._undo(fd, self._changes(self._DELETE, events & ~old) + before)
            raise

    def _changes(self, flags: int, events: int, serial: int = 0) -> list[tuple[int, int, int]]:
        """Return a changelist for ``_kevents``, with an entry for each direction of ``events``."""
        return [(filt, flags, serial) for event, filt in self._filters if events & event]

    def _kevents_or_gone(self, fd: int, changes: list[tuple[int, int, int]]) -> None:
        """Apply a changelist; a registration that it deletes may be gone already."""
        try:
            self._kevents(fd, changes)
        except FileNotFoundError:
            if all(flags == self._ADD for _, flags, _ in changes):
                raise
            # The call stopped there, see the top.
            for change in changes:
                if change[1] == self._ADD:
                    self._kevents(fd, [change])
                else:
                    self._undo(fd, [change])

    def _undo(self, fd: int, changes: list[tuple[int, int, int]]) -> bool:
        """Apply changes; one that is refused has nothing to change, and does not stop the next.

        Returns:
            Whether none was refused.
        """
        try:
            self._kevents(fd, changes)
        except OSError:
            for change in changes if len(changes) > 1 else ():
                self._undo(fd, [change])
            return False
        return True

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
        deadline = deadline_of(timeout)
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
        found: dict[int, Pair] = {}  # in order of first appearance
        for i in range(n):
            kevent = buffer[i]
            fd, event = kevent.ident, self._events_of.get(kevent.filter, 0)
            key = self._fd_to_key.get(fd)
            if key and key.events & event and self._is_current(kevent):
                # Between two of its events a thread may have changed the key.
                found[fd] = key, (event | (found[fd][1] if fd in found else 0)) & key.events
            elif not other_threads():  # one of them may be registering it just now
                self._forget(fd, kevent.filter, event)
        self._idle.append(buffer)
        return list(found.values()), n

    def _forget(self, fd: int, filt: int, event: int) -> None:
        """Remove from the kernel what an exception that interrupted a call has left there."""
        key = self._fd_to_key.get(fd)
        if key is None or not key.events & event:
            mark = self._changer
            self._undo(fd, [(filt, self._DELETE, 0)])
            if self._changer is not mark:
                self._settle(fd)

    def close(self) -> None:
        kqfd, self._kqfd = self._kqfd, -1
        _selectors.discard(self)
        super().close()
        if kqfd >= 0:
            self._binding.close(kqfd)

    def __del__(self) -> None:
        # As the C object does that the stdlib's selector owns. A failed __init__ has no _kqfd.
        if getattr(self, "_kqfd", -1) >= 0:
            KqueueSelector.close(self)

    def _is_current(self, kevent: Any) -> bool:
        """Tell an event of a current registration from an error, or one of a former file."""
        return not kevent.flags & self._ERROR and self._serial.get(kevent.ident) == kevent.udata

    def _wait(self, timeout: float | None) -> tuple[Any, int]:
        """Wait; return (buffer, n). The buffer belongs to this call until it is put back."""
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

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        buffer, n = self._wait(timeout)
        return [
            NativeEvent(
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


if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(after_in_child=_forget_in_child)
