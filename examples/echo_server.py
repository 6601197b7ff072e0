"""An echo server: what a user of the standard library writes, but for one import.

Run it with a port (default 1234; 0 takes any free one), then talk to it: ``nc localhost 1234``.
"""

import socket
import sys

import selectors_ffi as selectors

selector = selectors.DefaultSelector()


def accept(server, mask):
    connection, address = server.accept()
    print("accepted", address, flush=True)
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, read)


def read(connection, mask):
    data = connection.recv(1000)
    if data:
        print("echoing", len(data), "bytes", flush=True)
        connection.send(data)  # a short answer fits the buffer of a connection that is read
    else:
        print("closing", connection.getpeername(), flush=True)
        selector.unregister(connection)
        connection.close()


server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("localhost", int(sys.argv[1]) if len(sys.argv) > 1 else 1234))
server.listen(100)
server.setblocking(False)
print("listening on", server.getsockname(), flush=True)
selector.register(server, selectors.EVENT_READ, accept)

while True:
    for key, mask in selector.select():
        callback = key.data
        callback(key.fileobj, mask)
