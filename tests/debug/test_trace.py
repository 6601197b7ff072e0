"""``python -m selectors_ffi trace``: any program, untouched but for its selectors."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from selectors_ffi.cli import trace as command
from selectors_ffi.debug import FileSink

ROOT = Path(__file__).parents[2]
unix = pytest.mark.skipif(os.name != "posix", reason="Unix signals and pipes")


def run(*arguments, **options):
    """Run the interpreter on arguments, with the package importable."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        **options,
    )


def trace(*arguments, **options):
    """Run ``trace`` on arguments."""
    return run("-m", "selectors_ffi", "trace", *arguments, **options)


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a program into a file of its own."""

    def write(text, name="program.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_lines_go_to_standard_error(script):
    """By default system calls go to standard error, the program's output is its own."""
    path = script(
        """
        import selectors
        with selectors.PollSelector() as selector:
            selector.select(0)
        print("done")
        """
    )
    done = trace(path)

    assert done.stdout == "done\n"
    assert done.stderr.startswith("poll(")
    assert done.stderr.endswith(">\n")
    assert done.stderr.count("\n") == 1


@unix
def test_programs_of_the_standard_library(script, tmp_path):
    """The stdlib's own users of selectors are traced, however they took them in."""
    path = script(
        """
        import asyncio, multiprocessing.connection, socket, socketserver, subprocess, sys, threading
        from selectors import DefaultSelector

        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            writer.close()
            server.close()

        asyncio.run(main())
        command = [sys.executable, "-c", "print(input())"]
        done = subprocess.run(command, input=b"x", capture_output=True)
        assert done.stdout.strip() == b"x"

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(self.rfile.readline())

        with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            with socket.create_connection(server.server_address) as client:
                client.sendall(b"hello\\n")
                assert client.makefile().readline() == "hello\\n"
            server.shutdown()
            thread.join()

        first, second = multiprocessing.Pipe()
        first.send("x")
        assert multiprocessing.connection.wait([second], 5) == [second]
        with DefaultSelector() as selector:
            print(type(selector).__module__)
        """
    )
    output = tmp_path / "lines"
    done = trace("-e", "all", "-o", output, "--format", "json", path)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    by_selector = {record["selector"] for record in records}

    assert (done.stderr, done.stdout) == ("", "selectors_ffi.backends.epoll\n") or not hasattr(
        __import__("select"), "epoll"
    )
    assert len(by_selector) >= 5, "one each: asyncio, subprocess, socketserver, connection, own"
    assert not [record for record in records if record["type"] == "lint"], "no false alarm"


def test_names_imported_before(script):
    """A name that a module took before the trace began is replaced in it as well."""
    path = script(
        """
        import socketserver, subprocess, selectors, sys
        taken = [socketserver._ServerSelector, selectors.DefaultSelector, selectors.SelectSelector]
        taken += [subprocess._PopenSelector] if hasattr(subprocess, "_PopenSelector") else []
        assert all(one.__module__.startswith("selectors_ffi.") for one in taken), taken
        """
    )
    site = script("import socketserver, subprocess, asyncio", "sitecustomize.py").parent
    done = trace(path, env={"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"})

    assert done.returncode == 0, done.stderr


@unix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(script, number):
    """A program killed by a signal, or by its KeyboardInterrupt, ends as it does without us."""
    path = script(
        f"""
        import os, selectors, signal
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: # a background job inherits that
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with selectors.DefaultSelector() as selector:
            selector.select(0)
            os.kill(os.getpid(), {int(number)})
            selector.select(10)
        """
    )
    plain, traced = run(path), trace("-o", os.devnull, path)

    assert traced.returncode == plain.returncode
    assert traced.returncode == -number or sys.implementation.name == "pypy"


@unix
def test_interrupted_call_is_shown(script, tmp_path):
    """A wait that a signal interrupts is shown with EINTR, and goes on."""
    path = script(
        """
        import selectors, signal
        signal.signal(signal.SIGALRM, lambda *arguments: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with selectors.PollSelector() as selector:
            selector.select(0.2)
        """
    )
    output = tmp_path / "lines"
    trace("-o", output, path)
    lines = output.read_text().splitlines()

    assert "= -1 EINTR (Interrupted system call) <0.0" in lines[0]
    assert "= 0 (Timeout) <0." in lines[-1]


@unix
def test_a_failed_wait_is_shown(script):
    """An exception of the program's own comes after the line of the call that caused it."""
    path = script(
        """
        import os, selectors
        read, write = os.pipe()
        with selectors.SelectSelector() as selector:
            selector.register(read, selectors.EVENT_READ)
            os.close(read)
            selector.select(0)
        """
    )
    done = trace(path)

    assert "= -1 EBADF (Bad file descriptor) <" in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[-1] == "OSError: [Errno 9] Bad file descriptor"
    assert done.returncode == 1


