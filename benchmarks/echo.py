"""asyncio: an echo server and its clients in one loop, by the selector the loop is built on.

Each call is one round: every client sends a message and waits until all of it has come back.
"""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass
from typing import Any

import selectors_ffi
from benchmarks import bench
from benchmarks.others import installed
from benchmarks.rows import repeated


@dataclass(frozen=True)
class Echo:
    """So many connections, with messages of so many bytes."""

    connections: int
    size: int

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"asyncio echo, {self.connections} connections, {self.size} B"


SCENES = (Echo(100, 64), Echo(100, 65536), Echo(1000, 64), Echo(1000, 65536))


class Server(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


class Client(asyncio.Protocol):
    """Sends a message when told to, and tells its round when all of it is back."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.missing = 0

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def start(self, done: Any) -> None:
        """Send the message."""
        self.done = done
        self.missing = len(self.message)
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        """Count."""
        self.missing -= len(data)
        if not self.missing:
            self.done()


class Loop:
    """An event loop with connected clients."""

    def __init__(self, loop: Any, scene: Echo) -> None:
        self.loop = loop
        self.clients: list[Client] = []
        loop.run_until_complete(self.connect(scene))

    async def connect(self, scene: Echo) -> None:
        """Start the server, connect the clients."""
        self.server = await self.loop.create_server(Server, "127.0.0.1", 0, backlog=2048)
        port = self.server.sockets[0].getsockname()[1]
        for _ in range(scene.connections):
            _, client = await self.loop.create_connection(
                lambda: Client(bytes(scene.size)), "127.0.0.1", port
            )
            self.clients.append(client)

    def round(self) -> None:
        """Let every client send its message and have it back."""
        self.loop.run_until_complete(self.exchange())

    async def exchange(self) -> None:
        """See ``round``."""
        finished = self.loop.create_future()
        missing = len(self.clients)

        def done() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                finished.set_result(None)

        for client in self.clients:
            client.start(done)
        await finished

    def close(self) -> None:
        """Close connections, server and loop."""
        for client in self.clients:
            client.transport.abort()
        self.server.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


def measure(turns: int) -> list[bench.Result]:
    """Measure all scenes."""
    makers: dict[str, Any] = {
        "stdlib": lambda: asyncio.SelectorEventLoop(selectors.DefaultSelector()),
        "ours": lambda: asyncio.SelectorEventLoop(selectors_ffi.DefaultSelector()),
    }
    for name, module in installed("uvloop").items():
        makers[name] = module.new_event_loop
    results = []
    for scene in SCENES:
        loops = {name: Loop(make(), scene) for name, make in makers.items()}
        contestants = {name: repeated(loop.round) for name, loop in loops.items()}
        times = bench.interleave(contestants, max(3, turns // 5))
        results.append(bench.compare(scene, times))
        for loop in loops.values():
            loop.close()
    return results
