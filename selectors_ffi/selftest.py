"""Check that a mechanism's declarations fit the running kernel, before they are used.

In ABI mode nothing checks a declaration. If a struct is declared too short, the kernel writes
beyond our buffers. If it is too long, or a time struct has the wrong width, events are lost or a
wait never ends.

One event proves little, because layouts often agree in their first bytes. So the test asks for
three ready descriptors with full-width markers, in a long buffer filled with a pattern. Three whole
records must come back at the declared distance, and the pattern behind them must be unchanged.

Time structs are tested without waiting. A zero timeout followed by the pattern must be accepted: a
kernel that reads further finds a negative fraction, which is EINVAL everywhere. A fraction out of
range must be EINVAL: a kernel that reads another place does not see it. Nothing here can block.
"""

from __future__ import annotations

import os
from errno import EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC, ENOSYS, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from .binding import Binding

__all__ = ["READY", "ROOM", "SHORTAGE", "TESTS", "Report", "SelfTestError", "check", "require"]

#: Errors that say nothing about the declarations: descriptors or memory are used up.
SHORTAGE = frozenset((EMFILE, ENFILE, ENOMEM, ENOSPC))

READY = 3
ROOM = 128  # bytes for one record; the longest of any system is 72
PATTERN = 0xFF
MARKER = 0xF0E1D2C3B4A59687


class Report:
    """What a self-test found.

    Args:
        mechanism: "epoll", say.
        target: whose declarations were tested.
        struct: the C name of the kernel's record.
        sizeof: its size in bytes.
        problems: sentences; none if it has passed.
        unfit: function that the mechanism must do without -> a sentence.
    """

    def __init__(
        self,
        mechanism: str,
        target: str,
        struct: str,
        sizeof: int,
        problems: tuple[str, ...],
        unfit: dict[str, str],
    ) -> None:
        self.mechanism = mechanism
        self.target = target
        self.struct = struct
        self.sizeof = sizeof
        self.problems = problems
        self.unfit = unfit


class SelfTestError(ImportError):
    """A mechanism's declarations do not fit this kernel; ``report`` has the numbers seen."""

    def __init__(self, report: Report) -> None:
        super().__init__(
            f"{report.mechanism} does not fit this kernel as target {report.target} declares it"
            f" ({report.struct} of {report.sizeof} bytes): {'; '.join(report.problems)}"
        )
        self.report = report


def check(binding: Binding, mechanism: str) -> Report:
    """Test one mechanism ("epoll") of a binding in some ten system calls; return the ``Report``.

    Raises:
        SelfTestError: the declarations do not fit.
        OSError: the mechanism is not there, or the test could not be set up.
    """
    entry, struct, test = TESTS[mechanism]
    binding.function(entry)
    sizeof = binding.ffi.sizeof(struct)
    fds: list[int] = []
    found: list[Any] = []
    opened = -1
    try:
        fds.extend(os.pipe())
        while len(fds) < READY + 1:
            fds.append(os.dup(fds[1]))
        opened = _open(binding, mechanism)
        found = _problems(test(binding, fds[1:], opened))
    finally:
        if opened >= 0:
            binding.close(opened)
        for fd in fds:
            os.close(fd)
    problems = tuple(problem for problem in found if isinstance(problem, str))
    unfit = dict(problem for problem in found if not isinstance(problem, str))
    report = Report(mechanism, binding.target, struct, sizeof, problems, unfit)
    if problems:
        raise SelfTestError(report)
    return report


# (id of a library, mechanism) -> (the library, which keeps its id its own; the report).
_outcomes: dict[tuple[int, str], tuple[Any, Any]] = {}


def require(binding: Binding, mechanism: str) -> Binding:
    """Refuse a mechanism that fails its test; return ``binding``.

    Each mechanism of a library is tested once in a process, when it is first used. A function that
    fails but can be done without goes into ``binding.refused``. ``SELECTORS_FFI_SELFTEST=0`` in
    the environment skips the test.

    Raises:
        SelfTestError: the declarations do not fit.
        OSError: the mechanism is not there.
    """
    if os.environ.get("SELECTORS_FFI_SELFTEST") == "0":
        return binding
    if binding.target == "windows":
        binding.proven.add(mechanism)
        return binding  # its select takes sockets only, and opening some is too much for a test
    key = (id(binding.lib), mechanism)
    if key not in _outcomes:
        try:
            _outcomes[key] = binding.lib, check(binding, mechanism)
        except SelfTestError as error:
            _outcomes[key] = binding.lib, error.report
        except OSError as error:
            if error.errno in SHORTAGE:
                return binding  # out of descriptors or memory: test at the next use
            raise
    report = _outcomes[key][1]
    if report.problems:
        raise SelfTestError(report)
    binding.refused.update(report.unfit)
    binding.proven.add(mechanism)
    return binding


