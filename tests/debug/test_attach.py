"""attach: a command that looks into a running process, and leaves nothing behind in it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager

import pytest

from selectors_ffi.cli import attach, main
from selectors_ffi.debug import Lint, Source, switched
from selectors_ffi.debug import attached as attached_side
from tests import apart

reaches = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="sys.remote_exec is there from CPython 3.14 on"
)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: What the command sends if no option is given.
SETTINGS = {
    "expressions": [], "about": [], "failed": False, "slower": 0, "limit": 0, "stamp": "", "fold": True,
    "format": "text", "summary": False, "look": [False, 0],
}  # fmt: skip

#: Turns for each byte that it reads; "end" ends it.
PROGRAM = """
import asyncio, gc, sys, threading

def state(selector):
    return [type(selector).__module__, type(selector).__mro__[1].__name__, sorted(vars(selector))]

async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    {before}
    print("ready", flush=True)
    first = state(loop._selector)
    while True:
        line = await reader.readline()
        if line.strip() == b"compare":
            print(state(loop._selector) == first, threading.active_count(), flush=True)
        elif line.strip() == b"end":
            return
        else:
            print("seen", flush=True)

{run}(main())
"""


@contextmanager
def program(module="asyncio", before="pass", **environment):
    """A process with an asyncio loop; ``say`` sends it a line and returns its answer."""
    run = "__import__('selectors_ffi').run" if module == "selectors_ffi" else "asyncio.run"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(run=run, before=before)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **environment},
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            yield process
            if process.poll() is None:
                process.stdin.write("end\n")
                process.stdin.flush()
            assert process.wait(30) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def say(process, line):
    """Send a line to the program, and return what it answers."""
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@contextmanager
def attached(process, *words):
    """The command; the program is made to turn until it has answered."""
    with subprocess.Popen(
        [sys.executable, "-m", "selectors_ffi", "attach", *words, str(process.pid)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as command:  # fmt: skip
        os.set_blocking(command.stderr.fileno(), False)
        head = ""
        while "\n" not in head:
            assert say(process, "turn") == "seen"
            try:
                head += os.read(command.stderr.fileno(), 10_000).decode()
            except BlockingIOError:
                continue
        os.set_blocking(command.stderr.fileno(), True)
        command.head = head
        try:
            yield command
        finally:
            command.kill()


def interrupted(command):
    """Send Ctrl-C; return what it wrote until it ended.

    One that comes just before a call that waits does not end it. So it is sent again, as a person would.
    """
    while True:
        command.send_signal(signal.SIGINT)
        try:
            shown, told = command.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            continue
    assert command.returncode == 0
    return shown, command.head + told


@reaches
@pytest.mark.parametrize("module", ["asyncio", "selectors_ffi"])
def test_what_a_running_loop_does(module):
    """Events of a loop are shown with their owners; after Ctrl-C the loop is what it was."""
    with program(module) as process:
        with attached(process) as command:
            of = "selectors_ffi" if module == "selectors_ffi" else "the standard library"
            assert f"events switched on for selectors: 1 of {of}; Ctrl-C ends it" in command.head
            assert say(process, "turn") == "seen"
            shown, told = interrupted(command)
        assert "EVENT_READ (task 'Task-1' of main)" in shown
        assert "wait(None) = 1 ready" in shown
        assert f"detached from process {process.pid}" in told
        assert say(process, "compare") == "True 1"


@reaches
def test_a_command_that_is_killed(monkeypatch):
    """The program switches off although the command could not ask it to; no file stays."""
    with tempfile.TemporaryDirectory() as folder, program() as process:
        monkeypatch.setenv("TMPDIR", folder)
        with attached(process) as command:
            command.kill()
            command.wait()
        answers = {say(process, "compare") for _ in range(200)}
        assert say(process, "compare") == "True 1", answers
        assert os.listdir(folder) == []


@reaches
def test_a_reader_that_goes():
    """The command ends without a word, as in "attach 1234 | head", and the program goes on as it was."""
    with program() as process:
        with attached(process) as command:
            command.stdout.close()
            while command.poll() is None:
                say(process, "turn")
            assert command.returncode == 1
            assert command.stderr.read() == ""
        answers = {say(process, "compare") for _ in range(200)}
        assert say(process, "compare") == "True 1", answers


@reaches
def test_formats_and_filters():
    """JSON lines, a filter, a limit, times and a summary work as with trace."""
    with program("selectors_ffi") as process:
        with attached(process, "--format", "json", "-e", "trace=wait") as command:
            say(process, "turn")
            shown, _ = interrupted(command)
        records = [json.loads(line) for line in shown.splitlines()]
        assert {record["name"] for record in records if record["type"] == "syscall"} == {"epoll_wait"}
        with attached(process, "-tt", "--limit", "2", "--summary") as command:
            for _ in range(3):
                say(process, "turn")
            shown, _ = interrupted(command)
        assert shown.splitlines()[0][2] == ":"
        assert "the limit of 2 records is reached" in shown
        assert "woke the loop most" in shown


@reaches
def test_a_file_for_the_output(tmp_path):
    """-o writes a file."""
    with program() as process:
        with attached(process, "-o", str(tmp_path / "out")) as command:
            say(process, "turn")
            shown, _ = interrupted(command)
        assert shown == ""
        assert "wait(" in (tmp_path / "out").read_text()


@reaches
def test_a_program_that_ends():
    """The command ends with the program."""
    with program() as process, attached(process) as command:
        process.stdin.write("end\n")
        process.stdin.flush()
        _, told = command.communicate(timeout=30)
        assert f"process {process.pid} has ended" in told
        assert command.returncode == 0
        assert process.wait(30) == 0


@reaches
def test_what_is_switched_on_stays():
    """A process in which something is switched on already refuses, in one sentence."""
    before = "from selectors_ffi.debug import switch; switch('stats')"
    with program(before=before) as process, attached(process) as command:
        command.communicate(timeout=30)
        assert "something is switched on already (stats switched on" in command.head
        assert command.returncode == 2


@reaches
def test_a_process_that_sleeps():
    """The command says what it waits for; given up, it leaves no script that fails."""
    with program() as process:
        with subprocess.Popen(
            [sys.executable, "-m", "selectors_ffi", "attach", str(process.pid)],
            stderr=subprocess.PIPE, text=True, cwd=ROOT,
        ) as command:  # fmt: skip
            assert f"waiting until the main thread of process {process.pid}" in command.stderr.readline()
            command.send_signal(signal.SIGINT)
            assert command.wait(30) == 0
        assert say(process, "turn") == "seen"
        assert say(process, "compare") == "True 1"


@reaches
def test_a_process_that_refuses():
    """PYTHON_DISABLE_REMOTE_DEBUG is told in the system's own words."""
    with program(PYTHON_DISABLE_REMOTE_DEBUG="1") as process:
        done = command(str(process.pid))
        assert done.returncode == 2
        assert "cannot be reached: Remote debugging is not enabled" in done.stderr


