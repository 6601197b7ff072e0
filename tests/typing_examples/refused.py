"""Mistakes that type checkers find, each on a line that says so; see ``tests/test_typing.py``."""

from __future__ import annotations

import socket

import selectors_ffi as selectors


class Connection:
    """What a program keeps with a socket."""

    received = b""


def serve(key: selectors.SelectorKey[Connection]) -> None:
    """Take a connection's key."""


def mistakes(selector: selectors.DefaultSelector, sock: socket.socket) -> None:
    """Each marked line is a mistake, and no other."""
    bare = selector.register(sock, selectors.EVENT_READ)
    bare.data.received  # mistake # noqa: B018
    serve(bare)  # mistake
    key = selector.modify(sock, selectors.EVENT_READ, Connection())
    key.data.recieved  # mistake # noqa: B018
    serve(selector.modify(sock, selectors.EVENT_READ, "text"))  # mistake
    serve(key)
    number: int = key.data  # mistake
    print(number)