def _open(binding: Binding, mechanism: str) -> int:
    """Open the mechanism's kernel object; -1 for a mechanism that has none."""
    if mechanism == "epoll":
        return binding.call(binding.function("epoll_create1"), binding.constant("EPOLL_CLOEXEC"))
    if mechanism == "devpoll":
        return binding.call(binding.function("open"), b"/dev/poll", os.O_RDWR | os.O_CLOEXEC)
    makers = {"kqueue": "kqueue", "eventport": "port_create"}
    return binding.call(binding.function(makers[mechanism])) if mechanism in makers else -1


def _problems(test: Iterator[Any]) -> list[Any]:
    """Run a test; a refused call counts as a problem, since it is most likely a misread argument."""
    found: list[Any] = []
    try:
        for problem in test:
            found.append(problem)
    except (AttributeError, OverflowError, TypeError) as error:
        # A field is missing, or does not hold what it must.
        found.append(f"{type(error).__name__}: {error}")
    except OSError as error:
        if error.errno in SHORTAGE:
            raise
        found.append(str(error))
    return found


# The tests: each yields what does not fit, as sentences. Of a function that the mechanism can do
# without, it yields (function, sentence).


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


def _epoll(binding: Binding, fds: list[int], epfd: int) -> Iterator[Any]:
    ffi, call, function = binding.ffi, binding.call, binding.function
    writable, add = binding.constant("EPOLLOUT"), binding.constant("EPOLL_CTL_ADD")
    markers = _markers(ffi, fds, "uint64_t")
    room = _patterned(ffi, (READY + 1) * ROOM)
    events = ffi.cast("struct epoll_event *", room)
    for fd, marker in markers.items():
        argument = _patterned(ffi, ROOM)
        event = ffi.cast("struct epoll_event *", argument)
        event.events = writable
        event.data = marker
        call(function("epoll_ctl"), epfd, add, fd, event)
    count = call(function("epoll_wait"), epfd, events, READY, 0)
    seen = {events[i].data: events[i].events for i in range(READY)}
    yield from _records(count, seen, dict.fromkeys(markers.values(), writable))
    yield from _touched(ffi, room, READY * ffi.sizeof("struct epoll_event"))
    if binding.has("epoll_pwait2"):

        def pwait2(*time: Any) -> int:
            return call(function("epoll_pwait2"), epfd, events, READY, *time)

        for problem in _time(ffi, "epoll_pwait2", "timespec", pwait2, READY, ffi.NULL):
            yield "epoll_pwait2", problem


def _kqueue(binding: Binding, fds: list[int], kq: int) -> Iterator[str]:
    ffi, call, kevent = binding.ffi, binding.call, binding.function("kevent")
    writable, error = binding.constant("EVFILT_WRITE"), binding.constant("EV_ERROR")
    markers = _markers(ffi, fds, "uintptr_t")
    room = _patterned(ffi, (READY + 1) * ROOM)
    events = ffi.cast("struct kevent *", room)
    clock, zero = _zero(ffi, "timespec")
    for fd, marker in markers.items():
        # One at a time: with a wrong length the second of two would be garbage.
        argument = ffi.new("unsigned char[]", ROOM)
        change = ffi.cast("struct kevent *", argument)
        change.ident = fd
        change.filter = writable
        change.flags = binding.constant("EV_ADD")
        change.udata = marker
        call(kevent, kq, change, 1, ffi.NULL, 0, zero)
    count = call(kevent, kq, ffi.NULL, 0, events, READY, zero)
    seen = {
        event.ident: (event.filter, event.udata, event.flags & error)
        for event in (events[i] for i in range(READY))
    }
    yield from _records(count, seen, {fd: (writable, mark, 0) for fd, mark in markers.items()})
    yield from _touched(ffi, room, READY * ffi.sizeof("struct kevent"))
    yield from _touched(ffi, clock, ffi.sizeof("struct timespec"))


def _poll(binding: Binding, fds: list[int], _: int) -> Iterator[Any]:
    ffi = binding.ffi
    room, entries = _pollfds(binding, fds)
    count = binding.call(binding.function("poll"), entries, READY, 0)
    yield from _polled(binding, fds, count, entries)
    yield from _touched(ffi, room, READY * ffi.sizeof("struct pollfd"))
    if binding.has("ppoll"):

        def ppoll(*time: Any) -> int:
            return binding.call(binding.function("ppoll"), entries, READY, *time)

        for problem in _time(ffi, "ppoll", "timespec", ppoll, READY, ffi.NULL):
            yield "ppoll", problem


