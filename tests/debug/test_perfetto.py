"""Perfetto: output that keeps the rules of the trace-event format, whole at every moment."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi.debug import Event, PerfettoSink, Registration, Syscall, Wait
from selectors_ffi.debug.records import Source
from tests import apart

SOURCE = Source(1, 2, "TestSelector@0x1")

ROOT = Path(__file__).parents[2]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")

# https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: per phase, the
# fields that an event must have beside ph, pid and tid.
REQUIRED = {
    "X": {"name": str, "cat": str, "ts": (int, float), "dur": (int, float)},
    "i": {"name": str, "cat": str, "ts": (int, float), "s": str},
    "b": {"name": str, "cat": str, "ts": (int, float), "id2": dict},
    "n": {"name": str, "cat": str, "ts": (int, float), "id2": dict},
    "e": {"name": str, "cat": str, "ts": (int, float), "id2": dict},
    "M": {"name": str, "args": dict},
}
METADATA = {
    "process_name": ("name", str),
    "thread_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_sort_index": ("sort_index", int),
}


def load(path):
    """Return the events of a file, which must be strict JSON."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)["traceEvents"]


def validate(events, *, ended=True):
    """Check every event by itself, nesting of slices per thread, and life of tracks."""
    slices, tracks = defaultdict(list), {}
    for event in events:
        assert event["ph"] in REQUIRED, event
        for field, kind in {"pid": int, "tid": int, **REQUIRED[event["ph"]]}.items():
            assert isinstance(event[field], kind), (field, event)
        assert event.get("ts", 0) >= 0 <= event.get("dur", 0)
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        if event["ph"] == "M":
            field, kind = METADATA[event["name"]]
            assert isinstance(event["args"][field], kind)
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append((event["ts"], -event["dur"]))
        if event["ph"] in "bne":
            identity = (event["cat"], event["pid"], event["id2"]["local"])
            if event["ph"] == "b":
                assert identity not in tracks, "a track begins once"
                tracks[identity] = (event["name"], event["ts"])
            name, begun = tracks[identity]
            assert (event["name"], event["ts"] >= begun) == (name, True)
            if event["ph"] == "e":
                tracks[identity] = (name, float("inf"))
    if ended:
        assert all(begun == float("inf") for _, begun in tracks.values()), "every track ends"
    for spans in slices.values():
        open_ = []
        for begin, minus in sorted(spans):
            while open_ and open_[-1] <= begin:
                open_.pop()
            assert not open_ or begin - minus <= open_[-1] + 0.001, "slices nest"
            open_.append(begin - minus)


@pytest.fixture
def trace(tmp_path, pairs):
    """The events of a small program with two threads, all that can happen, and a track left open."""
    path = tmp_path / "trace.json"
    sink = PerfettoSink(path)
    with debugging("all", sink):
        selector, other = make(), make()
    for first, _ in pairs:
        selector.register(first, EVENT_WRITE)
    assert len(selector.select(0)) == 3
    selector.modify(pairs[0][0], EVENT_READ)
    selector.unregister(pairs[1][0])
    thread = threading.Thread(target=other.select, args=(0.001,), name="the other")
    thread.start()
    thread.join()
    number, peer = socket.socketpair()
    number.setblocking(False)
    selector.register(number, EVENT_READ)
    peer.close()
    selector.select(0)
    number.close()
    with pytest.warns(UserWarning, match="SEL001"):
        selector.select(0)
    sink.close()
    events = load(path)
    for one in (selector, other):
        one._observer.emit.sink = lambda record: None
        one.close()
    return events


def make():
    """Return a selector that reports what is closed, as every Unix has it."""
    return backends.PollSelector()


def run(tmp_path, text, *arguments):
    """Run a program that writes trace.json; return its output."""
    program = tmp_path / "server.py"
    program.write_text(
        "import json, os, signal, sys, socket\n"
        "from selectors_ffi import EVENT_READ, EVENT_WRITE, SelectSelector, debugging\n"
        "from selectors_ffi.debug import PerfettoSink\n"
        "one, two = socket.socketpair()\n"
        "sink = PerfettoSink('trace.json')\n"
        "debugging('syscalls,events', sink).__enter__()\n" + text
    )
    done = apart.python(
        program, *arguments, cwd=tmp_path, PYTHONWARNINGS="error,ignore::ResourceWarning"
    )
    assert done.stderr == ""
    return done.stdout


def named(events, what):
    """Return pid -> name or place of the processes, or threads, of a file."""
    field = METADATA[what][0]
    return {event["pid"]: event["args"][field] for event in events if event["name"] == what}


def test_format(trace):
    """Every event has its fields, slices nest per thread, every track ends."""
    validate(trace)


