"""Owners, addresses and places: who a descriptor belongs to, without running the program."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from selectors import SelectorKey
from types import SimpleNamespace
from typing import ClassVar

import pytest

from selectors_ffi.debug.addresses import address_of
from selectors_ffi.debug.owners import LONGEST, field, name_of, owner_of, owner_of_handle, owner_on_stack
from selectors_ffi.debug.places import depth, place

unix = pytest.mark.skipif(os.name != "posix", reason="Unix descriptors")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="procfs, SO_PEERCRED")


def owner(data, fileobj=7):
    """Return the owner of a registration with these data."""
    return owner_of(SelectorKey(fileobj, 7, 1, data))


class Echo(asyncio.Protocol):
    """A protocol of the program."""


class Colour(enum.IntEnum):
    """Data that a program may register."""

    RED = 1


class Hostile:
    """An object that does something whenever it is looked at."""

    touched: ClassVar[list[str]] = []

    def __getattribute__(self, name):
        Hostile.touched.append(name)
        raise SystemExit(name)

    def __repr__(self):
        Hostile.touched.append("repr")
        return "secret"

    def __eq__(self, other):
        Hostile.touched.append("eq")
        return True

    __hash__ = None


async def handle(reader, writer):
    """Serve one connection."""
    with contextlib.suppress(asyncio.CancelledError):
        await reader.readline()
    writer.close()


async def client(port):
    """Wait for a line that never comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.readline()
    finally:
        writer.close()


async def by_hand(sock):
    """Wait for bytes that never come."""
    await asyncio.get_running_loop().sock_recv(sock, 1)


def handle_of(callback, *arguments):
    """Return a handle of asyncio without a loop to put it in."""
    return asyncio.Handle(callback, arguments, SimpleNamespace(get_debug=bool))


def on_ready():
    """Take a callback."""


def running(prepare):
    """Run ``prepare(loop)`` in a loop; return {owner: address} of what is registered then."""

    async def main():
        loop = asyncio.get_running_loop()
        undo = await prepare(loop)
        turn = loop.create_future()
        loop.call_later(0.05, turn.set_result, None)
        await turn
        keys = list(loop._selector.get_map().values())
        found = {owner_of(key): address_of(key.fd, key.fileobj) for key in keys}
        for one in undo:
            one()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        return found

    loop = asyncio.SelectorEventLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@unix
def test_asyncio_names_protocol_task_and_server():
    """Of asyncio's numbers, each is named: servers, the tasks that wait for streams, its own socket."""

    async def prepare(loop):
        streams = await asyncio.start_server(handle, "127.0.0.1", 0)
        echo = await loop.create_server(Echo, "127.0.0.1", 0)
        ports = [server.sockets[0].getsockname()[1] for server in (streams, echo)]
        tasks = [loop.create_task(client(port), name=f"client-{port}") for port in ports]
        return [streams.close, echo.close, *(task.cancel for task in tasks)]

    found = running(prepare)
    here = __name__

    assert found["asyncio's own wake-up"] == "unix socketpair"
    for server in (f"server of {here}.handle", f"server of {here}.Echo"):
        assert found[server].endswith(" listening")
    assert " <- 127.0.0.1:" in found[f"protocol {here}.Echo"]
    clients = [text for name, text in found.items() if name.endswith(f" of {here}.client")]
    assert len(clients) == 2
    assert all(" -> 127.0.0.1:" in text for text in clients)
    assert any(name.startswith("task 'Task-") and name.endswith(f"of {here}.handle") for name in found)


@unix
def test_asyncio_names_callbacks_and_sock_recv(pairs):
    """add_reader() names the callback, sock_recv() the task that waits, wherever the future is held."""

    async def prepare(loop):
        loop.add_reader(pairs[0][0], functools.partial(on_ready))
        loop.add_writer(pairs[2][0], print)
        task = loop.create_task(by_hand(pairs[1][0]), name="hand")
        return [functools.partial(loop.remove_reader, pairs[0][0]),
                functools.partial(loop.remove_writer, pairs[2][0]), task.cancel]  # fmt: skip

    found = running(prepare)

    assert found[f"callback {__name__}.on_ready"] == "unix socketpair"
    assert "callback print" in found
    assert f"task 'hand' of {__name__}.by_hand (sock_recv)" in found


