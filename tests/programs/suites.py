"""The suites of real programs, and what may differ in them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """One suite: what ``outcomes.py`` is told to run, and the modules it needs."""

    name: str
    what: tuple[str, ...]
    needs: tuple[str, ...] = ()
    #: Test -> why it may have another outcome with ours.
    differs: dict[str, str] = field(default_factory=dict)
    #: The project whose source distribution has the tests, "" where they are installed.
    source: str = ""

    def missing(self) -> list[str]:
        """Return the modules that cannot be imported here."""
        return [name for name in self.needs if not importable(name)]


def importable(module: str) -> bool:
    """Tell whether a module is installed, and made for this Python."""
    command = [sys.executable, "-c", f"import {module}"]
    return _have(module) and subprocess.run(command, capture_output=True).returncode == 0


def _have(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


# A modify that is refused changes nothing with ours; the standard library's drops the registration.
REFUSED_MODIFY = {
    f"test.test_selectors.{title}SelectorTestCase.test_modify_unregister": "see docs/differences.md"
    for title in ("Default", "Select", "Poll", "Epoll", "Kqueue", "Devpoll")
}

# In parts that take about as long as each other: they run side by side.
_ASYNCIO = (
    ("events", "test_events"),
    ("TLS", "test_ssl", "test_sslproto"),
    ("sockets", "test_sock_lowlevel", "test_sendfile", "test_streams", "test_server"),
    ("processes", "test_subprocess", "test_unix_events", "test_runners"),
    ("base", "test_base_events", "test_selector_events", "test_transports", "test_waitfor"),
    ("tasks", "test_tasks", "test_taskgroups", "test_timeouts", "test_locks", "test_queues"),
)
_TORNADO = (
    ("streams", "iostream_test", "tcpserver_test", "tcpclient_test", "netutil_test"),
    ("loop", "ioloop_test", "asyncio_test", "process_test", "testing_test", "gen_test"),
    ("HTTP", "httpserver_test", "simple_httpclient_test", "httpclient_test", "websocket_test"),
)
_AIOHTTP = (
    ("server", "test_web_functional"),
    ("websockets", "test_web_websocket_functional", "test_client_ws_functional"),
    ("client", "test_client_functional", "test_proxy_functional"),
    ("files", "test_web_sendfile_functional", "test_run_app", "test_connector"),
)
_CURIO = (
    ("network", "test_io", "test_network", "test_socket", "test_channel"),
    ("tasks", "test_kernel", "test_task", "test_subprocess", "test_thread", "test_queue"),
)
#: Suites that the daily run leaves out: they take long and hardly wait for descriptors.
WEEKLY = ("asyncio, tasks", "tornado, HTTP", "aiohttp, client", "aiohttp, files")


def _parts(name: str, package: str, parts: tuple[tuple[str, ...], ...]) -> list[Suite]:
    """Return a suite for each part, of the modules that this version of the package has."""
    return [
        Suite(
            f"{name}, {part}",
            tuple(f"{package}.{module}" for module in modules if _have(f"{package}.{module}")),
            (package,),
        )
        for part, *modules in parts
    ]


def _of_source(
    name: str, parts: tuple[tuple[str, ...], ...], needs: tuple[str, ...], without: str
) -> list[Suite]:
    """Return a suite for each part of a project's tests, run by pytest ``without`` some."""
    return [
        Suite(
            f"{name}, {part}",
            ("pytest", "-k", without, *(f"{module}.py" for module in modules)),
            (name, *needs),
            source=name,
        )
        for part, *modules in parts
    ]


_CHEROOT = ("cheroot.test", "portend", "trustme", "requests_unixsocket", "OpenSSL", "pypytools")

# The longest first, so that none is left alone at the end.
SUITES = [
    Suite("cheroot", ("pytest", "--pyargs", "cheroot"), _CHEROOT),
    Suite("aiosmtpd", ("pytest", "--pyargs", "aiosmtpd"), ("aiosmtpd.tests", "pkg_resources")),
    # uvloop's loops have no selector.
    *_of_source("aiohttp", _AIOHTTP, ("pytest_mock", "freezegun", "trustme"), "not uvloop"),
    # These two ask name servers.
    *_of_source("curio", _CURIO, (), "not test_ssl_outgoing and not test_errors"),
    *_parts("asyncio", "test.test_asyncio", _ASYNCIO),
    *_parts("tornado", "tornado.test", _TORNADO),
    Suite("subprocess", ("test.test_subprocess",), ("test.test_subprocess",)),
    Suite("selectors", ("test.test_selectors",), ("test.test_selectors",), REFUSED_MODIFY),
    Suite("socketserver", ("test.test_socketserver",), ("test.test_socketserver",)),
    Suite("http.server", ("test.test_httpservers",), ("test.test_httpservers",)),
]
