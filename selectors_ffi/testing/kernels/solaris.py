"""A Solaris kernel: /dev/poll, in the layouts of illumos and of the Solaris line. See ``ports``, too.

Not modelled: edges (POLLET), DP_PPOLL, DP_EPOLLCOMPAT, and what a system's own devices report.
Readiness is this host's, translated by R1 and R2, for poll(2) and select(3C), too.

The clauses follow the drivers' sources (usr/src/uts/common/io/devpoll.c of
illumos and of the last OpenSolaris), usr/src/lib/libc/port/gen/select.c of
illumos and poll(4D); nothing was observed on a running Solaris. The letters stand for:

A layouts and numbers; O open and close of the handle; F which process owns it;
W write(2), which adds and removes; P ioctl DP_POLL, which waits; R what poll
reports per kind of object; C watched descriptors that get closed; I ioctl
DP_ISPOLLED; N a handle that is itself polled; X extensions of illumos; T threads.
"""

from __future__ import annotations

import dataclasses
import errno
import mmap
import os
import resource
import stat
import struct
import threading
from typing import Any, Callable

from . import host
from .base import Handle
from .ports import Entry, EventPorts, Port

__all__ = ["VARIANTS", "Entry", "PollSet", "SimulatedSolaris", "Variant"]

# A6: where Solaris differs from Linux the number is Solaris's.
POLLIN = 0x01
POLLPRI = 0x02
POLLOUT = 0x04
POLLERR = 0x08
POLLHUP = 0x10
POLLNVAL = 0x20
POLLRDNORM = 0x40
POLLREMOVE = 0x800
POLLONESHOT = 0x1000
POLLET = 0x2000

# A5
DP_POLL = 0xD001
DP_ISPOLLED = 0xD002

_POLLFD = struct.Struct("=ihh")  # A1
_DVPOLL = struct.Struct("@NLi")  # A3, A4: DP_POLL copies no more than this
_O_CLOEXEC = 0x800000  # A7
_TO_HOST = {POLLIN: host.IN, POLLRDNORM: host.IN, POLLPRI: host.PRI, POLLOUT: host.OUT}
_MILLISECOND = 1_000_000
_TICK = 10 * _MILLISECOND  # P3: hz is 100


@dataclasses.dataclass(frozen=True)
class Variant:
    """One system; every field is something in which systems really differ."""

    #: F1, P1, P3, W3, W6, W7: illumos as of 2026, or the Solaris line; usr/src/uts/common/io/devpoll.c
    #: of illumos-gate and of the last OpenSolaris.
    illumos: bool
    #: P1: dp_nfds at or above RLIMIT_NOFILE is refused (OpenSolaris, ``dpioctl``), or only above it
    #: (poll(4D) of Solaris 11.4); None: never (illumos).
    limit_inclusive: bool | None
    #: T2: a write waits until every DP_POLL has returned; ``dpwrite`` of OpenSolaris.
    write_waits: bool
    #: R2: both ends of a pipe can be written; pipe(2).
    bidirectional_pipes: bool = True


VARIANTS: dict[str, Variant] = {
    "illumos": Variant(illumos=True, limit_inclusive=None, write_waits=False),
    "solaris11": Variant(illumos=False, limit_inclusive=False, write_waits=True),
    "solaris10": Variant(illumos=False, limit_inclusive=True, write_waits=True),
}