@unix
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_asyncio_names_the_stream_of_a_child():
    """A pipe of a child process names the stream and the process."""
    kept = []

    async def prepare(loop):
        code = "import sys; sys.stdin.read()"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=-1, stdout=-1)
        kept.append(child)
        task = loop.create_task(child.stdout.read())
        return [child.stdin.close, task.get_name]

    if sys.version_info < (3, 12):
        asyncio.get_child_watcher()

    async def main():
        loop = asyncio.get_running_loop()
        undo = await prepare(loop)
        turn = loop.create_future()
        loop.call_later(0.05, turn.set_result, None)
        await turn
        found = [owner_of(key) for key in list(loop._selector.get_map().values())]
        for one in undo:
            one()
        await kept[0].wait()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        return found

    found = asyncio.run(main())
    assert any(name.startswith(f"stdout of process {kept[0].pid}") for name in found)


def test_ssl_names_the_protocol_behind_it():
    """SSL stands between the transport and the program's protocol, and is only mentioned."""
    inner = Echo()
    glue = SimpleNamespace(_app_protocol=inner)

    class Transport:
        def __init__(self):
            self._protocol = glue

        def _read_ready(self):
            """Take the callback."""

    handle = handle_of(Transport()._read_ready)
    assert owner((handle, None)) == f"protocol {__name__}.Echo over SSL"
    assert owner((handle, handle)) == f"protocol {__name__}.Echo over SSL"


def test_tornado_names_what_its_own_table_holds():
    """tornado registers its loop's method with asyncio; the callback stands in its own table."""

    class Loop:
        def __init__(self):
            self.handlers = {7: (7, on_ready)}

        def _handle_events(self, fd, events):
            """Take the callback."""

        def _run_callback(self, callback):
            """Run what add_callback() was given."""

    handle = handle_of(Loop()._handle_events, 7, 1)
    assert owner((handle, None)) == f"callback {__name__}.on_ready"
    handle = handle_of(Loop()._run_callback, functools.partial(on_ready, 1))
    assert owner_of_handle(handle) == f"callback {__name__}.on_ready"


def test_curio_names_its_task():
    """curio registers a pair of its tasks."""

    async def work():
        """Do nothing."""

    coroutine = work()
    task = SimpleNamespace(coro=coroutine, id=3)
    found = owner((task, None))
    coroutine.close()
    assert found.startswith("task 3 of ")
    assert found.endswith("work")


def test_plain_data():
    """A label, a function, a constant, an object or a pair of them name the owner as they can."""
    assert owner("listener") == "listener"
    assert owner(on_ready) == f"callback {__name__}.on_ready"
    assert owner(Echo().data_received) == f"callback {__name__}.Echo.data_received"
    assert owner([].append) == "callback list.append"
    assert owner(Colour.RED) == f"{__name__}.Colour.RED"
    assert owner(Echo()) == f"{__name__}.Echo"
    assert owner(Echo) == f"{__name__}.Echo"
    assert owner(3) == "3"
    assert owner(("accept", on_ready)) == f"accept, callback {__name__}.on_ready"
    assert owner(SimpleNamespace(outb=b"secret")) == "types.SimpleNamespace"


@pytest.mark.parametrize(
    "data", [None, b"secret", bytearray(b"secret"), "a line\nwith payload", "x" * 50]
)
def test_payload_is_no_owner(data):
    """Bytes and long or odd text may be what is sent: the type of the file object is shown instead."""
    assert owner(data) == "int"


def test_a_server_names_its_handler():
    """socketserver registers the server itself."""
    server = HTTPServer.__new__(HTTPServer)
    server.RequestHandlerClass = BaseHTTPRequestHandler
    assert owner(None, server) == "http.server.HTTPServer of http.server.BaseHTTPRequestHandler"


def test_no_code_of_the_program_runs():
    """Neither __getattribute__ nor __repr__ nor __eq__ of a program's object is called."""
    Hostile.touched.clear()
    thing = object.__new__(Hostile)

    assert owner(thing) == f"{__name__}.Hostile"
    assert owner((thing, thing), thing) == f"{__name__}.Hostile"
    assert owner(handle_of(print, thing)) == "callback print"
    assert Hostile.touched == []


def test_a_broken_object_is_no_error(monkeypatch):
    """What cannot be looked at is unknown; the program that is looked at goes on."""
    monkeypatch.setattr("selectors_ffi.debug.owners.name_of", lambda thing: 1 / 0)
    assert owner(Echo()) == "unknown (ZeroDivisionError)"


def test_owners_are_short():
    """An owner is one line of bounded length."""
    many = [SimpleNamespace(coro=None, id="x" * 10), *(type("T" * 60, (), {})() for _ in range(3))]
    assert len(owner(many)) <= LONGEST


def test_field_reads_slots_and_no_properties():
    """Slots are read, empty slots are None, properties are not run."""

    class Slotted:
        __slots__ = ("empty", "full")

        @property
        def computed(self):
            raise SystemExit

    slotted = Slotted()
    slotted.full = 3
    assert field(slotted, "full") == 3
    assert field(slotted, "empty") is None
    assert isinstance(field(slotted, "computed"), property)
    assert name_of(functools.partial(on_ready)) == f"{__name__}.on_ready"


