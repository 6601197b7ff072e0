"""``python -m selectors_ffi trace``: any program, untouched but for its selectors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from selectors_ffi.debug.stacks import EXACT
from tests import apart, needs
from tests.apart import trace

ROOT = Path(__file__).parents[2]
unix = pytest.mark.skipif(os.name != "posix", reason="Unix signals and pipes")


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
        import selectors, socket
        near, far = socket.socketpair()
        with selectors.SelectSelector() as selector:
            selector.register(near, selectors.EVENT_READ)
            selector.select(0)
        print("done")
        """
    )
    done = trace(path)

    assert done.stdout == "done\n"
    assert done.stderr.startswith("select(")
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
    done = trace(path, PYTHONPATH=f"{site}{os.pathsep}{ROOT}")

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
    plain, traced = apart.python(path), trace("-o", os.devnull, path)

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
    assert "OSError: [Errno 9] Bad file descriptor" in done.stderr
    assert done.returncode == 1


def test_summary(script):
    """--summary alone prints the table at the end, and no lines."""
    path = script(
        """
        import selectors, socket
        near, far = socket.socketpair()
        with selectors.SelectSelector() as selector:
            selector.register(near, selectors.EVENT_READ)
            for _ in range(5):
                selector.select(0)
        """
    )
    done = trace("--summary", path)
    lines = done.stderr.splitlines()

    assert lines[0].startswith("% time     seconds   median us      max us     calls")
    assert lines[2].split()[4:] == ["5", "select"]
    assert lines[4].split()[-1] == "total"
    assert "select(): 5 waits, 5 empty, 0 keys ready, 0.00 per wait" in lines


def test_summary_and_lines(script, tmp_path):
    """With -e the lines come too, and the table follows them in the same place."""
    path = script(
        """
        import selectors, socket
        near, far = socket.socketpair()
        with selectors.SelectSelector() as selector:
            selector.register(near, selectors.EVENT_READ)
            selector.select(0)
        """
    )
    output = tmp_path / "lines"
    trace("--summary", "-e", "syscalls", "-o", output, path)
    lines = output.read_text().splitlines()

    assert lines[0].startswith("select(")
    assert lines[1].startswith("% time")


@unix
def test_children_of_fork_do_not_print_the_summary(script):
    """A forked child that ends by itself leaves the summary to its parent, which counts its waits."""
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
    assert "of 2 processes\nselect(): 1 waits, 1 empty" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-e", "nothing", "x.py"], "unknown debug flag 'nothing'; known are syscalls, events"),
        ([], "no program to run"),
        (["--format", "perfetto", "x.py"], "--format perfetto needs -o FILE"),
        (["no-such-file.py"], "can't open file 'no-such-file.py': No such file"),
        (["-o", "/no/such/folder/x", "-c", "print(1)"], "No such file or directory"),
        (["-e", "trace=nothing", "x.py"], "unknown call 'nothing' in trace=; known are close"),
        (["-e", "trace=", "x.py"], "trace= names no call"),
        (["-e", "", "x.py"], "-e: '' names no flag"),
        (["-e", "stats", "x.py"], "-e: stats alone shows no line; --summary prints its table"),
        (["-e", "signal=none", "x.py"], "'signal=none' is neither FLAGS nor trace=CALLS"),
        (["-P", "7x", "x.py"], "-P: '7x' is neither a descriptor's number nor an existing path"),
        (["--slower", "3", "x.py"], "'3' is no duration; write a number with ns, us, ms or s"),
        (["--limit", "0", "x.py"], "'0' is not a number above 0"),
        (["-ff", "x.py"], "-ff needs -o FILE"),
        (["-t", "-r", "x.py"], "choose one"),
        (["-tttt", "x.py"], "write -t, -tt or -ttt"),
        (["--format", "json", "-t", "x.py"], "-t is for --format text"),
        (["--format", "json", "-r", "x.py"], "-r is for --format text"),
        (["--format", "json", "--no-fold", "x.py"], "--no-fold is for --format text"),
        (["--format", "json", "--explain", "x.py"], "--explain is for --format text"),
        (["--format", "xml", "x.py"], "invalid choice: 'xml'"),
        (["--color", "blue", "x.py"], "invalid choice: 'blue'"),
        (["--no-such-option", "x.py"], "--no-such-option"),
    ],
)
def test_mistakes_in_the_command_line(arguments, message):
    """A wrong command line is refused with status 2 and one line, before anything runs."""
    done = trace(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_leaks_are_shown(script):
    """-e leaks shows a selector left open although Python ignores ResourceWarning by default."""
    path = script(
        """
        import gc, selectors
        selectors.SelectSelector()
        gc.collect()
        """
    )
    done = trace("-e", "leaks", path)

    assert done.stderr.startswith(f"SEL009 at {path}:3 in <module>: unclosed <")
    assert done.stderr.count("\n") == 1, "once: as a record, not as a warning too"


@needs.waits_for_files
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
    strict = apart.python("-W", "error", "-m", "selectors_ffi", "trace", "-e", "checks", path)

    assert done.stderr.startswith(f"SEL008 at {path}:4 in <module>: fd ")
    assert done.stderr.count("\n") == 1
    assert strict.returncode == 1
    assert "RegularFile: SEL008: fd" in strict.stderr


NOTHING = "selectors_ffi: no selector was made, so there is nothing to show"


def test_a_program_without_selectors(script):
    """Where no selector was made, one line says so."""
    done = trace(script("import select, socket; select.select([], [socket.socketpair()[0]], [])"))

    assert done.stderr == f"{NOTHING}\n"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import uvloop", "the loop was uvloop, which does not use selectors"),
        (
            "import sys; sys.modules['asyncio.windows_events'] = sys",
            "asyncio's default loop on Windows does not use selectors, but selectors_ffi.run() does",
        ),
    ],
)
def test_a_loop_that_uses_no_selectors(script, tmp_path, program, why):
    """Where the loop was another one, the line names it."""
    (tmp_path / "uvloop.py").write_text("")
    done = trace("--format", "json", "-o", tmp_path / "out", script(program))

    assert done.stderr == f"{NOTHING}: {why}\n"
    assert (tmp_path / "out").read_text() == ""