def _limit() -> int:
    """RLIMIT_NOFILE; what is unlimited is a very large number."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft


class PollSet(Handle):
    """What one open of /dev/poll holds (O1)."""

    def __init__(self, lock: threading.RLock, cloexec: bool, writable: bool, owner: int) -> None:
        super().__init__(lock, cloexec)
        self.writable = writable
        self.entries: dict[int, Entry] = {}
        self.resume = 0  # P7
        self.polling: list[int] = []  # T2: the threads in DP_POLL
        # F1: a page that parent and child of a fork share, like the kernel's memory.
        self._owner = mmap.mmap(-1, mmap.PAGESIZE)
        if owner:
            self.claim(owner)

    def claim(self, process: int) -> bool:
        """F1: the first process to use the handle owns it, no other may."""
        owner = int.from_bytes(self._owner[:8], "little")
        if not owner:
            self._owner[:8] = process.to_bytes(8, "little")
            return True
        return owner == process


class SimulatedSolaris(EventPorts):
    """open(2), write(2) and ioctl(2) of /dev/poll; event ports; poll(2), select(2) and close(2).

    ``refusals`` maps a descriptor to the errno of its driver's poll routine (W11).

    Args:
        system: a key of ``VARIANTS``.
        ffi: other declarations than the system's own, for tests of the declarations.
        absent: errno of open("/dev/poll") (O2), 0 when it works.
        options: fields of ``Variant`` that are to differ.
    """

    poll_symbols: tuple[str, ...] = ("poll",)
    # U6: select(3C) is poll(2), and what has hung up or is in error is in every set.
    select_counts = tuple(bit | host.HUP | host.ERR for bit in (host.IN, host.OUT, host.PRI))

    def __init__(self, system: str, *, ffi: Any = None, absent: int = 0, **options: Any) -> None:
        self.variant: Variant = dataclasses.replace(VARIANTS[system], **options)
        self.absent = absent
        self._thread = threading.local()
        self._slots = 0
        super().__init__(system, "sunos", ffi)

    def functions(self) -> dict[str, Callable[..., int]]:
        names = "open", "write", "ioctl", "close"
        return {**super().functions(), **{name: getattr(self, name) for name in names}}

    def open(self, path: Any, flags: int, mode: int = 0) -> int:
        """Open /dev/poll, which makes an empty set; open(2)."""
        name = path if isinstance(path, bytes) else self.ffi.string(path)
        if name != b"/dev/poll":
            return self.fail(errno.ENOENT)
        if self.absent:
            return self.fail(self.absent)  # O2
        access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        cloexec = bool(flags & (_O_CLOEXEC | os.O_CLOEXEC))  # the caller may ask this host's os
        owner = 0 if self.variant.illumos else os.getpid()  # F1
        return self.open_handle(lambda: PollSet(self.lock, cloexec, access != os.O_RDONLY, owner))

    def write(self, fd: int, buffer: Any, size: int) -> int:
        """Add and remove descriptors; write(2)."""
        with self.lock:
            handle = self.handle(fd)
            if not isinstance(handle, PollSet) or not handle.writable:  # O1
                return self.fail(errno.EBADF)
            if not handle.claim(os.getpid()):
                return self.fail(errno.EACCES)  # F1
            if self.variant.write_waits:
                code = self._await_readers(handle)
                if code:
                    return self.fail(code)
            records = size // _POLLFD.size  # W1: trailing bytes are ignored, but counted
            limit = _limit()
            if records > limit and (records > 255 or not self.variant.illumos):
                return self.fail(errno.EINVAL)  # W3
            memory = self.memory(buffer, size)
            if memory is None and size:
                return self.fail(errno.EFAULT)  # W12
            content = bytes(memory[: records * _POLLFD.size]) if records else b""
            code = 0
            for number, events, _ in _POLLFD.iter_unpack(content):
                code = self._apply(handle, number, events)
                if code:
                    break  # W11: earlier entries stay applied
            handle.sleepers.wake()  # T1
            return self.fail(code) if code else size  # W2

    def _await_readers(self, handle: PollSet) -> int:
        """T2: sleep until no DP_POLL is in progress; the lock is released meanwhile.

        Our own thread does not count: a signal handler that runs inside the
        simulated ioctl would, for a real kernel, run after it.
        """
        with handle.sleepers.asleep() as sleep:
            while set(handle.polling) - {threading.get_ident()}:
                self.lock.release()
                try:
                    undisturbed = sleep({}, None)
                finally:
                    self.lock.acquire()
                if not undisturbed:
                    return errno.EINTR  # W12
                if handle.closed:
                    return errno.EBADF
        return 0

    def _apply(self, handle: PollSet, number: int, events: int) -> int:
        if not self._in_table(number):
            return 0  # W4: skipped without a word
        entry = handle.entries.get(number)
        if events == POLLREMOVE:  # W8: exactly
            # W7: illumos does not see an entry without a file, its mask survives.
            if entry is not None and (entry.file is not None or not self.variant.illumos):
                del handle.entries[number]  # W9: whatever the number names now
            return 0
        if events & POLLET:
            raise NotImplementedError("POLLET: poll(2) of the host does not show edges")
        file = host.file_of(number)
        if entry is None:
            entry = handle.entries[number] = Entry()
        # W6: nothing is done for a mask that is already there and an entry that looks alive.
        alive = entry.file is not None and (not self.variant.illumos or entry.file == file)
        if alive and entry.events == events:
            return 0
        entry.events |= events  # W5
        if file is None:
            return 0  # W7
        if number in self.refusals:
            return self.refusals[number]  # W11: left half-added
        entry.file = file
        return 0

    def _in_table(self, number: int) -> bool:
        """W4: 2^n - 1 slots, enough for the highest descriptor there ever was."""
        if number >= self._slots:
            highest = host.open_descriptors()[-1]
            self._slots = max(self._slots, (1 << (highest + 1).bit_length()) - 1)
        return 0 <= number < self._slots

    def ioctl(self, fd: int, request: int, argument: Any) -> int:
        """Wait, or ask for one descriptor; ioctl(2)."""
        with self.lock:
            handle = self.handle(fd)
            if not isinstance(handle, PollSet):
                return self.fail(errno.EBADF if handle is None else errno.ENOTTY)
            if not handle.claim(os.getpid()):
                return self.fail(errno.EACCES)  # F1
        if argument == self.ffi.NULL:
            return self.fail(errno.EFAULT)  # P10
        if request == DP_POLL:
            return self._dp_poll(handle, argument)
        if request == DP_ISPOLLED:
            return self._is_polled(handle, argument)
        return self.fail(errno.EINVAL)  # P11

    def _is_polled(self, handle: PollSet, argument: Any) -> int:
        memory = self.memory(argument, _POLLFD.size)
        number, events, _ = _POLLFD.unpack(bytes(memory))
        with self.lock:
            entry = handle.entries.get(number)
            if entry is None or entry.file is None:
                return 0  # I1, I3
            memory[0 : _POLLFD.size] = _POLLFD.pack(number, events, entry.events)  # I2
            return 1

    def _dp_poll(self, handle: PollSet, argument: Any) -> int:
        address, nfds, timeout = _DVPOLL.unpack(bytes(self.memory(argument, _DVPOLL.size)))
        limit = _limit()
        if self._too_many(nfds, limit):
            return self.fail(errno.EINVAL)
        if self.variant.illumos and nfds > 2 * limit:
            nfds = limit  # P1: clamped without a word
        # P3: only -1 is for ever on illumos, any negative number on the Solaris line.
        forever = timeout == -1 or (timeout < 0 and not self.variant.illumos)
        nanoseconds = None if forever else max(0, timeout) * _MILLISECOND
        if nanoseconds:
            nanoseconds = -(-nanoseconds // _TICK) * _TICK
        deadline = host.Deadline(nanoseconds)
        me = threading.get_ident()
        with self.lock:
            handle.polling.append(me)
        try:
            found, _ = self._look(handle, address, nfds)
            if found is not None or nanoseconds == 0:
                return found or 0  # P4
            with handle.sleepers.asleep() as sleep:
                return self._sleep(handle, address, nfds, deadline, sleep)
        finally:
            with self.lock:
                handle.polling.remove(me)
                handle.sleepers.wake()  # T2: a writer may be waiting for us

    def _too_many(self, nfds: int, limit: int) -> bool:
        """P1, and that it is looked at only when the thread's buffer has to grow."""
        if self.variant.limit_inclusive is None:
            return nfds * _POLLFD.size >= 1 << 64
        if nfds <= getattr(self._thread, "buffer", 0):
            return False
        if nfds > limit or (nfds == limit and self.variant.limit_inclusive):
            return True
        self._thread.buffer = nfds
        return False

    def _sleep(
        self,
        handle: PollSet,
        address: int,
        nfds: int,
        deadline: host.Deadline,
        sleep: Callable[[dict[int, int], int | None], bool],
    ) -> int:
        while True:
            found, wanted = self._look(handle, address, nfds)
            left = deadline.left()
            if found is not None or left == 0:
                return found or 0  # P4
            if not sleep(wanted, left):
                return self.fail(errno.EINTR)  # P12

    def _look(self, handle: PollSet, address: int, nfds: int) -> tuple[int | None, dict[int, int]]:
        """(the result of the ioctl, None to go to sleep; what to wait for)."""
        with self.lock:
            if not handle.current():
                return self.fail(errno.EBADF), {}  # T3
            if not nfds:
                return None, {}  # P2: without room nothing is looked at
            ready, wanted = self._examine(handle)
            return self._store(handle, address, nfds, ready) if ready else None, wanted

    def _store(self, handle: PollSet, address: int, nfds: int, ready: dict[int, int]) -> int:
        if not address:
            return self.fail(errno.EFAULT)  # P10
        numbers = sorted(ready)  # P7
        numbers = [n for n in numbers if n >= handle.resume] + [n for n in numbers if n < handle.resume]
        stored = numbers[:nfds]
        handle.resume = stored[-1] + 1 if len(stored) == nfds else 0
        results = self.ffi.cast("char *", address)
        for index, number in enumerate(stored):
            room = self.ffi.buffer(results + index * _POLLFD.size, _POLLFD.size)
            entry = handle.entries[number]
            events = entry.events
            if ready[number] == POLLNVAL:
                events = _POLLFD.unpack(bytes(room))[1]  # P9: whatever was there
            elif events & POLLONESHOT:
                entry.events = POLLONESHOT  # X1
            room[0 : _POLLFD.size] = _POLLFD.pack(number, events, ready[number])  # P5
        return len(stored)

    def _examine(self, handle: PollSet) -> tuple[dict[int, int], dict[int, int]]:
        """({descriptor: revents}, what to ask the host to wait for)."""
        ready: dict[int, int] = {}
        asked: list[tuple[int, int, Entry]] = []  # through which descriptor, for which
        for number, entry in handle.entries.items():
            if entry.file is None or entry.events == POLLONESHOT:
                continue  # W7, X1
            now = host.file_of(number)
            if now == entry.file:
                asked.append((number, number, entry))
                continue
            alive = host.survivors(entry.file)
            if now is not None and (self.variant.illumos or not alive):
                entry.file = now  # C4, C6: the old mask, applied to the new file
                asked.append((number, number, entry))
            elif alive:
                # C3, W6: not looked at until the surviving object becomes active.
                asked.append((alive[0], number, entry))
            else:
                ready[number] = POLLNVAL  # C2
        wanted: dict[int, int] = {}
        for through, _, entry in asked:
            wanted[through] = wanted.get(through, 0) | self._to_host(entry)
        revents = self.examine(wanted)
        for through, number, entry in asked:
            found = self._from_host(entry, revents[through])
            if not found:
                continue
            if through == number:
                ready[number] = found
            elif host.file_of(number) is None:
                ready[number] = POLLNVAL  # C3
            else:
                entry.file = host.file_of(number)
        return ready, wanted

    def examine(self, wanted: dict[int, int]) -> dict[int, int]:
        found = super().examine(wanted)
        for fd, events in wanted.items():
            if self._is_poll_set(fd):
                found[fd] = host.ERR  # N1: at once, always
                continue
            file = host.file_of(fd)
            pipe = file is not None and file.kind == stat.S_IFIFO
            if pipe and found[fd] & host.ERR:
                # R1: a pipe whose other end is gone hangs up, it has no error.
                found[fd] = found[fd] & ~host.ERR | host.HUP
            reads = file is not None and file.access == os.O_RDONLY
            if found[fd] & host.HUP:
                found[fd] &= ~host.OUT  # R1
            elif pipe and reads and self.variant.bidirectional_pipes:
                found[fd] |= host.OUT & events  # R2
        return found

    def _inner(self, wanted: dict[int, int]) -> dict[int, dict[int, int] | None]:
        return super()._inner({fd: wanted[fd] for fd in wanted if not self._is_poll_set(fd)})

    def _is_poll_set(self, fd: int) -> bool:
        with self.lock:
            return isinstance(self.handle(fd), PollSet)

    def _to_host(self, entry: Entry) -> int:
        events = 0
        for bit, native in _TO_HOST.items():
            if entry.events & bit:
                events |= native
        return events

    def _from_host(self, entry: Entry, revents: int) -> int:
        if revents & host.NVAL:
            return 0  # closed this very moment: the next look tells
        found = 0
        for bit, native in _TO_HOST.items():
            if revents & native:
                found |= bit & entry.events
        if revents & host.HUP:
            found |= POLLHUP
        if revents & host.ERR:
            found |= POLLERR
        return found

    def watched(self, fd: int) -> dict[int, int]:
        with self.lock:
            handle = self.handles[fd]
            if isinstance(handle, Port):
                masks = self.watched_by_port(handle)
            else:
                masks = {n: one.events for n, one in handle.entries.items() if one.file is not None}
            found = {}
            for number, events in masks.items():
                mask = (1 if events & POLLIN else 0) | (2 if events & POLLOUT else 0)
                if mask:
                    found[number] = mask
            return found
