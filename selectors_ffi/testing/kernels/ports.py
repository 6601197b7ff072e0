"""Event ports of illumos and Solaris: port_create(3C) and its kin.

The clauses follow port_create(3C), port_associate(3C), port_get(3C), port_send(3C), and
usr/src/uts/common/fs/portfs/{port,port_fd}.c and usr/src/lib/libc/port/gen/event_port.c of illumos-gate;
nothing was observed on a running system:

V1 a port is a descriptor that exec(3) does not close; ports of other kinds of descriptor are EBADFD;
V2 port_associate of a descriptor that is not open is EBADFD, of an unknown source EINVAL;
V3 to associate again replaces mask and cookie, and takes back an event that is still queued;
V4 an association brings at most one event. It is queued as soon as the descriptor is ready, whether
   a thread waits or not, and stays queued when the descriptor is not ready any more;
V5 once retrieved, the association is inactive until port_associate; port_dissociate is ENOENT then;
V6 close(2) of the descriptor ends its association and takes back its event, a duplicate does not
   keep it;
V7 port_getn waits for ``nget`` events and returns up to ``max``, the oldest first;
V8 after the timeout it is ETIME with the events that there are, whose number is in ``nget``; with no
   time at all (``blocking`` of port_get_timeout) it is 0 with those;
V9 EINTR and a port that is closed meanwhile (EBADFD) come without events;
V10 EINVAL: ``nget`` above ``max``, no ``nget``, a time that is none; EFAULT: no list, where the manual
    says EINVAL. The time is looked at only if there are too few events;
V11 port_send queues an event of its own, which never fails but for a full port (EAGAIN);
V12 POLLERR and POLLHUP come unasked;
V13 only the process that made an association may dissociate it (EACCES); parent and child of a fork
    share a port.

Not modelled: sharing with a forked child, which has a copy here; port_alert, PORT_SOURCE_FILE and
the other sources; polling a port; resource limits but that on events. An event between two calls is
only seen if ``fire()`` is called while it is true.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from typing import TYPE_CHECKING, Any, Callable

from . import host
from .base import Handle
from .unix import SimulatedUnix

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Association", "Entry", "EventPorts", "Port"]

PORT_SOURCE_USER = 3
PORT_SOURCE_FD = 4

_PORT_EVENT = struct.Struct("@iHHNP")  # source, pad: as sys/port.h has them
_NGET = struct.Struct("=I")
_MOST_EVENTS = 65536  # V11: process.max-port-events, as it is by default
# Where errno has no such names: numbers of a kind that a caller cannot take for others.
ETIME = getattr(errno, "ETIME", errno.ETIMEDOUT)
EBADFD = getattr(errno, "EBADFD", errno.EBADF)


class Entry:
    """One watched descriptor; without a file it is never looked at."""

    def __init__(self) -> None:
        self.events = 0
        self.file: host.File | None = None


class Association(Entry):
    """A descriptor's association with a port (V3)."""

    def __init__(self, fd: int, file: host.File) -> None:
        super().__init__()
        self.fd = fd
        self.file: host.File | None = file
        self.user = 0
        self.active = False  # V5
        self.owner: int = os.getpid()  # V13


class Port(Handle):
    """A port: its associations, and its queue of (source, events, object, user)."""

    def __init__(self, lock: threading.RLock) -> None:
        super().__init__(lock, cloexec=False)  # V1
        self.associations: dict[int, Association] = {}
        self.queue: list[tuple[int, int, int, int]] = []

    def take_back(self, fd: int) -> bool:
        """Remove the queued event of a descriptor; tell whether there was one."""
        left = [event for event in self.queue if event[0] != PORT_SOURCE_FD or event[2] != fd]
        had = len(left) < len(self.queue)
        self.queue[:] = left
        return had

    def end(self, fd: int) -> None:
        """End the association of a descriptor that was closed (V6)."""
        self.take_back(fd)
        self.associations.pop(fd, None)


