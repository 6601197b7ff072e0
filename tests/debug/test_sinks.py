"""Sinks, and the guard-rails around them."""

from __future__ import annotations

import errno
import gc
import io
import json
import logging
import os
import re
import signal
import socket
import sys
import threading

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, Debug, backends, debugging
from selectors_ffi.binding import load
from selectors_ffi.debug import (
    FileSink,
    JsonSink,
    Lint,
    PerfettoSink,
    ReportSink,
    RingSink,
    Stats,
    Syscall,
    tee,
)
from selectors_ffi.debug.naming import kind_of, shown
from selectors_ffi.debug.records import Marks, Source
from tests import needs
from tests.debug.conftest import Owner

SOURCE = Source(1, 2, "TestSelector@0x1")


def work(cls=backends.PollSelector):
    """Make a selector and let it make one system call."""
    with cls() as selector:
        selector.select(0)


def test_logger(caplog):
    """The sink "logging" is the logger selectors_ffi, at DEBUG."""
    caplog.set_level(logging.DEBUG, "selectors_ffi")
    with debugging("syscalls", "logging"):
        work()

    assert caplog.records[0].name == "selectors_ffi"
    assert caplog.records[0].getMessage().startswith("poll(")
    assert isinstance(caplog.records[0].record, Syscall)


def test_file_path_descriptor_callable(tmp_path):
    """A text file, a path, a descriptor and a callable all take the same records."""
    text, calls = io.StringIO(), []
    read, write = os.pipe()
    path = tmp_path / "log"
    for sink in (text, path, write, calls.append):
        Marks.selectors = 0
        with debugging("syscalls", sink):
            work()
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        lines = [text.getvalue(), path.read_text("utf-8"), pipe.read(), f"{calls[0]}\n"]

    assert {line.partition(" <")[0] for line in lines} == {lines[0].partition(" <")[0]}
    assert all(line.endswith(">\n") for line in lines)


def test_not_a_sink():
    """Anything else is refused when the block is entered."""
    with pytest.raises(TypeError, match="a sink is a callable"), debugging("all", 3.5):
        pass


@pytest.mark.parametrize(
    "make", [FileSink, JsonSink, PerfettoSink, ReportSink, lambda target: RingSink(dump=target)]
)
def test_not_a_target(make):
    """A sink that could not write is refused when it is made."""
    with pytest.raises(TypeError, match=r"a path, .*a descriptor or a text file, not 3\.5"):
        make(3.5)


@pytest.mark.parametrize("arguments", [{}, {"debug": "events"}])
def test_a_failure_is_told_once_for_all_selectors(capsys, arguments):
    """However many selectors a program makes, a sink that fails is told of once."""
    with debugging("events", lambda record: 1 / 0):
        for _ in range(3):
            with backends.SelectSelector(**arguments) as selector:
                selector.select(0)

    assert capsys.readouterr().err.count("\n") == 1


def test_not_sinks_for_several():
    """What is no callable is refused when the tee is made."""
    with pytest.raises(TypeError, match=r"tee\(\) takes callables, .*, not 'x\.log'"):
        tee([print, "x.log"])


def test_a_recorder_of_no_size():
    """The message names the parameter."""
    with pytest.raises(ValueError, match="size is how many records to keep, not -1"):
        RingSink(-1)


def test_json_lines(tmp_path):
    """Each line is one JSON object with the fields of its record."""
    path = tmp_path / "log"
    sink = JsonSink(path)
    first, second = socket.socketpair()
    with first, second, debugging("all", sink), backends.PollSelector() as selector:
        selector.register(first, EVENT_READ)
        second.close()
        selector.select(0)
        first.close()
        with pytest.warns(UserWarning, match="SEL001"):
            selector.select(0)
    sink.close()
    objects = [json.loads(line) for line in path.read_text().splitlines()]

    assert {one["type"] for one in objects} == {"registration", "syscall", "event", "wait", "lint"}
    assert objects[1]["name"] == "poll"
    assert objects[1]["pid"] == os.getpid()
    assert objects[1]["duration"] >= 0


