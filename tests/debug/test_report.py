"""The HTML report: the data in the file, and the page in a browser."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import sys
import threading
from pathlib import Path

import pytest

from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi.debug import ReportSink, document, report
from selectors_ffi.debug.records import (
    Event,
    Lint,
    Registration,
    Source,
    Syscall,
    Wait,
    here,
    now,
)
from tests import apart

WAIT, CALL, EVENT, REGISTRATION, LINT, SUM = 1, 2, 3, 4, 5, 6
HOSTILE = "</script><script>document.title='owned'</script><!-- \"'&\u2028\x00 <img src=x onerror=a()>"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")


def data_of(text):
    """Return the lines of a page's data, as strict JSON, in a complete page."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    begin = '<script type="application/json" id="trace">'
    head, found, rest = text.partition(begin)
    assert found and head.startswith("<!DOCTYPE html>") and rest.endswith("</html>\n")
    data, found, tail = rest.partition("</script>")
    assert found and "<script" not in tail
    return json.loads(data, parse_constant=refuse)


def lines_of(path, kind):
    """Return the lines of one kind."""
    return [line for line in data_of(path.read_text("utf-8")) if line[0] == kind]


def texts_of(path):
    """Return (process, number) -> text."""
    return {(line[1], line[2]): line[3] for line in lines_of(path, "text")}


def make():
    """Return a selector that every system has."""
    return backends.SelectSelector()


def record_a_bit(sink):
    """Let a selector register, wait and unregister, with all flags."""
    one, two = socket.socketpair()
    with one, two, debugging("all", sink):
        one.setblocking(False)
        with make() as selector:
            selector.register(one, EVENT_READ | EVENT_WRITE)
            selector.select(0)
            selector.modify(one, EVENT_READ)
            selector.select(0.001)
            selector.unregister(one)


class TestFile:
    def test_complete_after_every_record(self, tmp_path):
        """Whatever moment the program ends at, the page is complete and its data is JSON."""
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        assert data_of(path.read_text("utf-8")) == []
        seen = []

        def check(record):
            sink(record)
            seen.append(record)
            data_of(path.read_text("utf-8"))

        record_a_bit(check)
        sink.close()
        sink.close()
        kinds = [line[0] for line in data_of(path.read_text("utf-8")) if isinstance(line[0], int)]

        assert len(kinds) == len(seen)
        assert {WAIT, CALL, EVENT, REGISTRATION} <= set(kinds)

    def test_a_text_file_is_complete_when_closed(self):
        """What cannot be written twice gets its end from close()."""
        file = io.StringIO()
        sink = ReportSink(file)
        record_a_bit(sink)
        sink.close()

        assert any(line[0] == WAIT for line in data_of(file.getvalue()))

    def test_no_network(self):
        """The page names no other page, and its policy lets it ask for none."""
        text = report.page()

        assert "http" not in re.sub(r"http-equiv", "", text)
        assert not re.search(r"\b(src|href)=\"(?!data:,|#)", text)
        assert "default-src 'none'" in text
        assert "unsafe" not in text

    def test_what_a_program_names_cannot_end_the_data(self, tmp_path):
        """A name may hold markup, quotes, lone surrogates; none of it is markup in the file."""
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        source = here(HOSTILE)
        for text in (HOSTILE, "\udcff", "]", "<!--<script>"):
            sink(Registration(now(), source, "register", 3, text, 1, text, ""))
            sink(Registration(now(), source, "register", 3, text, 1, text, text))
            sink(Event(now(), source, 3, text, text, 0, text, text))
            sink(Lint(now(), source, "SEL001", 3, text, text))
            sink(Syscall(now(), source, text, (text,), None, 0, text, 1))
        sink.close()
        data = path.read_text("utf-8").partition('id="trace">')[2].rpartition("</script>")[0]

        assert not re.search("[<>&]", data)
        assert HOSTILE in texts_of(path).values()

    def test_a_timeout_that_json_does_not_have(self, tmp_path):
        """A timeout of infinity or NaN is text: JSON has no such numbers."""
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        for timeout in (None, 0, 0.5, float("inf"), float("nan")):
            sink(Wait(now(), here("EpollSelector-1"), timeout, 1, 0))
        sink.close()

        assert [line[5] for line in lines_of(path, WAIT)] == [None, 0, 0.5, "inf", "nan"]

    def test_texts_are_written_once(self, tmp_path, monkeypatch):
        """A text is written the first time, and a number afterwards; not more than a few thousand."""
        monkeypatch.setattr(report, "_TEXTS", 3)
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        for name in ("epoll_wait", "epoll_wait", "epoll_ctl", "close", "close"):
            sink(Syscall(now(), here("EpollSelector-1"), name, (), 0, 0, "", 1))
        sink.close()
        names = [line[5] for line in lines_of(path, CALL)]

        assert names == [2, 2, 3, "close", "close"]
        assert [line[3] for line in lines_of(path, "text")] == [
            "EpollSelector-1",
            "epoll_wait",
            "epoll_ctl",
        ]

    def test_a_lint_comes_with_its_cause(self, tmp_path):
        """The page says of each lint that was told what it is called and why it happens, once."""
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        for lint in ("SEL004", "SEL004", "SEL009"):
            sink(Lint(now(), here("EpollSelector-1"), lint, 3, "message", "place"))
        sink.close()
        (line,) = lines_of(path, "lint")

        assert line[1:3] == ["SEL004", "BusyLoop"]
        assert line[3].endswith(".")

    def test_threads_and_the_process_have_names(self, tmp_path):
        """The data name the threads, and the interpreter and system of the process."""
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        thread = threading.Thread(target=record_a_bit, args=(sink,), name="the other")
        record_a_bit(sink)
        thread.start()
        thread.join()
        sink.close()
        ((_, pid, parent, _, title, python, system, _),) = lines_of(path, "process")

        assert [(line[3], line[4]) for line in lines_of(path, "thread")] == [
            ("MainThread", 1),
            ("the other", 0),
        ]
        assert (pid, parent, system) == (os.getpid(), 0, sys.platform)
        assert title
        assert python.endswith(".".join(map(str, sys.version_info[:2]))) or "." in python

    def test_not_installed(self, monkeypatch):
        """A page whose parts are missing raises what is missing."""
        monkeypatch.setattr(report.pkgutil, "get_data", lambda package, name: None)
        with pytest.raises(OSError, match=r"report\.css is not installed"):
            report.page()


