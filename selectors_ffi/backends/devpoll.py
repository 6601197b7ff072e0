"""/dev/poll: illumos and Oracle Solaris.

Facts. write(2) of struct pollfd changes a set that the kernel keeps; masks are OR-ed into what is
there, so that a smaller one must remove the entry first. A closed descriptor is accepted without
a word; one that is closed later is reported as POLLNVAL on every call. The handle belongs to the
process that first used it. On Oracle's line a write waits until no call is sleeping. The
``events`` of a result are stale; more entries asked for than RLIMIT_NOFILE are refused.

Decision. A change is written at once, always remove-and-add in one write, after a look whether
the descriptor is open: an error surfaces where it was caused. What is POLLNVAL is removed, not
returned. Where there are threads, a call that sleeps also watches a pipe; a write wakes it
through that, and a lock keeps it from sleeping again before the write is through.

https://illumos.org/man/4D/poll
"""

from __future__ import annotations

import os
from _thread import RLock
from _thread import _count as other_threads
from errno import EACCES, EINTR, EIO
from time import monotonic

from ..binding import milliseconds
from .base import EVENT_READ, PATIENCE, NativeEvent, SelectorKey, _BaseSelectorImpl, deadline_of
from .directions import Directions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding
    from .directions import Pair

__all__ = ["DevpollSelector"]


