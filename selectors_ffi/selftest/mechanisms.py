"""The test of each mechanism: a generator of sentences about what does not fit."""

from __future__ import annotations

import os
from collections import namedtuple
from errno import EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC, ENOSYS, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..binding import Binding

READY = 3
#: The host is short of something: no verdict.
SHORTAGE = frozenset((EMFILE, ENFILE, ENOMEM, ENOSPC))
ROOM = 128  # bytes for one record; the longest of any system is 72
PATTERN = 0xFF
MARKER = 0xF0E1D2C3B4A59687


Unfit = namedtuple("Unfit", ["function", "problem"])
Unfit.__doc__ = "A function that a mechanism can do without, and what is wrong with it."


def _told(error: OSError) -> str:
    """Tell a refusal as what it most likely is, a misread argument."""
    if error.errno in SHORTAGE:
        raise error
    return str(error)


def _markers(ffi: Any, fds: list[int], ctype: str) -> dict[int, int]:
    """Return descriptor -> marker, different in every byte-sized place that can be lost."""
    bits = 8 * ffi.sizeof(ctype)
    return {fd: (MARKER ^ (fd * 0x0001_0001_0001_0001)) & (2**bits - 1) for fd in fds}


def _patterned(ffi: Any, size: int) -> Any:
    """Return a byte array full of the pattern."""
    memory = ffi.new("unsigned char[]", size)
    ffi.memmove(memory, bytes([PATTERN]) * size, size)
    return memory


def _touched(ffi: Any, buffer: Any, used: int) -> Iterator[str]:
    """Tell where the pattern behind the used part of a buffer was written to."""
    tail = bytes(ffi.buffer(buffer))[used:]
    changed = [used + i for i, byte in enumerate(tail) if byte != PATTERN]
    if changed:
        yield f"bytes {changed[0]} to {changed[-1]} were written, behind the {used} declared"


def _epoll(binding: Binding, fds: list[int]) -> Iterator[Any]:
    ffi, call, function = binding.ffi, binding.call, binding.function
    size = ffi.sizeof("struct epoll_event")
    writable = binding.constant("EPOLLOUT")
    markers = _markers(ffi, fds, "uint64_t")
    room = _patterned(ffi, (READY + 1) * ROOM)
    events = ffi.cast("struct epoll_event *", room)
    epfd = call(function("epoll_create1"), binding.constant("EPOLL_CLOEXEC"))
    try:
        for fd, marker in markers.items():
            argument = _patterned(ffi, ROOM)
            event = ffi.cast("struct epoll_event *", argument)
            event.events = writable
            event.data = marker
            call(function("epoll_ctl"), epfd, binding.constant("EPOLL_CTL_ADD"), fd, event)
        count = call(function("epoll_wait"), epfd, events, READY, 0)
        seen = {events[i].data: events[i].events for i in range(READY)}
        yield from _records(count, seen, dict.fromkeys(markers.values(), writable))
        yield from _touched(ffi, room, READY * size)
        if binding.has("epoll_pwait2"):
            room = _patterned(ffi, (READY + 1) * ROOM)
            events = ffi.cast("struct epoll_event *", room)
            arguments = (epfd, events, READY)
            for problem in _time(binding, "epoll_pwait2", arguments, "timespec", (ffi.NULL,), READY):
                yield Unfit("epoll_pwait2", problem)
    except OSError as error:
        yield _told(error)
    finally:
        binding.close(epfd)