class TestLongTraces:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        """Keep 50 records from the beginning and 20 from the end."""
        monkeypatch.setattr(report, "DETAILED", 50)
        monkeypatch.setattr(report, "LAST", 20)

    def write(self, path, count):
        """Write waits of 1 ms with turns of 3 ms, each with a call, an event, and now and then more."""
        sink = ReportSink(path)
        source = here("EpollSelector-1")
        for index in range(count):
            time = 10**12 + index * 4_000_000
            sink(Syscall(time, source, "epoll_wait", (), 1, 11 if index % 2 else 0, "", 900_000))
            sink(Event(time + 950_000, source, index % 15, "socket", "EPOLLIN", 1, "", ""))
            sink(Wait(time, source, None, 1_000_000, 0 if index % 10 == 0 else 1))
        sink(Registration(time, source, "close", -1, "", 0, "", ""))
        return sink

    def test_the_rest_is_summed_up(self, tmp_path):
        """The first and the last records are kept; those between are sums that lose none of them."""
        path = tmp_path / "report.html"
        self.write(path, 500).close()
        sums = [line[4] for line in lines_of(path, SUM)]
        kept = [line for line in data_of(path.read_text("utf-8")) if line[0] in (WAIT, CALL, EVENT)]
        waits = sum(line[0] == WAIT for line in kept)

        assert len(kept) == 50 + 20 - 1
        assert waits + sum(one["waits"] for one in sums) == 500
        assert sum(one["calls"]["epoll_wait"][0] for one in sums) == 500 - sum(
            line[0] == CALL for line in kept
        )
        assert sum(one["calls"]["epoll_wait"][2] for one in sums) > 200
        assert sum(one["empty"] for one in sums) + sum(one["ready"] for one in sums) == 500 - waits
        assert all(len(one["fds"]) <= 10 for one in sums)
        assert sum(one["events"] for one in sums) + sum(line[0] == EVENT for line in kept) == 500

    def test_what_the_sums_say(self, tmp_path):
        """Busy is what lies between the waits; the longest turn has its place."""
        path = tmp_path / "report.html"
        self.write(path, 500).close()
        sums = [line[4] for line in lines_of(path, SUM)]
        busy = sum(one["turns"] for one in sums)
        waiting = sum(one["waiting"] for one in sums)

        assert busy / (busy + waiting) == pytest.approx(0.75, abs=0.01)
        assert {one["longest"][0] for one in sums} == {3_000_000}

    def test_a_day_does_not_fill_the_page(self, tmp_path):
        """The intervals grow with the age of the trace, so that their number stays small."""
        path = tmp_path / "report.html"
        sink = ReportSink(path)
        source = here("EpollSelector-1")
        for index in range(24 * 360):
            sink(Wait(index * 10**10, source, None, 9_990_000_000, 1))
        sink.close()

        assert len(lines_of(path, SUM)) < 3000

    def test_findings_are_always_kept(self, tmp_path):
        """A lint is kept and explained however long the trace is."""
        path = tmp_path / "report.html"
        sink = self.write(path, 100)
        sink(Lint(now(), here("EpollSelector-1"), "SEL001", 3, "message", "place"))
        for _ in range(30):
            sink(Registration(now(), here("EpollSelector-1"), "register", 3, "socket", 1, "", ""))
        sink.close()

        assert len(lines_of(path, LINT)) == 1
        assert len(lines_of(path, "lint")) == 1
        assert sum(line[4]["registrations"] for line in lines_of(path, SUM)) == 11

    def test_large_records(self, tmp_path, monkeypatch):
        """Details end, too, when the file gets large: other processes may have filled it."""
        monkeypatch.setattr(report, "LARGEST", len(report.page()) + 300)
        path = tmp_path / "report.html"
        self.write(path, 100).close()

        assert sum(line[0] in (WAIT, CALL, EVENT) for line in data_of(path.read_text("utf-8"))) < 40


