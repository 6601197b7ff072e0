"""Decoders: every system call of every backend, on every target's own memory, on any host."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from selectors_ffi._abi import TARGETS, load_ffi
from selectors_ffi.binding import load
from selectors_ffi.debug.decode import FORMS, form, form_of, grammar
from selectors_ffi.debug.decode import select as decode_select
from selectors_ffi.debug.decode.grammar import Bits, outcome, seconds

KQUEUE = [
    target
    for target in TARGETS
    if target.split("_")[0]
    in (
        "darwin",
        "freebsd",
        "freebsd11",
        "netbsd",
        "netbsd11",
        "openbsd",
        "dragonfly",
        "libkqueue",
    )
]
EPOLL = [target for target in TARGETS if target.startswith("linux")]
unix = pytest.mark.skipif(not hasattr(os, "O_CLOEXEC"), reason="shows the flags of Unix's open(2)")
POLL = [target for target in TARGETS if target not in ("windows", "libkqueue")]


def line(ffi: Any, name: str, arguments: tuple[Any, ...], result: int, error: int = 0) -> str:
    """Return a call decoded as the tap does it; outputs must be in place already."""
    form = form_of(ffi, name)
    texts = form.enter(arguments)
    note = form.leave(arguments, texts, result)
    return f"{name}({', '.join(texts)}) = {outcome(result, error, note)}"


def constants(ffi: Any, *names: str) -> int:
    """Return the union of a target's constants."""
    value = 0
    for name in names:
        value |= ffi.integer_const(name)
    return value


@pytest.mark.parametrize("target", KQUEUE)
def test_kevent_changes(target):
    """Three changes in the target's own layout are shown field by field, in order."""
    ffi = load_ffi(target)
    changes = ffi.new("struct kevent[3]")
    for change, (ident, filter_, flags, udata) in zip(
        changes,
        [
            (7, "EVFILT_READ", ("EV_ADD",), 0),
            (7, "EVFILT_WRITE", ("EV_ADD", "EV_CLEAR"), 0x2),
            (1_000_000, "EVFILT_READ", ("EV_DELETE",), 0),
        ],
    ):
        change.ident = ident
        change.filter = ffi.integer_const(filter_)
        change.flags = constants(ffi, *flags)
        change.udata = udata

    assert line(ffi, "kevent", (5, changes, 3, ffi.NULL, 0, ffi.NULL), 0) == (
        "kevent(5, ["
        "{ident=7, filter=EVFILT_READ, flags=EV_ADD, fflags=0, data=0, udata=NULL}, "
        "{ident=7, filter=EVFILT_WRITE, flags=EV_ADD|EV_CLEAR, fflags=0, data=0, udata=0x2}, "
        "{ident=1000000, filter=EVFILT_READ, flags=EV_DELETE, fflags=0, data=0, udata=NULL}"
        "], 3, NULL, 0, NULL) = 0"
    )


@pytest.mark.parametrize("target", KQUEUE)
def test_kevent_events(target):
    """End of file with a socket's errno, a failed change, and plain data are told apart."""
    ffi = load_ffi(target)
    events = ffi.new("struct kevent[4]")
    for event, (filter_, flags, fflags, data) in zip(
        events,
        [
            ("EVFILT_READ", ("EV_ADD", "EV_EOF"), errno.ECONNRESET, 12),
            ("EVFILT_WRITE", ("EV_ADD", "EV_ERROR"), 0, errno.EPIPE),
            ("EVFILT_READ", ("EV_ADD",), 0, 512),
        ],
    ):
        event.ident = 9
        event.filter = ffi.integer_const(filter_)
        event.flags = constants(ffi, *flags)
        event.fflags = fflags
        event.data = data
    timespec = ffi.new("struct timespec *", {"tv_sec": 1, "tv_nsec": 500})
    reset = errno.errorcode[errno.ECONNRESET]  # WSAECONNRESET on Windows

    assert line(ffi, "kevent", (5, ffi.NULL, 0, events, 4, timespec), 3) == (
        "kevent(5, NULL, 0, ["
        f"{{ident=9, filter=EVFILT_READ, flags=EV_ADD|EV_EOF, fflags={reset}, data=12, "
        "udata=NULL}, "
        "{ident=9, filter=EVFILT_WRITE, flags=EV_ADD|EV_ERROR, fflags=0, data=EPIPE, udata=NULL}, "
        "{ident=9, filter=EVFILT_READ, flags=EV_ADD, fflags=0, data=512, udata=NULL}"
        "], 4, {tv_sec=1, tv_nsec=500}) = 3"
    )
    natives = form_of(ffi, "kevent").ready((5, ffi.NULL, 0, events, 4, timespec), 3)
    assert [(n.fd, n.hangup) for n in natives] == [(9, True), (9, False), (9, False)]