def command(*words):
    """Run the command to its end."""
    return apart.python("-m", "selectors_ffi", "attach", *words)


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="this Python can attach")
def test_a_python_that_cannot():
    """Before CPython 3.14 one sentence says what does the same."""
    done = command("1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "attach needs CPython 3.14 or newer, and this is" in done.stderr
    assert "switch() and SELECTORS_FFI_SIGNAL do the same" in done.stderr


@pytest.fixture
def able(monkeypatch):
    """A Python that seems to have sys.remote_exec."""
    monkeypatch.setattr(sys, "remote_exec", None, raising=False)


def refusal(text):
    """Return why a process cannot be attached to."""
    with pytest.raises(ValueError) as caught:
        attach._process(text)
    return str(caught.value)


@pytest.mark.usefixtures("able")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads procfs")
def test_processes_that_cannot_be_reached(monkeypatch):
    """No number, no such process, this one, another user's, no Python: a sentence each."""
    assert refusal("abc") == "PID is the number of a process, not 'abc'"
    assert refusal("0") == "PID is the number of a process, not '0'"
    assert refusal("4194305") == "there is no process 4194305"
    assert refusal("9" * 30) == f"there is no process {'9' * 30}"
    assert refusal(str(os.getpid())) == f"process {os.getpid()} is this command itself"
    with subprocess.Popen(["sh"], stdin=subprocess.PIPE) as process:
        assert refusal(str(process.pid)).endswith("sh, which is no Python")
        other = process.pid

    def forbidden(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    told = f"process {other} belongs to another user; run this as that user, or as root"
    assert refusal(str(other)) == told


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    ("mapped", "theirs"),
    [("/usr/bin/python3.2", "CPython 3.2"), ("/x/libpypy3.10-c.so", "PyPy 3.10")],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads procfs")
def test_another_version(monkeypatch, tmp_path, mapped, theirs):
    """A process of another Python is told by what it has mapped."""
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r--p 00000000 08:01 1234   {mapped}\n")
    monkeypatch.setattr(os, "readlink", lambda path: "/usr/bin/python")
    monkeypatch.setattr(attach, "open", lambda *_, **__: maps.open(), raising=False)
    with pytest.raises(ValueError, match=f"process 7 runs {theirs}; this command, run by CPython"):
        attach._must_run_our_python(7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-e", "leaks", "1"], "-e: leaks alone shows nothing"),
        (["-e", "evnts", "1"], "unknown debug flag 'evnts'; known are"),
        (["-t", "-r", "1"], "-t and -r are two ways to show the time"),
        (["--slower", "5parsec", "1"], "5parsec"),
        ([], "PID"),
    ],
)
def test_wrong_options(words, message, capsys):
    """A wrong option is one line with exit status 2, and no process is touched."""
    with pytest.raises(SystemExit) as caught:
        main(["attach", *words])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="attach uses a Unix socket")
