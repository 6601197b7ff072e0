"""Output appears: where records go without being asked twice, and what may happen to descriptors."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import warnings

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, backends, debugging
from selectors_ffi.debug import FileSink, JsonSink, RegularFile, RingSink, leaks, output
from selectors_ffi.debug import sinks as module
from selectors_ffi.debug.records import Source, Wait
from tests import apart, needs

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix descriptors")

MAKE = (
    "import selectors_ffi as s, socket; pair = socket.socketpair()\n"
    "x = s.SelectSelector({})\nx.register(pair[0], s.EVENT_READ); x.select(0)\nx.close()\n"
)


def work():
    """Make a selector and let it make one system call."""
    near, far = socket.socketpair()
    with near, far, backends.SelectSelector() as selector:
        selector.register(near, EVENT_READ)
        selector.select(0)


def is_one_call(text):
    """Tell whether a text is the line of the one call that MAKE makes."""
    return re.fullmatch(r"select\(.*\) = 0 \(Timeout\) <0\.0\d+>\n", text) is not None


@pytest.mark.parametrize(
    "code",
    [
        MAKE.format("debug=s.Debug.SYSCALLS"),
        "import logging; logging.basicConfig(level=logging.INFO)\n" + MAKE.format("debug='syscalls'"),
        "import selectors_ffi as s\nwith s.debugging('syscalls'):\n "
        + MAKE.format("").replace("\n", "\n "),
    ],
    ids=["argument", "logging configured", "block"],
)
def test_standard_error_is_the_default(code):
    """A newcomer's first snippet shows something, whatever logging is configured to."""
    done = apart.python("-c", code)

    assert is_one_call(done.stderr), done
    assert done.returncode == 0


@pytest.mark.parametrize("closed", ["2>&-", "2>&- 1>&- 0<&-"])
@unix
def test_no_standard_error(closed):
    """A program that was started without standard error runs as it would."""
    code = MAKE.format("debug='all'") + "import os; os._exit(7)"
    command = f'"{sys.executable}" -c "$CODE" {closed}'

    done = subprocess.run(command, shell=True, env={**os.environ, "CODE": code}, timeout=50)

    assert done.returncode == 7


@unix
def test_the_program_closes_every_descriptor():
    """Lines go on after ``os.closerange``, and never into a file that got the number meanwhile."""
    code = (
        "import os, selectors_ffi as s\n"
        "x = s.PollSelector(debug='syscalls')\n"
        "x.select(0)\n"
        "os.closerange(3, 4096)\n"
        "read, write = os.pipe()\n"
        "for fd in range(10, 1024):\n"
        "    os.dup2(write, fd)\n"
        "x.select(0)\n"
        "os.closerange(10, 1024)\n"
        "os.close(write)\n"
        "print(os.read(read, 100))\n"
    )

    done = apart.python("-c", code)

    assert done.stdout == "b''\n"
    assert done.stderr.count("poll([{fd=-1}], 1, 0) = 0") == 2


@pytest.mark.parametrize("first", [True, False], ids=["after a line", "before any line"])
@unix
def test_a_number_of_standard_error_that_was_given_out_again(first):
    """What is due on standard error never gets into a file or socket that has its number by now."""
    code = (
        "import os, socket, selectors_ffi as s\n"
        "def work(fail, **options):\n"
        "    with s.PollSelector(**options) as x: x.select(0)\n"
        "    with s.debugging('syscalls', fail), s.PollSelector() as x: x.select(0)\n"
        "work(print, debug='syscalls') if {first} else None\n"
        "os.closerange(2, 4096)\n"
        "near, far = socket.socketpair()\n"
        "work(lambda record: 1/0, debug='syscalls')\n"
        "near.shutdown(socket.SHUT_WR)\n"
        "print(near.fileno(), far.recv(1000))\n"
        "os.dup2(1, 2)\n"
        "work(print, debug='syscalls')\n"
    )

    done = apart.python("-c", code.format(first=first))

    lines = done.stdout.splitlines()
    told = lines.index("2 b''")
    assert all("poll(" in line for line in (*lines[:told], *lines[told + 1 :])), done
    assert (len(lines), done.stderr.count("poll(")) == ((4, 1) if first else (3, 0)), done


@unix
def test_a_closed_path_is_opened_again(tmp_path):
    """A path's file is opened again if the program has closed its descriptor."""
    path = tmp_path / "log"
    with debugging("syscalls", path) as sink:
        selector = backends.PollSelector()
    selector.select(0)
    os.close(sink._output.fd)
    selector.select(0)
    selector.close()

    assert path.read_text().count("poll(") == 2