def test_summary(script):
    """--summary alone prints the table at the end, and no lines."""
    path = script(
        """
        import selectors
        with selectors.PollSelector() as selector:
            for _ in range(5):
                selector.select(0)
        """
    )
    done = trace("--summary", path)
    lines = done.stderr.splitlines()

    assert lines[0].startswith("% time     seconds   median us      max us     calls")
    assert lines[2].split()[4:] == ["5", "poll"]
    assert lines[4].split()[-1] == "total"
    assert "select(): 5 waits, 5 empty, 0 keys ready, 0.00 per wait" in lines


def test_summary_and_lines(script, tmp_path):
    """With -e the lines come too, and the table follows them in the same place."""
    path = script("import selectors\nselectors.PollSelector().select(0)\n")
    output = tmp_path / "lines"
    trace("--summary", "-e", "syscalls", "-o", output, path)
    lines = output.read_text().splitlines()

    assert lines[0].startswith("poll(")
    assert lines[1].startswith("% time")


@unix
def test_children_of_fork_do_not_print_the_summary(script):
    """A forked child that ends by itself leaves the summary to its parent."""
    path = script(
        """
        import os, selectors, sys
        if os.fork() == 0:
            selectors.PollSelector().select(0)
            sys.exit()
        os.wait()
        """
    )
    done = trace("-e", "syscalls", "--summary", path)

    assert done.stderr.count("% time") == 1
    assert done.stderr.startswith("[pid ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-e", "nothing", "x.py"], "unknown debug flag 'nothing'; known are syscalls, events"),
        ([], "no program to run"),
        (["--format", "perfetto", "x.py"], "--format perfetto needs -o FILE"),
        (["no-such-file.py"], "can't open file 'no-such-file.py': No such file"),
        (["-o", "/no/such/folder/x", "x.py"], "No such file or directory"),
    ],
)
def test_mistakes_in_the_command_line(arguments, message):
    """A wrong command line is refused with status 2 and a reason."""
    done = trace(*arguments)

    assert done.returncode == 2
    assert message in done.stderr


def test_leaks_are_shown(script):
    """-e leaks shows a selector left open although Python ignores ResourceWarning by default."""
    path = script(
        """
        import gc, selectors
        selectors.PollSelector()
        gc.collect()
        """
    )
    done = trace("-e", "leaks", path)

    assert done.stderr.startswith(f"SEL009 at {path}:3 in <module>: unclosed <")
    assert done.stderr.count("\n") == 1, "once: as a record, not as a warning too"


def test_lints_are_shown_once(script):
    """-e checks shows a lint as a record; a warning filter of the user's own still rules."""
    path = script(
        """
        import selectors
        with selectors.PollSelector() as selector, open(__file__) as file:
            selector.register(file, selectors.EVENT_READ)
        """
    )
    done = trace("-e", "checks", path)
    strict = run("-W", "error", "-m", "selectors_ffi", "trace", "-e", "checks", path)

    assert done.stderr.startswith(f"SEL008 at {path}:4 in <module>: fd ")
    assert done.stderr.count("\n") == 1
    assert strict.returncode == 1
    assert "RegularFile: SEL008: fd" in strict.stderr


def options(**changed):
    """The options of ``trace``, with failures that raise."""

    def fail(message):
        raise SystemExit(message)

    fields = {"flags": None, "format": "text", "output": None, "summary": False, "fail": fail,
              "program": ["x.py"], "explain": False, **changed}  # fmt: skip
    return argparse.Namespace(**fields)


def test_flags_by_format():
    """The flags are as given, else what the format shows best."""
    assert command._flags(options(flags="all")) == "all"
    assert command._flags(options(format="perfetto")) == "syscalls,events"
    assert command._flags(options(summary=True)) == ""
    assert command._flags(options()) == "syscalls"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"program": []}, "no program"),
        ({"format": "perfetto"}, "needs -o"),
        ({"flags": "nonsense"}, "unknown debug flag"),
        ({"output": "/nowhere/at/all"}, "No such file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_trace_refuses(changed, message):
    """What cannot be traced, or not as asked, is told before anything is run."""
    with pytest.raises(SystemExit, match=message):
        command.run(options(**changed))


def test_no_room_for_a_high_number(monkeypatch):
    """Where no high number is to be had any other does."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    reader, writer = os.pipe()
    fd = command._high(writer)
    os.write(fd, b"x")
    assert os.read(reader, 1) == b"x"
    for one in (reader, writer, fd):
        os.close(one)


def test_ends_in_the_process_that_began(capsys):
    """The summary comes from the process that was traced, once; a forked child ends without."""
    written, closed = [], []
    output = object.__new__(FileSink)
    output.write, output.close = written.append, lambda: closed.append(1)
    for pid in (-5, os.getpid()):
        command._close(output, pid)
        command._print_summary("table", output, options(), pid)
        command._print_summary("table", output, options(format="json"), pid)

    assert written == ["table\n"]
    assert len(closed) == 3
    assert capsys.readouterr().err == "table\n"
