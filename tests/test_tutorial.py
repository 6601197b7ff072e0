"""docs/tutorial.md: its two servers do what the page says, for clients that behave and that do not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
PROGRAMS = {
    match[2]: match[1] for match in re.finditer(r"```python\n(# (\w+\.py)\n.*?)^```", PAGE, re.M | re.S)
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends the server by a Unix signal")

# Tells the port once it is bound, so that the test need not guess when the server listens.
START = """
import socket, sys
real = socket.create_server
def create_server(address):
    server = real((address[0], 0))
    print(server.getsockname()[1], flush=True)
    return server
socket.create_server = create_server
sys.argv = [sys.argv[1], "0"]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"), {"__name__": "__main__"})
"""


@pytest.fixture
def serve(tmp_path):
    """A function that starts a server of the page and returns one that connects to it."""
    servers = []

    def start(name):
        (tmp_path / name).write_text(PROGRAMS[name], "utf-8")
        server = subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path / name)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "SELECTORS_FFI_DEBUG": "checks"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        servers.append(server)
        port = int(server.stdout.readline())
        return lambda: socket.create_connection(("127.0.0.1", port), timeout=30)

    yield start

    for server in servers:
        server.terminate()
        _, errors = server.communicate(timeout=30)
        assert errors == "", "an exception, or a lint"


def test_echo(serve):
    """Each client gets back what it has sent; one that hangs up does not end the server."""
    connect = serve("echo.py")

    with closing(connect()) as first, closing(connect()) as second:
        second.sendall(b"two")
        first.sendall(b"one")
        assert (first.recv(10), second.recv(10)) == (b"one", b"two")
    with closing(connect()) as third:
        third.sendall(b"three")
        assert third.recv(10) == b"three"


def lines(connection):
    """Return the lines of a connection, as a file."""
    return connection.makefile("r", encoding="utf-8")


def test_chat(serve):
    """A line goes to all others, whole, however it was cut; that one joins or leaves is told."""
    connect = serve("chat.py")

    with closing(connect()) as first, closing(connect()) as second:
        heard = lines(first)
        assert heard.readline().endswith(": joined\n")
        second.sendall(b"hel")
        first.sendall(b"hi\n")
        assert lines(second).readline().endswith(": hi\n")
        second.sendall(b"lo\nworld\n")
        assert [heard.readline().split(": ")[1] for _ in range(2)] == ["hello\n", "world\n"]
        second.shutdown(socket.SHUT_WR)
        assert heard.readline().endswith(": left\n")


def test_chat_with_a_slow_reader(serve):
    """A client that does not read keeps no other waiting, and finds everything when it reads."""
    connect = serve("chat.py")
    long = b"x" * 1000 + b"\n"

    with closing(connect()) as slow, closing(connect()) as speaker, closing(connect()) as other:
        heard = lines(other)
        for _ in range(3):
            speaker.sendall(long * 1000)
        assert all(heard.readline().endswith("x\n") for _ in range(3000))
        found = lines(slow)
        assert sum(found.readline().endswith("x\n") for _ in range(3002)) == 3000