@needs.identity_of_pipes
def test_a_closed_descriptor_of_the_caller(capsys):
    """A descriptor that the caller has closed, and that names another file now, is not written to."""
    read, write = os.pipe()
    sink = FileSink(write)
    other, end = os.pipe()
    os.dup2(end, write)
    with debugging("syscalls", sink):
        work()
    os.close(write)
    os.close(end)

    assert os.read(other, 10) == b""
    assert f"descriptor {write} of a sink was closed" in capsys.readouterr().err
    os.close(other)
    os.close(read)


def test_a_path_lives_as_long_as_its_selectors(tmp_path):
    """Selectors write after the block; the descriptor is closed with the last of them."""
    path = tmp_path / "loop.log"
    with debugging("syscalls", path) as sink:
        selector = backends.PollSelector()
    written = sink._output
    del sink
    selector.select(0)
    assert path.read_text().count("poll(") == 1
    assert written.fd >= 0
    selector.close()
    del selector
    for _ in range(3):
        import gc

        gc.collect()

    assert written.fd == -1


@pytest.mark.parametrize("sink", ["%p.log", "stderr", "logging", ""])
def test_the_variable_names_the_sink(sink, tmp_path):
    """SELECTORS_FFI_SINK is a path with the process id, standard error, or the logger."""
    code = "import os, logging; print(os.getpid())\nlogging.basicConfig(format='LOG %(message)s', "
    code += "level=logging.DEBUG)\n" + MAKE.format("")

    done = apart.python(
        "-c", code, SELECTORS_FFI_DEBUG="syscalls", SELECTORS_FFI_SINK=sink, cwd=tmp_path
    )

    files = [path.name for path in tmp_path.iterdir()]
    if sink == "%p.log":
        assert files == [f"{done.stdout.strip()}.log"]
        assert is_one_call((tmp_path / files[0]).read_text())
        assert done.stderr == ""
    else:
        assert not files
        assert is_one_call(done.stderr.replace("LOG ", ""))
        assert done.stderr.startswith("LOG ") is (sink == "logging")


def test_the_variable_serves_blocks_and_arguments(tmp_path):
    """A block and ``debug=`` without a sink use the one that the variable names."""
    code = MAKE.format("debug='syscalls'")
    code += "with s.debugging('syscalls'): x = s.SelectSelector()\nx.register(pair[0], 1); x.select(0)\n"

    done = apart.python("-c", code, SELECTORS_FFI_SINK="log", cwd=tmp_path)

    assert done.stderr == ""
    assert (tmp_path / "log").read_text().count("select(") == 2


def test_a_sink_that_cannot_be_opened():
    """A path that cannot be opened is told when the package is imported, by its variable."""
    done = apart.python(
        "-c", "import selectors_ffi", SELECTORS_FFI_DEBUG="all", SELECTORS_FFI_SINK="/no/such/x"
    )

    assert "ValueError: SELECTORS_FFI_SINK='/no/such/x': " in done.stderr
    with pytest.raises(OSError, match="No such file"), debugging("all", "/no/such/x"):
        pass


@unix
def test_a_child_has_a_file_of_its_own(tmp_path):
    """With "%p" in its path, a forked child writes to another file."""
    code = (
        "import os, sys, selectors_ffi as s\n"
        "x = s.PollSelector(debug='syscalls')\n"
        "x.select(0)\n"
        "pid = os.fork()\n"
        "x.select(0)\n"
        "if pid: os.waitpid(pid, 0); x.select(0)\n"
    )

    apart.python("-W", "ignore", "-c", code, SELECTORS_FFI_SINK="%p", cwd=tmp_path)
    lines = sorted(path.read_text().count("poll(") for path in tmp_path.iterdir())

    assert lines == [1, 3]


@unix
def test_a_reader_who_does_not_read(monkeypatch):
    """A full pipe costs the loop its patience once; what was lost is told when reading goes on."""
    monkeypatch.setattr(output, "PATIENCE", 0.05)
    read, write = os.pipe()
    with debugging("syscalls", write), backends.PollSelector() as selector:
        while not selector._observer.emit.sink._output.lost:
            selector.select(0)
        selector.select(0)
        seen = os.read(read, 1 << 20)
        selector.select(0)
    os.close(write)
    with open(read, "rb") as pipe:
        rest = pipe.read().decode().splitlines()

    assert seen.endswith(b">\n"), "whole lines only"
    assert rest[0] == "selectors_ffi: 2 records lost here: nothing read them"
    assert rest[1].startswith("poll(")


