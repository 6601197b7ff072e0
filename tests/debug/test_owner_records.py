"""Owners in records: lines, JSON and events name the part of the program, not a number."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from selectors import SelectorKey

import pytest

from selectors_ffi import EVENT_READ, backends, debugging
from selectors_ffi.debug import Event, JsonSink, Registration, known
from selectors_ffi.debug.known import Known
from selectors_ffi.installation import install, uninstall


async def serve(reader, writer):
    while data := await reader.read(1):
        writer.write(data)
    writer.close()


async def talk():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"x")
        await reader.read(1)
    writer.write_eof()
    await reader.read()
    writer.close()
    server.close()


def test_asyncio():
    """A connection of asyncio is its task's or protocol's, its listening socket the handler's."""
    records = []
    with debugging("events", records.append):
        loop = asyncio.SelectorEventLoop(backends.PollSelector())
        loop.run_until_complete(talk())
        loop.close()
    registered = [one for one in records if isinstance(one, Registration) and one.action == "register"]
    events = [one for one in records if isinstance(one, Event)]
    named = {one.fd: one.owner for one in registered}
    listening = next(one for one in registered if "listening" in one.peer)

    assert all(named.values()), "each has an owner"
    assert listening.owner == f"server of {__name__}.serve"
    assert any(f"of {__name__}.serve" in one.owner for one in events if one.fd != listening.fd)
    assert all(__file__ in one.place for one in registered if one.peer.startswith("tcp"))
    assert str(listening).endswith(f"= server of {__name__}.serve")


def test_plain_data_beside_the_file_object(backend, pairs, records):
    """A line shows the file object, and behind it what its data name; never a type twice."""
    (first, _), (second, _), _ = pairs
    with backend() as selector:
        selector.register(first, EVENT_READ, talk)
        selector.register(second, EVENT_READ)
    one, other = (str(record) for record in records if getattr(record, "action", "") == "register")

    assert one.endswith(f", callback {__name__}.talk") and "= <socket.socket fd=" in one
    assert other.count("socket.socket") == 1


def test_json(tmp_path):
    """JSON has peer, owner and place of a registration."""
    path = tmp_path / "out.json"
    one, two = socket.socketpair()
    with one, two:
        sink = JsonSink(path)
        with debugging("events", sink), backends.PollSelector() as selector:
            selector.register(one, EVENT_READ, data="the reader")
        sink.close()
    first = json.loads(path.read_text().splitlines()[0])

    assert first["peer"] == "unix socketpair"
    assert "the reader" in first["owner"]
    assert first["place"].startswith(__file__)


@pytest.mark.skipif(os.name != "posix", reason="pipes of a child process")
def test_subprocess():
    """The pipes of a child process are named after it, though only the stack knows them."""
    records = []
    with debugging("events", records.append):
        install()
        try:
            subprocess.run(["true"], capture_output=True, check=True)
        finally:
            uninstall()
    named = {one.owner for one in records if isinstance(one, (Event, Registration)) and one.fd >= 0}

    assert {owner.split()[0] for owner in named} == {"stdout", "stderr"}
    assert all(" of process " in owner for owner in named)


def test_an_owner_is_not_looked_for_at_every_event(monkeypatch):
    """It is looked for at the registration, the first event, and ever more rarely then."""
    asked = []
    monkeypatch.setattr(known, "owner_of", lambda key: asked.append(key) or f"owner {len(asked)}")
    key = SelectorKey("object", 3, EVENT_READ, None)
    one = Known(key)

    assert one.owner == "owner 1"
    assert [one.owner for _ in range(8)] == ["owner 2"] * 7 + ["owner 3"]
    for _ in range(1000):
        assert one.owner
    assert len(asked) == 5
    one.changed(key._replace(fileobj="another"))
    assert one.owner == "owner 6"
    assert one.shown == "'another'"


def test_a_bare_number_has_no_owner():
    """Of a number without data nothing is known: it is shown as the number."""
    assert Known(SelectorKey(3, 3, EVENT_READ, None)).owner == ""
