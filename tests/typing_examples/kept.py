"""What type checkers know of keys; ``tests/test_typing.py`` has them check it. It also runs."""

from __future__ import annotations

import selectors as stdlib
import socket
from typing import TYPE_CHECKING, Any

import selectors_ffi as selectors

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, type_):
        """Do nothing at run time."""


class Connection:
    """What a program keeps with a socket."""

    def __init__(self) -> None:
        self.received = b""


def register(selector: selectors.BaseSelector, sock: socket.socket) -> selectors.SelectorKey[Connection]:
    """Register and modify give back the type of data that they were given."""
    bare = selector.register(sock, selectors.EVENT_READ)
    assert_type(bare.data, None)
    counted = selector.modify(sock, selectors.EVENT_READ, data=3)
    assert_type(counted, selectors.SelectorKey[int])
    assert_type(counted.data + 1, int)
    key = selector.modify(sock, selectors.EVENT_READ, Connection())
    assert_type(key.data, Connection)
    assert_type(key.fd, int)
    return key


def every_class(sock: socket.socket) -> None:
    """The classes behave as the interface does."""
    for cls in (selectors.SelectSelector, selectors.DefaultSelector):
        with cls() as selector:
            key = selector.register(sock, selectors.EVENT_READ, Connection())
            assert_type(key.data, Connection)
            assert_type(selector.modify(sock, selectors.EVENT_WRITE, "text").data, str)
            armed = selector.modify(sock, selectors.EVENT_WRITE, 7, trigger=selectors.ONESHOT)
            assert_type(armed.data, int)


def receive(key: selectors.SelectorKey[Connection]) -> bytes:
    """What ``select`` returns fits every ``SelectorKey[...]``."""
    return key.data.received


def loop(selector: selectors.DefaultSelector, sock: socket.socket) -> None:
    """A loop with callbacks; a key without brackets has data of any type."""
    selector.register(sock, selectors.EVENT_WRITE, Connection())
    for key, events in selector.select(0):
        assert_type(events, int)
        assert_type(key.data, Any)
        receive(key)
    kept: dict[int, selectors.SelectorKey] = selector.snapshot()
    gone: selectors.SelectorKey[Connection] | None = selector.discard(sock)
    assert gone is not None
    assert kept[gone.fd].data is gone.data


def old_code(selector: stdlib.BaseSelector, key: stdlib.SelectorKey) -> tuple[Any, int, int, Any]:
    """What asks for the standard library's classes takes ours, and a key is still a tuple."""
    fileobj, fd, events, data = key
    assert_type(fd, int)
    return fileobj, fd, events, data


def main() -> None:
    """Run it all."""
    left, right = socket.socketpair()
    with left, right, selectors.DefaultSelector() as selector:
        key = register(selector, left)
        assert old_code(selector, key)[3] is key.data
        assert receive(key) == b""
        selector.unregister(left)
        loop(selector, left)
        every_class(left)
        made = selectors.SelectorKey(left, left.fileno(), selectors.EVENT_READ, "text")
        assert_type(made.data, str)


if __name__ == "__main__":
    main()
