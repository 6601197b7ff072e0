"""Linux's epoll(7), there to check the method: the suite compares it with the real one.

E1 a registration is keyed by (descriptor, open file); E2 it lives as long as the open file does, so a
duplicate keeps it; E3 ADD of a known one is EEXIST, MOD and DEL of an unknown one ENOENT; E4 files that
this host's own epoll refuses are EPERM: directories, most regular files, and devices as /dev/null; E5
ERR and HUP come unasked; E6 ONESHOT leaves it disarmed; E7 level-triggered registrations
go to the end of the line when reported; E8 EPOLLET reports what has become ready since it was last
reported, and MOD looks anew; E9 EPOLLEXCLUSIVE goes with ADD alone, and with EPOLLIN, EPOLLOUT,
EPOLLWAKEUP and EPOLLET alone, else it is EINVAL, as is every later MOD. Edges are those of this host's
own epoll.

Not modelled: whom of several EPOLLEXCLUSIVE wakes (all), an epoll that watches another, ELOOP, the
limit of /proc/sys/fs/epoll/max_user_watches, and other processes. After a fork each has a copy of
the set: what the child unregisters the parent still hears, and E2 counts the descriptors of one
process alone.

Sources: epoll_create(2), epoll_ctl(2), epoll_wait(2), epoll(7).
"""

from __future__ import annotations

import collections
import copy
import errno
import os
import struct
import threading
from typing import Any, Callable

from ..._abi.target import current
from . import host
from .base import Handle
from .unix import SimulatedUnix

__all__ = ["Epoll", "Interest", "SimulatedLinux"]

EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
EPOLL_CTL_MOD = 3
EPOLLIN = 0x001
EPOLLOUT = 0x004
EPOLLERR = 0x008
EPOLLHUP = 0x010
EPOLLEXCLUSIVE = 1 << 28
EPOLLWAKEUP = 1 << 29
EPOLLONESHOT = 1 << 30
EPOLLET = 1 << 31
EPOLL_CLOEXEC = 0o2000000

# @ aligns as the C compiler of this host does; linux_x86 is packed.
_TIMESPEC = struct.Struct("@ll")
_LAYOUTS = {"linux": struct.Struct("@IQ"), "linux_x86": struct.Struct("=IQ")}
_EXCLUSIVE_OK = (  # E9
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE
)
_UNASKED = EPOLLERR | EPOLLHUP  # E5
_SETTINGS = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE  # they are no events
_FROM_HOST = host.IN | host.PRI | host.OUT | host.ERR | host.HUP | host.RDHUP


class Interest:
    """One registration."""

    def __init__(self) -> None:
        self.events = self.data = 0
        self.edges: host.Edges | None = None

    def ask(self, fd: int, events: int, data: int) -> None:
        """Ask for ``events`` of ``fd``, and begin to look for edges, if these are asked for (E8)."""
        edges = host.Edges(fd, events & _FROM_HOST) if events & EPOLLET else None
        self.end()
        self.events, self.data, self.edges = events, data, edges

    def end(self) -> None:
        """Give back what it has of the host."""
        if self.edges is not None:
            self.edges.close()
            self.edges = None


class Epoll(Handle):
    """An epoll instance: (descriptor, file) -> interest (E1)."""

    def __init__(self, lock: threading.RLock, cloexec: bool) -> None:
        super().__init__(lock, cloexec)
        self.interests: collections.OrderedDict[tuple[int, host.File], Interest] = (
            collections.OrderedDict()
        )


