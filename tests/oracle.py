"""What a selector must answer: one model per mechanism, over a ``World``.

Each keeps what its kernel would keep. Where the outcome is not fixed by the
mechanism's documentation the model says so (``vague``) and only asks that
nothing impossible comes back.
"""

from __future__ import annotations

import errno
from selectors import EVENT_READ, EVENT_WRITE

from .world import ERR, HUP, IN, OUT, File, World

BOTH = EVENT_READ | EVENT_WRITE


class Registration:
    """One entry of the registry; ``file`` is what the kernel watches for it."""

    def __init__(self, events, data, file):
        self.events = events
        self.data = data
        self.file = file
        self.vague = False


class Oracle:
    """select(2) and poll(2): no list in the kernel, each call looks at what is open now."""

    closed_is = "ready"
    has_list = False

    def __init__(self, world: World, machine) -> None:
        self.world = world
        self.machine = machine
        self.registry: dict[int, Registration] = {}

    # -- calls: each returns the errno that the caller must see, or 0 ---------

    def register(self, fd, events, data) -> int:
        code = self.add(fd, events)
        if not code:
            self.registry[fd] = Registration(events, data, self.world.files.get(fd))
        return code

    def unregister(self, fd) -> None:
        self.remove(fd)
        del self.registry[fd]

    def modify(self, fd, events, data) -> int:
        entry = self.registry[fd]
        # Also for other data alone: the number may name another file now.
        if (events, data) != (entry.events, entry.data):
            code = self.change(fd, events)
            if code == errno.EBADF and fd not in self.world.files:
                self.unregister(fd)
            if code:
                return code
            entry.file = self.world.files.get(fd)
            entry.vague = False
        entry.events, entry.data = events, data
        return 0

    def ready(self):
        """{fd: events}, or an errno."""
        found = {}
        for fd, entry in self.registry.items():
            file = self.watched(fd, entry)
            if file is None:
                if self.closed_is == "error":
                    return errno.EBADF
                mask = entry.events if self.closed_is == "ready" else 0
            else:
                mask = self.mask(file, entry.events) & self.armed(fd, entry)
            if mask:
                found[fd] = mask
        return found

    def vague(self):
        """Descriptors of which the answer is not fixed."""
        return {fd for fd, entry in self.registry.items() if entry.vague}

    # -- the mechanism ---------------------------------------------------------

    def watched(self, fd, entry) -> File | None:
        return self.world.files.get(fd)

    def armed(self, fd, entry) -> int:
        """What the kernel really watches, of what it was asked."""
        return entry.events

    def mask(self, file, events):
        """Any bit but OUT ends a reader's wait, any but IN a writer's."""
        bits = self.world.bits(file) & (HUP | ERR | IN * (events & 1) | OUT * (events >> 1 & 1))
        return EVENT_READ * bool(bits & ~OUT) | EVENT_WRITE * bool(bits & ~IN)

    def add(self, fd, events) -> int:
        return 0

    def change(self, fd, events) -> int:
        return 0

    def remove(self, fd) -> None:
        pass

    def closing(self, fd) -> None:
        """``fd`` is being closed or replaced; called before."""

    def closed(self) -> None:
        """Something has been closed; called after."""

    def kernel(self) -> dict[int, int]:
        """What the kernel's list must be, apart from vague entries."""
        return {}


class PollOracle(Oracle):
    """poll(2): a closed descriptor is ready for whatever was asked, for ever."""


class SelectOracle(Oracle):
    """select(2): a closed descriptor makes the call fail; a hang-up is not writable."""

    closed_is = "error"

    def mask(self, file, events):
        bits = self.world.bits(file)
        return EVENT_READ * bool(bits & (IN | HUP | ERR)) | EVENT_WRITE * bool(bits & (OUT | ERR))


