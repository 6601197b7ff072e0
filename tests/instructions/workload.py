"""What is counted; to be run under callgrind with ``--dump-before=getppid``."""

from __future__ import annotations

import gc
import os
import selectors
import socket
import sys

READ, BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
CALLS = 200
SIDES = ("stdlib", "ours")


def select(name, registered, ready, events=READ):
    """Return an operation: select(0) with so many registered and ready."""

    def prepare(module, pairs):
        selector = getattr(module, name)()
        for i, (near, far) in enumerate(pairs[:registered]):
            if i < ready:
                far.send(b"x")
            selector.register(near, events)
        call = selector.select
        return lambda: call(0)

    return prepare


def register(module, pairs):
    """Register and unregister a descriptor."""
    selector, fd = module.EpollSelector(), pairs[0][0].fileno()

    def call():
        selector.register(fd, READ)
        selector.unregister(fd)

    return call


def modify(module, pairs):
    """Change the interest of a socket there and back."""
    selector, end = module.EpollSelector(), pairs[0][0]
    selector.register(end, READ)

    def call():
        selector.modify(end, BOTH)
        selector.modify(end, READ)

    return call


OPERATIONS = {
    "epoll, 0 ready of 1": select("EpollSelector", 1, 0),
    "epoll, 1 ready of 1": select("EpollSelector", 1, 1),
    "epoll, 10 ready of 10": select("EpollSelector", 10, 10),
    "epoll, 100 ready of 100": select("EpollSelector", 100, 100),
    "epoll, 100 ready, READ|WRITE": select("EpollSelector", 100, 100, BOTH),
    "epoll, register + unregister": register,
    "epoll, modify there and back": modify,
    "poll, 1 ready of 100": select("PollSelector", 100, 1),
    "poll, 100 ready of 100": select("PollSelector", 100, 100),
    "select, 1 ready of 100": select("SelectSelector", 100, 1),
}


def main():
    """Do everything three times: to warm, ``CALLS`` times, and twice as often."""
    import selectors_ffi

    gc.disable()
    mark = os.getppid
    for prepare in OPERATIONS.values():
        for module in (selectors, selectors_ffi):
            pairs = [socket.socketpair() for _ in range(100)]
            call = prepare(module, pairs)
            for _ in range(20):
                call()
            mark()
            for _ in range(CALLS):
                call()
            mark()
            for _ in range(2 * CALLS):
                call()
            mark()
            for pair in pairs:
                for end in pair:
                    end.close()


if __name__ == "__main__":
    sys.exit(main())