class SimulatedLinux(SimulatedUnix):
    """epoll_create1(2), epoll_ctl(2), epoll_wait(2), epoll_pwait2(2), dup3(2), poll(2), select(2).

    ``refusals`` maps a descriptor to the errno with which EPOLL_CTL_ADD fails.

    Args:
        target: "linux_x86", where struct epoll_event is packed, or "linux"; by default that of
            this processor.
        ffi: other declarations than the target's own, for tests of the declarations.
    """

    def __init__(self, target: str | None = None, *, ffi: Any = None) -> None:
        if target is None:
            target = "linux_x86" if current().machine in ("x86_64", "i386") else "linux"
        if target not in _LAYOUTS:
            raise ValueError(f"unknown target {target!r}; known: {', '.join(_LAYOUTS)}")
        self.layout: struct.Struct = _LAYOUTS[target]
        super().__init__("linux", target, ffi)

    def functions(self) -> dict[str, Callable[..., int]]:
        names = "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait2", "dup3", "close"
        return {**super().functions(), **{name: getattr(self, name) for name in names}}

    def epoll_create1(self, flags: int) -> int:
        """Make an epoll; epoll_create1(2)."""
        if flags & ~EPOLL_CLOEXEC:
            return self.fail(errno.EINVAL)
        return self.open_handle(lambda: Epoll(self.lock, bool(flags)))

    def dup3(self, oldfd: int, newfd: int, flags: int) -> int:
        """Have ``newfd`` name what ``oldfd`` names; those asleep on what it named stay; dup3(2)."""
        if oldfd == newfd or flags & ~EPOLL_CLOEXEC:
            return self.fail(errno.EINVAL)
        with self.lock:
            epoll = self.handle(oldfd)
            try:
                os.dup2(oldfd, newfd, not flags)
            except OSError as error:
                return self.fail(error.errno or 0)
            replaced = self.handles.pop(newfd, None)
            if replaced is not None:
                self._end(replaced)
            if epoll is not None:
                self.handles[newfd] = copied = copy.copy(epoll)
                copied.fd = newfd
            return newfd

    def epoll_ctl(self, epfd: int, op: int, fd: int, event: Any) -> int:
        """Add, change or remove a registration; epoll_ctl(2)."""
        self.ffi.new("int *", fd)  # an OverflowError, as from every C function
        with self.lock:
            file = host.file_of(fd)
            if file is None or host.file_of(epfd) is None:
                return self.fail(errno.EBADF)
            epoll = self.handle(epfd)
            if epoll is None or fd == epfd:
                return self.fail(errno.EINVAL)
            if not host.can_be_polled(fd, file):
                return self.fail(errno.EPERM)  # E4
            if op not in (EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD):
                return self.fail(errno.EINVAL)
            flags = data = 0
            if op != EPOLL_CTL_DEL:
                memory = self.memory(event, self.layout.size)
                if memory is None:
                    return self.fail(errno.EFAULT)
                flags, data = self.layout.unpack(bytes(memory[: self.layout.size]))
            if flags & EPOLLEXCLUSIVE and (op == EPOLL_CTL_MOD or flags & ~_EXCLUSIVE_OK):
                return self.fail(errno.EINVAL)  # E9
            known = epoll.interests.get((fd, file))
            if (known is not None) == (op == EPOLL_CTL_ADD):
                return self.fail(errno.ENOENT if known is None else errno.EEXIST)  # E3
            if op == EPOLL_CTL_DEL:
                epoll.interests.pop((fd, file)).end()
                return 0
            if known is not None and known.events & EPOLLEXCLUSIVE:
                return self.fail(errno.EINVAL)  # E9
            if known is None and fd in self.refusals:
                return self.fail(self.refusals[fd])
            interest = known or Interest()
            try:
                interest.ask(fd, flags | _UNASKED, data)
            except OSError as error:
                if error.errno not in host.NONE_LEFT:
                    raise
                return self.fail(errno.ENOMEM)
            epoll.interests[fd, file] = interest
            epoll.sleepers.wake()
            return 0

    def epoll_wait(self, epfd: int, events: Any, maxevents: int, timeout: int) -> int:
        """Wait for events; ``timeout`` in milliseconds; epoll_wait(2)."""
        nanoseconds = None if timeout < 0 else timeout * 1_000_000
        return self._wait_for_events(epfd, events, maxevents, nanoseconds)

    def epoll_pwait2(self, epfd: int, events: Any, maxevents: int, timeout: Any, sigmask: Any) -> int:
        """Wait for events, for a struct timespec; epoll_pwait2(2)."""
        nanoseconds = None
        if timeout != self.ffi.NULL:
            seconds, fraction = _TIMESPEC.unpack(bytes(self.memory(timeout, _TIMESPEC.size)))
            if seconds < 0 or not 0 <= fraction < 10**9:
                return self.fail(errno.EINVAL)
            nanoseconds = seconds * 10**9 + fraction
        return self._wait_for_events(epfd, events, maxevents, nanoseconds)

    def _wait_for_events(self, epfd: int, events: Any, maxevents: int, nanoseconds: int | None) -> int:
        with self.lock:
            epoll = self.handle(epfd)
        if epoll is None:
            return self.fail(errno.EBADF if host.file_of(epfd) is None else errno.EINVAL)
        if maxevents <= 0:
            return self.fail(errno.EINVAL)
        room = self.memory(events, maxevents * self.layout.size)
        if room is None:
            return self.fail(errno.EFAULT)
        with self.lock:
            count, _ = self._scan(epoll, room, maxevents)
        if count or nanoseconds == 0:
            return count
        deadline = host.Deadline(nanoseconds)
        with epoll.sleepers.asleep() as sleep:
            while True:
                with self.lock:
                    count, wanted = self._scan(epoll, room, maxevents)
                left = deadline.left()
                if count or left == 0:
                    return count
                if not sleep(wanted, left):
                    return self.fail(errno.EINTR)

    def _expire(self, epoll: Epoll) -> None:
        """E2: gone with the last descriptor of the open file."""
        for fd, file in list(epoll.interests):
            if host.file_of(fd) != file and not host.survivors(file):
                epoll.interests.pop((fd, file)).end()

    def _scan(self, epoll: Epoll, room: Any, maxevents: int) -> tuple[int, dict[int, int]]:
        self._expire(epoll)
        asked = {}
        wanted: dict[int, int] = {}
        for key, interest in epoll.interests.items():
            if not interest.events & ~_SETTINGS:
                continue  # E6
            if interest.edges is not None:
                wanted[interest.edges.fd] = host.IN
                asked[key] = interest.edges.fd
                continue
            fd, file = key
            through = fd if host.file_of(fd) == file else host.survivors(file)[0]
            asked[key] = through
            wanted[through] = wanted.get(through, 0) | interest.events & _FROM_HOST
        revents = host.examine(wanted)
        count = 0
        for key, through in asked.items():
            interest, found = epoll.interests[key], revents[through]
            if not found or count == maxevents:
                continue
            if interest.edges is not None:
                found = interest.edges.take()
            found &= interest.events
            if not found:
                continue
            size = self.layout.size
            room[count * size : (count + 1) * size] = self.layout.pack(found, interest.data)
            count += 1
            epoll.interests.move_to_end(key)  # E7
            if interest.events & EPOLLONESHOT:
                interest.events &= _SETTINGS  # E6
        return count, wanted

    def unready(self, handle: Any) -> dict[int, int] | None:
        _, wanted = self._scan(handle, b"", 0)
        return None if any(host.examine(wanted).values()) else wanted

    def forget(self, handle: Any) -> None:
        super().forget(handle)
        self._end(handle)

    def _end(self, handle: Any) -> None:
        """Give back what a handle has of the host, unless another one is its duplicate."""
        if not any(other.interests is handle.interests for other in self.handles.values()):
            for interest in handle.interests.values():
                interest.end()

    def watched(self, fd: int) -> dict[int, int]:
        with self.lock:
            epoll = self.handles[fd]
            self._expire(epoll)
            found: dict[int, int] = {}
            for (number, _), interest in epoll.interests.items():
                mask = bool(interest.events & EPOLLIN) | 2 * bool(interest.events & EPOLLOUT)
                found[number] = found.get(number, 0) | mask
            return found