def test_waits_are_slices_of_their_thread(trace):
    """Each select() is a slice around its system call; threads have names and a place."""
    waits = [event for event in trace if event.get("cat") == "wait"]
    calls = [event for event in trace if event.get("cat") == "syscall"]
    names = {event["args"]["name"] for event in trace if event["name"] == "thread_name"}
    places = [event for event in trace if event["name"] == "thread_sort_index"]

    assert len(waits) == 4
    assert {event["name"] for event in calls} == {"poll", "ppoll"} or len(calls) == 4
    assert len({event["tid"] for event in waits}) == 2
    assert names == {"MainThread", "the other"}
    assert [event["args"]["sort_index"] == 0 for event in places] == [True, False], "main thread first"


def test_a_track_per_descriptor(trace, pairs):
    """A descriptor's track lasts from register to unregister; readiness is an instant on it."""
    begins = [event for event in trace if event["ph"] == "b"]
    fd = pairs[0][0].fileno()
    track = next(event["id2"] for event in begins if event["name"].startswith(f"fd {fd:3d} "))
    phases = "".join(event["ph"] for event in trace if event.get("id2") == track)
    ready = [event for event in trace if event["ph"] == "i" and event["cat"] == "ready"]

    assert len(begins) == 4
    assert phases == "bnne", "registered, ready, modified, and open at the end"
    assert {event["args"]["given"] for event in ready} == {"EVENT_WRITE", "EVENT_READ"}
    assert [event["name"] for event in trace if event.get("cat") == "lint"] == ["SEL001"]


def test_tracks_are_named_after_the_peer_and_sort_by_number(tmp_path):
    """Viewers sort the names of tracks as text: 7 comes before 12. The peer is in the name."""
    path = tmp_path / "trace.json"
    sink = PerfettoSink(path)
    with socket.create_server(("127.0.0.1", 0)) as server, debugging("events", sink), make() as selector:
        clients = [socket.create_connection(server.getsockname()) for _ in range(8)]
        for client in clients:
            selector.register(client, EVENT_READ)
        for client in clients:
            client.close()
        peer = f"127.0.0.1:{server.getsockname()[1]}"
    sink.close()
    names = [event["name"] for event in load(path) if event["ph"] == "b"]

    assert sorted(names) == sorted(names, key=lambda name: int(name.split()[1]))
    assert all(peer in name for name in names)


def test_whole_after_every_record(tmp_path):
    """The file is JSON after each record, with selectors open, and ends the tracks when closed."""
    path = tmp_path / "trace.json"
    sink = PerfettoSink(path)
    assert load(path) == []

    def check(record):
        sink(record)
        validate(load(path), ended=False)

    one, two = socket.socketpair()
    with one, two, debugging("all", check):
        selector = make()
        selector.register(one, EVENT_WRITE)
        selector.select(0)
        sink.close()
        validate(load(path))
        selector._observer.emit.sink = lambda record: None
        selector.close()
    sink.close()  # closing again does nothing


def test_a_text_file_is_whole_when_closed():
    """What cannot be written twice gets its end from close()."""
    file = io.StringIO()
    sink = PerfettoSink(file)
    with debugging("all", sink), make() as selector:
        selector.select(0)
    sink.close()
    events = json.loads(file.getvalue())["traceEvents"]

    validate(events)
    assert {event["ph"] for event in events} == {"M", "X"}


def test_a_timeout_that_json_does_not_have(tmp_path):
    """A timeout of infinity or NaN is text: JSON has no such numbers."""
    from selectors_ffi.debug.records import Wait, here, now

    path = tmp_path / "trace.json"
    sink = PerfettoSink(path)
    for timeout in (float("inf"), float("-inf"), float("nan")):
        sink(Wait(now(), here("EpollSelector-1"), timeout, 1, 0))
    sink.close()
    waits = [event["args"]["timeout"] for event in load(path) if event["ph"] == "X"]

    assert waits == ["inf", "-inf", "nan"]


def test_selectors_that_are_open_at_exit(tmp_path):
    """A program that just ends, without closing anything, leaves a valid file of its own name."""
    run(
        tmp_path,
        """
selector = SelectSelector()
selector.register(one, EVENT_WRITE)
selector.select(0)
os._exit(0)
""",
    )
    events = load(tmp_path / "trace.json")
    validate(events, ended=False)

    assert list(named(events, "process_name").values()) == ["server.py"]
    assert list(named(events, "process_sort_index").values()) == [0]