@unix
def test_a_child_is_found_on_the_stack():
    """subprocess registers plain files; the Popen they belong to is on the stack."""
    import selectors
    import subprocess

    found = []

    class Spy(selectors.SelectSelector):
        def register(self, fileobj, events, data=None):
            key = super().register(fileobj, events, data)
            found.append(owner_on_stack(key, sys._getframe(1)))
            return key

    code = "import sys; sys.stdout.write(sys.stdin.read())"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "_PopenSelector", Spy)
        child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
        child.communicate(b"x", timeout=30)
    assert found == [f"stdin of process {child.pid}", f"stdout of process {child.pid}"]
    assert owner_on_stack(SelectorKey(7, 7, 1, None), sys._getframe()) == ""


# Addresses


def test_addresses_of_tcp_tell_who_called():
    """Both ends of a connection, with an arrow from the end that called; listening sockets say so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        with socket.create_connection(server.getsockname()) as near, server.accept()[0] as far:
            there = f"127.0.0.1:{near.getsockname()[1]}"
            assert address_of(server.fileno(), server) == f"tcp {here} listening"
            assert address_of(far.fileno(), far) == f"tcp {here} <- {there}"
            assert address_of(near.fileno()) in (f"tcp {there} -> {here}", "")  # "": see borrowing


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_addresses_of_other_families():
    """UDP and IPv6 are written as they are known elsewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert address_of(udp.fileno(), udp) == f"udp 127.0.0.1:{udp.getsockname()[1]}"
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        assert address_of(six.fileno(), six).startswith("tcp [::1]:")


@linux
def test_addresses_of_unix_sockets_and_pipes(tmp_path, monkeypatch):
    """A path, an abstract name, the process at the other end; which end of a pipe it is."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as near:
        server.bind("s")
        server.listen()
        near.connect("s")
        with server.accept()[0] as far:
            assert address_of(server.fileno(), server) == "unix s listening"
            known = hasattr(socket, "SO_PEERCRED")  # not in PyPy
            expected = f"unix s <- pid {os.getpid()}" if known else "unix s"
            assert address_of(far.fileno(), far) == expected
            assert address_of(near.fileno(), near) == "unix -> s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0name{os.getpid()}")
        assert address_of(abstract.fileno(), abstract) == f"unix @name{os.getpid()}"
    read, write = os.pipe()
    assert address_of(read).startswith("pipe:[")
    assert address_of(read).endswith("] read end")
    assert address_of(write).endswith("] write end")
    os.close(read)
    os.close(write)
    assert address_of(read) == ""
    with open(os.devnull) as null:
        assert address_of(null.fileno()) == os.devnull


@linux
def test_addresses_of_a_fifo_and_an_unknown_family(tmp_path):
    """A named pipe has its path, a family without addresses its name."""
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    assert address_of(fd) == f"{tmp_path}/fifo both ends"
    os.close(fd)
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    except OSError:
        pytest.skip("no netlink here")
    with netlink:
        assert address_of(netlink.fileno(), netlink).startswith("af_netlink")


# Places


def test_place_is_the_line_of_the_program():
    """Frames of the standard library are passed over; its outermost function is mentioned."""
    (here,) = place()
    line = sys._getframe().f_lineno - 1
    assert str(here) == f"{__file__}:{line} in test_place_is_the_line_of_the_program"
    # functools is of the standard library, and stands between the two.
    found = functools.reduce(lambda _, __: called_by(place), [1, 2])
    assert [one.function for one in found[:2]] == ["called_by", "<lambda>"]


def called_by(function):
    """Return the innermost places of the program."""
    return function(3)


def test_place_mentions_the_library(monkeypatch):
    """Where the program calls the library, which calls us, the function that it called is named."""
    namespace = {"place": place, "__name__": "socketserver"}
    file = os.path.join(os.path.dirname(os.__file__), "socketserver.py")
    exec(compile("def serve_forever():\n    return place(2)", file, "exec"), namespace)
    found = namespace["serve_forever"]()

    assert found[0].file == __file__
    assert found[0].note == "socketserver.serve_forever"
    assert str(found[0]).endswith("(socketserver.serve_forever)")
    # The same module run as the program is the program.
    namespace["__name__"] = "__main__"
    assert namespace["serve_forever"]()[0].file == file


def test_depth_is_the_stacklevel_of_the_program():
    """The level that warnings.warn wants in order to name the program's line."""
    assert depth() == 1