@forks
class TestProcesses:
    def run(self, tmp_path, text):
        """Run a program that writes report.html; return its output."""
        program = tmp_path / "server.py"
        program.write_text(
            "import os, socket\n"
            "from selectors_ffi import EVENT_READ, EVENT_WRITE, SelectSelector, debugging\n"
            "from selectors_ffi.debug import ReportSink\n"
            "one, two = socket.socketpair()\n"
            "sink = ReportSink('report.html')\n"
            "debugging('syscalls,events', sink).__enter__()\n" + text
        )
        done = apart.python(program, cwd=tmp_path)
        assert done.stderr == ""
        return done.stdout

    def test_a_child_that_outlives_its_parent(self, tmp_path):
        """Parent and child write one page, complete at each moment."""
        out = self.run(
            tmp_path,
            """
receive, send = os.pipe()
with SelectSelector() as selector:
    selector.select(0)
if pid := os.fork():
    sink.close()
    print(os.getpid(), pid, flush=True)
    os.close(send)
    os.waitpid(pid, 0)
    os._exit(0)
os.close(send)
os.read(receive, 1)
selector = SelectSelector()
selector.register(one, EVENT_WRITE)
selector.select(0)
os._exit(0)
""",
        )
        parent, child = map(int, out.split())
        path = tmp_path / "report.html"
        processes = {line[1]: line for line in lines_of(path, "process")}

        assert {pid: (line[2], line[4]) for pid, line in processes.items()} == {
            parent: (0, "server.py"),
            child: (parent, "server.py (child)"),
        }
        assert [line[2] for line in lines_of(path, WAIT)] == [parent, child], "thread ids"
        assert all(
            number == 1 for (pid, number), text in texts_of(path).items() if text == "SelectSelector-1"
        )


def test_the_wheel_has_the_page():
    """What the page is made of is beside the module, where the wheel takes it from."""
    names = {path.name for path in Path(report.__file__).with_name("page").iterdir()}

    assert names == {"report.html", "report.css", *(f"{name}.js" for name in report._SCRIPTS)}


def test_join(tmp_path):
    """A process that is started by the traced one adds to its page."""
    path = tmp_path / "report.html"
    first = ReportSink(path)
    record_a_bit(first)
    second = ReportSink(path, join=True)
    second(Wait(now(), Source(12345, 12345, "EpollSelector-1"), None, 1, 0))
    first.close()
    second.close()

    assert [line[1] for line in lines_of(path, "process")] == [os.getpid(), 12345]
    assert document.PATIENCE < 1


class TestCommand:
    PROGRAM = """
import asyncio, multiprocessing, os, sys

async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    writer.close()
    server.close()

def run():
    loop = asyncio.SelectorEventLoop()  # Windows' default loop uses no selector
    loop.run_until_complete(main())
    loop.close()

if __name__ == "__main__":
    run()
    print("done", sys.argv[1:])
    if hasattr(os, "fork"):
        child = multiprocessing.get_context("fork").Process(target=run)
        child.start()
        child.join()
"""

    def trace(self, tmp_path, *arguments):
        """Run ``trace`` on a program of asyncio."""
        program = tmp_path / "app.py"
        program.write_text(self.PROGRAM)
        return apart.python("-W", "ignore", "-m", "selectors_ffi", "trace", *arguments, cwd=tmp_path)

    def test_a_program(self, tmp_path):
        """``trace --format html`` leaves a page of the program and its children, named after it."""
        done = self.trace(tmp_path, "--format", "html", "-o", "report.html", "app.py", "one", "two")
        path = tmp_path / "report.html"
        titles = [line[4] for line in lines_of(path, "process")]

        assert (done.returncode, done.stdout, done.stderr) == (0, "done ['one', 'two']\n", "")
        assert titles[0] == "app.py"
        assert [title.startswith("app.py ") for title in titles[1:]] == [True] * hasattr(os, "fork")
        assert lines_of(path, WAIT)
        assert lines_of(path, CALL)
        assert any("127.0.0.1" in text for text in texts_of(path).values())

    def test_no_file(self, tmp_path):
        """Without a file to write to, nothing is run."""
        done = self.trace(tmp_path, "--format", "html", "app.py")

        assert (done.returncode, done.stdout) == (2, "")
        assert "--format html needs -o FILE" in done.stderr
        assert "done" not in done.stderr

    def test_a_file_that_cannot_be_written(self, tmp_path):
        """A path that cannot be opened is told in one line, and nothing is run."""
        done = self.trace(tmp_path, "--format", "html", "-o", "nowhere/report.html", "app.py")

        assert (done.returncode, done.stdout) == (2, "")
        assert re.search(r"nowhere[/\\]+report\.html", done.stderr.splitlines()[-1])