def _kqueue(binding: Binding, fds: list[int]) -> Iterator[str]:
    ffi, call, function = binding.ffi, binding.call, binding.function
    size = ffi.sizeof("struct kevent")
    writable, error = binding.constant("EVFILT_WRITE"), binding.constant("EV_ERROR")
    markers = _markers(ffi, fds, "uintptr_t")
    room = _patterned(ffi, (READY + 1) * ROOM)
    events = ffi.cast("struct kevent *", room)
    clock, zero = _zero(ffi, "timespec")
    kq = call(function("kqueue"))
    try:
        for fd, marker in markers.items():
            # One at a time: with a wrong length the second of two would be garbage.
            argument = ffi.new("unsigned char[]", ROOM)
            change = ffi.cast("struct kevent *", argument)
            change.ident = fd
            change.filter = writable
            change.flags = binding.constant("EV_ADD")
            change.udata = marker
            call(function("kevent"), kq, change, 1, ffi.NULL, 0, zero)
        count = call(function("kevent"), kq, ffi.NULL, 0, events, READY, zero)
        seen = {
            events[i].ident: (events[i].filter, events[i].udata, events[i].flags & error)
            for i in range(READY)
        }
        wanted = {fd: (writable, marker, 0) for fd, marker in markers.items()}
        yield from _records(count, seen, wanted)
        yield from _touched(ffi, room, READY * size)
        yield from _touched(ffi, clock, ffi.sizeof("struct timespec"))
    except OSError as refusal:
        yield _told(refusal)
    finally:
        binding.close(kq)


def _poll(binding: Binding, fds: list[int]) -> Iterator[Any]:
    ffi = binding.ffi
    room, entries = _pollfds(binding, fds)
    try:
        count = binding.call(binding.function("poll"), entries, READY, 0)
        yield from _polled(binding, fds, count, entries)
        yield from _touched(ffi, room, READY * ffi.sizeof("struct pollfd"))
        if binding.has("ppoll"):
            arguments = (entries, READY)
            for problem in _time(binding, "ppoll", arguments, "timespec", (ffi.NULL,), READY):
                yield Unfit("ppoll", problem)
    except OSError as error:
        yield _told(error)


def _devpoll(binding: Binding, fds: list[int]) -> Iterator[str]:
    ffi, call, function = binding.ffi, binding.call, binding.function
    size = ffi.sizeof("struct pollfd")
    device = call(function("open"), b"/dev/poll", os.O_RDWR | os.O_CLOEXEC)
    try:
        _keep, entries = _pollfds(binding, fds)
        call(function("write"), device, entries, READY * size)
        room = _patterned(ffi, (READY + 1) * ROOM)
        entries = ffi.cast("struct pollfd *", room)
        argument = ffi.new("unsigned char[]", ROOM)
        order = ffi.cast("struct dvpoll *", argument)
        order.dp_fds = entries
        order.dp_nfds = READY
        order.dp_timeout = 1  # not waited for; the high half of a count declared too narrow
        count = call(function("ioctl"), device, binding.constant("DP_POLL"), order)
        yield from _polled(binding, fds, count, entries)
        yield from _touched(ffi, room, READY * size)
        order.dp_nfds = READY - 1
        count = call(function("ioctl"), device, binding.constant("DP_POLL"), order)
        if count != READY - 1:
            yield f"{count} records, for {READY - 1} were asked"
    except OSError as error:
        yield _told(error)
    finally:
        binding.close(device)