class DevpollSelector(_BaseSelectorImpl):
    """Solaris /dev/poll selector."""

    _mechanism = "devpoll"

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__(debug=debug)
        self._devpollfd = -1
        self._binding = binding = self._bind(binding)
        self._ffi = binding.ffi
        constant = binding.constant
        self._DP_POLL, self._REMOVE = constant("DP_POLL"), constant("POLLREMOVE")
        self._NVAL = constant("POLLNVAL")
        read, write = constant("POLLIN"), constant("POLLOUT")
        self._flags = (0, read, write, read | write)
        self._directions = Directions(read, write)
        self._write = binding.function("write")
        self._ioctl = binding.function("ioctl")
        self._lock = RLock()  # held by who writes: nobody goes to sleep meanwhile
        self._asleep: list[None] = []
        self._wake_read = self._wake_write = -1
        open_flags = os.O_RDWR | os.O_CLOEXEC
        self._devpollfd = binding.call(binding.function("open"), b"/dev/poll", open_flags)

    def fileno(self) -> int:
        """Return the /dev/poll descriptor. It cannot itself be watched: POLLERR, poll(4D).

        Raises:
            ValueError: the selector is closed.
        """
        if self._devpollfd < 0:
            raise ValueError("I/O operation on closed selector")
        return self._devpollfd

    def _add(self, fd: int, events: int) -> None:
        self.fileno()
        os.get_inheritable(fd)  # raises for a closed descriptor, which the driver would accept
        try:
            self._update([(fd, self._REMOVE), (fd, self._flags[events])])
        except OSError:
            self._discard(fd)
            raise

    def _remove(self, fd: int) -> None:
        self.fileno()
        self._discard(fd)

    def _change(self, key: SelectorKey, events: int) -> None:
        os.get_inheritable(key.fd)
        try:
            self._update([(key.fd, self._REMOVE), (key.fd, self._flags[events])])
        except OSError:
            # After a refused write the state is unknown: write what the registry holds.
            try:
                self._update([(key.fd, self._REMOVE), (key.fd, self._flags[key.events])])
            except OSError:
                pass  # the same refusal; it is the first that the caller sees
            raise

    def _discard(self, fd: int) -> None:
        try:
            self._update([(fd, self._REMOVE)])
        except OSError:
            pass  # refused in a forked child, whose set it is not; nothing to remove then

    def _forget(self, fd: int) -> None:
        """Remove from the kernel what an exception that interrupted a call has left there."""
        mark = self._changer
        self._discard(fd)
        if self._changer is not mark:
            self._settle(fd)

    def _update(self, entries: list[tuple[int, int]]) -> None:
        """Write (fd, flags) entries, applied in order; write(2)."""
        array = self._ffi.new("struct pollfd[]", [(fd, flags, 0) for fd, flags in entries])
        size = self._ffi.sizeof(array)
        with self._lock:
            if self._asleep and self._wake_write >= 0:
                try:
                    os.write(self._wake_write, b"\0")
                except BlockingIOError:
                    pass  # the pipe is full of wake-ups
            while True:
                try:
                    written = self._binding.call(self._write, self.fileno(), array, size)
                except InterruptedError:
                    continue  # nothing has been applied
                except OSError as error:
                    raise self._explained(error) from None
                break
        if written != size:
            raise OSError(EIO, f"{os.strerror(EIO)}: wrote {written} of {size} bytes to /dev/poll")

    def _explained(self, error: OSError) -> OSError:
        if error.errno == EACCES:
            error = OSError(EACCES, f"{error.strerror}: /dev/poll was opened in another process")
        return error

    def select(self, timeout: float | None = None) -> list[Pair]:
        deadline = deadline_of(timeout)
        until = 0.0
        while True:
            found = self._native(timeout)
            result = []
            for key, _, flags, *_ in found:
                events = self._directions[flags] & key.events if key else 0
                if key and events:
                    result.append((key, events))
            over = timeout is not None and timeout <= 0
            if result or not found or over or (until and monotonic() > until):
                return result
            # What came is of no registration, see PATIENCE.
            until = until or monotonic() + PATIENCE
            if deadline is not None:
                timeout = deadline - monotonic()

    def close(self) -> None:
        devpollfd, self._devpollfd = self._devpollfd, -1
        super().close()
        with self._lock:  # not under a thread that is about to make or use the pipe
            for fd in (self._wake_read, self._wake_write):
                if fd >= 0:
                    os.close(fd)
            self._wake_read = self._wake_write = -1
        if devpollfd >= 0:
            self._binding.close(devpollfd)

    def __del__(self) -> None:
        # As the C object does that the stdlib's selector owns. A failed __init__ has no number.
        if getattr(self, "_devpollfd", -1) >= 0:
            DevpollSelector.close(self)

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        """Wait; return (key or None, fd, flags, 0, 0) per event."""
        deadline = None
        if timeout is not None and not timeout <= 0:
            milliseconds(timeout)  # refuses what cannot be waited for
            deadline = monotonic() + timeout
        while True:
            ms = -1 if timeout is None else 0
            if deadline is not None and timeout is not None:
                ms = milliseconds(timeout) if timeout > 0 else 0
            buffer, n = self._wait(ms)
            events = []
            for i in range(n):
                fd, flags = buffer[i].fd, buffer[i].revents
                if fd == self._wake_read:
                    self._hush()
                elif flags & self._NVAL:
                    self._discard(fd)
                else:
                    key = self._fd_to_key.get(fd)
                    if key is None and not other_threads():  # one may be registering it just now
                        self._forget(fd)
                    events.append(NativeEvent(key, fd, flags))
            if events or n == 0 or (ms == 0 and n > 0):
                return events
            if deadline is not None:
                timeout = deadline - monotonic()

    def _wait(self, ms: int) -> tuple[Any, int]:
        """Call once; return (array of struct pollfd, n), n = -1 if a signal ended the wait."""
        import resource  # not on Windows, where this module can be imported all the same

        if ms != 0 and self._wake_write < 0 and other_threads() > 0:
            self._make_waker()
        # Above the limit of the moment it is EINVAL, on some releases at the limit already; with
        # no entry at all it would sleep and look at nothing.
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = len(self._fd_to_key) + 1
        nfds = wanted if soft < 0 else max(1, min(wanted, soft - 1))
        buffer = self._ffi.new("struct pollfd[]", nfds)
        fields = {"dp_fds": buffer, "dp_nfds": nfds, "dp_timeout": ms}
        dvpoll = self._ffi.new("struct dvpoll *", fields)
        with self._lock:
            self._asleep.append(None)
        try:
            for n in self._binding.calls(self._ioctl, self.fileno(), self._DP_POLL, dvpoll):
                break
            errno = self._ffi.errno if n == -1 else -n
        finally:
            self._asleep.pop()
        if n < 0 and errno != EINTR:
            self.fileno()
            raise self._explained(self._binding.error(errno))
        return buffer, max(n, -1)

    def _make_waker(self) -> None:
        """Have a pipe watched by which ``_update`` ends a sleep in another thread."""
        with self._lock:
            if self._wake_write < 0:
                reader, writer = os.pipe()
                try:
                    os.set_blocking(reader, False)
                    os.set_blocking(writer, False)
                    self._update([(reader, self._flags[EVENT_READ])])
                except BaseException:
                    os.close(reader)
                    os.close(writer)
                    raise
                self._wake_read, self._wake_write = reader, writer

    def _hush(self) -> None:
        """Take the wake-ups out of the pipe."""
        with self._lock:
            try:
                if self._wake_read >= 0:
                    os.read(self._wake_read, 4096)
            except BlockingIOError:
                pass  # another thread was faster
