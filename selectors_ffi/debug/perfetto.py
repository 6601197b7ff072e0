"""Perfetto: records as Chrome trace events, for https://ui.perfetto.dev or chrome://tracing.

System calls and waits are slices of their thread. Readiness is an instant of the thread and of
the descriptor's own track, which lasts from register to unregister. The file is valid JSON after
every record, also while several processes write it: see ``document.py``.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import os
from threading import current_thread, get_native_id, main_thread
from typing import IO, Any

from .addresses import address_of
from .document import Document
from .locking import Locked
from .naming import interest, process_title
from .records import Event, Lint, Record, Registration, Source, Syscall, Wait, now

__all__ = ["PerfettoSink"]

_HEAD = '{"displayTimeUnit": "ns", "traceEvents": [\n'
_TAIL = "\n]}\n"


class PerfettoSink(Locked):
    """Write trace events to a path, which is replaced, a descriptor or a text file.

    Args:
        target: where to write. A path's file is valid JSON at every moment, other targets when closed.
        join: add to the file of another process that is being traced, instead of replacing it.

    Raises:
        OSError: the path cannot be opened.
    """

    def __init__(self, target: str | os.PathLike[str] | int | IO[str], *, join: bool = False) -> None:
        super().__init__()
        self._document = Document(target, _HEAD, _TAIL, join=join)
        self._root = -1 if join else os.getpid()
        self._pid = os.getpid()
        self._named: set[tuple[int, int]] = set()
        # (selector, fd) -> (id, name) of the track that is open, of this process
        self._tracks: dict[tuple[str, int], tuple[str, str]] = {}
        self._serial = 0
        self._last = 0.0

    def __call__(self, record: Record) -> None:
        with self._lock:
            if self._document.closed:
                return  # a selector that is collected when the program has ended
            if record.source.pid != self._pid:
                # A forked child: the tracks that its parent has opened are not its own.
                self._pid = record.source.pid
                self._tracks.clear()
            self._put(self._name(record.source) + self._events(record))

    def note(self, text: str) -> None:
        """Write an instant of the whole trace that is no record: a dump begins, a limit is reached."""
        with self._lock:
            if not self._document.closed:
                place = {"pid": os.getpid(), "tid": get_native_id(), "ts": now() / 1000}
                self._put([{**place, "ph": "i", "s": "g", "name": text, "cat": "note"}])

    def close(self) -> None:
        """End the tracks of this process that are still open, and the file."""
        with self._lock:
            if self._document.closed:
                return
            if self._pid == os.getpid():
                tracks, self._tracks = self._tracks, {}
                self._put([self._track("e", track, 0, self._last) for track in tracks.values()])
            self._document.close()

    def _put(self, events: list[dict[str, Any]]) -> None:
        if not events:
            return
        self._document.add(",\n".join([json.dumps(event, default=str) for event in events]))
        self._last = max([self._last, *(event.get("ts", 0.0) for event in events)])

    def _name(self, source: Source) -> list[dict[str, Any]]:
        """Return the names and places of a process and a thread that are new."""
        pid, tid = source.pid, source.thread
        named: list[dict[str, Any]] = []
        if (pid, -1) not in self._named:
            self._named.add((pid, -1))
            title = process_title(forked=pid != self._root)
            named += _metadata("process", pid, 0, title, 0 if pid == self._root else pid)
        if (pid, tid) not in self._named:
            self._named.add((pid, tid))
            thread = current_thread()
            place = 0 if thread is main_thread() else tid
            named += _metadata("thread", pid, tid, thread.name, place)
        return named

    def _events(self, record: Record) -> list[dict[str, Any]]:
        pid, tid, selector = record.source
        base: dict[str, Any] = {"pid": pid, "tid": tid, "ts": record.time / 1000}
        if isinstance(record, Syscall):
            text = ", ".join(record.arguments)
            arguments: dict[str, Any] = {"arguments": text, "result": record.result}
            if record.errno:
                arguments["errno"] = record.as_dict()["errno"]
            return [_slice(base, record.name, "syscall", record.duration, arguments)]
        if isinstance(record, Wait):
            arguments = {"selector": selector, "timeout": record.finite_timeout, "ready": record.ready}
            return [_slice(base, "select()", "wait", record.span, arguments)]
        if isinstance(record, Lint):
            arguments = {"message": record.message, "place": record.place}
            instant = {**base, "ph": "i", "s": "t", "name": record.id, "cat": "lint"}
            return [{**instant, "args": arguments}]
        if isinstance(record, Event):
            return self._ready(record, base)
        return self._registered(record, base)

    def _ready(self, record: Event, base: dict[str, Any]) -> list[dict[str, Any]]:
        what = f"dropped: {record.dropped}" if record.dropped else interest(record.events)
        arguments = {"fd": record.fd, "kernel": record.flags, "given": what}
        name = f"fd {record.fd} {record.flags}"
        events = [{**base, "ph": "i", "s": "t", "name": name, "cat": "ready", "args": arguments}]
        key = record.source.selector, record.fd
        if key not in self._tracks and not record.dropped:
            # Registered before the trace began, or by the process that this one was forked from.
            events.append(self._open(record, base))
        if key in self._tracks:
            instant = self._track("n", self._tracks[key], base["tid"], base["ts"])
            events.append({**instant, "args": arguments})
        return events

    def _registered(self, record: Registration, base: dict[str, Any]) -> list[dict[str, Any]]:
        if record.error:
            return []
        selector = record.source.selector
        if record.action == "register":
            return [self._open(record, base)]
        keys = [(selector, record.fd)]
        if record.action == "close":
            keys = [key for key in self._tracks if key[0] == selector]
        found = [self._tracks[key] for key in keys if key in self._tracks]
        phase = "n" if record.action == "modify" else "e"
        events = [self._track(phase, track, base["tid"], base["ts"]) for track in found]
        if record.action == "modify":
            return [{**event, "args": {"interest": interest(record.events)}} for event in events]
        for key in keys:
            self._tracks.pop(key, None)
        return events

    def _open(self, record: Registration | Event, base: dict[str, Any]) -> dict[str, Any]:
        """Begin the track of a descriptor."""
        self._serial += 1
        selector = record.source.selector
        peer = record.peer if isinstance(record, Registration) else address_of(record.fd)
        # Viewers sort tracks by their names, as text.
        name = f"fd {record.fd:3d} {peer or record.kind} {record.owner}".rstrip()
        track = self._tracks[selector, record.fd] = f"{selector}/{record.fd}/{self._serial}", name
        arguments = {"object": record.fileobj, "interest": interest(record.events)}
        return {**self._track("b", track, base["tid"], base["ts"]), "args": arguments}

    def _track(self, phase: str, track: tuple[str, str], tid: int, ts: float) -> dict[str, Any]:
        """Return a nestable asynchronous event: b(egin), n (instant), e(nd) of a track of its own."""
        local, name = track
        return {
            "ph": phase, "name": name, "cat": "descriptor", "id2": {"local": local},
            "pid": self._pid, "tid": tid, "ts": ts,
        }  # fmt: skip


def _slice(
    base: dict[str, Any], name: str, category: str, duration: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return a complete event: a slice with a beginning and a length."""
    return {
        **base, "ph": "X", "name": name, "cat": category, "dur": duration / 1000, "args": arguments,
    }  # fmt: skip


def _metadata(what: str, pid: int, tid: int, name: str, place: int) -> list[dict[str, Any]]:
    """Return the events that name and sort a process or thread."""
    base = {"ph": "M", "pid": pid, "tid": tid}
    return [
        {**base, "name": f"{what}_name", "args": {"name": name}},
        {**base, "name": f"{what}_sort_index", "args": {"sort_index": place}},
    ]