def _select(binding: Binding, fds: list[int]) -> Iterator[str]:
    ffi = binding.ffi
    select, null = binding.function("select"), ffi.NULL
    nfds = max(fds) + 1
    if nfds <= binding.constant("FD_SETSIZE"):
        bits = 8 * ffi.sizeof("fd_mask")
        # A kernel may copy in longer words than the header's (x32, an emulator).
        used = -(-nfds // 64) * 8
        room = ffi.new("unsigned char[]", used + 2 * ROOM)
        ffi.memmove(room + used, bytes([PATTERN]) * 2 * ROOM, 2 * ROOM)
        words = ffi.cast("fd_mask *", room)
        for fd in fds:
            words[fd // bits] |= 1 << fd % bits
        wanted = bytes(ffi.buffer(room))[:used]
        clock, zero = _zero(ffi, "timeval")
        try:
            count = binding.call(select, nfds, null, words, null, zero)
        except OSError as error:
            yield _told(error)
            return
        seen = bytes(ffi.buffer(room))[:used]
        if count != READY or seen != wanted:
            yield f"{count} ready of {READY}, set {seen.hex()} of {wanted.hex()}"
        yield from _touched(ffi, room, used)
        yield from _touched(ffi, clock, ffi.sizeof("struct timeval"))
    yield from _time(binding, "select", (0, null, null, null), "timeval", (), 0)


def _pollfds(binding: Binding, fds: list[int]) -> tuple[Any, Any]:
    """Return (memory, ``struct pollfd *``) that asks for each descriptor's POLLOUT."""
    ffi = binding.ffi
    room = _patterned(ffi, (READY + 1) * ROOM)
    entries = ffi.cast("struct pollfd *", room)
    for i, fd in enumerate(fds):
        entries[i].fd = fd
        entries[i].events = binding.constant("POLLOUT")
        entries[i].revents = 0
    return room, entries


def _polled(binding: Binding, fds: list[int], count: int, entries: Any) -> Iterator[str]:
    seen = {entries[i].fd: entries[i].revents for i in range(READY)}
    yield from _records(count, seen, dict.fromkeys(fds, binding.constant("POLLOUT")))


def _records(count: int, seen: Mapping[int, Any], wanted: Mapping[int, Any]) -> Iterator[str]:
    if count != len(wanted) or seen != wanted:
        yield f"{count} records of {len(wanted)}: {_show(seen)}, expected {_show(wanted)}"


def _show(records: Mapping[int, Any]) -> str:
    return ", ".join(f"{key:#x}: {value!r}" for key, value in sorted(records.items()))


def _zero(ffi: Any, struct: str) -> tuple[Any, Any]:
    """Return (memory, time struct): no time, and the pattern behind it."""
    memory = _patterned(ffi, ROOM)
    ffi.memmove(memory, bytes(ROOM), ffi.sizeof(f"struct {struct}"))
    return memory, ffi.cast(f"struct {struct} *", memory)


def _time(
    binding: Binding,
    name: str,
    before: tuple[Any, ...],
    struct: str,
    after: tuple[Any, ...],
    wanted: int,
) -> Iterator[str]:
    """Test a call's time struct: zero is accepted, a fraction out of range is not.

    Args:
        before: the arguments before the time struct.
        after: those behind it.
        wanted: what the call returns with zero time.
    """
    ffi, function = binding.ffi, binding.function(name)
    size = ffi.sizeof(f"struct {struct}")
    memory, clock = _zero(ffi, struct)
    try:
        count = binding.call(function, *before, clock, *after)
    except OSError as error:
        # Without the call, or forbidden by a sandbox, the backend does without it.
        if error.errno not in (ENOSYS, EPERM):
            yield f"{name} with no time: {error} (struct {struct} of {size} bytes)"
        return
    if count != wanted:
        yield f"{name} with no time: {count}, expected {wanted}"
    yield from _touched(ffi, memory, size)
    memory, clock = _zero(ffi, struct)
    # A timeval's fraction may be more than a second on Linux, so it is negative.
    fraction, value = ("tv_usec", -1000) if struct == "timeval" else ("tv_nsec", 10**9)
    setattr(clock, fraction, value)
    try:
        outcome = str(binding.call(function, *before, clock, *after))
    except OSError as error:
        if error.errno == EINVAL:
            return
        outcome = str(error)
    yield (
        f"{name} with {fraction} {value}: {outcome}, expected EINVAL (struct {struct} of {size} bytes)"
    )


# Mechanism -> the call without which there is none, the struct at stake, the test.
TESTS: Mapping[str, tuple[str, str, Callable[[Binding, list[int]], Iterator[Any]]]] = {
    "select": ("select", "struct timeval", _select),
    "poll": ("poll", "struct pollfd", _poll),
    "epoll": ("epoll_create1", "struct epoll_event", _epoll),
    "devpoll": ("ioctl", "struct dvpoll", _devpoll),
    "kqueue": ("kqueue", "struct kevent", _kqueue),
}
