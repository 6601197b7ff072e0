"""A BSD kernel: kqueue(2) and kevent(2), byte for byte in each system's layout.

The clauses K1 to K15 are these facts, taken from the systems' headers, their
manual pages and the kernel sources of FreeBSD, NetBSD and xnu:

K1 a registration is keyed by (ident, filter), each may be refused alone;
K2 without room for events the first failing change ends the call with -1,
   with room it comes back as an EV_ERROR event;
K3 on EINTR all changes have been applied;
K4 closing a watched descriptor removes its registrations, a dup does not help;
K5 EV_ADD of an existing registration updates it; libkqueue refuses, with a
   former call's errno;
K6 EV_ADD for WRITE on a pipe without reader: EPIPE, EBADF or accepted;
K7 EV_EOF comes with the filter, which is ready then;
K8 a kqueue is not inherited over fork(2);
K9 close-on-exec needs kqueuex(), kqueue1() or a second call;
K10 the order of events is unspecified;
K11 a NULL timeout blocks, a negative one is EINVAL, NetBSD sleeps in ticks;
K12 a regular file at its end is not readable; a terminal may be refused;
K13 NetBSD's filters are unsigned, and READ is 0;
K14 the layouts agree in their first bytes, so one record proves nothing.

The layouts are written down here a second time, from the headers, not taken
from the package's declarations: a wrong declaration shows as garbage.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
import stat
import struct
from typing import Any, Callable

from . import host
from .base import Handle, SimulatedKernel

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

# N and n are uintptr_t and intptr_t; @ and 0q align as the C compiler of this host does.
_TIMESPEC = struct.Struct("@ql0q")
_TIMESPEC_LONG = struct.Struct("@ll")
# ident, filter, flags, fflags, data, udata [, ext[4]]
_PLAIN = struct.Struct("@NhHInN")
_PLAIN_INT64 = struct.Struct("@NhHIqN0q")
_EXTENDED = struct.Struct("@NhHIqN0q32x")
_NETBSD = struct.Struct("@NIIIqN0q")
_NETBSD_EXTENDED = struct.Struct("@NIIIqN0q32x")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One system; every field is something in which systems really differ."""

    target: str
    kevent: str = "kevent"
    layout: struct.Struct = _PLAIN
    timespec: struct.Struct = _TIMESPEC
    read: int = -1
    write: int = -2
    makers: tuple[str, ...] = ("kqueue",)
    o_cloexec: int = 0
    dead_pipe: int = 0
    terminal: int = 0
    newest_first: bool = False
    add_again: int = 0
    tick: int = 1


VARIANTS: dict[str, Variant] = {
    variant.target: variant
    for variant in (
        Variant(
            "freebsd",
            layout=_EXTENDED,
            makers=("kqueuex", "kqueue1", "kqueue"),
            o_cloexec=0x100000,
            dead_pipe=errno.EPIPE,
        ),
        Variant("freebsd11", dead_pipe=errno.EPIPE),
        Variant(
            "netbsd",
            kevent="__kevent50",
            layout=_NETBSD,
            read=0,
            write=1,
            makers=("kqueue1", "kqueue"),
            o_cloexec=0x400000,
            dead_pipe=errno.EBADF,
            newest_first=True,
            tick=10_000_000,
        ),
        Variant(
            "netbsd11",
            kevent="__kevent100",
            layout=_NETBSD_EXTENDED,
            read=0,
            write=1,
            makers=("kqueue1", "kqueue"),
            o_cloexec=0x400000,
            dead_pipe=errno.EBADF,
            newest_first=True,
            tick=10_000_000,
        ),
        Variant("openbsd", layout=_PLAIN_INT64, makers=("kqueue1", "kqueue"), o_cloexec=0x10000),
        Variant("dragonfly", timespec=_TIMESPEC_LONG, dead_pipe=errno.EPIPE),
        Variant("darwin", timespec=_TIMESPEC_LONG, terminal=errno.EINVAL),
        Variant("libkqueue", timespec=_TIMESPEC_LONG, add_again=errno.EINVAL),
    )
}


class Knote:
    """One registration (K1)."""

    def __init__(self, ident: int, filt: int, file: host.File) -> None:
        self.ident = ident
        self.filter = filt
        self.file = file
        self.udata = 0
        self.fflags = 0
        self.once = self.dispatch = self.disabled = False


class Kqueue(Handle):
    """A kqueue: its registrations, the longest unreported first."""

    def __init__(self, lock: Any, cloexec: bool) -> None:
        super().__init__(lock, cloexec)
        self.knotes: collections.OrderedDict[tuple[int, int], Knote] = collections.OrderedDict()