class EpollOracle(Oracle):
    """epoll(7): keyed by descriptor and open file; lives as long as the file."""

    has_list = True
    closed_is = "silent"

    def __init__(self, world, machine):
        super().__init__(world, machine)
        self.list: dict[tuple[int, File], int] = {}
        self.murky: set[int] = set()

    def watched(self, fd, entry):
        return entry.file if (fd, entry.file) in self.list else None

    def add(self, fd, events):
        file = self.world.files.get(fd)
        if file is None:
            return errno.EBADF
        if file.kind == "regular":
            return errno.EPERM
        self.list[fd, file] = events
        return 0

    change = add  # ENOENT is healed by adding, EEXIST by modifying

    def remove(self, fd):
        file = self.world.files.get(fd)
        self.list.pop((fd, file), None)
        entry = self.registry[fd]
        if file is not entry.file:
            # The number went back to a former file, or away: what is left may have our token.
            self.murky.add(fd)

    def closed(self):
        for key in list(self.list):
            if not self.world.is_open(key[1]):
                del self.list[key]

    def strangers(self, fd):
        """Whether the kernel still watches a former file of the number."""
        entry = self.registry.get(fd)
        return any(key[0] == fd and (entry is None or key[1] is not entry.file) for key in self.list)

    def vague(self):
        # An event of a stranger makes the selector look again at what the number names now; and
        # replace the set, if it comes again, by one that watches what every number names now.
        replaced = any(self.strangers(fd) for fd, _ in self.list)
        for fd, entry in self.registry.items():
            other = self.world.files.get(fd) is not entry.file
            if (self.strangers(fd) and (fd in self.murky or other)) or (
                replaced and other and fd in self.world.files
            ):
                entry.vague = True
                self.murky.add(fd)
        return super().vague()

    def kernel(self):
        found: dict[int, int] = {}
        for (fd, _), events in self.list.items():
            found[fd] = found.get(fd, 0) | events
        return {fd: events for fd, events in found.items() if fd not in self.murky}


class KqueueOracle(Oracle):
    """kqueue(2): keyed by the descriptor; gone when it is closed, whatever dups there are."""

    has_list = True
    closed_is = "silent"

    def __init__(self, world, machine):
        super().__init__(world, machine)
        self.list: dict[int, int] = {}

    def watched(self, fd, entry):
        return self.world.files.get(fd) if fd in self.list else None

    def armed(self, fd, entry):
        return self.list[fd]

    def mask(self, file, events):
        bits = self.world.bits(file)
        return EVENT_READ * bool(bits & (IN | HUP | ERR)) | EVENT_WRITE * bool(bits & (OUT | HUP | ERR))

    def add(self, fd, events):
        file = self.world.files.get(fd)
        if file is None:
            return errno.EBADF
        new = events & ~self.list.get(fd, 0)
        if new & EVENT_WRITE and not self.world.is_open(file.peer):
            ends = {"writer": self.machine.dead_pipe, "reader": self.machine.dead_reader}
            dead: int = ends.get(file.kind, 0)
            if dead:
                return dead
        self.list[fd] = events
        return 0

    def change(self, fd, events):
        before = self.list.get(fd, 0)
        code = self.add(fd, events)
        if code and fd in self.world.files:
            # Refused: what the registry holds is added again, to a file it may be new to.
            kept = self.registry[fd].events & (EVENT_READ | before)
            if kept:
                self.list[fd] = kept
        return code

    def remove(self, fd):
        self.list.pop(fd, None)

    closing = remove

    def kernel(self):
        return self.list


class DevpollOracle(Oracle):
    """/dev/poll: entries name numbers; what becomes of a closed one depends on the release."""

    has_list = True

    def add(self, fd, events):
        return 0 if fd in self.world.files else errno.EBADF

    change = add

    def mask(self, file, events):
        bits = self.world.bits(file)
        if file.kind == "reader" and not bits & HUP:
            bits |= OUT  # both ends of a pipe can be written
        if bits & HUP:
            bits &= ~OUT
        bits &= HUP | ERR | IN * (events & 1) | OUT * (events >> 1 & 1)
        return EVENT_READ * bool(bits & ~OUT) | EVENT_WRITE * bool(bits & ~IN)

    def closing(self, fd):
        if fd in self.registry:
            self.registry[fd].vague = True

    def kernel(self):
        return {fd: entry.events for fd, entry in self.registry.items()}


class EventportOracle(DevpollOracle):
    """Event ports: close(2) ends an association; one that was handed out is made again by the number."""


ORACLES = {
    "select": SelectOracle,
    "poll": PollOracle,
    "epoll": EpollOracle,
    "kqueue": KqueueOracle,
    "devpoll": DevpollOracle,
    "eventport": EventportOracle,
}
