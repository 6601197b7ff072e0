"""Perfetto: output that keeps the rules of the trace-event format."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi.debug import PerfettoSink

# https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: per phase, the
# fields that an event must have beside ph, pid and tid.
REQUIRED = {
    "X": {"name": str, "cat": str, "ts": (int, float), "dur": (int, float)},
    "i": {"name": str, "cat": str, "ts": (int, float), "s": str},
    "b": {"name": str, "cat": str, "ts": (int, float), "id": str},
    "n": {"name": str, "cat": str, "ts": (int, float), "id": str},
    "e": {"name": str, "cat": str, "ts": (int, float), "id": str},
    "M": {"name": str, "args": dict},
}


def validate(events):
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
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
        if event["ph"] == "X":
            slices[event["tid"]].append((event["ts"], -event["dur"]))
        if event["ph"] in "bne":
            identity = (event["cat"], event["id"])
            if event["ph"] == "b":
                assert identity not in tracks, "a track begins once"
                tracks[identity] = (event["name"], event["ts"])
            name, begun = tracks[identity]
            assert (event["name"], event["ts"] >= begun) == (name, True)
            if event["ph"] == "e":
                tracks[identity] = (name, float("inf"))
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
    events = json.loads(path.read_text())
    for one in (selector, other):
        one._observer.emit.sink = lambda record: None
        one.close()
    return events


def make():
    """Return a selector that every Unix has."""
    return backends.PollSelector()


def test_format(trace):
    """Every event has its fields, slices nest per thread, every track ends."""
    validate(trace)


def test_waits_are_slices_of_their_thread(trace):
    """Each select() is a slice around its system call; threads have names."""
    waits = [event for event in trace if event.get("cat") == "wait"]
    calls = [event for event in trace if event.get("cat") == "syscall"]
    names = {event["args"]["name"] for event in trace if event["name"] == "thread_name"}

    assert len(waits) == 4
    assert {event["name"] for event in calls} == {"poll", "ppoll"} or len(calls) == 4
    assert len({event["tid"] for event in waits}) == 2
    assert names == {"MainThread", "the other"}


def test_a_track_per_descriptor(trace, pairs):
    """A descriptor's track lasts from register to unregister; readiness is an instant on it."""
    begins = [event for event in trace if event["ph"] == "b"]
    fd = pairs[0][0].fileno()
    track = next(event["id"] for event in begins if event["name"] == f"fd {fd} socket")
    phases = "".join(event["ph"] for event in trace if event.get("id") == track)
    ready = [event for event in trace if event["ph"] == "i" and event["cat"] == "ready"]

    assert len(begins) == 4
    assert phases == "bnne", "registered, ready, modified, and open at the end"
    assert {event["args"]["given"] for event in ready} == {"EVENT_WRITE", "EVENT_READ"}
    assert [event["name"] for event in trace if event.get("cat") == "lint"] == ["SEL001"]


def test_unfinished_file_is_only_without_its_end(tmp_path):
    """A process that is killed leaves an array without its bracket, which viewers accept."""
    path = tmp_path / "trace.json"
    with debugging("all", PerfettoSink(path)):
        selector = make()
    selector.select(0)
    text = path.read_text()
    selector.close()
    selector._observer.emit.sink.close()

    validate(json.loads(text + "]"))


def test_nothing_to_show(tmp_path):
    """Without any record the file is an empty array."""
    path = tmp_path / "trace.json"
    PerfettoSink(path).close()

    assert json.loads(path.read_text()) == []
