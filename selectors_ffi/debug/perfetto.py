"""Perfetto: records as Chrome trace events, for https://ui.perfetto.dev or chrome://tracing.

System calls and waits are slices of their thread, readiness is an instant of the thread and of
the descriptor's own track, which lasts from register to unregister.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import os
from threading import current_thread
from typing import IO, Any

from .naming import interest
from .records import Event, Lint, Record, Registration, Source, Syscall, Wait
from .sinks import FileSink

__all__ = ["PerfettoSink"]


class PerfettoSink(FileSink):
    """Write the JSON array format, whose end may be missing when a process is killed."""

    def __init__(self, target: str | os.PathLike[str] | int | IO[str]) -> None:
        super().__init__(target)
        self._first = True
        self._named: set[tuple[int, int]] = set()
        # (pid, selector, fd) -> (id, name) of the track that is open
        self._tracks: dict[tuple[int, str, int], tuple[str, str]] = {}
        self._serial = 0
        self._last = 0.0

    def __call__(self, record: Record) -> None:
        with self._lock:
            for event in self._name_thread(record.source):
                self._put(event)
            for event in self._events(record):
                self._put(event)

    def close(self) -> None:
        """End the tracks that are still open, and the array."""
        with self._lock:
            for (pid, _, _), (track, name) in self._tracks.items():
                self._put(_track("e", name, track, pid, 0, self._last))
            self._tracks.clear()
            self.write("[]\n" if self._first else "\n]\n")
        super().close()

    def _put(self, event: dict[str, Any]) -> None:
        self.write(("[\n" if self._first else ",\n") + json.dumps(event, default=str))
        self._first = False
        self._last = max(self._last, event.get("ts", 0.0))

    def _name_thread(self, source: Source) -> list[dict[str, Any]]:
        identity = (source.pid, source.thread)
        if identity in self._named:
            return []
        self._named.add(identity)
        base = {"ph": "M", "pid": source.pid, "tid": source.thread}
        return [
            {**base, "name": "process_name", "args": {"name": f"python {source.pid}"}},
            {**base, "name": "thread_name", "args": {"name": current_thread().name}},
        ]

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
            arguments = {"selector": selector, "timeout": record.timeout, "ready": record.ready}
            return [_slice(base, "select()", "wait", record.duration, arguments)]
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
        found = self._tracks.get((record.source.pid, record.source.selector, record.fd))
        if found is not None:
            track, title = found
            instant = _track("n", title, track, base["pid"], base["tid"], base["ts"])
            events.append({**instant, "args": arguments})
        return events

    def _registered(self, record: Registration, base: dict[str, Any]) -> list[dict[str, Any]]:
        pid, tid, selector = record.source
        if record.error:
            return []
        if record.action == "close":
            keys = [key for key in self._tracks if key[:2] == (pid, selector)]
        else:
            keys = [(pid, selector, record.fd)]
        if record.action == "register":
            self._serial += 1
            name = f"fd {record.fd} {record.kind}"
            track = f"{selector}/{record.fd}/{self._serial}"
            self._tracks[keys[0]] = (track, name)
            start = _track("b", name, track, pid, tid, base["ts"])
            arguments = {"object": record.fileobj, "interest": interest(record.events)}
            return [{**start, "args": arguments}]
        found = [self._tracks[key] for key in keys if key in self._tracks]
        if record.action == "modify":
            arguments = {"interest": interest(record.events)}
            return [
                {**_track("n", name, track, pid, tid, base["ts"]), "args": arguments}
                for track, name in found
            ]
        for key in keys:
            self._tracks.pop(key, None)
        return [_track("e", name, track, pid, tid, base["ts"]) for track, name in found]


def _slice(
    base: dict[str, Any], name: str, category: str, duration: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return a complete event: a slice with a beginning and a length."""
    return {
        **base, "ph": "X", "name": name, "cat": category, "dur": duration / 1000, "args": arguments,
    }  # fmt: skip


def _track(phase: str, name: str, track: str, pid: int, tid: int, ts: float) -> dict[str, Any]:
    """Return a nestable asynchronous event: b(egin), n (instant), e(nd) of a track of its own."""
    return {
        "ph": phase, "name": name, "cat": "descriptor", "id": track,
        "pid": pid, "tid": tid, "ts": ts,
    }  # fmt: skip
