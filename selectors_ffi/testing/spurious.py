"""Readiness that is not there: which sockets a kernel might report as readable by mistake.

poll and select are handed what is watched with each call. epoll is not, so its registrations are
noted as they are made. See ``chaos`` for the manuals.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ..binding import pointer_to
from ..debug.naming import mode_of
from ..debug.output import file_of
from .answers import Answer, Ready
from .calls import sets_of

if TYPE_CHECKING:
    from .library import Call

__all__ = ["Registered", "offers", "readers"]


class Registered:
    """What an epoll watches, as far as chaos has to know."""

    def __init__(self) -> None:
        #: descriptor -> (token, file), of the registrations for reading.
        self.readable: dict[int, tuple[int, tuple[int, int] | None]] = {}
        #: Tokens of what is reported once only (EPOLLET, EPOLLONESHOT).
        self.once: set[int] = set()

    def copy(self) -> Registered:
        """Return the same registrations, of a set that dup3(2) has given a second number."""
        copied = Registered()
        copied.readable, copied.once = dict(self.readable), set(self.once)
        return copied

    def control(self, call: Call, files: bool) -> None:
        """Note an epoll_ctl(2) that has succeeded; ``files``: also which files are readable."""
        _, op, fd, event = call.arguments
        constant = call.binding.constant
        self.readable.pop(fd, None)
        if op == constant("EPOLL_CTL_DEL"):
            return
        record = pointer_to(call.binding.ffi, "struct epoll_event", event)
        token, flags = int(record.data), int(record.events)
        self.once.discard(token)
        if flags & (constant("EPOLLET") | constant("EPOLLONESHOT")):
            self.once.add(token)
        elif files and flags & constant("EPOLLIN"):
            self.readable[fd] = token, file_of(fd)


def readers(call: Call) -> list[int]:
    """Return the descriptors that select is to watch for reading; it overwrites them."""
    return sets_of(call)[0].members() if call.name == "select" else []


def offers(
    call: Call, answer: Answer, ready: list[Ready], watched: list[int], registered: Registered
) -> list[Ready]:
    """Return the sockets that are watched for reading, and are not in the answer.

    Args:
        call: a wait that has been made.
        answer: of this call.
        ready: what is in it.
        watched: what ``readers`` has returned before the call.
        registered: what this epoll watches.
    """
    offered: list[Ready] = []
    if call.name == "select":
        offered = [Ready(fd, (0,), True) for fd in watched if _is_socket(fd)]
    elif call.name in ("poll", "ppoll"):
        offered = _entries(call)
    elif call.name in ("epoll_wait", "epoll_pwait2") and len(ready) < answer.room():
        offered = _registrations(call, registered)
    known = {one.identity for one in ready}
    return [one for one in offered if one.identity not in known]


def _entries(call: Call) -> list[Ready]:
    array = pointer_to(call.binding.ffi, "struct pollfd", call.arguments[0])
    flag = call.binding.constant("POLLIN")
    entries = [(i, array[i].fd, array[i].events) for i in range(int(call.arguments[1]))]
    return [Ready((i, fd), flag, True) for i, fd, events in entries if events & flag and _is_socket(fd)]


def _registrations(call: Call, registered: Registered) -> list[Ready]:
    ffi = call.binding.ffi
    flag = call.binding.constant("EPOLLIN")
    found = []
    for fd, (token, file) in registered.readable.items():
        # A number that was closed and is another file now is not registered any more.
        if _is_socket(fd) and file_of(fd) == file:
            record = ffi.new("struct epoll_event *", {"events": flag, "data": token})
            found.append(Ready(token, bytes(ffi.buffer(record)), True))
    return found


def _is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(mode_of(fd))
