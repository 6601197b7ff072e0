"""A server that does not notice that its client has hung up, and never sleeps again.

python -m selectors_ffi trace -e syscalls,checks examples/busy_loop.py
"""

import selectors
import socket

server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
connection, _ = server.accept()
connection.setblocking(False)

selector = selectors.DefaultSelector()
selector.register(connection, selectors.EVENT_READ)
client.close()

for _ in range(1000):  # a server would say: while True
    for key, _ in selector.select():
        data = key.fileobj.recv(1000)
        if data:
            print("received", data)
        # and if not? recv() returned b"", for ever
