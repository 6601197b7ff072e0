"""The answer of a call that has waited: which descriptors it says are ready, read and written back.

An answer is a list of ``Ready``, whatever the mechanism writes it into. epoll, kqueue, /dev/poll and
ports fill an array from its beginning; poll writes ``revents`` into the array that it was given;
select has bitmaps or counted arrays. All are read and written through the declared layouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..binding import pointer_to
from .calls import sets_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from .library import Call

__all__ = ["Answer", "Ready", "answer_of"]


class Ready(NamedTuple):
    """One thing that is ready."""

    identity: Hashable
    """The same in each answer of one registration."""
    content: Any
    """What is written back."""
    level: bool
    """Whether the kernel reports it again if it is left out now."""


class Answer:
    """What a call has answered, or may answer."""

    #: Whether the kernel's answer has an order. poll's and select's has none.
    ordered = True

    def __init__(self, call: Call) -> None:
        self.call = call
        self.ffi: Any = call.binding.ffi

    def read(self, result: int) -> list[Ready]:
        """Return what is ready, in the order of the answer."""
        raise NotImplementedError

    def write(self, ready: Sequence[Ready]) -> int:
        """Make ``ready`` the answer; return the result of the call."""
        raise NotImplementedError

    def count(self, result: int) -> int:
        """Return how many events a call has brought."""
        return result

    def room(self) -> int:
        """Return how many events there is room for; 0 if the call cannot be given less."""
        return 0

    def is_full(self, result: int) -> bool:
        """Tell whether a call has brought as much as there is room for."""
        return 0 < self.room() <= self.count(result)

    def limit(self, count: int) -> None:
        """Give the call, before it is made, room for ``count`` events only."""


class Records(Answer):
    """An array that the kernel fills from its beginning: epoll, kqueue, /dev/poll, ports."""

    struct = ""
    place = 0  # of the array's length among the arguments

    def array(self) -> Any:
        """Return a pointer to the array."""
        return self.call.arguments[self.place - 1]

    def identify(self, record: Any) -> tuple[Hashable, bool]:
        """Return identity and ``level`` of a record."""
        raise NotImplementedError

    def read(self, result: int) -> list[Ready]:
        array, size = pointer_to(self.ffi, self.struct, self.array()), self.ffi.sizeof(self.struct)
        found = []
        for i in range(result):
            identity, level = self.identify(array[i])
            found.append(Ready(identity, bytes(self.ffi.buffer(array + i, size)), level))
        return found

    def write(self, ready: Sequence[Ready]) -> int:
        size = self.ffi.sizeof(self.struct)
        memory = self.ffi.buffer(pointer_to(self.ffi, "char", self.array()), size * len(ready))
        memory[:] = b"".join(one.content for one in ready)
        return len(ready)

    def room(self) -> int:
        return int(self.call.arguments[self.place])

    def limit(self, count: int) -> None:
        arguments = list(self.call.arguments)
        arguments[self.place] = count
        self.call.arguments = tuple(arguments)


class EpollAnswer(Records):
    """epoll_wait(2): struct epoll_event, known by its data."""

    struct = "struct epoll_event"
    place = 2

    def identify(self, record: Any) -> tuple[Hashable, bool]:
        return int(record.data), True  # Chaos knows which are edge-triggered


class KqueueAnswer(Records):
    """kevent(2): struct kevent, known by descriptor and filter."""

    struct = "struct kevent"
    place = 4

    def identify(self, record: Any) -> tuple[Hashable, bool]:
        constant = self.call.binding.constant
        names = ("EV_ERROR", "EV_CLEAR", "EV_ONESHOT", "EV_DISPATCH")
        level = not any(record.flags & constant(name) for name in names)
        return (int(record.ident), int(record.filter)), level


class DevpollAnswer(Records):
    """ioctl(2) DP_POLL: struct pollfd, known by descriptor."""

    struct = "struct pollfd"

    def _order(self) -> Any:
        return pointer_to(self.ffi, "struct dvpoll", self.call.arguments[2])

    def array(self) -> Any:
        return self._order().dp_fds

    def identify(self, record: Any) -> tuple[Hashable, bool]:
        return int(record.fd), True

    def room(self) -> int:
        return int(self._order().dp_nfds)

    def limit(self, count: int) -> None:
        self._order().dp_nfds = count


class PortAnswer(Records):
    """port_getn(3C): struct port_event, known by object; its number is in an argument.

    What a call leaves out stays in the queue, but what it has handed out is gone. So it may be given
    less room, and nothing is withheld.
    """

    struct = "struct port_event"
    place = 2

    def identify(self, record: Any) -> tuple[Hashable, bool]:
        return int(record.portev_object), False

    def count(self, result: int) -> int:
        return int(pointer_to(self.ffi, "unsigned int", self.call.arguments[3])[0]) if not result else 0

    def read(self, result: int) -> list[Ready]:
        return super().read(self.count(result))

    def write(self, ready: Sequence[Ready]) -> int:
        super().write(ready)
        return 0


class PollAnswer(Answer):
    """poll(2): ``revents`` in the array of all descriptors."""

    ordered = False

    def array(self) -> Any:
        """Return a pointer to the array."""
        return pointer_to(self.ffi, "struct pollfd", self.call.arguments[0])

    def read(self, result: int) -> list[Ready]:
        array, found = self.array(), []
        for i in range(int(self.call.arguments[1])):
            if array[i].fd >= 0 and array[i].revents:
                found.append(Ready((i, array[i].fd), array[i].revents, True))
        return found

    def write(self, ready: Sequence[Ready]) -> int:
        array = self.array()
        kept = {one.identity: one.content for one in ready}
        for i in range(int(self.call.arguments[1])):
            array[i].revents = kept.get((i, array[i].fd), 0)
        return len(kept)


class SelectAnswer(Answer):
    """select(2): three sets, in which a descriptor may be more than once."""

    ordered = False

    def read(self, result: int) -> list[Ready]:
        found: dict[int, list[int]] = {}
        for number, one in enumerate(sets_of(self.call)):
            for fd in one.members():
                found.setdefault(fd, []).append(number)
        return [Ready(fd, tuple(numbers), True) for fd, numbers in found.items()]

    def write(self, ready: Sequence[Ready]) -> int:
        count = 0
        for number, one in enumerate(sets_of(self.call)):
            members = [fd.identity for fd in ready if number in fd.content]
            one.write(members)
            count += len(members)
        return count


_KINDS: dict[str, type[Answer]] = {
    "epoll_wait": EpollAnswer,
    "epoll_pwait2": EpollAnswer,
    "kevent": KqueueAnswer,
    "ioctl": DevpollAnswer,
    "port_getn": PortAnswer,
    "poll": PollAnswer,
    "ppoll": PollAnswer,
    "select": SelectAnswer,
}


def answer_of(call: Call) -> Answer:
    """Return the answer of a call that waits; see ``calls.waits``."""
    return _KINDS[call.name](call)