@forks
def test_a_child_that_outlives_its_parent(tmp_path):
    """Parent and child write one file, valid at each moment; their tracks are their own."""
    out = run(
        tmp_path,
        """
receive, send = os.pipe()
if pid := os.fork():  # before the first record
    selector = SelectSelector()
    selector.register(one, EVENT_WRITE)
    selector.select(0)
    sink.close()
    print(os.getpid(), pid, flush=True)
    os.close(send)  # the parent has ended its file: let the child go on
    os.waitpid(pid, 0)
    os._exit(0)
os.close(send)
selector = SelectSelector()
selector.register(one, EVENT_WRITE)
selector.select(0)
os.read(receive, 1)
json.load(open("trace.json"))
selector.select(0)
json.load(open("trace.json"))
os._exit(0)
""",
    )
    parent, child = map(int, out.split())
    events = load(tmp_path / "trace.json")
    validate(events, ended=False)
    tracks = {(event["pid"], event["id2"]["local"]) for event in events if event["ph"] == "b"}
    waits = [event["pid"] for event in events if event.get("cat") == "wait"]

    assert named(events, "process_name") == {parent: "server.py", child: "server.py (child)"}
    assert named(events, "process_sort_index") == {parent: 0, child: child}
    assert len({local for _, local in tracks}) == 1, "the same number in both"
    assert {pid for pid, _ in tracks} == {parent, child}
    assert sorted(waits) == sorted([parent, child, child])


@forks
def test_many_processes_at_once(tmp_path):
    """Five processes that write at the same time lose no record and leave valid JSON."""
    run(
        tmp_path,
        """
def work():
    with SelectSelector() as selector:
        for _ in range(200):
            selector.select(0)

children = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    children.append(pid)
work()
for pid in children:
    os.waitpid(pid, 0)
""",
    )
    events = load(tmp_path / "trace.json")
    validate(events)

    assert sum(event.get("cat") == "wait" for event in events) == 5 * 200


@forks
def test_an_inherited_selector(tmp_path):
    """A child that goes on with its parent's selector gets a track of its own."""
    out = run(
        tmp_path,
        """
selector = SelectSelector()
selector.register(one, EVENT_WRITE)
pid = os.fork()
selector.select(0)
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
sink.close()
print(pid)
selector._observer.emit.sink = lambda record: None
""",
    )
    events = load(tmp_path / "trace.json")
    validate(events, ended=False)
    begun = [event["pid"] for event in events if event["ph"] == "b"]

    assert len(begun) == 2
    assert int(out) in begun


@pytest.mark.parametrize("format", ["perfetto", "html"])
def test_collected_after_the_end(tmp_path, format):
    """A selector that the interpreter collects when the file is closed already is no error."""
    program = tmp_path / "app.py"
    program.write_text("import selectors\nkept = selectors.DefaultSelector()\nkept.select(0)\n")
    done = apart.trace("--format", format, "-o", "out", program, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


NAMES = {
    "script": (["app.py"], "app.py"),
    "module": (["-m", "package.module"], "package.module"),
    "package": (["-m", "package"], "package"),
    "directory": (["package"], "package"),
    "code": (["-c", "import app"], "python -c"),
}


@pytest.mark.parametrize(("arguments", "name"), NAMES.values(), ids=list(NAMES))
def test_the_process_is_named_after_the_program(tmp_path, arguments, name):
    """Whatever way a program is run, the process has its name and not that of the interpreter."""
    text = "import selectors\nselectors.DefaultSelector().close()\n"
    package = tmp_path / "package"
    package.mkdir()
    for path in (tmp_path / "app.py", package / "__main__.py", package / "module.py"):
        path.write_text(text)
    (package / "__init__.py").touch()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "selectors_ffi",
            "trace",
            "--format",
            "perfetto",
            "-o",
            "t.json",
            *arguments,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=50,
    )

    assert list(named(load(tmp_path / "t.json"), "process_name").values()) == [name]


def test_records_of_all_that_can_fail(tmp_path):
    """A trace shows a failed call's errno, and a wait that raised."""
    path = tmp_path / "trace.json"
    sink = PerfettoSink(path)
    sink(Syscall(1, SOURCE, "epoll_ctl", ("5",), -1, errno.EPERM, "", 3))
    sink(Registration(2, SOURCE, "register", 7, "socket", 1, "<socket>", "PermissionError()"))
    sink(Event(3, SOURCE, 7, "socket", "EPOLLIN", 1, "<socket>", ""))
    sink(Wait(4, SOURCE, None, 5, -1))
    sink.close()
    document = json.loads(path.read_text("utf-8"))["traceEvents"]
    shown = [event for event in document if event["ph"] != "M"]

    shown = [event for event in shown if event["cat"] != "descriptor"]
    assert [event["ph"] for event in shown] == ["X", "i", "X"]
    assert shown[0]["args"]["errno"] == "EPERM"
