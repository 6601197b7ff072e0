"""Filters: records by flag, call, descriptor, failure and time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys

import pytest

from selectors_ffi.debug import Debug, Event, Lint, Registration, Syscall, Wait, filters
from selectors_ffi.debug.filters import Filter, about, calls_of, chosen, nanoseconds_of
from selectors_ffi.debug.records import Source

SOURCE = Source(1, 2, "TestSelector-1")
EVERYTHING = chosen(["all"], "")


def call(name, *arguments, errno=0, result=0, note="", duration=5):
    """A system call."""
    return Syscall(1, SOURCE, name, arguments, result, errno, note, duration)


def event(fd):
    """An event of a descriptor."""
    return Event(1, SOURCE, fd, "socket", "EPOLLIN", 1, "<socket>", "")


def registration(fd, error=""):
    """A registration of a descriptor."""
    return Registration(1, SOURCE, "register", fd, "socket", 1, "<socket>", error)


def wait(duration=5, ready=0, turn=-1):
    """A wait."""
    return Wait(1, SOURCE, None, duration, ready, turn)


def lint(fd):
    """A lint about a descriptor."""
    return Lint(1, SOURCE, "SEL001", fd, "message", "place")


def given(records, what=EVERYTHING, tests=(), **options):
    """Return what a filter hands on."""
    kept = []
    chain = Filter(kept.append, what, tuple(map(about, tests)), **options)
    for record in records:
        chain(record)
    return kept


def test_what_is_chosen():
    """Values of -e add up: flags to flags, calls to calls; calls alone mean system calls."""
    assert chosen([], "events").flags == Debug.EVENTS
    assert chosen(["events", "checks"], "").flags == Debug.EVENTS | Debug.CHECKS
    assert chosen(["trace=poll"], "events").flags == Debug.SYSCALLS
    assert chosen(["events", "trace=poll"], "").flags == Debug.EVENTS | Debug.SYSCALLS
    assert chosen(["trace=poll", "trace=select"], "").calls == calls_of("select,poll")
    assert chosen(["trace=poll", "trace=!select"], "").calls == calls_of("!select")
    assert chosen(["events"], "").calls.has("anything")


def test_calls_by_name_and_group():
    """Calls are chosen by name, by group, or by what they are not."""
    assert calls_of("all").has("epoll_wait")
    assert calls_of("wait").has("epoll_wait")
    assert not calls_of("wait").has("epoll_ctl")
    assert calls_of("control, close").names >= {"epoll_ctl", "kevent", "write", "close"}
    assert not calls_of("!wait").has("poll")
    assert calls_of("!wait").has("close")


def test_calls_where_no_system_is_known(monkeypatch):
    """On a system without declarations the calls are those that can be decoded."""

    def refuse():
        raise OSError

    monkeypatch.setattr(filters, "load", refuse)
    assert filters.known_calls() == sorted({*filters.FORMS, "close"})


def test_flags():
    """A flag that was not asked for shows nothing, although the summary may need it."""
    records = [call("poll"), event(7), registration(7), wait(), lint(7)]
    assert given(records) == records
    assert given(records, chosen(["syscalls"], "")) == [records[0], records[4]]
    assert given(records, chosen(["events"], "")) == records[1:]
    assert given(records, chosen([], "")) == [records[4]]
    assert given(records, chosen(["trace=!poll"], "")) == [records[4]]


def test_failures():
    """-Z shows failed calls, refused registrations and waits that raised."""
    failed = [
        call("poll", errno=errno.EBADF, result=-1),
        call("poll", result=None),
        registration(7, "OSError()"),
        wait(ready=-1),
        lint(7),
    ]
    assert given([*failed, call("poll"), event(7), registration(7), wait()], failed=True) == failed


def test_slow_ones():
    """--slower shows calls and waits that took long, and waits after a long turn of the program."""
    slow = [call("poll", duration=100), wait(100), wait(5, turn=100)]
    assert given([*slow, call("poll"), wait(), event(7)], slower=100) == slow


@pytest.mark.parametrize(
    ("name", "arguments", "note"),
    [
        ("epoll_ctl", ("5", "EPOLL_CTL_DEL", "7", "NULL"), ""),
        ("epoll_wait", ("5", "[{events=EPOLLIN, data=0x100000007}]", "64", "-1"), ""),
        ("poll", ("[{fd=5, events=POLLIN}, {fd=7, events=POLLIN}]", "2", "0"), ""),
        ("select", ("8", "[4 7]", "[]", "NULL", "NULL"), ""),
        ("kevent", ("5", "[{ident=7, filter=EVFILT_READ}]", "1", "NULL", "0", "NULL"), ""),
        ("ioctl", ("5", "DP_POLL", "{dp_fds=[{fd=7, revents=POLLIN}]}"), ""),
        ("close", ("7",), ""),
        ("poll", ("[{fd=1}, ...]", "40", "0"), ""),
    ],
)
def test_a_descriptor_of_a_call(name, arguments, note):
    """-P finds a descriptor in the arguments of each call; what is cut may have it."""
    record = call(name, *arguments, note=note)
    assert given([record], tests=["7"]) == [record]
    assert given([record], tests=["8", "7"]) == [record]
    if "..." not in arguments[0]:
        assert given([record], tests=["6"]) == []


def test_a_descriptor_of_other_records():
    """-P hides the events, registrations and lints of other descriptors, and waits."""
    seven = [event(7), registration(7), lint(7), lint(-1)]
    others = [event(8), registration(8), lint(8), wait()]
    assert given([*seven, *others, call("epoll_create1", "EPOLL_CLOEXEC")], tests=["7"]) == seven


@pytest.mark.skipif(os.name != "posix", reason="Unix paths")
def test_a_path(tmp_path):
    """-P takes a path of a file, a device, a named pipe or a Unix socket."""
    fifo, sock = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    with socket.socket(socket.AF_UNIX) as listener, open(os.devnull) as null:
        listener.bind(str(sock))
        assert about(str(fifo))(fd)
        assert about(str(sock))(listener.fileno())
        assert about(os.devnull)(null.fileno())
        assert not about(str(sock))(fd)
        assert not about(str(tmp_path / "not there yet"))(fd)
    os.close(fd)
    assert not about(str(fifo))(fd)
    with pytest.raises(ValueError, match="neither a descriptor's number nor an existing path"):
        about("nothing")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Unix sockets")
def test_a_path_is_compared_as_a_whole(tmp_path, monkeypatch):
    """-P shows neither sockets whose names begin like the path, nor what is in a directory."""
    name = str(tmp_path / "a b.sock")
    with contextlib.ExitStack() as stack:

        def listener(path):
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(path)
            made.listen()
            return made.fileno()

        meant = listener(name)
        others = [listener(path) for path in (name + "2", name + " <- 5")]
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(name)
        assert all(map(about(name), (meant, client.fileno())))
        assert not any(map(about(name), others))
        assert not about(str(tmp_path) + os.sep)(meant)
        monkeypatch.chdir(tmp_path)
        assert about("a b.sock")(meant)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's names")
def test_a_path_that_no_file_has_any_more(tmp_path):
    """-P goes on to show a file that was deleted, and a Unix socket by its abstract name."""
    path = tmp_path / "file"
    with open(path, "w") as file, socket.socket(socket.AF_UNIX) as abstract:
        path.unlink()
        assert about(str(path))(file.fileno())
        abstract.bind(f"\0/{os.getpid()}")
        assert about(f"@/{os.getpid()}")(abstract.fileno())


def test_the_limit():
    """After so many records one line says that there is more; a sink without lines gets nothing."""

    class Sink(list):
        notes = 0

        def __call__(self, record):
            self.append(record)

        def note(self, text):
            Sink.notes += 1

    sink = Sink()
    chain = Filter(sink, EVERYTHING, limit=2)
    for fd in range(5):
        chain(event(fd))
    assert [record.fd for record in sink] == [0, 1]
    assert Sink.notes == 1
    assert len(given([event(1)] * 5, limit=2)) == 2


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("10ms", 10_000_000), ("500us", 500_000), ("1.5s", 1_500_000_000), ("7ns", 7), ("0.05us", 50),
        ("9" * 400 + "ns", int("9" * 400)),
    ],
)  # fmt: skip
def test_durations(text, nanoseconds):
    """Durations have a unit."""
    assert nanoseconds_of(text) == nanoseconds


@pytest.mark.parametrize("text", ["10", "ms", "-1s", "1m", "1e3s", ""])
def test_no_durations(text):
    """What has no unit, or another one, is refused."""
    with pytest.raises(ValueError, match="is no duration"):
        nanoseconds_of(text)
