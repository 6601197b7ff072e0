"""What a call of a C function is for: whether it waits or changes, for how long, for which descriptors.

The names are those of the manuals. ``wait`` and ``control`` stand for the functions of whatever
mechanism is in use: ``epoll_wait`` or ``kevent`` with room for events, ``epoll_ctl`` or ``kevent`` with
changes. kevent(2) may be both in one call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..binding import pointer_to
from ..debug.decode.select import members
from .library import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..binding import Binding
    from .library import Call

__all__ = [
    "CONTROL", "WAIT", "WAITS", "controls", "descriptors", "functions_of", "sets_of", "sleeps",
    "waits",
]  # fmt: skip

WAIT, CONTROL = "wait", "control"

#: C function that waits -> the place of its timeout among the arguments.
WAITS = {
    "select": 4,
    "poll": 2,
    "ppoll": 2,
    "epoll_wait": 3,
    "epoll_pwait2": 3,
    "kevent": 5,
    "ioctl": 2,
    "port_getn": 4,
}


def functions_of(binding: Binding) -> list[str]:
    """Return the C functions that a binding declares and has, sorted."""
    symbols = [symbol for symbol in dir(binding.lib) if not symbol.endswith("__")]
    names = {name_of(binding.target, symbol) for symbol in symbols}
    # Constants are in capitals, and the library of a simulated kernel has an attribute besides.
    return sorted(name for name in names if name.islower() and callable(_found(binding, name)))


def _found(binding: Binding, name: str) -> Any:
    found = binding.find(name)
    return found and found[1]


def waits(call: Call) -> bool:
    """Tell whether a call waits for events."""
    if call.name == "kevent":
        return int(call.arguments[4]) > 0
    if call.name == "ioctl":
        return int(call.arguments[1]) == call.binding.constant("DP_POLL")
    return call.name in WAITS


def controls(call: Call) -> bool:
    """Tell whether a call changes what the kernel watches."""
    if call.name == "kevent":
        return int(call.arguments[2]) > 0
    return call.name in ("epoll_ctl", "write", "port_associate", "port_dissociate")


def sleeps(call: Call) -> bool:
    """Tell whether a call that waits may block: whether its timeout is not zero."""
    timeout = call.arguments[WAITS[call.name]]
    ffi = call.binding.ffi
    if call.name == "ioctl":
        return bool(pointer_to(ffi, "struct dvpoll", timeout).dp_timeout)
    if isinstance(timeout, int):
        return bool(timeout)
    if timeout == ffi.NULL:
        return True
    kind = "struct timeval" if call.name == "select" else "struct timespec"
    time = pointer_to(ffi, kind, timeout)
    return bool(time.tv_sec or (time.tv_usec if call.name == "select" else time.tv_nsec))


def descriptors(call: Call) -> set[int]:
    """Return the descriptors that a call is about: its own, those it changes, those it is handed.

    epoll, kqueue, /dev/poll and event ports are not handed what they watch when they wait.
    """
    ffi, arguments = call.binding.ffi, call.arguments
    if call.name in ("epoll_ctl", "port_associate", "port_dissociate"):
        return {int(arguments[0]), int(arguments[2])}
    if call.name in ("poll", "ppoll"):
        array = pointer_to(ffi, "struct pollfd", arguments[0])
        return {array[i].fd for i in range(int(arguments[1])) if array[i].fd >= 0}
    if call.name == "select":
        return {fd for one in sets_of(call) for fd in one.members()}
    found = {argument for argument in arguments[:1] if isinstance(argument, int)}
    if call.name == "kevent":
        array = pointer_to(ffi, "struct kevent", arguments[1])
        found |= {int(array[i].ident) for i in range(int(arguments[2]))}
    elif call.name == "write":
        array = pointer_to(ffi, "struct pollfd", arguments[1])
        size = ffi.sizeof("struct pollfd")
        found |= {array[i].fd for i in range(int(arguments[2]) // size)}
    return found


class Set:
    """One of the three sets of a call of select: words of ``fd_mask``, on every Unix."""

    def __init__(self, call: Call, pointer: Any) -> None:
        self._ffi: Any = call.binding.ffi
        self._nfds = int(call.arguments[0])
        self._pointer = None if pointer == self._ffi.NULL else pointer

    def members(self) -> list[int]:
        """Return the descriptors in the set."""
        return [] if self._pointer is None else members(self._ffi, self._pointer, self._nfds)

    def write(self, wanted: Sequence[Any]) -> None:
        """Have ``wanted`` in the set, and nothing else."""
        if self._pointer is not None:
            width = self._ffi.sizeof("fd_mask")
            words = pointer_to(self._ffi, "char", self._pointer)
            for first in range(0, self._nfds, 8 * width):
                word = sum(1 << bit for bit in range(8 * width) if first + bit in wanted)
                memory = self._ffi.buffer(words + first // 8, width)
                memory[0:width] = word.to_bytes(width, sys.byteorder)


class Sockets(Set):
    """Winsock's: a count, and so many sockets, in any order."""

    def write(self, wanted: Sequence[Any]) -> None:
        if self._pointer is not None:
            written = pointer_to(self._ffi, "fd_set", self._pointer)
            for i, member in enumerate(wanted):
                written.fd_array[i] = member
            written.fd_count = len(wanted)


def sets_of(call: Call) -> list[Set]:
    """Return the three sets of a call of select."""
    kind = Sockets if call.binding.target == "windows" else Set
    return [kind(call, pointer) for pointer in call.arguments[1:4]]
