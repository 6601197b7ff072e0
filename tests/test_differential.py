"""Random programs played on the standard library's selector and on ours, step by step."""

from __future__ import annotations

import os
import platform
import random
import selectors
import socket

import pytest

import selectors_ffi
from tests.conftest import BACKENDS

READ, WRITE = 1, 2
SOCKETS = 8
STEPS = 400
NAN_BLOCKS = platform.python_implementation() == "PyPy"  # in PyPy's own select.select
OPERATIONS = {
    "register": 6,
    "unregister": 3,
    "modify": 6,
    "select": 8,
    "lookup": 3,
    "send": 6,
    "receive": 3,
    "fill": 1,
    "shut": 1,
    "replace": 1,
}


class Bad:
    """A file object without a usable descriptor."""

    def __repr__(self):
        return "<bad>"


class World:
    """Two selectors over one set of sockets, and a source of chance."""

    def __init__(self, name, seed):
        self.chance = random.Random(seed)
        self.both = getattr(selectors, name)(), getattr(selectors_ffi, name)()
        self.pairs = [self.new_pair() for _ in range(SOCKETS)]

    @staticmethod
    def new_pair():
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        return left, right

    def close(self):
        for selector in self.both:
            selector.close()
        for pair in self.pairs:
            for end in pair:
                end.close()

    def compare(self, method, *arguments):
        """Call a method on both; their outcomes, registries and readiness must agree."""
        outcomes = [outcome(getattr(selector, method), *arguments) for selector in self.both]
        assert outcomes[0] == outcomes[1], (method, arguments)
        registries = [list(selector.get_map().items()) for selector in self.both]
        assert registries[0] == registries[1], (method, arguments)
        return outcomes[0]

    def fileobj(self):
        """Choose a socket, its number or, rarely, nonsense."""
        left = self.chance.choice(self.pairs)[0]
        kind = self.chance.random()
        if kind < 0.05:
            return self.chance.choice([-1, -7, 10**6, "x", None, Bad()])
        return left.fileno() if kind < 0.3 else left

    def events(self):
        """Choose events, rarely invalid ones."""
        if self.chance.random() < 0.05:
            return self.chance.choice([0, 4, 7, -1, None, "r"])
        return self.chance.choice([READ, WRITE, READ | WRITE])

    def register(self):
        fileobj = self.fileobj()
        if fileobj == 10**6:
            fileobj = -3  # a closed number is accepted by some and refused by others: see below
        self.compare("register", fileobj, self.events(), self.chance.randrange(3))

    def unregister(self):
        self.compare("unregister", self.fileobj())

    def modify(self):
        fileobj = self.fileobj()
        key = outcome(self.both[0].get_key, fileobj)
        if key[0] == "returned":
            fileobj = key[1].fileobj  # another object for the same descriptor is our difference
        events = self.chance.choice([READ, WRITE, READ | WRITE])
        data = self.chance.randrange(3)
        if self.both[0].__class__.__name__ == "SelectSelector":
            # The stdlib's class moves the entry to the end; the order is not part of the contract.
            first, second = (selector.modify for selector in self.both)
            assert outcome(first, fileobj, events, data) == outcome(second, fileobj, events, data)
            maps = [dict(selector.get_map()) for selector in self.both]
            assert maps[0] == maps[1]
            self.reorder(fileobj)
        else:
            self.compare("modify", fileobj, events, data)

    def reorder(self, fileobj):
        """Put a modified entry last in both, so that the order can be compared again."""
        if outcome(self.both[0].get_key, fileobj)[0] == "returned":
            key = self.both[0].get_key(fileobj)
            for selector in self.both:
                selector.unregister(fileobj)
                selector.register(*key[:1], *key[2:])

    def select(self):
        timeout = self.chance.choice([0, -1, 0.001, "1", float("nan")])
        if timeout != timeout and NAN_BLOCKS:
            timeout = 0
        self.wait(timeout)

    def wait(self, timeout):
        """Compare a wait. Winsock refuses one for nothing, which ours does not ask for: a difference."""
        if os.name == "posix" or self.both[0].get_map():
            self.compare("select", timeout)

    def lookup(self):
        fileobj = self.fileobj()
        self.compare("get_key", fileobj)
        maps = [selector.get_map() for selector in self.both]
        for method in ("__contains__", "__getitem__", "get"):
            first, second = (outcome(getattr(mapping, method), fileobj) for mapping in maps)
            assert first == second

    def send(self):
        outcome(self.chance.choice(self.pairs)[1].send, b"x")

    def receive(self):
        outcome(self.chance.choice(self.pairs)[0].recv, 1 << 20)

    def fill(self):
        """Write until the buffer is full, or read it empty."""
        left, right = self.chance.choice(self.pairs)
        if self.chance.random() < 0.5:
            left, right = right, left
        while outcome(left.send, bytes(1 << 16))[0] == "returned":
            pass

    def shut(self):
        """End one direction of a connection, or all of it."""
        right = self.chance.choice(self.pairs)[1]
        how = self.chance.choice([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
        outcome(right.shutdown, how)

    def replace(self):
        """Unregister a pair and take a new one in its place."""
        index = self.chance.randrange(SOCKETS)
        self.compare("unregister", self.pairs[index][0])
        for end in self.pairs[index]:
            end.close()
        self.pairs[index] = self.new_pair()


def outcome(function, *arguments):
    """Return what a call returned or raised, in a form that compares across implementations."""
    try:
        value = function(*arguments)
    except OSError as error:
        return "raised", type(error), error.errno
    except (ValueError, KeyError) as error:
        text = error.args if "convert" not in str(error) and "NaN" not in str(error) else ()
        return "raised", type(error), text
    except Exception as error:
        return "raised", type(error), ()
    if isinstance(value, list):
        value = sorted(merged(value).items())
    return "returned", value


def merged(ready):
    """Return the result of select by descriptor; the stdlib's kqueue gives two entries for one."""
    result = {}
    for key, events in ready:
        assert events
        result[key.fd] = (key, result.get(key.fd, (key, 0))[1] | events)
    return result


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "name", [name for name in (*BACKENDS, "DefaultSelector") if hasattr(selectors, name)]
)
def test_random_program(name, seed):
    """Four hundred random steps have the same outcomes on both selectors."""
    world = World(name, seed)
    counts = dict.fromkeys(OPERATIONS, 0)
    try:
        for _ in range(STEPS):
            operation = world.chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            getattr(world, operation)()
            counts[operation] += 1
            world.wait(0)
    finally:
        world.close()

    assert all(counts.values()), f"the seed {seed} leaves an operation out: {counts}"
