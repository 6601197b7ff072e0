"""A peer that says something and hangs up; for ``python -m selectors_ffi trace``."""

import selectors
import socket

here, peer = socket.socketpair()
with here, selectors.DefaultSelector() as selector:
    selector.register(here, selectors.EVENT_READ)
    peer.send(b"bye")
    peer.close()
    while selector.select(1):
        if not here.recv(100):
            break