@unix
@pytest.mark.parametrize(
    ("target", "name", "flag", "text"),
    [
        ("freebsd", "kqueuex", "KQUEUE_CLOEXEC", "kqueuex(KQUEUE_CLOEXEC) = 5"),
        ("netbsd", "kqueue1", None, "kqueue1(O_CLOEXEC) = 5"),
        ("darwin", "kqueue", None, "kqueue() = 5"),
    ],
)
def test_kqueue_creation(target, name, flag, text):
    """The three ways to make a kqueue show their flags by name."""
    ffi = load_ffi(target)
    if name == "kqueue":
        arguments: tuple[int, ...] = ()
    elif flag is None:
        arguments = (os.O_CLOEXEC,)
    else:
        arguments = (ffi.integer_const(flag),)

    assert line(ffi, name, arguments, 5) == text


@pytest.mark.parametrize("target", EPOLL)
def test_epoll(target):
    """epoll's calls, packed and natural layout, event as cdata, as void pointer and as bytes."""
    ffi = load_ffi(target)
    events = ffi.new("struct epoll_event[3]")
    for event, (flags, data) in zip(
        events,
        [
            (("EPOLLIN", "EPOLLHUP"), 22),
            (("EPOLLOUT", "EPOLLERR"), 7 | 3 << 32),
            (("EPOLLRDHUP", "EPOLLET", "EPOLLIN"), 9),
        ],
    ):
        event.events = constants(ffi, *flags)
        event.data = data
    add = ffi.integer_const("EPOLL_CTL_ADD")
    cloexec = ffi.integer_const("EPOLL_CLOEXEC")

    assert line(ffi, "epoll_create1", (cloexec,), 3) == "epoll_create1(EPOLL_CLOEXEC) = 3"
    for one in (events, ffi.cast("void *", events), bytes(ffi.buffer(ffi.addressof(events, 0)))):
        assert line(ffi, "epoll_ctl", (6, add, 22, one), 0) == (
            "epoll_ctl(6, EPOLL_CTL_ADD, 22, {events=EPOLLIN|EPOLLHUP, data=0x16}) = 0"
        )
    delete = ffi.integer_const("EPOLL_CTL_DEL")
    assert line(ffi, "epoll_ctl", (6, delete, 22, ffi.NULL), -1, errno.ENOENT) == (
        "epoll_ctl(6, EPOLL_CTL_DEL, 22, NULL) = -1 ENOENT (No such file or directory)"
    )
    listed = (
        "[{events=EPOLLIN|EPOLLHUP, data=0x16}, {events=EPOLLOUT|EPOLLERR, data=0x300000007}, "
        "{events=EPOLLIN|EPOLLRDHUP|EPOLLET, data=0x9}]"
    )
    assert line(ffi, "epoll_wait", (6, events, 3, -1), 3) == f"epoll_wait(6, {listed}, 3, -1) = 3"
    timespec = ffi.new("struct timespec *", {"tv_nsec": 1})
    assert line(ffi, "epoll_pwait2", (6, events, 3, timespec, ffi.NULL), 0) == (
        "epoll_pwait2(6, [], 3, {tv_sec=0, tv_nsec=1}, NULL) = 0"
    )
    natives = form_of(ffi, "epoll_wait").ready((6, events, 3, -1), 3)
    assert [(n.fd, n.token, n.hangup) for n in natives] == [
        (22, 22, True),
        (7, 7 | 3 << 32, True),
        (9, 9, True),
    ]