def test_ring_keeps_the_last_and_dumps_on_request():
    """A flight recorder keeps the last n records and writes them when asked."""
    out = io.StringIO()
    ring = RingSink(3, out)
    with debugging("syscalls", ring), backends.PollSelector() as selector:
        for _ in range(10):
            selector.select(0)
    assert len(ring.records()) == 3

    ring.dump("for the test")

    lines = out.getvalue().splitlines()
    assert lines[0].startswith("selectors_ffi: last 3 records, for the test; times are")
    assert all(re.match(r"-0\.\d{6} poll\(", line) for line in lines[1:])
    assert len(lines) == 4
    assert ring.records() == []


def test_times_of_a_dump_never_go_back():
    """A wait is written after its calls, with a time that is not before theirs."""
    out = io.StringIO()
    ring = RingSink(dump=out)
    with debugging("syscalls,events", ring), backends.SelectSelector() as selector:
        for _ in range(3):
            selector.select(0)
    began = [record.time for record in ring.records()]
    ring.dump()

    times = [float(line.split()[0]) for line in out.getvalue().splitlines()[1:]]
    assert times == sorted(times)
    assert began != sorted(began)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix descriptors")
def test_ring_dumps_when_select_raises():
    """When select raises, the flight recorder is dumped, the failed call last."""
    out = io.StringIO()
    read, write = os.pipe()
    with debugging("syscalls", RingSink(10, out)), backends.SelectSelector() as selector:
        selector.register(read, EVENT_READ)
        os.close(read)
        with pytest.raises(OSError, match="Bad file"):
            selector.select(0)
    os.close(write)

    assert "select() raised OSError(9" in out.getvalue().splitlines()[0]
    assert "= -1 EBADF (Bad file descriptor) <" in out.getvalue().splitlines()[-1]


def test_sink_that_raises(capsys, backend, pairs):
    """A sink that raises harms nobody; its first failure is told on standard error."""

    def sink(record):
        raise RuntimeError("full disk")

    with debugging("all", sink), backend() as selector:
        selector.register(pairs[0][0], EVENT_WRITE)
        assert [key.fileobj for key, _ in selector.select(0)] == [pairs[0][0]]
        assert selector._observer.emit.failed > 1
    assert capsys.readouterr().err.count("full disk") == 1


def test_sink_that_uses_the_selector(backend, pairs):
    """A sink may use the traced selector: it gets no records of that, and nothing recurses."""
    kept = []

    def sink(record):
        kept.append(record)
        selector.select(0)
        selector.get_map()

    with debugging("syscalls", sink):
        selector = backend()
    kept.clear()
    selector.register(pairs[0][0], EVENT_WRITE)
    kept.clear()
    assert len(selector.select(0)) == 1

    assert len(kept) == 1
    assert selector._observer.emit.skipped > 0
    with selector:
        pass


def test_errno_survives_the_sink(backend):
    """What a failing call left in ffi.errno is there after the sink has made calls of its own."""
    if not load().has("close"):
        pytest.skip("Windows closes sockets otherwise")
    ffi = load().ffi

    def sink(record):
        ffi.errno = errno.EIO
        with pytest.raises(OSError):
            os.close(-1)

    with debugging("syscalls", sink):
        selector = backend()
    with selector:
        failing = selector._binding.function("close")
        assert selector._binding.ask(failing, -1) == -errno.EBADF
        assert ffi.errno == errno.EBADF
        ffi.errno = errno.EDOM
        assert failing(os.dup(0)) == 0
        assert ffi.errno == errno.EDOM, "success leaves it alone"
        if backend is backends.EpollSelector:
            with open(os.devnull) as file, pytest.raises(PermissionError):
                selector.register(file, EVENT_READ)


def test_a_flight_recorder_in_a_tee_is_dumped():
    """It writes when select() raises, also if other sinks get the records as well."""
    written, others = [], []
    recorder = RingSink(2, dump=written.append)
    sink = tee([recorder, others.append])
    with debugging("events", sink), backends.SelectSelector() as selector:
        with pytest.raises(ValueError, match="NaN"):
            selector.select(float("nan"))
    assert [str(record).partition(" <")[0] for record in written] == ["wait(nan) = raised"]
    assert others[:1] == written
    assert not hasattr(tee([others.append]), "dump"), "it would be taken for a flight recorder"


