"""A program with an ordering bug. It works every time, until a kernel reports events in another order.

A worker sends a result on one socket, then "stop" on another. The loop below leaves as soon as it
meets "stop". Linux reports the result first, since it was ready first; no manual promises that.

    python examples/lost_message.py                               passes, however often
    python -m selectors_ffi chaos examples/lost_message.py        finds a seed that fails

The mend: go on until the results' socket has ended, too.
"""

import selectors
import socket
import sys

results, worker_results = socket.socketpair()
control, worker_control = socket.socketpair()

worker_results.send(b"42")
worker_control.send(b"stop")

received = []
stopping = False
with selectors.DefaultSelector() as selector:
    selector.register(results, selectors.EVENT_READ)
    selector.register(control, selectors.EVENT_READ)
    while not stopping:
        for key, _ in selector.select():
            message = key.fileobj.recv(100)
            if key.fileobj is control:
                stopping = True
                break
            received.append(message)

for sock in (results, worker_results, control, worker_control):
    sock.close()
if received != [b"42"]:
    sys.exit(f"the result was lost: received {received}")
print("received", received)
