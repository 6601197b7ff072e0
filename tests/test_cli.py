"""The command line: info, demo, and how they end."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, EVENT_WRITE, cli
from selectors_ffi.cli import demo, main
from tests import apart

ROOT = Path(__file__).parent.parent
USABLE = sorted(
    name[: -len("Selector")].lower()
    for name in dir(selectors_ffi)
    if name.endswith("Selector") and name not in ("BaseSelector", "DefaultSelector")
)


SUMMARY = r"4 clients, (\d+) readiness events, (\d+) bytes echoed, (\d+) of (\d+)"
EVENT = r" *\d+  (listener|server \d+|client \d+) +\S+ +EVENT_(READ|WRITE)"


@pytest.mark.parametrize("backend", USABLE)
def test_demo(capsys, backend):
    """Every byte of every client comes back, and each event shows its descriptor and names."""
    assert main(["demo", "--backend", backend, "--clients", "4", "--messages", "3"]) == 0
    *events, summary = capsys.readouterr().out.splitlines()

    found = re.match(SUMMARY, summary)
    assert found
    assert int(found[1]) == len(events) - 2
    assert found[2] == found[3] == found[4] != "0"
    assert events[0].lower().startswith(f"{backend}selector: ")
    for line in events[2:]:
        assert re.match(EVENT, line), line


def test_demo_shows_native_flags(capsys):
    """The native flags are shown by their C names."""
    native = {"epoll": "EPOLLIN", "poll": "POLLIN", "kqueue": "EVFILT_READ", "devpoll": "POLLIN"}
    name = selectors_ffi.DefaultSelector.__name__[: -len("Selector")].lower()

    main(["demo", "--clients", "1", "--messages", "1"])

    assert native.get(name, "") in capsys.readouterr().out


def test_demo_notices_a_lost_byte(capsys, monkeypatch):
    """A byte that does not come back is reported, and the status is 1."""
    honest = demo.Connection.act

    def corrupt(self, events):
        if self.pending:
            self.pending[0] ^= 255
        honest(self, events)

    monkeypatch.setattr(demo.Connection, "act", corrupt)

    assert main(["demo", "--clients", "2", "--messages", "2"]) == 1
    assert "problem: " in capsys.readouterr().out


def test_demo_notices_silence(capsys, monkeypatch):
    """A server that stops answering ends the demo with status 1."""
    monkeypatch.setattr(demo, "STALLED", 0.05)
    monkeypatch.setattr(demo.Connection, "act", lambda self, events: self.socket.recv(1 << 20))

    assert main(["demo", "--clients", "1", "--messages", "1"]) == 1
    assert "bytes lost" in capsys.readouterr().out


def test_an_end_closes_once():
    """Closing one end of a connection a second time, or wanting what it wants, does nothing."""
    near, far = socket.socketpair()

    class Quiet(demo.End):
        def act(self, events):
            """Nothing."""

    with far, selectors_ffi.SelectSelector() as selector:
        end = Quiet(SimpleNamespace(selector=selector), near, "end", EVENT_READ)
        key = selector.get_key(near)
        end.want(EVENT_READ)
        assert selector.get_key(near) is key
        end.want(EVENT_READ | EVENT_WRITE)
        assert selector.get_key(near).events == EVENT_READ | EVENT_WRITE
        end.close()
        end.close()
        assert not selector.get_map()


def test_demo_of_an_unknown_backend(capsys):
    """An unknown backend is status 2 and one line that lists the usable ones."""
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--backend", "iocp"])

    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert "no backend 'iocp'" in shown
    assert shown.count("\n") == 1
    assert all(name in shown for name in USABLE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--clients", "0"], "argument --clients: '0' is not a number above 0"),
        (["demo", "--messages", "x"], "argument --messages: 'x' is not a number above 0"),
        (["demo", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--no-such-flag"], "python -m selectors_ffi: unrecognized arguments: --no-such-flag"),
        (["no"], "unknown command 'no'; known are info, demo, trace"),
        ([__file__], f"; to run it: python -m selectors_ffi run {__file__}"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    """Wrong arguments are status 2 and one line that says where to read on."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "--help" in shown
    assert shown.count("\n") == 1


#: A command that writes bytes, as ``attach`` does; what could not be written stays in the buffer.
WRITES_BYTES = """
import sys
import tempfile
from selectors_ffi.cli import attach, main
def run(options):
    while True:
        sys.stdout.buffer.write(b"line\\n")
        sys.stdout.buffer.flush()
attach.run = run
sys.exit(main(["attach", "1"]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "selectors_ffi", "info"),
        ("-m", "selectors_ffi", "demo", "--messages", "200"),
        ("-m", "selectors_ffi", "--version"),
        ("-m", "selectors_ffi", "--help"),
        ("-m", "selectors_ffi", "trace", "--help"),
        ("-m", "selectors_ffi", "chaos", "--seeds", "1", "-c", "raise SystemExit"),
        ("-c", WRITES_BYTES),
    ],
    ids=["short", "long", "version", "help", "help of a command", "chaos", "bytes"],
)
def test_reader_that_goes_away(words):
    """Output into a pipe that nobody reads ends quietly, whether it fits into the buffer or not."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()

    assert process.wait(30) == 1
    progress = rb"(without chaos|seed 1): passed, [0-9.]+ s\n"  # what chaos writes there
    assert re.sub(progress, b"", errors) == b""


def test_a_pipe_without_reader_on_windows(monkeypatch):
    """There it is C's EINVAL; Winsock's own, of the same errno, is another matter."""
    gone, winsock = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument")
    winsock.winerror = 10022
    monkeypatch.setattr(os, "name", "posix")
    assert [cli._reader_has_gone(error) for error in (gone, winsock)] == [False, False]
    monkeypatch.setattr(os, "name", "nt")
    assert [cli._reader_has_gone(error) for error in (gone, winsock)] == [True, False]


def test_example():
    """The example serves an echo to a client, and goes on after it left."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "echo_server.py"), "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = int(re.search(r", (\d+)\)", process.stdout.readline())[1])
        for message in (b"first", b"second"):
            with socket.create_connection(("localhost", port), timeout=20) as client:
                client.sendall(message)
                assert client.recv(100) == message
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def test_example_differs_in_one_import():
    """What a user of the standard library changes is the line of the import."""
    lines = (ROOT / "examples" / "echo_server.py").read_text("utf-8").splitlines()

    ours = [line for line in lines if "selectors_ffi" in line]

    assert ours == ["import selectors_ffi as selectors"]


@pytest.mark.parametrize("command", ["trace -c print('ran')", "run -c print('ran')", "info", ""])
def test_a_sink_that_cannot_be_opened_ends_the_command_line(command):
    """One line that names the variable, exit status 2, and nothing has run."""
    done = apart.python("-m", "selectors_ffi", *command.split(), SELECTORS_FFI_SINK="/no/such/x")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("python -m selectors_ffi")
    assert "SELECTORS_FFI_SINK='/no/such/x'" in done.stderr


def test_chaos_without_a_temporary_folder(monkeypatch, tmp_path, capsys):
    """One line says what the command needs one for, and exit status 2."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with pytest.raises(SystemExit) as ended:
        main(["chaos", "-c", "print('ran')"])

    told = capsys.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert "no temporary file for the program's output: " in told.err