def test_a_class_that_was_derived_before(script, tmp_path):
    """Where a class is still the standard library's, the line names it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, selectors\nclass Mine(selectors.SelectSelector): pass\nbuiltins.Mine = Mine\n"
    )
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    done = trace(script("Mine().close()"), PYTHONPATH=path)

    assert done.stderr.startswith(f"{NOTHING}: sitecustomize.Mine still uses selectors.SelectSelector")


@unix
@pytest.mark.parametrize("arguments", [["--summary"], ["--format", "json", "-o", "out", "--summary"]])
def test_summary_of_a_server_that_is_terminated(script, arguments, tmp_path):
    """SIGTERM ends the program as it would, after the summary."""
    path = script(
        """
        import selectors, socket
        with selectors.DefaultSelector() as selector, socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            selector.register(listener, selectors.EVENT_READ)
            print("serving", flush=True)
            while True:
                selector.select()
        """
    )
    command = [sys.executable, "-m", "selectors_ffi", "trace", *arguments, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as server:
        server.stdout.readline()
        server.terminate()
        _, errors = server.communicate(timeout=50)

    assert errors.startswith("% time")
    assert server.returncode == -signal.SIGTERM


def test_a_mistake_leaves_files_alone(script, tmp_path):
    """A command that is refused has neither emptied its output nor left a temporary file."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    output = tmp_path / "out"
    output.write_text("of an earlier trace")
    names = {name: str(folder) for name in ("TMPDIR", "TEMP")}
    done = trace("--summary", "-o", output, "--inject", "nonsense", script(""), **names)

    assert done.returncode == 2
    assert output.read_text() == "of an earlier trace"
    assert not list(folder.iterdir())


FAILS = "selectors_ffi: a debug sink raised OSError: [Errno 28] No space left on device; its further"
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is needed")


@full
@pytest.mark.parametrize("options", [(), ("--summary",), ("-r", "--no-fold")])
@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, 1),
        ("os.execv(sys.executable, [sys.executable, '-c', 'exit(7)'])", 7, 1),
        ("os.fork() and exit(os.wait() and 7)", 7, 2),
        ("exit(7)", 7, 1),
    ],
)
def test_an_output_that_fails(script, options, end, status, told):
    """The program ends as it does without us, and each process says once what failed."""
    path = script(
        f"""
        import os, selectors, signal, sys
        for _ in range(2):
            selector = selectors.SelectSelector()
            for _ in range(10):
                selector.select(0)
        {end}
        """
    )
    done = trace("-o", "/dev/full", *options, path)

    assert done.returncode == status
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith(FAILS) for line in lines)
    assert 1 <= len(lines) <= told