def test_a_command_that_is_gone_before_the_process_comes():
    """What the process has switched on for a command that has left is switched off."""
    ours, theirs = socket.socketpair()
    ours.close()
    with selectors.DefaultSelector() as selector:
        attached_side.begin(theirs.detach(), json.dumps(SETTINGS))
        assert switched() is None
        assert type(selector) is selectors.DefaultSelector


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="attach uses a Unix socket")
@pytest.mark.parametrize("summary", [True, False])
def test_a_command_that_goes_without_a_word(monkeypatch, capfd, summary):
    """The first record that it does not take ends it, and the program's standard error stays clean."""
    monkeypatch.setattr(attached_side, "start", lambda *begin: None)
    ours, theirs = socket.socketpair()
    with selectors.DefaultSelector() as selector:
        attached_side.begin(theirs.detach(), json.dumps({**SETTINGS, "summary": summary}))
        sink = switched().sink
        ours.close()
        selector.select(0)
        assert switched() is None
        assert type(selector) is selectors.DefaultSelector
    sink._output.close()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="attach uses a Unix socket")
def test_the_side_of_the_process():
    """Lines come through the socket; when the command closes its end, everything is as before."""
    ours, theirs = socket.socketpair()
    with ours, ours.makefile("r") as lines, selectors.DefaultSelector() as selector:
        attached_side.begin(theirs.detach(), json.dumps({**SETTINGS, "summary": True}))
        assert lines.readline().startswith("syscalls,events switched on for selectors: ")
        assert "made in C and cannot be shown" in lines.readline()
        selector.select(0)
        assert "wait(0) = 0 ready" in lines.readline()
        with pytest.warns() as told:
            warnings.warn("the only one", stacklevel=1)
            switched().sink(Lint(0, Source(0, 0, ""), "SEL001", 3, "a lint is a line", "here"))
        assert len(told) == 1
        assert "a lint is a line" in lines.readline()
        ours.shutdown(socket.SHUT_WR)
        assert "select(): 1 waits, 1 empty" in lines.read()
        assert switched() is None
        assert type(selector) is selectors.DefaultSelector


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="attach uses a Unix socket")
def test_two_commands():
    """The second one is refused in one sentence, and the first goes on."""
    first, theirs = socket.socketpair()
    second, others = socket.socketpair()
    with first, second, first.makefile("r") as lines, second.makefile("r") as refusals:
        attached_side.begin(theirs.detach(), json.dumps(SETTINGS))
        attached_side.begin(others.detach(), json.dumps(SETTINGS))
        assert refusals.read().startswith("refused: something is switched on already (events")
        first.shutdown(socket.SHUT_WR)
        assert lines.read().startswith("events switched on for selectors: ")
    assert switched() is None