def _devpoll(binding: Binding, fds: list[int], device: int) -> Iterator[str]:
    ffi, call, ioctl = binding.ffi, binding.call, binding.function("ioctl")
    size = READY * ffi.sizeof("struct pollfd")
    _keep, entries = _pollfds(binding, fds)
    call(binding.function("write"), device, entries, size)
    room = _patterned(ffi, (READY + 1) * ROOM)
    entries = ffi.cast("struct pollfd *", room)
    argument = ffi.new("unsigned char[]", ROOM)
    order = ffi.cast("struct dvpoll *", argument)
    order.dp_fds = entries
    order.dp_nfds = READY
    order.dp_timeout = 1  # not waited for; the high half of a count declared too narrow
    count = call(ioctl, device, binding.constant("DP_POLL"), order)
    yield from _polled(binding, fds, count, entries)
    yield from _touched(ffi, room, size)
    order.dp_nfds = READY - 1
    count = call(ioctl, device, binding.constant("DP_POLL"), order)
    if count != READY - 1:
        yield f"{count} records, {READY - 1} were asked for"


def _eventport(binding: Binding, fds: list[int], port: int) -> Iterator[str]:
    ffi, call, getn = binding.ffi, binding.call, binding.function("port_getn")
    writable, source = binding.constant("POLLOUT"), binding.constant("PORT_SOURCE_FD")
    markers = _markers(ffi, fds, "uintptr_t")
    room = _patterned(ffi, (READY + 1) * ROOM)
    events = ffi.cast("struct port_event *", room)
    number = _patterned(ffi, ROOM)
    nget = ffi.cast("unsigned int *", number)
    clock, zero = _zero(ffi, "timespec")
    for fd, marker in markers.items():
        user = ffi.cast("void *", marker)
        call(binding.function("port_associate"), port, source, fd, writable, user)
    nget[0] = READY
    call(getn, port, events, READY, nget, zero)
    seen = {
        event.portev_object: (
            event.portev_source,
            event.portev_events,
            int(ffi.cast("uintptr_t", event.portev_user)),
        )
        for event in (events[i] for i in range(READY))
    }
    wanted = {fd: (source, writable, marker) for fd, marker in markers.items()}
    yield from _records(nget[0], seen, wanted)
    yield from _touched(ffi, room, READY * ffi.sizeof("struct port_event"))
    yield from _touched(ffi, number, ffi.sizeof("unsigned int"))
    yield from _touched(ffi, clock, ffi.sizeof("struct timespec"))
    nget[0] = 1
    zero.tv_nsec = -1  # looked at now, as there are no more events
    try:
        outcome = str(call(getn, port, events, READY, nget, zero))
    except OSError as error:
        if error.errno == EINVAL:
            return
        outcome = str(error)
    size = ffi.sizeof("struct timespec")
    yield f"port_getn with tv_nsec -1: {outcome}, expected EINVAL (struct timespec of {size} bytes)"


def _select(binding: Binding, fds: list[int], _: int) -> Iterator[str]:
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
        count = binding.call(select, nfds, null, words, null, zero)
        seen = bytes(ffi.buffer(room))[:used]
        if count != READY or seen != wanted:
            yield f"{count} ready of {READY}, set {seen.hex()} of {wanted.hex()}"
        yield from _touched(ffi, room, used)
        yield from _touched(ffi, clock, ffi.sizeof("struct timeval"))

    def no_set(*time: Any) -> int:
        return binding.call(select, 0, null, null, null, *time)

    yield from _time(ffi, "select", "timeval", no_set, 0)


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
        shown, expected = (
            ", ".join(f"{key:#x}: {value!r}" for key, value in sorted(records.items()))
            for records in (seen, wanted)
        )
        yield f"{count} records of {len(wanted)}: {shown}, expected {expected}"


def _zero(ffi: Any, struct: str) -> tuple[Any, Any]:
    """Return (memory, time struct): no time, and the pattern behind it."""
    memory = _patterned(ffi, ROOM)
    ffi.memmove(memory, bytes(ROOM), ffi.sizeof(f"struct {struct}"))
    return memory, ffi.cast(f"struct {struct} *", memory)


def _time(
    ffi: Any, name: str, struct: str, call: Callable[..., int], wanted: int, *after: object
) -> Iterator[str]:
    """Test a time struct: ``call`` accepts zero and returns ``wanted``; it refuses a wrong fraction."""
    size = ffi.sizeof(f"struct {struct}")
    memory, clock = _zero(ffi, struct)
    try:
        count = call(clock, *after)
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
        outcome = str(call(clock, *after))
    except OSError as error:
        if error.errno == EINVAL:
            return
        outcome = str(error)
    shown = f"struct {struct} of {size} bytes"
    yield f"{name} with {fraction} {value}: {outcome}, expected EINVAL ({shown})"


# Mechanism -> the call without which there is none, the struct at stake, the test.
TESTS: Mapping[str, tuple[str, str, Callable[[Binding, list[int], int], Iterator[Any]]]] = {
    "select": ("select", "struct timeval", _select),
    "poll": ("poll", "struct pollfd", _poll),
    "epoll": ("epoll_create1", "struct epoll_event", _epoll),
    "devpoll": ("ioctl", "struct dvpoll", _devpoll),
    "kqueue": ("kqueue", "struct kevent", _kqueue),
    "eventport": ("port_create", "struct port_event", _eventport),
}
