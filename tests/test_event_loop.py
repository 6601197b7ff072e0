"""``new_event_loop`` and ``run``: asyncio over our selectors, without a deprecated call."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import pytest

import selectors_ffi
from selectors_ffi import Debug
from tests import apart

pytestmark = pytest.mark.skipif(
    not hasattr(selectors_ffi, "DefaultSelector"), reason="no selector works here"
)


def test_loop_over_our_selector():
    """The loop's selector is our default, and closes with the loop."""
    loop = selectors_ffi.new_event_loop()
    selector = loop._selector
    assert type(selector) is selectors_ffi.DefaultSelector
    assert selector.get_map()

    loop.close()
    assert selector.get_map() is None


def test_run_returns_and_raises_what_the_coroutine_does():
    """run() returns the result, or raises the exception, and closes the loop."""
    loops = []

    async def add(a, b):
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return a + b

    async def fail():
        raise KeyError("x")

    assert selectors_ffi.run(add(1, 2)) == 3
    with pytest.raises(KeyError, match="x"):
        selectors_ffi.run(fail())
    assert loops[0].is_closed()


def test_run_serves_connections():
    """Streams, threads of the default executor and timeouts work in the loop."""

    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        line = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        server.close()
        return line, await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)

    line, thread = selectors_ffi.run(main())
    assert line == b"hello\n"
    assert thread != threading.get_ident()


@pytest.mark.skipif(sys.platform == "win32", reason="selector loops have no subprocesses there")
def test_run_serves_subprocesses():
    """A subprocess and its pipes work in the loop."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "print(input())"), stdin=-1, stdout=-1
        )
        return await process.communicate(b"hello\n")

    assert selectors_ffi.run(main())[0].split() == [b"hello"]


def test_run_ends_what_is_left():
    """Tasks that are left are cancelled, asynchronous generators are closed."""
    ended = []

    async def forever():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("task")

    async def numbers():
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main():
        task = asyncio.ensure_future(forever())
        async for _ in numbers():
            break
        await asyncio.sleep(0)
        return task

    task = selectors_ffi.run(main())
    assert task.cancelled()
    assert sorted(ended) == ["generator", "task"]


def test_error_of_a_task_at_the_end():
    """An exception that a cancelled task raises instead is told to the loop's handler."""
    told = []

    async def stubborn():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise KeyError("instead") from None

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
        loop.task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)

    selectors_ffi.run(main())
    assert [type(error) for error in told] == [KeyError]


def test_run_in_a_running_loop():
    """run() in a coroutine is refused, as asyncio.run() is."""

    async def main():
        inner = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError, match="cannot be called"):
                selectors_ffi.run(inner)
        finally:
            inner.close()

    selectors_ffi.run(main())


def test_run_wants_a_coroutine():
    """Something that is not awaitable is refused."""
    with pytest.raises((TypeError, ValueError)):
        selectors_ffi.run(len)


def test_debug_flags():
    """debug= goes to the loop's selector; a wrong flag leaves nothing open."""
    loop = selectors_ffi.new_event_loop(debug=Debug.STATS)
    loop.run_until_complete(asyncio.sleep(0))
    assert "waits" in str(loop._selector.stats())
    loop.close()

    with pytest.raises(ValueError, match="known are syscalls"):
        selectors_ffi.new_event_loop(debug="syscall")
    with pytest.raises(TypeError, match="debug must be Debug flags or their names, not True"):
        selectors_ffi.new_event_loop(debug=True)


def test_loop_that_cannot_be_made(monkeypatch):
    """Where the loop cannot open its socket pair, the selector is closed."""
    made, loops = [], []

    class Noted(selectors_ffi.DefaultSelector):
        def __init__(self, **options):
            super().__init__(**options)
            made.append(self)

    def refuse(*arguments):
        loops.append(sys._getframe(1).f_locals["self"])
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(selectors_ffi, "DefaultSelector", Noted)
    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        selectors_ffi.new_event_loop()

    assert made[0].get_map() is None
    loops[0]._closed = True  # asyncio's finaliser fails on a loop that was half made


def test_no_selector_here(monkeypatch):
    """Where no class works, the error says where to read why."""
    monkeypatch.delattr(selectors_ffi, "DefaultSelector")

    with pytest.raises(OSError, match="python -m selectors_ffi says why"):
        selectors_ffi.new_event_loop()


def test_no_deprecated_call():
    """With every warning an error, run() works and leaves no loop behind."""
    code = (
        "import selectors_ffi\n"
        "async def main(): return 3\n"
        "print(selectors_ffi.run(main()), selectors_ffi.run(main()))"
    )
    done = apart.python("-W", "error", "-X", "dev", "-c", code)
    assert (done.stdout, done.stderr) == ("3 3\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to oneself alone there")
def test_interrupt():
    """Ctrl-C ends run() with KeyboardInterrupt after the tasks were cancelled."""
    code = (
        "import asyncio, os, selectors_ffi, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "async def main():\n"
        "    try:\n"
        "        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)\n"
        "        await asyncio.sleep(30)\n"
        "    finally:\n"
        "        print('cancelled', flush=True)\n"
        "try:\n"
        "    selectors_ffi.run(main())\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = apart.python("-c", code)

    assert (done.stdout, done.stderr) == ("cancelled\ninterrupted\n", "")
