"""``demo``: an echo server and its clients on loopback, driven by one selector."""

from __future__ import annotations

import argparse
import random
import socket
from collections import deque
from time import monotonic
from typing import Any

from .options import count

READ, WRITE = 1, 2
STALLED = 20.0  # seconds without any readiness after which the demo gives up


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "demo",
        help="an echo server and clients that end by themselves",
        description="Run an echo server and its clients on loopback, in one selector. Print each event:"
        " the descriptor, who has it, what the kernel said, and what select() returned.",
    )
    parser.add_argument(
        "--backend", metavar="NAME", help="epoll, poll, select, kqueue, devpoll or eventport"
    )
    parser.add_argument("--clients", type=count, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--messages", type=count, default=4, metavar="N", help="per client; default: %(default)s"
    )
    parser.add_examples(("watch every event of three clients", ""), ("with poll", "--backend poll"))
    parser.set_defaults(run=run, fail=parser.error)


def run(options: argparse.Namespace) -> int:
    """Run the demo; 0 if every byte came back as it was sent."""
    import selectors_ffi

    try:
        cls = backend(selectors_ffi, options.backend)
    except LookupError as error:
        options.fail(error.args[0])  # exits
    with cls() as selector:
        demo = Demo(selector, options.clients, options.messages)
        try:
            demo.play()
        finally:
            demo.close()
    return demo.report()


def backend(module: Any, name: str | None) -> Any:
    """Return the class that ``--backend`` names; LookupError lists those of this host."""
    if name is None and hasattr(module, "DefaultSelector"):
        return module.DefaultSelector
    here = {
        title[: -len("Selector")].lower(): getattr(module, title)
        for title in dir(module)
        if title.endswith("Selector") and title not in ("BaseSelector", "DefaultSelector")
    }
    if name is None or name.lower() not in here:
        known = ", ".join(sorted(here)) or "none"
        raise LookupError(f"no backend {name!r} on this host; usable: {known}")
    return here[name.lower()]


class Demo:
    """One listener, its connections and the clients, all in one selector."""

    def __init__(self, selector: Any, clients: int, messages: int) -> None:
        self.selector = selector
        self.begun: float = monotonic()
        self.events: int = 0
        self.problems: list[str] = []
        self.listener: socket.socket = socket.create_server(("127.0.0.1", 0), backlog=clients)
        self.listener.setblocking(False)
        selector.register(self.listener, READ, ("listener", self.accept))
        self.clients: list[Client] = [Client(self, number, messages) for number in range(clients)]
        self.connections: list[Connection] = []

    def play(self) -> None:
        """Serve until every client has heard everything, printing each readiness event."""
        from selectors_ffi.debug.naming import interest

        title = type(self.selector).__name__
        print(f"{title}: echo server on 127.0.0.1:{self.listener.getsockname()[1]}")
        print(f"{'fd':>4}  {'who':<10}  {'native':<24}  events")
        while any(client.open for client in self.clients):
            ready = readiness(self.selector, STALLED)
            if not ready:
                self.problems.append(f"nothing became ready in {STALLED:g} seconds")
                return
            for key, native, events in ready:
                self.events += 1
                who, act = key.data
                print(f"{key.fd:>4}  {who:<10}  {native:<24}  {interest(events)}")
                act(events)

    def accept(self, events: int) -> None:
        """Take one new connection."""
        accepted, _ = self.listener.accept()
        self.connections.append(Connection(self, accepted, len(self.connections)))

    def close(self) -> None:
        """Close every socket that is still open."""
        self.selector.unregister(self.listener)
        self.listener.close()
        for end in (*self.clients, *self.connections):
            end.close()

    def report(self) -> int:
        """Print the summary; return the exit status."""
        sent = sum(client.total for client in self.clients)
        verified = sum(client.verified for client in self.clients)
        echoed = sum(connection.echoed for connection in self.connections)
        for problem in self.problems:
            print("problem:", problem)
        if verified != sent:
            print(f"problem: {sent - verified} bytes lost")
        print(
            f"{len(self.clients)} clients, {self.events} readiness events, "
            f"{echoed} bytes echoed, {verified} of {sent} verified, "
            f"{monotonic() - self.begun:.3f} s"
        )
        return 0 if verified == sent == echoed and not self.problems else 1


class End:
    """One end of a connection, registered while it is open."""

    def __init__(self, demo: Demo, end: socket.socket, who: str, events: int) -> None:
        self.demo = demo
        self.socket = end
        self.open: bool = True
        self.wanted: int = events
        end.setblocking(False)
        demo.selector.register(end, events, (who, self.act))

    def act(self, events: int) -> None:
        """Do what the socket is ready for."""
        raise NotImplementedError

    def want(self, events: int) -> None:
        """Change the interest, if it is another one."""
        if events != self.wanted:
            self.wanted = events
            data = self.demo.selector.get_key(self.socket).data
            self.demo.selector.modify(self.socket, events, data)

    def close(self) -> None:
        """Unregister and close, once."""
        if self.open:
            self.open = False
            self.demo.selector.unregister(self.socket)
            self.socket.close()


class Connection(End):
    """The server's end: sends back what it receives."""

    def __init__(self, demo: Demo, end: socket.socket, number: int) -> None:
        self.pending: bytearray = bytearray()
        self.echoed: int = 0
        super().__init__(demo, end, f"server {number}", READ)

    def act(self, events: int) -> None:
        """Receive, send, and end when the client has."""
        if events & READ:
            data = self.socket.recv(1 << 16)
            self.pending += data
            if not data:
                self.close()
                return
        if events & WRITE and self.pending:
            sent = self.socket.send(self.pending)
            self.echoed += sent
            del self.pending[:sent]
        self.want(READ | WRITE if self.pending else READ)


class Client(End):
    """The client's end: sends each message when the one before has come back."""

    def __init__(self, demo: Demo, number: int, messages: int) -> None:
        chance = random.Random(number)
        sizes = [chance.randrange(1, 20_000) for _ in range(messages)]
        self.messages: deque[bytes] = deque(
            bytes(chance.getrandbits(8) for _ in range(n)) for n in sizes
        )
        self.total: int = sum(sizes)
        self.verified: int = 0
        self.sent: int = 0
        self.heard: bytearray = bytearray()
        end = socket.create_connection(demo.listener.getsockname())
        super().__init__(demo, end, f"client {number}", READ | WRITE)

    def act(self, events: int) -> None:
        """Send what is left of the message, or compare what came back with it."""
        message = self.messages[0]
        if events & WRITE and self.sent < len(message):
            self.sent += self.socket.send(message[self.sent :])
        if events & READ:
            data = self.socket.recv(1 << 16)
            self.heard += data
            if not data or not message.startswith(self.heard):
                self.demo.problems.append(f"fd {self.socket.fileno()}: wrong or missing echo")
                self.close()
                return
        if len(self.heard) == len(message):
            self.verified += len(message)
            self.messages.popleft()
            self.sent = 0
            self.heard.clear()
        if not self.messages:
            self.close()
        elif self.sent < len(self.messages[0]):
            self.want(READ | WRITE)
        else:
            self.want(READ)


def readiness(selector: Any, timeout: float) -> list[tuple[Any, str, int]]:
    """Wait; return (key, native flags by name, EVENT_* mask) per ready file object.

    Readiness is a level, so what the kernel said first it says again when select() asks.
    """
    native: dict[int, list[str]] = {}
    for raw in selector.select_raw(timeout):
        native.setdefault(raw.fd, []).append(raw.decoded)
    return [(key, "+".join(native.get(key.fd, ["-"])), events) for key, events in selector.select(0)]
