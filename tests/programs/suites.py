"""The suites of real programs, and what may differ in them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """One suite: what ``outcomes.py`` is told to run, and the modules it needs."""

    name: str
    what: tuple[str, ...]
    needs: tuple[str, ...] = ()
    #: Test -> why it may have another outcome with ours.
    differs: dict[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Return the modules that are not installed here."""
        return [name for name in self.needs if not _have(name)]


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
#: Suites that the daily run leaves out: they take long and hardly wait for descriptors.
WEEKLY = ("asyncio, tasks", "tornado, HTTP")


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


# The longest first, so that none is left alone at the end.
SUITES = [
    Suite("cheroot", ("pytest", "--pyargs", "cheroot"), ("cheroot.test", "portend", "trustme")),
    Suite("aiosmtpd", ("pytest", "--pyargs", "aiosmtpd"), ("aiosmtpd.tests", "pkg_resources")),
    *_parts("asyncio", "test.test_asyncio", _ASYNCIO),
    *_parts("tornado", "tornado.test", _TORNADO),
    Suite("subprocess", ("test.test_subprocess",), ("test.test_subprocess",)),
    Suite("selectors", ("test.test_selectors",), ("test.test_selectors",), REFUSED_MODIFY),
    Suite("socketserver", ("test.test_socketserver",), ("test.test_socketserver",)),
    Suite("http.server", ("test.test_httpservers",), ("test.test_httpservers",)),
]