class SimulatedBSD(SimulatedKernel):
    """kqueue(2), kqueue1(2), kqueuex(2), kevent(2) and close(2) of one system.

    ``refusals`` maps (ident, filter) to the errno with which EV_ADD fails.
    ``options`` override single fields of the variant.
    """

    def __init__(self, system: str, *, ffi: Any = None, **options: Any) -> None:
        self.variant = dataclasses.replace(VARIANTS[system], **options)
        super().__init__(self.variant.target, ffi)

    def functions(self) -> dict[str, Callable[..., int]]:
        found = {name: getattr(self, name) for name in self.variant.makers}
        found[self.variant.kevent] = self.kevent
        found["close"] = self.close
        return found

    # K9: three ways to make one, only two of which can set close-on-exec.
    def kqueue(self) -> int:
        return self._make(cloexec=False)

    def kqueue1(self, flags: int) -> int:
        # The caller may take O_CLOEXEC from this host's os module.
        known = self.variant.o_cloexec | os.O_CLOEXEC
        if flags & ~known:
            return self.fail(errno.EINVAL)
        return self._make(cloexec=bool(flags & known))

    def kqueuex(self, flags: int) -> int:
        if flags & ~1:
            return self.fail(errno.EINVAL)
        return self._make(cloexec=bool(flags & 1))

    def _make(self, cloexec: bool) -> int:
        with self.lock:
            try:
                made = Kqueue(self.lock, cloexec)
            except OSError as error:
                return self.fail(error.errno or 0)
            self.handles[made.fd] = made
            return made.fd

    def kevent(
        self, kq: int, changelist: Any, nchanges: int, eventlist: Any, nevents: int, timeout: Any
    ) -> int:
        """kevent(2)."""
        layout = self.variant.layout
        if nchanges < 0 or nevents < 0:
            return self.fail(errno.EINVAL)
        changes = self.bytes_at(changelist, nchanges * layout.size) if nchanges else b""
        room = self.bytes_at(eventlist, nevents * layout.size) if nevents else b""
        if changes is None or room is None:
            return self.fail(errno.EFAULT)
        with self.lock:
            queue = self.handle(kq)
            if queue is None:
                return self.fail(errno.EBADF)
            self._expire(queue)
            errors = 0
            for change in layout.iter_unpack(bytes(changes)):
                code = self._apply(queue, *change)
                if not code and not change[2] & EV_RECEIPT:
                    continue
                if errors == nevents:
                    # K2: no room for the error; what came before stays applied.
                    queue.sleepers.ring()
                    if code:
                        return self.fail(code)
                    continue
                ident, filt, _, fflags, _, udata = change
                self._put(room, errors, (ident, filt, EV_ERROR, fflags, code, udata))
                errors += 1
            if nchanges:
                queue.sleepers.ring()
            if errors or not nevents:
                return errors
        return self._wait(queue, room, nevents, timeout)

    def _wait(self, queue: Kqueue, room: Any, nevents: int, timeout: Any) -> int:
        nanoseconds = None
        if timeout != self.ffi.NULL:
            timespec = self.variant.timespec
            seconds, fraction = timespec.unpack(self.bytes_at(timeout, timespec.size))
            if seconds < 0 or not 0 <= fraction < 10**9:
                return self.fail(errno.EINVAL)  # K11
            nanoseconds = seconds * 10**9 + fraction
            tick = self.variant.tick
            nanoseconds = -(-nanoseconds // tick) * tick  # K11
        count = self._scan(queue, room, nevents)
        if count or nanoseconds == 0:
            return count
        deadline = host.Deadline(nanoseconds)
        with queue.sleepers.bell() as bell:
            while True:
                with self.lock:
                    if queue.closed or not queue.current():
                        return self.fail(errno.EBADF)
                    # K4: something closed since is gone before we look.
                    count = self._scan(queue, room, nevents)
                    wanted = self._wanted(queue)
                left = deadline.left()
                if count or left == 0:
                    return count
                wanted[bell] = host.IN
                if not host.sleep(wanted, left):
                    return self.fail(errno.EINTR)  # K3: the changes stay applied
                queue.sleepers.silence(bell)

    def _apply(
        self, queue: Kqueue, ident: int, filt: int, flags: int, fflags: int, data: int, udata: int
    ) -> int:
        """One change; its errno, or 0."""
        if filt not in (self.variant.read, self.variant.write):
            return errno.EINVAL
        if flags & EV_CLEAR:
            raise NotImplementedError("EV_CLEAR: poll(2) of the host does not show edges")
        file = host.file_of(ident)
        if file is None:
            return errno.EBADF  # K4
        knote = queue.knotes.get((ident, filt))
        if flags & EV_ADD:
            if knote is None:
                code = self._refuse(ident, filt, file)
                if code:
                    return code
                knote = queue.knotes[ident, filt] = Knote(ident, filt, file)
                knote.disabled = bool(flags & EV_DISABLE)
            elif self.variant.add_again:
                return self.variant.add_again  # K5
            # K5: an update keeps the registration's place and its state.
            knote.udata = udata
            knote.fflags = fflags
            knote.once = bool(flags & EV_ONESHOT)
            knote.dispatch = bool(flags & EV_DISPATCH)
        elif knote is None:
            return errno.ENOENT  # K4
        if flags & EV_DELETE:
            del queue.knotes[ident, filt]
        elif flags & EV_DISABLE:
            knote.disabled = True
        elif flags & EV_ENABLE:
            knote.disabled = False
        return 0

    def _refuse(self, ident: int, filt: int, file: host.File) -> int:
        if (ident, filt) in self.refusals:
            return self.refusals[ident, filt]
        if file.kind == stat.S_IFCHR and self.variant.terminal and os.isatty(ident):
            return self.variant.terminal  # K12
        pipe_to_write = filt == self.variant.write and file.kind == stat.S_IFIFO
        if pipe_to_write and host.examine({ident: host.OUT})[ident] & host.ERR:
            return self.variant.dead_pipe  # K6
        return 0

    def closed(self, fd: int) -> None:
        """Tell the kernel that ``fd`` was closed and is now a dup of the same file.

        The one close that the kernel cannot see by itself: fstat(2) tells
        nothing apart when the number names the same file again.
        """
        with self.lock:
            for queue in self.handles.values():
                for key in [key for key in queue.knotes if key[0] == fd]:
                    del queue.knotes[key]

    def _expire(self, queue: Kqueue) -> None:
        """K4: registrations of closed or reused descriptors vanish."""
        for key, knote in list(queue.knotes.items()):
            if host.file_of(knote.ident) != knote.file:
                del queue.knotes[key]

    def _wanted(self, queue: Kqueue) -> dict[int, int]:
        wanted: dict[int, int] = {}
        for knote in queue.knotes.values():
            # poll(2) always calls a regular file ready; K12 says otherwise.
            if not knote.disabled and knote.file.kind != stat.S_IFREG:
                events = host.OUT if knote.filter == self.variant.write else host.IN | host.RDHUP
                wanted[knote.ident] = wanted.get(knote.ident, 0) | events
        return wanted

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
                found = None if knote.disabled else self._status(knote, revents.get(knote.ident, 0))
                if found is None:
                    continue
                flags, data = found
                flags |= EV_ONESHOT * knote.once | EV_DISPATCH * knote.dispatch
                self._put(
                    room, count, (knote.ident, knote.filter, flags, knote.fflags, data, knote.udata)
                )
                count += 1
                key = knote.ident, knote.filter
                if knote.once:
                    del queue.knotes[key]
                else:
                    knote.disabled = knote.dispatch
                    queue.knotes.move_to_end(key, last=not self.variant.newest_first)
            return count

    def _status(self, knote: Knote, revents: int) -> tuple[int, int] | None:
        """(flags, data) when ready; K7: the end of the file is readiness."""
        if knote.file.kind == stat.S_IFREG:
            if knote.filter == self.variant.write:
                return 0, 0
            left = os.fstat(knote.ident).st_size - os.lseek(knote.ident, 0, os.SEEK_CUR)
            return (0, left) if left > 0 else None
        if revents & host.NVAL:
            return None
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

    def _put(self, room: Any, index: int, record: tuple[int, ...]) -> None:
        size = self.variant.layout.size
        room[index * size : (index + 1) * size] = self.variant.layout.pack(*record)

    def watched(self, fd: int) -> dict[int, int]:
        with self.lock:
            queue = self.handles[fd]
            self._expire(queue)
            found: dict[int, int] = {}
            for ident, filt in queue.knotes:
                bit = 1 if filt == self.variant.read else 2
                found[ident] = found.get(ident, 0) | bit
            return found

    def after_fork_in_child(self) -> None:
        # K8: the child has no kqueue; the number is free for whatever it opens next.
        for queue in list(self.handles.values()):
            if queue.current():
                os.close(queue.fd)
            queue.closed = True
        super().after_fork_in_child()
        self.handles.clear()
