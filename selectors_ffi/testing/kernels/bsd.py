"""A BSD kernel or macOS: kqueue(2) and kevent(2), byte for byte in each system's layout.

The clauses K1 to K17 are facts from the systems' headers, their manual pages and the kernel
sources of FreeBSD, NetBSD, DragonFly and xnu:

K1 a registration is keyed by (ident, filter), each may be refused alone;
K2 without room for events the first failing change ends the call with -1, with room it comes back
   as an EV_ERROR event;
K3 on EINTR all changes have been applied;
K4 closing a watched descriptor removes its registrations, a duplicate does not keep them;
K5 EV_ADD of an existing registration updates it; libkqueue refuses;
K6 EV_ADD for WRITE on a pipe whose other end is gone: EPIPE, EBADF or accepted;
K7 EV_EOF comes with the filter, which is ready then;
K8 a kqueue is not inherited over fork(2);
K9 close-on-exec needs kqueuex(), kqueue1() or a second call;
K10 the order of events is unspecified;
K11 a NULL timeout blocks, a negative one is EINVAL, NetBSD sleeps in ticks;
K12 a regular file is readable while the file pointer is not at its end, and a wait ends when it has
   grown (kqueue(2), EVFILT_READ of vnodes); a terminal may be refused;
K13 NetBSD's filters are unsigned, and READ is 0;
K14 the layouts agree in their first bytes, so one record proves nothing;
K15 EVFILT_USER is of no file: NOTE_TRIGGER makes it ready, EV_CLEAR makes that end when reported;
K16 EVFILT_EXCEPT with NOTE_OOB is ready while urgent data waits (macOS, OpenBSD, DragonFly);
K17 EV_CLEAR reports what has become ready since it was last reported, and EV_ADD of an existing
   registration changes neither it nor EV_ONESHOT (``kqueue_register`` of FreeBSD and xnu). Of a regular
   file that is a new size (``filt_vfsread`` of FreeBSD, which a write calls).

Not modelled: other filters, low-water marks, pipes that can be written at both ends, a kqueue in a
kqueue, which is never ready, and what a system's own sockets, terminals and devices report. ``data`` is
the number of bytes to read, else 1, and ``fflags`` has no error of a socket. Readiness is this host's,
and so are edges, where it has epoll(7).
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
import stat
import threading
from typing import Any, Callable

from . import host
from .base import Handle
from .bsd_systems import VARIANTS, Variant
from .unix import SimulatedUnix

__all__ = ["VARIANTS", "Knote", "Kqueue", "SimulatedBSD", "Variant"]

# From the manual, and not from the cdef: a wrong constant there must not be right here.
EV_ADD = 0x0001
EV_DELETE = 0x0002
EV_ENABLE = 0x0004
EV_DISABLE = 0x0008
EV_ONESHOT = 0x0010
EV_CLEAR = 0x0020
EV_RECEIPT = 0x0040
EV_DISPATCH = 0x0080
EV_ERROR = 0x4000
EV_EOF = 0x8000
NOTE_TRIGGER = 0x01000000

_Change = tuple[int, int, int, int, int, int]


class Knote:
    """One registration (K1); ``file`` is None for EVFILT_USER."""

    def __init__(self, ident: int, filt: int, file: host.File | None) -> None:
        self.ident = ident
        self.filter = filt
        self.file = file
        self.udata = 0
        self.fflags = 0
        self.once = self.dispatch = self.disabled = False
        self.clear = self.triggered = False  # K15
        self.edges: host.Edges | None = None  # K17
        self.always = False  # whether poll(2) of the host always calls it ready
        self.size = 0
        self.reported: int | None = None  # K17: the size that was reported last

    def end(self) -> None:
        """Give back what it has of the host."""
        if self.edges is not None:
            self.edges.close()
            self.edges = None


class Kqueue(Handle):
    """A kqueue: its registrations, the longest unreported first."""

    def __init__(self, lock: threading.RLock, cloexec: bool) -> None:
        super().__init__(lock, cloexec)
        self.knotes: collections.OrderedDict[tuple[int, int], Knote] = collections.OrderedDict()


class SimulatedBSD(SimulatedUnix):
    """kqueue(2), kqueue1(2), kqueuex(2), kevent(2), poll(2), select(2) and close(2) of one system.

    ``refusals`` maps (ident, filter) to the errno with which EV_ADD fails.

    Args:
        system: a key of ``VARIANTS``.
        ffi: other declarations than the system's own, for tests of the declarations.
        options: fields of ``Variant`` that are to differ.
    """

    def __init__(self, system: str, *, ffi: Any = None, **options: Any) -> None:
        variant = dataclasses.replace(VARIANTS[system], **options)
        self.variant: Variant = variant
        self.select_symbol: str = variant.select
        self.poll_symbols: tuple[str, ...] = ("poll", "ppoll") if variant.ppoll else ("poll",)
        super().__init__(system, variant.target, ffi)

    def functions(self) -> dict[str, Callable[..., int]]:
        found = {name: getattr(self, name) for name in self.variant.makers}
        found[self.variant.kevent] = self.kevent
        found["close"] = self.close
        # libkqueue is not a kernel: it has neither of them.
        return found if self.target == "libkqueue" else {**super().functions(), **found}

    def kqueue(self) -> int:
        """Make a kqueue that exec(3) does not close, K9; kqueue(2)."""
        return self.open_handle(lambda: Kqueue(self.lock, cloexec=False))

    def kqueue1(self, flags: int) -> int:
        """Make a kqueue; O_CLOEXEC is the only flag; kqueue1(2)."""
        # The caller may take O_CLOEXEC from this host's os module.
        known = self.variant.o_cloexec | os.O_CLOEXEC
        if flags & ~known:
            return self.fail(errno.EINVAL)
        return self.open_handle(lambda: Kqueue(self.lock, cloexec=bool(flags & known)))

    def kqueuex(self, flags: int) -> int:
        """Make a kqueue; KQUEUE_CLOEXEC, 1, is the only flag; kqueuex(2)."""
        if flags & ~1:
            return self.fail(errno.EINVAL)
        return self.open_handle(lambda: Kqueue(self.lock, cloexec=bool(flags & 1)))

    def kevent(
        self, kq: int, changelist: Any, nchanges: int, eventlist: Any, nevents: int, timeout: Any
    ) -> int:
        """Apply changes, then wait for events; kevent(2)."""
        layout = self.variant.layout
        if nchanges < 0 or nevents < 0:
            return self.fail(errno.EINVAL)
        changes = self.memory(changelist, nchanges * layout.size) if nchanges else b""
        room = self.memory(eventlist, nevents * layout.size) if nevents else b""
        if changes is None or room is None:
            return self.fail(errno.EFAULT)
        with self.lock:
            queue = self.handle(kq)
            if queue is None:
                return self.fail(errno.EBADF)
            errors = 0
            for change in layout.iter_unpack(bytes(changes)):
                code = self._apply(queue, change)
                if not code and not change[2] & EV_RECEIPT:
                    continue
                if errors == nevents:
                    # K2: no room for the error; what came before stays applied.
                    queue.sleepers.wake()
                    if code:
                        return self.fail(code)
                    continue
                ident, filt, _, fflags, _, udata = change
                self._put(room, errors, (ident, filt, EV_ERROR, fflags, code, udata))
                errors += 1
            if nchanges:
                queue.sleepers.wake()
            if errors or not nevents:
                return errors
        return self._wait_for_events(queue, room, nevents, timeout)

    def _wait_for_events(self, queue: Kqueue, room: Any, nevents: int, timeout: Any) -> int:
        nanoseconds = None
        if timeout != self.ffi.NULL:
            timespec = self.variant.timespec
            seconds, fraction = timespec.unpack(self.memory(timeout, timespec.size))
            if seconds < 0 or not 0 <= fraction < 10**9:
                return self.fail(errno.EINVAL)  # K11
            nanoseconds = seconds * 10**9 + fraction
            tick = self.variant.tick
            nanoseconds = -(-nanoseconds // tick) * tick  # K11
        count = self._scan(queue, room, nevents)
        if count or nanoseconds == 0:
            return count
        deadline = host.Deadline(nanoseconds)
        with queue.sleepers.asleep() as sleep:
            while True:
                with self.lock:
                    if queue.closed or not queue.current():
                        return self.fail(errno.EBADF)
                    # K4: something closed since is gone before we look.
                    count = self._scan(queue, room, nevents)
                    wanted = self._wanted(queue)
                    files = any(knote.always for knote in queue.knotes.values())
                left = deadline.left()
                if count or left == 0:
                    return count
                if files:
                    left = host.soon(left)  # K12: nothing tells that one has grown
                if not sleep(wanted, left):
                    return self.fail(errno.EINTR)  # K3: the changes stay applied

    def _apply(self, queue: Kqueue, change: _Change) -> int:
        """Make one change; return its errno, or 0."""
        ident, filt, flags, fflags, _, udata = change
        file = None
        if filt != self.variant.user:
            oob = self.variant.oob is not None and (filt, fflags) == self.variant.oob  # K16
            known = filt in (self.variant.read, self.variant.write)
            if not (known or oob or (flags & EV_DELETE and filt == (self.variant.oob or (0,))[0])):
                return errno.EINVAL
            file = host.file_of(ident)
            if file is None:
                return errno.EBADF  # K4
        knote = queue.knotes.get((ident, filt))
        if knote is not None and knote.file != file:
            queue.knotes.pop((ident, filt)).end()  # K4
            knote = None
        if flags & EV_ADD:
            if knote is None:
                code = self._refuse(ident, filt, file)
                if code:
                    return code
                knote = Knote(ident, filt, file)
                knote.disabled = bool(flags & EV_DISABLE)
                knote.once = bool(flags & EV_ONESHOT)
                knote.clear = bool(flags & EV_CLEAR)
                code = self._follow(knote)
                if code:
                    return code
                queue.knotes[ident, filt] = knote
            elif self.variant.add_again:
                return self.variant.add_again  # K5
            # K5, K17: an update keeps the registration's place and its state.
            knote.udata = udata
            knote.fflags = fflags & ~NOTE_TRIGGER if file is None else fflags
            knote.dispatch = bool(flags & EV_DISPATCH)
        elif knote is None:
            return errno.ENOENT  # K4
        if file is None and fflags & NOTE_TRIGGER:
            knote.triggered = True  # K15
        if flags & EV_DELETE:
            queue.knotes.pop((ident, filt)).end()
        elif flags & EV_DISABLE:
            knote.disabled = True
        elif flags & EV_ENABLE:
            knote.disabled = False
        return 0

    def _follow(self, knote: Knote) -> int:
        """Find out how to look at what a registration is of; return an errno, or 0."""
        if knote.file is None:
            return 0
        knote.always = knote.file.kind == stat.S_IFREG
        if knote.clear and not knote.always:
            try:
                knote.edges = host.Edges(knote.ident, self._events(knote))
            except OSError as error:
                if error.errno in host.NONE_LEFT:
                    return errno.ENOMEM
                if error.errno != errno.EPERM:
                    raise
                knote.always = True  # a directory, or a device such as /dev/null
        return 0

    def _refuse(self, ident: int, filt: int, file: host.File | None) -> int:
        if (ident, filt) in self.refusals:
            return self.refusals[ident, filt]
        if file is None:
            return 0
        if file.kind == stat.S_IFCHR and self.variant.terminal and os.isatty(ident):
            return self.variant.terminal  # K12
        if filt != self.variant.write or file.kind != stat.S_IFIFO:
            return 0
        # K6: on Linux a write end is in error then, and a read end has hung up.
        alone = host.examine({ident: host.OUT})[ident] & (host.ERR | host.HUP)
        if not alone:
            return 0
        reads = file.access == os.O_RDONLY
        return self.variant.pipe_without_writer if reads else self.variant.pipe_without_reader

    def closed(self, fd: int) -> None:
        """Tell the kernel that ``fd`` was closed and is now a dup of the same file.

        The one close that the kernel cannot see by itself: fstat(2) sees no difference when the
        number names the same file again.
        """
        with self.lock:
            for queue in self.handles.values():
                for key in [key for key in queue.knotes if key[0] == fd]:
                    queue.knotes.pop(key).end()

    def _expire(self, queue: Kqueue) -> None:
        """K4: registrations of closed or reused descriptors vanish."""
        for key, knote in list(queue.knotes.items()):
            if knote.file is not None and host.file_of(knote.ident) != knote.file:
                queue.knotes.pop(key).end()

    def _wanted(self, queue: Kqueue) -> dict[int, int]:
        wanted: dict[int, int] = {}
        for knote in queue.knotes.values():
            # K12: a regular file is not always ready.
            if knote.disabled or not knote.file or knote.always:
                continue
            if knote.edges is not None:
                wanted[knote.edges.fd] = host.IN
            else:
                wanted[knote.ident] = wanted.get(knote.ident, 0) | self._events(knote)
        return wanted

    def _events(self, knote: Knote) -> int:
        """Return what a filter asks of the host."""
        if knote.filter == self.variant.write:
            return host.OUT
        return host.IN | host.RDHUP if knote.filter == self.variant.read else host.PRI

    def _scan(self, queue: Kqueue, room: Any, nevents: int) -> int:
        """Store what is ready; those reported go to the end of the line (K10)."""
        with self.lock:
            self._expire(queue)
            revents = host.examine(self._wanted(queue))
            knotes: list[Knote] = list(queue.knotes.values())
            if self.variant.newest_first:
                knotes.reverse()
            count = 0
            for knote in knotes:
                if count == nevents:
                    break
                bits = revents.get(knote.ident, 0)
                if knote.edges is not None and not knote.disabled:
                    bits = knote.edges.take() if revents[knote.edges.fd] else 0
                found = None if knote.disabled else self._status(knote, bits)
                if found is None:
                    continue
                flags, data = found
                flags |= EV_ONESHOT * knote.once | EV_DISPATCH * knote.dispatch | EV_CLEAR * knote.clear
                self._put(
                    room, count, (knote.ident, knote.filter, flags, knote.fflags, data, knote.udata)
                )
                count += 1
                self._reported(queue, knote)
            return count

    def _reported(self, queue: Kqueue, knote: Knote) -> None:
        key = knote.ident, knote.filter
        if knote.clear:
            knote.triggered = False  # K15
            knote.reported = knote.size
        if knote.once:
            queue.knotes.pop(key).end()
        else:
            knote.disabled = knote.dispatch
            queue.knotes.move_to_end(key, last=not self.variant.newest_first)

    def _status(self, knote: Knote, revents: int) -> tuple[int, int] | None:
        """Return (flags, data) when ready; K7: the end of the file is readiness."""
        if knote.file is None:
            return (0, 0) if knote.triggered else None
        if knote.always:
            return self._status_of_file(knote, knote.file)
        if revents & host.NVAL:
            return None
        if knote.filter not in (self.variant.read, self.variant.write):
            return (0, 1) if revents & host.PRI else None  # K16
        end = host.ERR | host.HUP
        usable = host.OUT
        if knote.filter == self.variant.read:
            end |= host.RDHUP
            usable = host.IN
        if not revents & (usable | end):
            return None
        data = 1
        if knote.filter == self.variant.read:
            bytes_left = host.unread(knote.ident)
            data = 1 if bytes_left is None else bytes_left
        return (EV_EOF if revents & end else 0), data

    def _status_of_file(self, knote: Knote, file: host.File) -> tuple[int, int] | None:
        """K12, K17: (flags, data) of what poll(2) always calls ready."""
        knote.size, position = host.extent(knote.ident)
        if knote.clear and knote.size == knote.reported:
            return None
        if knote.filter == self.variant.write:
            return 0, 0
        left = knote.size - position if file.kind == stat.S_IFREG else 1
        return (0, left) if knote.filter == self.variant.read and left > 0 else None

    def _put(self, room: Any, index: int, record: tuple[int, ...]) -> None:
        size = self.variant.layout.size
        room[index * size : (index + 1) * size] = self.variant.layout.pack(*record)

    def watched(self, fd: int) -> dict[int, int]:
        with self.lock:
            queue = self.handles[fd]
            self._expire(queue)
            found: dict[int, int] = {}
            for (ident, filt), knote in queue.knotes.items():
                if knote.file is not None:
                    bit = {self.variant.read: 1, self.variant.write: 2}.get(filt, 0)
                    found[ident] = found.get(ident, 0) | bit
            return found

    def unready(self, handle: Any) -> dict[int, int] | None:
        self._expire(handle)
        wanted = self._wanted(handle)
        revents = host.examine(wanted)
        for knote in handle.knotes.values():
            if knote.disabled:
                continue
            if knote.edges is not None:
                ready = bool(revents[knote.edges.fd])
            else:
                ready = self._status(knote, revents.get(knote.ident, 0)) is not None
            if ready:
                return None
        return wanted

    def forget(self, handle: Any) -> None:
        super().forget(handle)
        for knote in handle.knotes.values():
            knote.end()

    def after_fork_in_child(self) -> None:
        # K8: the child has no kqueue; the number is free for whatever it opens next.
        for queue in list(self.handles.values()):
            if queue.current():
                os.close(queue.fd)
            queue.closed = True
        super().after_fork_in_child()
        self.handles.clear()