@pytest.mark.parametrize("target", POLL)
def test_poll(target):
    """poll shows what was asked and what happened; a negative descriptor is skipped."""
    ffi = load_ffi(target)
    fds = ffi.new("struct pollfd[3]")
    fds[0].fd, fds[1].fd, fds[2].fd = 5, -1, 7
    fds[0].events = constants(ffi, "POLLIN", "POLLOUT")
    fds[2].events = ffi.integer_const("POLLPRI")
    form = form_of(ffi, "poll")
    texts = form.enter((fds, 3, 1000))
    fds[0].revents = constants(ffi, "POLLIN", "POLLHUP")
    fds[2].revents = ffi.integer_const("POLLNVAL")
    note = form.leave((fds, 3, 1000), texts, 2)

    out = "POLLOUT"  # also POLLWRNORM where the two are one bit: named once
    assert texts == [
        f"[{{fd=5, events=POLLIN|{out}}}, {{fd=-1}}, {{fd=7, events=POLLPRI}}]",
        "3",
        "1000",
    ]
    assert note == "[{fd=5, revents=POLLIN|POLLHUP}, {fd=7, revents=POLLNVAL}]"
    assert line(ffi, "poll", (ffi.NULL, 0, 0), 0) == "poll(NULL, 0, 0) = 0 (Timeout)"


