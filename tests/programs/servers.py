"""The one line that puts each server on our selectors, as docs/programs.md has it: tried.

Each server answers with the module of the selector that serves the request.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .suites import importable

ROOT = Path(__file__).parents[2]
LIMIT = 30  # seconds for a server to answer

APP = """
import asyncio, gc, selectors

def served_by():
    try:
        found = {type(asyncio.get_running_loop()._selector)}
    except RuntimeError:  # a server of threads
        found = {type(one) for one in gc.get_objects() if isinstance(one, selectors.BaseSelector)}
    return " ".join(sorted({cls.__module__ for cls in found})).encode()

async def asgi(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": served_by()})

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [served_by()]
"""

INSTALLED = "import selectors_ffi; selectors_ffi.install()\n"

TORNADO = """
import asyncio, selectors_ffi, sys, tornado.web, app

class Handler(tornado.web.RequestHandler):
    def get(self):
        self.write(app.served_by())

async def main():
    tornado.web.Application([("/", Handler)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()

selectors_ffi.run(main())
"""

AIOHTTP = """
import app, selectors_ffi, sys
from aiohttp import web

async def answer(request):
    return web.Response(body=app.served_by())

application = web.Application()
application.router.add_get("/", answer)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), loop=selectors_ffi.new_event_loop())
"""

CURIO = """
import app, curio, gc, selectors, selectors_ffi, sys
selectors_ffi.install()

async def serve(client, address):
    await client.recv(10000)
    body = app.served_by()
    await client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))

curio.run(curio.tcp_server, "127.0.0.1", int(sys.argv[1]), serve)
"""

CHEROOT = (
    INSTALLED
    + """
import app, sys
from cheroot import wsgi
wsgi.Server(("127.0.0.1", int(sys.argv[1])), app.wsgi).start()
"""
)

HTTP_SERVER = """
import app, http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(app.served_by())

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Server:
    """A server's module, and the words after ``python`` that start it; PORT is filled in."""

    name: str
    module: str
    words: tuple[str, ...]


SERVERS = (
    Server("uvicorn --loop", "uvicorn", ("-m", "uvicorn", "--port", "PORT",
           "--loop", "selectors_ffi:new_event_loop", "app:asgi")),
    Server("uvicorn --loop --workers", "uvicorn", ("-m", "uvicorn", "--port", "PORT", "--workers", "2",
           "--loop", "selectors_ffi:new_event_loop", "app:asgi")),
    Server("gunicorn, threads", "gunicorn", ("-m", "gunicorn", "-b", "127.0.0.1:PORT", "-k", "gthread",
           "--threads", "2", "-c", "install.conf.py", "app:wsgi")),
    Server("hypercorn", "hypercorn", ("-m", "hypercorn", "-b", "127.0.0.1:PORT", "installed:asgi")),
    Server("tornado", "tornado", ("tornado_app.py", "PORT")),
    Server("aiohttp", "aiohttp", ("aiohttp_app.py", "PORT")),
    Server("curio", "curio", ("curio_app.py", "PORT")),
    Server("cheroot", "cheroot", ("cheroot_app.py", "PORT")),
    Server("http.server, run", "http.server", ("-m", "selectors_ffi", "run", "http_app.py", "PORT")),
    Server("uvicorn, run", "uvicorn", ("-m", "selectors_ffi", "run", "-m", "uvicorn", "--port", "PORT",
           "--loop", "asyncio", "app:asgi")),
)  # fmt: skip

FILES = {
    "app.py": APP,
    "installed.py": INSTALLED + "from app import asgi\n",
    "install.conf.py": INSTALLED,
    "tornado_app.py": TORNADO,
    "aiohttp_app.py": AIOHTTP,
    "curio_app.py": CURIO,
    "cheroot_app.py": CHEROOT,
    "http_app.py": HTTP_SERVER,
}


def check(only: str) -> list[str]:
    """Start each server that is installed, ask it once, print what served; return the wrong ones."""
    chosen = [server for server in SERVERS if only in server.name]
    wrong = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(3) as pool:
        for name, text in FILES.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        here = [server for server in chosen if importable(server.module)]
        answers = dict(zip(here, pool.map(lambda server: ask(server, folder), here)))
    for server in chosen:
        answer = answers.get(server, f"not run, {server.module} cannot be imported here")
        print(f"{server.name}: {answer}")
        if server in answers and not answer.startswith("selectors_ffi.backends."):
            wrong.append(server.name)
    return wrong


def ask(server: Server, folder: str) -> str:
    """Start a server, return its answer or the end of what it said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word.replace("PORT", str(port)) for word in server.words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(ROOT)])}
    with open(Path(folder) / f"{port}.log", "w+b") as log:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            return answer_of(process, port) or f"no answer: {end_of(log)}"
        finally:
            process.terminate()
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answer_of(process: subprocess.Popen[bytes], port: int) -> str:
    """Ask until the server answers; "" if it does not."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT) as response:
                return str(response.read().decode())
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return ""


def end_of(log: object) -> str:
    """Return the last line that a server wrote."""
    log.seek(0)  # type: ignore[attr-defined]
    lines = log.read().decode(errors="replace").strip().splitlines()  # type: ignore[attr-defined]
    return lines[-1] if lines else "nothing was written"
