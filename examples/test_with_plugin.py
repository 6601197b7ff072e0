"""What the pytest plugin offers, for a plain selector loop and for asyncio.

    pytest -p selectors_ffi.testing.pytest_plugin examples/test_with_plugin.py
    pytest -p selectors_ffi.testing.pytest_plugin --selectors-chaos="20 seeds" ...

The tests of pytest-asyncio and anyio need nothing more: mark them as ever, and ask for the fixture.
"""

import asyncio
import selectors
import socket
from importlib.util import find_spec

import pytest


def echo(selector, connection):
    """The loop under test: send back what comes, until the peer has finished."""
    selector.register(connection, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            data = key.fileobj.recv(100)
            if not data:
                return
            key.fileobj.sendall(data)


def test_plain_loop(inject):
    """A loop lives through interruptions, and through a wait that the kernel refuses once."""
    injection = inject("wait:error=EINTR:when=1..3; wait:error=ENOMEM:when=5")
    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.DefaultSelector() as selector:
        theirs.send(b"hello")
        with pytest.raises(OSError, match="memory"):
            echo(selector, ours)  # the fifth wait
        assert theirs.recv(100) == b"hello"
        assert injection.hits == 4


async def echo_streams():
    """Return what an asyncio server answers to twenty clients at once."""
    handlers = []

    async def handle(reader, writer):
        handlers.append(asyncio.current_task())
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()

    async def ask(number):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"%d\n" % number)
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    answers = await asyncio.gather(*map(ask, range(20)))
    await asyncio.wait(handlers)
    server.close()
    await server.wait_closed()
    return answers


@pytest.mark.parametrize("seed", range(5))
def test_asyncio(chaos, seed):
    """Whatever the order of events, each client gets its own answer."""
    decided = chaos(seed)
    assert asyncio.run(echo_streams()) == [b"%d\n" % number for number in range(20)]
    assert decided.counts["permuted"] or decided.counts["withheld"]


@pytest.mark.parametrize("kernel", ["darwin", "freebsd", "illumos"], indirect=True)
def test_asyncio_on_another_kernel(kernel):
    """The same on systems that are not here."""
    from selectors_ffi import backends

    cls = backends.DevpollSelector if kernel.target == "sunos" else backends.KqueueSelector
    loop = asyncio.SelectorEventLoop(cls(binding=kernel))
    try:
        answers = loop.run_until_complete(echo_streams())
    finally:
        loop.close()
    assert answers == [b"%d\n" % number for number in range(20)]


@pytest.mark.skipif(not find_spec("pytest_asyncio"), reason="needs pytest-asyncio")
@pytest.mark.asyncio
async def test_pytest_asyncio(chaos):
    """A coroutine, run by pytest-asyncio: its own loop has chaos from here on."""
    decided = chaos(7)
    assert await echo_streams() == [b"%d\n" % number for number in range(20)]
    assert decided.counts["permuted"] or decided.counts["withheld"]


@pytest.fixture
def anyio_backend():
    """Trio has no selector."""
    return "asyncio"


@pytest.mark.skipif(not find_spec("anyio"), reason="needs anyio")
@pytest.mark.anyio
async def test_anyio(inject):
    """A coroutine, run by anyio: the next three waits of its loop are interrupted."""
    injection = inject("wait:error=EINTR:when=1..3")
    assert await echo_streams() == [b"%d\n" % number for number in range(20)]
    assert injection.hits == 3