@pytest.mark.parametrize("target", POLL)
def test_select(target):
    """select's bitmaps are read before the call as asked and after it as answered."""
    ffi = load_ffi(target)
    bits = 8 * ffi.sizeof("fd_mask")
    sets = [ffi.new("fd_mask[]", 4) for _ in range(2)]
    for fd in (4, 7, bits + 1):
        sets[0][fd // bits] |= 1 << fd % bits
    nfds = bits + 2
    timeval = ffi.new("struct timeval *", {"tv_sec": 2, "tv_usec": 30})
    form = form_of(ffi, "select")
    arguments = (nfds, sets[0], sets[1], ffi.NULL, timeval)
    texts = form.enter(arguments)
    sets[0][0] = 1 << 7
    note = form.leave(arguments, texts, 2)

    asked = f"[4 7 {bits + 1}], [], NULL, {{tv_sec=2, tv_usec=30}}"
    assert ", ".join(texts) == f"{nfds}, {asked}"
    assert note == f"in [7 {bits + 1}]"
    assert form.leave(arguments, texts, 0) == "Timeout"


def test_select_of_windows():
    """Windows' counted arrays of sockets are shown like bitmaps."""
    ffi = load_ffi("windows")
    reads = ffi.new("fd_set *", {"fd_count": 3, "fd_array": [400, 8, 12]})
    none = ffi.new("fd_set *", {"fd_count": 0, "fd_array": []})

    assert line(ffi, "select", (0, reads, none, ffi.NULL, ffi.NULL), 3) == (
        "select(0, [400 8 12], [], NULL, NULL) = 3 (in [400 8 12])"
    )


@unix
def test_devpoll():
    """/dev/poll's open, write, ioctl and close, with the struct that goes to ioctl."""
    ffi = load_ffi("sunos")
    flags = os.O_RDWR | os.O_CLOEXEC
    fds = ffi.new("struct pollfd[3]")
    for index, (events, revents) in enumerate(
        [("POLLREMOVE", "POLLIN"), ("POLLIN", "POLLOUT"), ("POLLOUT", "POLLHUP")]
    ):
        fds[index].fd = 7 + index
        fds[index].events = ffi.integer_const(events)
        fds[index].revents = ffi.integer_const(revents)
    dvpoll = ffi.new("struct dvpoll *", {"dp_fds": fds, "dp_nfds": 3, "dp_timeout": 1000})
    poll = ffi.integer_const("DP_POLL")

    assert line(ffi, "open", (b"/dev/poll", flags), 4) == ('open("/dev/poll", O_RDWR|O_CLOEXEC) = 4')
    assert line(ffi, "write", (4, fds, 24), 24) == (
        "write(4, [{fd=7, events=POLLREMOVE}, {fd=8, events=POLLIN}, {fd=9, events=POLLOUT}], 24) = 24"
    )
    assert line(ffi, "ioctl", (4, poll, dvpoll), 3) == (
        "ioctl(4, DP_POLL, {dp_fds=[{fd=7, revents=POLLIN}, {fd=8, revents=POLLOUT}, "
        "{fd=9, revents=POLLHUP}], dp_nfds=3, dp_timeout=1000}) = 3"
    )
    assert line(ffi, "close", (4,), 0) == "close(4) = 0"


def test_eventport():
    """The calls of event ports; what was sent by the program has no flags of poll."""
    ffi = load_ffi("sunos")
    fd, user = ffi.integer_const("PORT_SOURCE_FD"), ffi.integer_const("PORT_SOURCE_USER")
    flags = ffi.integer_const("POLLIN") | ffi.integer_const("POLLHUP")
    events = ffi.new("struct port_event[4]")
    for event, (source, number, what) in zip(events, [(fd, 7, flags), (user, 0, 5), (9, 8, 6)]):
        event.portev_source, event.portev_object, event.portev_events = source, number, what
    nget = ffi.new("unsigned int *", 3)
    time = ffi.new("struct timespec *", (1, 500))

    assert line(ffi, "port_create", (), 4) == "port_create() = 4"
    assert line(ffi, "port_associate", (4, fd, 7, flags, ffi.NULL), 0) == (
        "port_associate(4, PORT_SOURCE_FD, 7, POLLIN|POLLHUP, NULL) = 0"
    )
    assert line(ffi, "port_dissociate", (4, fd, 7), 0) == "port_dissociate(4, PORT_SOURCE_FD, 7) = 0"
    assert line(ffi, "port_send", (4, 0, ffi.NULL), 0) == "port_send(4, 0, NULL) = 0"
    assert line(ffi, "port_getn", (4, events, 4, nget, time), 0) == (
        "port_getn(4, [{portev_events=POLLIN|POLLHUP, portev_source=PORT_SOURCE_FD, portev_object=7}, "
        "{portev_events=5, portev_source=PORT_SOURCE_USER, portev_object=0}, "
        "{portev_events=6, portev_source=0x9, portev_object=8}], 4, [3], {tv_sec=1, tv_nsec=500}) = 0"
    )
    assert form_of(ffi, "port_getn").enter((4, events, 4, nget, ffi.NULL)) == [
        "4", "[]", "4", "[3]", "NULL",
    ]  # fmt: skip


def test_write_shows_no_payload():
    """What is written to anything but /dev/poll is nobody's business."""
    ffi = load_ffi("sunos")
    secret = b"password"

    text = line(ffi, "write", (4, secret, len(secret)), len(secret))

    assert "password" not in text
    assert "112" not in text, "nor the bytes as numbers"


@pytest.mark.parametrize("target", POLL)
def test_unknown_bits(target):
    """Bits without a name are shown in hexadecimal, after those with one; no bit is 0."""
    ffi = load_ffi(target)
    bits = Bits({"ONE": 1, "FOUR": 4})

    assert bits(0) == "0"
    assert bits(1 | 4 | 0x40) == "ONE|FOUR|0x40"
    assert bits(0x80) == "0x80"
    assert Bits({"A": 1}, width=16)(-2) == "0xfffe"
    fds = ffi.new("struct pollfd *", {"fd": 3, "events": -(2**15)})
    assert "events=0x8000" in line(ffi, "poll", (fds, 1, 0), 0)


def test_long_arrays_are_cut():
    """As in strace, 32 entries are shown, and then an ellipsis."""
    ffi = load_ffi("linux")
    fds = ffi.new("struct pollfd[40]")
    for index in range(40):
        fds[index].fd = index

    text = line(ffi, "poll", (fds, 40, 0), 0)

    assert text.count("{fd=") == 32
    assert "{fd=31, events=0}, ...], 40, 0)" in text


def test_results():
    """A failure has errno's name and text; a call that did not return, a question mark."""
    assert outcome(-1, errno.EBADF, "") == f"-1 EBADF ({os.strerror(errno.EBADF)})"
    assert outcome(-1, 0, "") == "-1"
    assert outcome(None, 0, "KeyboardInterrupt") == "? (KeyboardInterrupt)"
    assert outcome(1, 0, "in [4]") == "1 (in [4])"
    assert seconds(12_000) == "<0.000012>"


@unix
def test_unknown_functions_and_bad_arguments_are_shown_plainly():
    """A function without a decoder still shows numbers and addresses."""
    ffi = load_ffi("linux")

    assert line(ffi, "dup", (3,), 4) == "dup(3) = 4"
    assert line(ffi, "dup3", (7, 5, os.O_CLOEXEC), 5) == "dup3(7, 5, O_CLOEXEC) = 5"
    assert line(ffi, "dup3", (7, 5, 0), 5) == "dup3(7, 5, 0x0) = 5"
    assert line(ffi, "thing", (ffi.NULL, None), 0) == "thing(NULL, NULL) = 0"


@pytest.mark.parametrize(
    ("target", "functions"),
    [
        ("linux", ["epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait2", "poll", "ppoll"]),
        ("linux", ["dup3"]),
        ("freebsd", ["kqueue", "kqueue1", "kqueuex", "kevent", "select", "poll"]),
        ("sunos", ["open", "write", "ioctl"]),
    ],
)
def test_every_call_has_a_decoder(target, functions):
    """No system call of a backend falls back on plain numbers."""
    assert set(functions) <= set(FORMS)


def test_a_path_that_is_a_pointer():
    """open(2) shows its path as text, whether bytes, cdata or NULL."""
    ffi = load_ffi("sunos")
    opens = form_of(ffi, "open")
    path = ffi.new("char[]", b"/dev/poll")

    assert opens.enter((path, 0))[0] == '"/dev/poll"'
    assert opens.enter((b"/dev/poll\0", 0))[0] == '"/dev/poll"'
    assert opens.enter((ffi.NULL, 0))[0] == "NULL"


def test_an_ioctl_that_is_not_of_devpoll():
    """Another command's argument is an address, and brings no events."""
    ffi = load_ffi("sunos")
    ioctl = form_of(ffi, "ioctl")
    arguments = (4, 12345, ffi.NULL)
    texts = ioctl.enter(arguments)

    assert ioctl.leave(arguments, texts, 0) == "Timeout"
    assert texts == ["4", "0x3039", "NULL"]
    assert ioctl.ready(arguments, 1) == []


def test_numbers_and_addresses():
    """Integers in any form are numbers; what is none is an address, or its type."""
    ffi = load().ffi
    pointer = ffi.new("int *", 5)
    assert form.integer(ffi, ffi.cast("long", 7)) == "7"
    assert grammar.address(ffi, pointer) == hex(int(ffi.cast("uintptr_t", pointer)))
    assert grammar.address(ffi, 0) == "NULL"
    assert grammar.address(ffi, 255) == "0xff"
    assert grammar.address(ffi, "text") == "/* str */"
    assert grammar.address(ffi, ffi.new("struct timeval *")[0]) == "?"
    assert form.records(ffi, ffi.cast("int *", 255), "int", -1, str) == "0xff"


def test_a_time_struct_by_value():
    """A time struct is shown alike, whether pointed to, in an array, or itself."""
    ffi = load().ffi
    clock = ffi.new("struct timeval *", {"tv_sec": 1, "tv_usec": 2})
    assert grammar.timeval(ffi, clock) == "{tv_sec=1, tv_usec=2}" == grammar.timeval(ffi, clock[0])


def test_bitmaps_of_big_endian(monkeypatch):
    """In a big-endian bitmap bit 0 is in the first word's last byte."""
    ffi = load_ffi("linux")
    monkeypatch.setattr(decode_select.sys, "byteorder", "big")
    width = ffi.sizeof("fd_mask")
    words = bytearray(2 * width)
    for fd in (0, 9, 8 * width + 3):
        word, bit = divmod(fd, 8 * width)
        words[word * width + width - 1 - bit // 8] |= 1 << bit % 8

    assert decode_select.members(ffi, ffi.from_buffer(words), 16 * width) == [0, 9, 8 * width + 3]
