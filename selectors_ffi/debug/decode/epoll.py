"""epoll(7): epoll_create1, epoll_ctl, epoll_wait, epoll_pwait, epoll_pwait2, and dup3."""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, Any

from ...binding import pointer_to
from .form import FlagsAlone, Form, Native
from .grammar import ELLIPSIS_AFTER, Bits, Names, array, is_null, struct, timeval
from .vocabulary import EPOLL_CREATE, EPOLL_EVENTS, EPOLL_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FORMS", "Create", "Control", "Move", "Wait", "event_bits"]

_FD = 0xFFFF_FFFF
_EVENT = "struct epoll_event"
_TIMESPEC = "struct timespec *"


def event_bits(ffi: Any) -> Bits:
    """Return the names of ``epoll_event.events``."""
    return Bits.of(ffi, EPOLL_EVENTS)


class Create(FlagsAlone):
    """``epoll_create1(EPOLL_CLOEXEC)``."""

    names: Iterable[str] = EPOLL_CREATE


class Move(Form):
    """``dup3(7, 5, O_CLOEXEC)``."""

    replaces = remembers = True

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        oldfd, newfd, flags = (int(argument) for argument in arguments)
        return [str(oldfd), str(newfd), "O_CLOEXEC" if flags == os.O_CLOEXEC else hex(flags)]


class _Events(Form):
    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.bits: Bits = event_bits(ffi)
        self.hangup: int = self.bits.of_names("EPOLLERR", "EPOLLHUP", "EPOLLRDHUP")
        size: int = ffi.sizeof(_EVENT)
        self.size: int = size
        offset = ffi.offsetof(_EVENT, "data")
        # A struct reads the events of a wait ten times faster than cffi does, field by field.
        self.unpack: Callable[..., Iterator[tuple[Any, ...]]] = Struct(
            f"=I{offset - 4}xQ{size - offset - 8}x"
        ).iter_unpack

    def copy(self, events: Any, count: int) -> bytes:
        """Return the bytes of ``count`` events."""
        if isinstance(events, (bytes, bytearray, memoryview)):
            return bytes(events[: count * self.size])
        return bytes(self.ffi.buffer(self.ffi.cast("char *", events), count * self.size))

    def render(self, event: Any) -> str:
        return struct(events=self.bits(int(event.events)), data=hex(token(event)))


def token(event: Any) -> int:
    """Return the 64 bits of ``data``, declared as an integer or as the union it is in C."""
    data = event.data
    return int(getattr(data, "u64", data))


class Control(_Events):
    """``epoll_ctl(6, EPOLL_CTL_ADD, 22, {events=EPOLLIN, data=0x16})``."""

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.operation: Names = Names.of(ffi, EPOLL_OPERATIONS)
        self.delete: int = int(ffi.integer_const("EPOLL_CTL_DEL"))

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        epfd, operation, fd, event = arguments
        text = "NULL"
        if not is_null(self.ffi, event):
            text = self.render(pointer_to(self.ffi, _EVENT, event)[0])
        return [str(int(epfd)), self.operation(int(operation)), str(int(fd)), text]

    arms = remembers = lazy = True

    def keep(self, arguments: Sequence[Any]) -> Sequence[Any]:
        epfd, operation, fd, event = arguments
        if not is_null(self.ffi, event):
            event = self.copy(event, 1)
        return int(epfd), int(operation), int(fd), event

    def armed(self, arguments: Sequence[Any]) -> Iterable[tuple[int, int]]:
        _, operation, fd, event = arguments
        if int(operation) == self.delete or is_null(self.ffi, event):
            return ()
        return [(int(fd), token(pointer_to(self.ffi, _EVENT, event)[0]))]


class Wait(_Events):
    """``epoll_wait(6, [{events=EPOLLIN, data=0x16}], 64, -1) = 1``."""

    waits = remembers = lazy = True

    def keep(self, arguments: Sequence[Any]) -> Sequence[Any]:
        timeout = arguments[3]
        if type(timeout) is not int and not is_null(self.ffi, timeout):
            # The selector writes the next wait's timeout there.
            kind = self.ffi.typeof(timeout)
            timeout = int(timeout) if kind.kind == "primitive" else self.ffi.new(_TIMESPEC, timeout[0])
        return (arguments[0], arguments[1], arguments[2], timeout, *arguments[4:])

    def kept(self, kept: Sequence[Any], arguments: Sequence[Any], result: int) -> Sequence[Any]:
        return (kept[0], self.copy(arguments[1], result), *kept[2:])

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        # epoll_pwait2(2) takes a timespec where the others take milliseconds.
        if not isinstance(arguments[3], int) and not texts[3].lstrip("-").isdigit():
            texts[3] = timeval(self.ffi, arguments[3])
        return texts

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        events, bits = arguments[1], self.bits
        if not is_null(self.ffi, events):
            copied = self.copy(events, min(result, ELLIPSIS_AFTER + 1))
            texts[1] = array(
                [f"{{events={bits(flags)}, data={data:#x}}}" for flags, data in self.unpack(copied)]
            )
        return ""

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        bits, mask, make = self.bits, self.hangup, tuple.__new__  # what Native(...) calls
        return [
            make(Native, (data & _FD, data, bits(flags), bool(flags & mask)))
            for flags, data in self.unpack(self.copy(arguments[1], result))
        ]


FORMS: dict[str, type[Form]] = {
    "epoll_create1": Create,
    "epoll_ctl": Control,
    "epoll_wait": Wait,
    "epoll_pwait": Wait,
    "epoll_pwait2": Wait,
    "dup3": Move,
}