@unix
def test_a_long_line_into_a_pipe(monkeypatch):
    """A line that is longer than what a pipe takes at once is cut if its reader stops in the middle."""
    monkeypatch.setattr(output, "PATIENCE", 0.05)
    read, write = os.pipe()
    sink = FileSink(write)
    sink.write("x" * 3_000_000)
    assert sink._output.lost == 1
    os.close(write)
    os.close(read)


@unix
def test_a_terminal_or_pipe_is_opened_anew():
    """Standard error on a pipe is written through a descriptor that never blocks, if there is /proc."""
    read, write = os.pipe()
    own = output.private(write)
    try:
        if os.path.isdir("/proc/self/fd"):
            assert not os.get_blocking(own)
        assert os.get_blocking(write), "the program's own is as it was"
        assert os.fstat(own).st_ino == os.fstat(write).st_ino
    finally:
        for fd in (read, write, own):
            os.close(fd)


@unix
def test_a_named_pipe_without_a_reader(tmp_path):
    """A named pipe that no process reads is refused; opening it would wait for ever."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)

    with pytest.raises(OSError, match="No such device or address"), debugging("all", path):
        pass


@unix
@pytest.mark.parametrize("size", [1, 20])
def test_a_text_file_whose_reader_does_not_read(monkeypatch, size):
    """A line-buffered file on a full pipe, as sys.stderr is, never blocks, and goes on later."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    read, write = os.pipe()
    with open(write, "w", buffering=1) as file:
        sink = FileSink(file)
        line = "x" * (output.PIECE // 2 - 1) + "\n"
        for _ in range(1000):
            sink.write(line * size)
        assert sink._stalled
        os.read(read, 1 << 20)
        sink.write("read again\n")
    with open(read) as pipe:
        assert pipe.read() == "read again\n"


def test_a_text_file_that_blocks_a_thread(monkeypatch):
    """While a thread is stuck in writing to a file of the program's, other threads go on."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    inside, go_on = threading.Event(), threading.Event()

    lines = []

    class Slow:
        def write(self, text):
            lines.append(text)
            inside.set()
            go_on.wait(20)

    with debugging("syscalls", Slow()):
        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(20)
        work()
        work()
        go_on.set()
        thread.join()

    assert len(lines) == 1


def test_standard_error_is_followed(capsys, monkeypatch, tmp_path, pair):
    """A ``sys.stderr`` that was replaced gets the lines; a closed one changes nothing."""
    with backends.SelectSelector(debug="syscalls") as selector:
        selector.register(pair[0], EVENT_READ)
        selector.select(0)
        assert is_one_call(capsys.readouterr().err)
        with open(tmp_path / "err", "w", encoding="utf-8") as file:
            monkeypatch.setattr(sys, "stderr", file)
            selector.select(0)
        selector.select(0)
        monkeypatch.setattr(sys, "stderr", None)
        selector.select(0)

    assert (tmp_path / "err").read_text().count("select(") == 3


REGISTER = (
    "import selectors_ffi as s, tempfile\n"
    "with tempfile.TemporaryFile() as file, s.PollSelector(debug='checks') as x:\n"
    "    x.register(file, 1)\n"
)


@needs.waits_for_files
@pytest.mark.parametrize("sink", ["", "stderr", "logging"])
def test_a_lint_is_told_once(sink):
    """On standard error a lint is Python's warning alone; a logger gets it instead of the warning."""
    configured = "import logging; logging.basicConfig(format='LOG %(message)s')\n"

    done = apart.python("-c", configured + REGISTER, SELECTORS_FFI_SINK=sink)

    assert done.stderr.count("SEL008") == 1
    assert ("LOG SEL008" in done.stderr) is (sink == "logging")
    assert ("RegularFile: SEL008" in done.stderr) is (sink != "logging")


@needs.waits_for_files
def test_a_lint_goes_to_a_file_and_to_the_terminal(tmp_path):
    """A file gets the record of a lint, and Python warns besides: each place is told once."""
    done = apart.python("-c", REGISTER, SELECTORS_FFI_SINK="log", cwd=tmp_path)

    assert done.stderr.count("SEL008") == 1
    assert (tmp_path / "log").read_text().count("SEL008") == 1


@pytest.mark.parametrize("sink", [None, "logging"])
def test_a_lint_can_be_an_error(sink, tmp_path):
    """A filter that makes lints errors does so whatever the sink; one that ignores them is obeyed."""
    with open(tmp_path / "file", "w") as file, debugging("checks", sink):
        with backends.PollSelector() as selector, warnings.catch_warnings():
            warnings.simplefilter("error", RegularFile)
            with pytest.raises(RegularFile):
                selector.register(file, EVENT_READ)
            warnings.simplefilter("ignore", RegularFile)
            selector.unregister(file)
            selector.register(file, EVENT_READ)


def test_what_the_filters_say():
    """The action of a filter depends on category, text, module and line, as in ``warnings``."""
    frame = sys._getframe()
    lint = RegularFile("a message")
    with warnings.catch_warnings():
        warnings.resetwarnings()
        assert leaks.action_on(lint, None) == "default"
        warnings.filterwarnings("ignore", "SEL008", RegularFile)
        assert leaks.action_on(lint, frame) == "ignore"
        warnings.filterwarnings("error", "other text", RegularFile)
        warnings.filterwarnings("error", category=DeprecationWarning)
        warnings.filterwarnings("error", module="some.other")
        warnings.filterwarnings("error", lineno=1)
        assert leaks.action_on(lint, frame) == "ignore"
        warnings.filterwarnings("always", module=__name__)
        assert leaks.action_on(lint, frame) == "always"
        assert leaks._matches("SEL008", "SEL008")


@pytest.mark.parametrize("options", [[], ["-Xdev"], ["-W", "ignore"]])
def test_a_leak_is_told_once(options):
    """A leak that was asked for is shown, though Python ignores ResourceWarning by default."""
    code = "import selectors_ffi as s\nx = s.SelectSelector(debug='leaks')\ndel x\n"
    code += "import gc\nfor _ in range(3): gc.collect()\n"

    done = apart.python(*options, "-c", code)

    assert done.stderr.count("unclosed <selectors_ffi.backends.select.SelectSelector object") == 1


def test_nothing_that_is_no_json():
    """Timeouts that JSON has no number for are text."""
    source = Source(1, 2, "Selector-1")
    for timeout in (math.nan, math.inf, -math.inf, 0.5, None):
        text = json.dumps(Wait(1, source, timeout, 5, 0).as_dict(), allow_nan=False)
        assert json.loads(text)["timeout"] in (timeout, str(timeout))


def test_odd_timeouts(tmp_path):
    """A timeout that is no number, or none at all, is shown as select() takes it, and breaks nothing."""
    path = tmp_path / "log"
    sink = JsonSink(path)
    with debugging("events", sink), backends.PollSelector() as selector:
        selector.select(False)
        with pytest.raises(ValueError):
            selector.select(math.nan)
        with pytest.raises(TypeError):
            selector.select("soon")
    waits = [json.loads(line) for line in path.read_text().splitlines()][:3]

    assert [wait["timeout"] for wait in waits] == [0, "nan", "nan"]


def test_a_recorder_leaves_the_callers_sink_open(tmp_path):
    """Each dump goes to the caller's sink, and JSON lines stay JSON."""
    path = tmp_path / "log"
    ring = RingSink(dump=JsonSink(path))
    with debugging("syscalls", ring), backends.PollSelector() as selector:
        for number in range(2):
            selector.select(0)
            ring.dump(f"number {number}")
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert [line["type"] for line in lines] == ["note", "syscall", "note", "syscall"]
    assert "number 1" in lines[2]["text"]


def test_lines_name_the_selector_if_there_are_several():
    """From the second selector on, lines say whose they are."""
    code = (
        "import selectors_ffi as s, socket; pair = socket.socketpair()\n"
        "with s.debugging('syscalls'):\n"
        "    x = s.SelectSelector(); x.register(pair[0], 1); x.select(0); y = s.DefaultSelector()\n"
        "y.register(pair[1], 1)\n"
        "x.select(0); y.select(0)\n"
    )

    lines = apart.python("-c", code).stderr.splitlines()

    name = selectors_ffi.DefaultSelector.__name__
    assert lines[0].startswith("select(")
    assert f"[{name}-2] " in lines[-1]
    assert any(line.startswith("[SelectSelector-1] select(") for line in lines)


def test_a_logger_of_the_callers(caplog):
    """A LogSink takes any logger, and does not ask a disabled one for a line."""
    first, second = socket.socketpair()
    with first, second, debugging("events", module.LogSink(logging.getLogger("mine"))):
        work()
        caplog.set_level(logging.DEBUG, "mine")
        work()

    assert {record.name for record in caplog.records} == {"mine"}