def test_tee_guards_each():
    """Of several sinks, one that raises does not keep the others from their records."""
    kept = []
    sink = tee([lambda record: 1 / 0, kept.append])
    with debugging("syscalls", sink):
        work()

    assert len(kept) == 1


def test_lines_of_threads_stay_whole(tmp_path):
    """Several threads tracing at once write whole lines, each of one call."""
    path = tmp_path / "log"
    sink = FileSink(path)
    with debugging("syscalls", sink):
        selectors = [backends.PollSelector() for _ in range(4)]

    def spin(selector):
        for _ in range(100):
            selector.select(0)

    threads = [threading.Thread(target=spin, args=(one,)) for one in selectors for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    for selector in selectors:
        selector.close()
    lines = path.read_text().splitlines()

    assert len(lines) == 800
    assert all(line.startswith("[pid ") and line.endswith(">") for line in lines)
    assert len({line.split()[1] for line in lines}) <= 8


def test_repr_is_cut_and_may_raise(records, pairs):
    """A file object's repr is one line of 80 characters at most, and may raise without harm."""

    class Long:
        def __init__(self, sock):
            self.fileno = sock.fileno

        def __repr__(self):
            return "x" * 200 + "\n"

    class Raising(Long):
        def __repr__(self):
            raise ValueError("no")

    with backends.PollSelector() as selector:
        selector.register(Long(pairs[0][0]), EVENT_WRITE)
        selector.register(Raising(pairs[1][0]), EVENT_WRITE)
        assert len(selector.select(0)) == 2
        assert "test_repr_is_cut_and_may_raise.<locals>.Raising" in str(selector.describe())
    assert shown(Raising(pairs[1][0])) == "<Raising object whose repr raises ValueError>"
    assert shown(Long(pairs[0][0])) == "x" * 77 + "..."


def test_no_payload(backend, records, pairs):
    """Nothing that is sent or received ever appears in a record."""
    with backend() as selector:
        selector.register(pairs[0][0], EVENT_READ)
        pairs[0][1].send(b"SECRETSECRET")
        assert selector.select(0)

    assert not any("SECRET" in f"{record}{record.as_dict()}" for record in records)


@needs.procfs
def test_kinds():
    """Descriptors are named by what they are."""
    read, write = os.pipe()
    first, second = socket.socketpair()
    with first, second, open(__file__) as file, open(os.devnull) as null:
        folder = os.open("/", os.O_RDONLY)
        things = [read, first.fileno(), file.fileno(), null.fileno(), folder]
        kinds = [kind_of(fd) for fd in things]
        for fd in (read, write, folder):
            os.close(fd)

    assert kinds == ["pipe", "socket", "regular file", "character device", "directory"]
    assert kind_of(read) == "closed"
    assert kind_of(2**70) == "closed"
    with backends.EpollSelector() as selector:
        assert kind_of(selector.fileno()) == "eventpoll"


def test_statistics(backend, pairs):
    """stats() counts calls, errnos, waits, empty wake-ups, and how late a timeout came."""
    with backend(debug=Debug.STATS) as selector:
        selector.register(pairs[0][0], EVENT_READ)
        selector.select(0)
        selector.select(0.002)
        pairs[0][1].send(b"x")
        selector.select(5)
        stats = selector.stats()
        figures = stats.as_dict()
        table = str(stats)

    assert figures["waits"]["count"] == 3
    assert figures["empty"] == 2
    assert figures["ready"] == 1
    assert figures["late"]["count"] == 1
    assert sum(call["count"] for call in figures["calls"].values()) >= 3
    assert sum(figures["kinds"].values()) == 1
    assert "% time     seconds   median us      max us     calls    errors syscall" in table
    assert "select(): 3 waits, 2 empty, 1 keys ready, 0.33 per wait" in table
    assert "timeouts: 1 waits ran out, late by" in table


def test_statistics_count_errnos():
    """A failed call counts as an error, by errno."""
    with backends.SelectSelector(debug="stats") as selector:
        near, far = socket.socketpair()
        selector.register(near.fileno(), EVENT_READ)
        near.close()
        far.close()
        with pytest.raises(OSError) as caught:
            selector.select(0)
        name = errno.errorcode[caught.value.errno]
        assert name == ("EBADF" if os.name == "posix" else "WSAENOTSOCK")
        assert selector.stats().as_dict()["calls"]["select"]["errors"] == {name: 1}
        assert f"1  select: {name}" in str(selector.stats())


def test_statistics_need_their_flag(backend):
    """stats() of a selector made without STATS says what to do."""
    for selector in (backend(), backend(debug=Debug.EVENTS)):
        with selector, pytest.raises(RuntimeError, match=r"debug=Debug\.STATS"):
            selector.stats()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_not_locked_out(tmp_path):
    """A child forked while another thread was writing a record can write its own."""
    inside, go_on, parent = threading.Event(), threading.Event(), os.getpid()

    class Slow(FileSink):
        def line(self, record):
            return "line"

        def write(self, text):
            with self._lock:
                if os.getpid() == parent:  # the child's events are as the other thread had them
                    inside.set()
                    go_on.wait(20)
            super().write(text)

    with debugging("syscalls,stats", Slow(tmp_path / "log")):
        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(20)
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not pytest's
                signal.alarm(20)
                work()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        go_on.set()
        thread.join()

    assert status == 0
    assert (tmp_path / "log").read_text() == "line\n" * 2


@needs.procfs
def test_a_file_is_closed_after_the_finaliser_of_an_owner(tmp_path, backend):
    """An owner in a cycle closes its selector in its finaliser; the sink has the record of that."""
    log = tmp_path / "log"
    with debugging("events", FileSink(log)):
        selector = backend()
    Owner(selector)
    del selector
    for _ in range(3):
        gc.collect()
    assert "close" in log.read_text()
    assert str(log) not in [
        os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
    ]


def test_a_sink_that_fails_without_a_standard_error(monkeypatch, backend):
    """Where a failing sink cannot even be complained of, nothing happens."""

    def fail(record):
        raise ZeroDivisionError

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with backend(debug="all") as before:
        pass
    with debugging("events", fail):
        with backend() as selector:
            assert selector.select(0) == []
        assert selector._observer.emit.failed
    assert before.get_map() is None


def test_a_recorder_that_is_read_while_it_is_written():
    """A record that comes while the records are copied makes the copying begin again."""
    ring = RingSink()

    class Growing:
        tries = 0

        def __iter__(self):
            Growing.tries += 1
            if Growing.tries == 1:
                raise RuntimeError("deque mutated during iteration")
            return iter([1, 2])

    ring._records = Growing()
    assert ring.records() == [1, 2]


def test_a_recorder_dumps_into_any_sink():
    """The records that were kept go to a callable as they are."""
    dumped = []
    ring = RingSink(2, dump=dumped.append)
    for n in range(3):
        ring(n)
    ring.dump()
    assert dumped == [1, 2]
    assert ring.records() == []


def test_a_lint_has_a_record_of_its_own():
    """The text of a lint names its id and its place."""
    lint = Lint(1, SOURCE, "SEL001", 7, "message", "file.py:1 in f")
    assert str(lint).endswith("SEL001 at file.py:1 in f: message")


def test_statistics_of_nothing():
    """Before anything has happened every figure is 0, and the table says so."""
    figures = Stats()
    assert figures.waits.median == 0
    assert "select()" not in str(figures)


def test_a_recorder_dumps_into_a_perfetto_file(tmp_path):
    """Each dump begins with an instant that says why, in valid JSON; the user's sink stays open."""
    path = tmp_path / "trace.json"
    ring = RingSink(dump=PerfettoSink(path))
    for reason in ("one", "two"):
        with debugging("syscalls", ring):
            work()
        ring.dump(reason)
    events = json.loads(path.read_text())["traceEvents"]
    notes = [event["name"] for event in events if event.get("cat") == "note"]

    assert [note.partition(";")[0] for note in notes] == ["last 1 records, one", "last 1 records, two"]
    assert [event["name"] for event in events].count("poll") == 2