@unix
def test_nobody_reads_the_summary(script):
    """SIGTERM ends the program also if standard error is a pipe that was closed."""
    path = script(
        "import os, signal; print(1, flush=True); input(); os.kill(os.getpid(), signal.SIGTERM)"
    )
    command = [sys.executable, "-m", "selectors_ffi", "trace", "--summary", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        process.stdout.readline()
        process.stderr.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(50) == -signal.SIGTERM


@unix
def test_summary_after_an_interrupt(script):
    """A KeyboardInterrupt that ends the program comes with the summary, also on PyPy."""
    done = trace(
        "--summary",
        script("import selectors; selectors.SelectSelector().select(0); raise KeyboardInterrupt"),
    )

    assert "% time" in done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode == -signal.SIGINT


@unix
def test_summary_without_a_temporary_folder(script):
    """The table is shown; one line says what it cannot have of children."""
    no_folder = "import tempfile; tempfile.tempdir = '/no/such'; import selectors_ffi.__main__"
    alone, forks = (
        apart.python("-c", no_folder, "trace", "--summary", script(f"import os, selectors; {end}"))
        for end in ("selectors.SelectSelector().select(0)", "os.fork() and os.wait()")
    )

    missing = "selectors_ffi: no file could be made for the figures of children"
    assert "% time" in alone.stderr
    assert missing not in alone.stderr
    assert forks.stderr.count(missing) == 1


@unix
def test_a_handler_of_the_programs_is_its_own(script):
    """A program that has a handler for SIGTERM, or a thread that loads the tracer, is left alone."""
    path = script(
        """
        import os, selectors, signal, sys
        def handler(number, frame):
            sys.exit(5)
        signal.signal(signal.SIGTERM, handler)
        selectors.PollSelector().select(0)
        os.kill(os.getpid(), signal.SIGTERM)
        """
    )
    done = trace("--summary", path)

    assert done.returncode == 5
    assert done.stderr.startswith("% time")


def test_summary_names_what_woke_the_loop(script):
    """The summary says how long turns were, and names owners."""
    path = script(
        """
        import asyncio

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
            def data_received(self, data):
                self.transport.write(data)
                self.transport.close()

        async def main():
            server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            await reader.read()
            writer.close()
            server.close()

        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(main())
        loop.close()
        """
    )
    done = trace("--summary", path)

    assert "% in the program, " in done.stderr
    assert "longest turn of the program: 0." in done.stderr
    assert "protocol Echo" in done.stderr.partition("woke the loop most:")[2]


def test_a_long_turn_has_its_line(script):
    """The summary, and a line that --slower shows, name the line that ran; on PyPy, the function."""
    path = script(
        """
        import selectors, time
        with selectors.SelectSelector() as selector:
            for turn in range(2):
                selector.select(0)
                time.sleep(0.25)
            selector.select(0)
        """
    )
    slow = trace("-e", "events", "--slower", "100ms", "--limit", "1", path).stderr

    where = f"{path}:{6 if EXACT else 2} in <module>"
    assert f" s (at {where})\n" in trace("--summary", path).stderr
    assert re.search(rf"\(the program took 0\.\d+ s before, at {re.escape(where)}\)", slow)


@pytest.mark.parametrize("words", [["-fo", "out.txt"], ["-Zttoout.txt"], ["-Zo", "out.txt", "--"]])
def test_short_options_in_one_word(script, tmp_path, words):
    """The last letter of a word may take a value, as in strace -fo out.txt; then comes the program."""
    path = script("import sys, selectors; selectors.SelectSelector().close(); print(sys.argv[1:])")

    done = trace(*words, path, "-fo", cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "['-fo']\n", "")
    assert (tmp_path / "out.txt").exists()


def test_options_of_strace_together(script, tmp_path):
    """Filters, times and a limit work on one command line."""
    path = script(
        """
        import selectors, socket
        with selectors.SelectSelector() as selector:
            near, far = socket.socketpair()
            selector.register(near.fileno(), selectors.EVENT_READ)
            for _ in range(9):
                selector.select(0)
            near.close()
            for _ in range(3):
                try:
                    selector.select(0)
                except OSError:
                    pass
        """
    )
    failed = trace("-Z", "-tt", "--limit", "2", "--no-fold", path).stderr.splitlines()
    folded = trace("-e", "trace=select", "-r", path).stderr.splitlines()
    nothing = trace("-e", "trace=!select", path).stderr
    slow = trace("--slower", "10s", path).stderr

    assert all(
        re.match(r"\d\d:\d\d:\d\d\.\d{6} select\(.* = -1 (EBADF|WSAENOTSOCK)", line)
        for line in failed[:2]
    )
    assert failed[2] == "selectors_ffi: the limit of 2 records is reached, what follows is not shown"
    assert re.match(r" +0\.\d{6} select\(.*\) = 0 \(Timeout\)", folded[0])
    assert folded[2] == "... 7 times more"
    assert len(folded) == 6
    assert nothing == slow == ""


def test_json_on_standard_error(script):
    """JSON without -o is on standard error, a line each."""
    done = trace("--format", "json", "--limit", "1", "-e", "events", script(
        "import selectors; s = selectors.SelectSelector(); s.select(0); s.close()"
    ))  # fmt: skip
    lines = [json.loads(line) for line in done.stderr.splitlines()]

    assert [line["type"] for line in lines] == ["wait", "note"]