class EventPorts(SimulatedUnix):
    """port_create(3C), port_associate(3C), port_dissociate(3C), port_getn(3C), port_send(3C).

    ``refusals`` maps a descriptor to the errno of its driver's poll routine.
    """

    def functions(self) -> dict[str, Callable[..., int]]:
        names = "port_create", "port_associate", "port_dissociate", "port_getn", "port_send"
        return {**super().functions(), **{name: getattr(self, name) for name in names}}

    def _to_host(self, entry: Any) -> int:
        raise NotImplementedError

    def _from_host(self, entry: Any, revents: int) -> int:
        raise NotImplementedError

    def port_create(self) -> int:
        """Make a port, V1; port_create(3C)."""
        return self.open_handle(lambda: Port(self.lock))

    def _port(self, fd: int) -> Port | int:
        """Return the port with a number, or the errno that says why there is none (V1)."""
        found = self.handle(fd)
        if isinstance(found, Port):
            return found
        return errno.EBADF if host.file_of(fd) is None else EBADFD

    def port_associate(self, port: int, source: int, fd: int, events: int, user: Any) -> int:
        """Ask for one event of a descriptor; port_associate(3C)."""
        with self.lock:
            found = self._port(port)
            if isinstance(found, int):
                return self.fail(found)
            if source != PORT_SOURCE_FD:
                return self.fail(errno.EINVAL)  # V2
            file = host.file_of(fd)
            if file is None:
                found.end(fd)
                return self.fail(EBADFD)  # V2
            entry = found.associations.get(fd)
            if entry is None or entry.file != file:
                found.take_back(fd)  # V6
                entry = Association(fd, file)
            if fd in self.refusals:
                found.associations.pop(fd, None)
                return self.fail(self.refusals[fd])
            found.associations[fd] = entry
            found.take_back(fd)  # V3
            entry.events = events
            entry.user = int(self.ffi.cast("uintptr_t", user))
            entry.active = True
            self._fire(found, [entry])
            found.sleepers.wake()
            return 0

    def port_dissociate(self, port: int, source: int, fd: int) -> int:
        """Ask for no more event of a descriptor; port_dissociate(3C)."""
        with self.lock:
            found = self._port(port)
            if isinstance(found, int):
                return self.fail(found)
            if source != PORT_SOURCE_FD:
                return self.fail(errno.EINVAL)
            file = host.file_of(fd)
            if file is None:
                found.end(fd)
                return self.fail(EBADFD)
            entry = found.associations.get(fd)
            if entry is None or entry.file != file:
                return self.fail(errno.ENOENT)
            if entry.owner != os.getpid():
                return self.fail(errno.EACCES)  # V13
            del found.associations[fd]
            queued = found.take_back(fd)
            return 0 if entry.active or queued else self.fail(errno.ENOENT)  # V5

    def port_send(self, port: int, events: int, user: Any) -> int:
        """Queue an event of the program's own, V11; port_send(3C)."""
        with self.lock:
            found = self._port(port)
            if isinstance(found, int):
                return self.fail(found)
            if len(found.queue) >= _MOST_EVENTS:
                return self.fail(errno.EAGAIN)
            cookie = int(self.ffi.cast("uintptr_t", user))
            found.queue.append((PORT_SOURCE_USER, events, 0, cookie))
            found.sleepers.wake()
            return 0

    def port_getn(self, port: int, events: Any, maximum: int, nget: Any, timeout: Any) -> int:
        """Wait for events and take them; port_getn(3C)."""
        with self.lock:
            found = self._port(port)
            if isinstance(found, int):
                return self.fail(found)
            if nget == self.ffi.NULL:
                return self.fail(errno.EINVAL)  # V10
            wanted = _NGET.unpack(bytes(self.memory(nget, _NGET.size)))[0]
            if wanted > maximum:
                return self.fail(errno.EINVAL)  # V10
            if events == self.ffi.NULL:
                return self.fail(errno.EFAULT)  # V10
            self._fire(found, list(found.associations.values()))
            if len(found.queue) >= wanted:
                return self._hand_out(found, events, maximum, nget)
            try:
                nanoseconds = self._time(timeout, "struct timespec *", "tv_nsec", 1)
            except ValueError:
                return self.fail(errno.EINVAL)  # V10
        deadline = host.Deadline(nanoseconds)
        with found.sleepers.asleep() as sleep:
            while True:
                with self.lock:
                    if not found.current():
                        return self.fail(EBADFD)  # V9
                    idle = self._fire(found, list(found.associations.values()))
                    left = deadline.left()
                    if len(found.queue) >= wanted or left == 0:
                        late = len(found.queue) < wanted
                        self._hand_out(found, events, maximum, nget)
                        return self.fail(ETIME) if late and nanoseconds else 0  # V8
                if not sleep(idle, left):
                    return self.fail(errno.EINTR)  # V9

    def fire(self) -> None:
        """Queue what is ready now, as a kernel does the moment it becomes ready (V4)."""
        with self.lock:
            for handle in self.handles.values():
                if isinstance(handle, Port):
                    self._fire(handle, list(handle.associations.values()))

    def _fire(self, port: Port, entries: Iterable[Association]) -> dict[int, int]:
        """Queue the events of active associations that are ready.

        Returns:
            What to ask the host to wait for, of those that are not.
        """
        asked = []
        for entry in entries:
            if host.file_of(entry.fd) != entry.file:
                port.end(entry.fd)
            elif entry.active:
                asked.append(entry)
        wanted = {entry.fd: self._to_host(entry) for entry in asked}
        revents = self.examine(wanted)
        for entry in asked:
            found = self._from_host(entry, revents[entry.fd])  # V12
            if found:
                entry.active = False
                port.queue.append((PORT_SOURCE_FD, found, entry.fd, entry.user))
                del wanted[entry.fd]
        return wanted

    def _hand_out(self, port: Port, events: Any, maximum: int, nget: Any) -> int:
        """Write the oldest events into the caller's list (V7)."""
        taken = port.queue[:maximum]
        del port.queue[:maximum]
        if taken:
            memory = self.memory(events, maximum * _PORT_EVENT.size)
            for i, (source, flags, fd, user) in enumerate(taken):
                start = i * _PORT_EVENT.size
                record = _PORT_EVENT.pack(flags, source, 0, fd, user)
                memory[start : start + _PORT_EVENT.size] = record
        self.memory(nget, _NGET.size)[0 : _NGET.size] = _NGET.pack(len(taken))
        return 0

    def watched_by_port(self, port: Port) -> dict[int, int]:
        """Return {descriptor: flags} of what is associated, or was until its event was queued."""
        queued = {event[2] for event in port.queue if event[0] == PORT_SOURCE_FD}
        return {
            fd: entry.events
            for fd, entry in port.associations.items()
            if host.file_of(fd) == entry.file and (entry.active or fd in queued)
        }
