"""The subjects of the contract suite (backend x kernel), and descriptors for them to watch."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import re
import selectors
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Callable

import pytest

from tests.tally import long_profile
from tests.wakers import close_idle_wakers, empty_pools

BACKENDS = (
    "SelectSelector",
    "PollSelector",
    "EpollSelector",
    "DevpollSelector",
    "KqueueSelector",
    "EventPortSelector",
)
FOLDERS = ("/proc/self/fd", "/dev/fd") if os.name == "posix" else ()  # of this process's descriptors
DESCRIPTORS = next((path for path in FOLDERS if os.path.isdir(path)), None)
#: What a module of tests cannot import on Windows.
NEEDS_UNIX = (
    r"No module named '(fcntl|pty|resource|termios)'|cannot import name '\w+' from 'tests.kernels'"
)
Pair = tuple[socket.socket, socket.socket]


@dataclass(frozen=True)
class Subject:
    """One selector class on one kernel; ``binding`` is None where it makes its own."""

    kernel: str
    backend: str
    cls: type
    binding: Callable[[], Any] | None = None

    def __str__(self) -> str:
        return f"{self.backend}-{self.kernel}"

    @property
    def mechanism(self) -> str:
        """Name of the system interface: select, poll, epoll, devpoll, kqueue or eventport."""
        return self.backend[: -len("Selector")].lower()

    @property
    def on_host(self) -> bool:
        """Whether the kernel is the one this test runs on, not a simulated one."""
        return self.kernel == "host"

    @property
    def winsock(self) -> bool:
        """Whether the kernel is Windows', simulated or this host's."""
        return self.kernel == "windows" or self.on_host and os.name == "nt"

    @property
    def closes_later(self) -> bool:
        """Whether descriptors of the kernel's own are closed by a thread of its own."""
        return self.kernel == "libkqueue"

    @property
    def kernel_keeps_list(self) -> bool:
        """Whether the kernel holds the registrations, and so can refuse one."""
        return self.mechanism in ("epoll", "devpoll", "kqueue", "eventport")

    def new_binding(self) -> Any:
        """Return a binding of this subject's kernel."""
        from selectors_ffi.binding import load

        return load() if self.binding is None else self.binding()

    def make(self) -> Any:
        """Return a new selector."""
        return self.cls() if self.binding is None else self.cls(binding=self.binding())


class Failing:
    """A subject's binding whose C function fails once for each errno in ``pending``."""

    def __init__(self, subject: Subject, function: str) -> None:
        from selectors_ffi.testing.library import proxied

        self.pending: list[int] = []
        self.calls = 0
        self._function = function
        self._winsock = 0
        self.binding = proxied(subject.new_binding(), self.decide)

    def decide(self, call: Any) -> int:
        """The hook: fail if something is pending."""
        if call.name == "WSAGetLastError":
            return self._winsock or int(call.run())
        if call.name != self._function:
            return int(call.run())
        self.calls += 1
        self._winsock = self.pending.pop(0) if self.pending else 0
        return int(call.fail(self._winsock) if self._winsock else call.run())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the contract suite run on the standard library, which checks the suite itself."""
    parser.addoption("--subject", choices=("ours", "stdlib"), default="ours")
    parser.addoption("--libkqueue", metavar="LIBRARY", help="run it on libkqueue.so.0, too")


def subjects(config: pytest.Config) -> list[Subject]:
    """Return every (backend, kernel) that can run here; of simulated ones some, see ``SOME``.

    The long profile takes all of them.
    """
    module = subject_module(config)
    found = [Subject("host", name, getattr(module, name)) for name in BACKENDS if hasattr(module, name)]
    if module is not selectors and os.name == "posix":
        from selectors_ffi import backends
        from selectors_ffi.binding import load
        from tests.kernels import KERNELS, POLLING, SOME, WINDOWS

        for kernel, name, binding in (*KERNELS, *POLLING, WINDOWS):
            if long_profile() or (kernel, name) in SOME or kernel == "windows":
                found.append(Subject(kernel, name, getattr(backends, name), binding))
        library = config.getoption("--libkqueue")
        if library:
            name, load_it = "KqueueSelector", partial(load, "libkqueue", library=library)
            found.append(Subject("libkqueue", name, getattr(backends, name), load_it))
    return found


def subject_module(config: pytest.Config) -> ModuleType:
    """Return the module that the contract suite examines."""
    stdlib = config.getoption("--subject") == "stdlib"
    return selectors if stdlib else importlib.import_module("selectors_ffi")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``subject``, itself or through a fixture, on every one."""
    if "subject" in metafunc.fixturenames:
        metafunc.parametrize("subject", subjects(metafunc.config), ids=str)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let PyPy collect no garbage while pytest rewrites the tests: PyPy before 7.3.16 may crash then.

    Its fault is in marking by steps, among which the lists of a syntax tree are moved (PyPy's
    issue 3959). CPython's collector need not look at what is about to be made either.
    """
    gc.collect()  # ends the steps of a collection that has begun
    gc.disable()  # on PyPy: no such steps
    yield
    gc.enable()


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Skip the modules that need Unix where it is not: they say so by what they cannot import."""
    outcome: Any = yield
    report = outcome.get_result()
    missing = re.search(NEEDS_UNIX, str(report.longrepr)) if report.failed else None
    if missing and os.name != "posix":
        needed = missing[1] or "the simulated kernels"
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: needs {needed}: Unix only")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Iterator[None]:
    """Skip a test that asks Windows for what only Unix has: the error says what, as no poll(2)."""
    outcome: Any = yield
    report, error = outcome.get_result(), call.excinfo and call.excinfo.value
    absent = isinstance(error, OSError) and error.errno == errno.ENOSYS
    absent |= isinstance(error, AttributeError) and "on this system" in str(error)
    if os.name != "posix" and absent:
        report.outcome = "skipped"
        report.longrepr = (str(report.location[0]), report.location[1], f"Skipped: {error}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the deliberate differences when the subject is the standard library."""
    if config.getoption("--subject") == "stdlib":
        ours = [item for item in items if item.get_closest_marker("ours")]
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="module", autouse=True)
def _no_earlier_watchdog() -> None:
    """End the thread that a selector of an earlier module left, and close its files."""
    turns = sys.modules.get("selectors_ffi.debug.turns")
    if turns is not None:
        turns._watchdog._loops.clear()
        turns._watchdog.stop()
        turns.keep(())


@pytest.fixture(scope="module", autouse=True)
def _earlier_objects_are_not_searched() -> None:
    """Let ``gc.collect()`` look at a module's own objects, and not at a million of pytest's."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        empty_pools()  # a frozen table keeps alive what is in a cycle with it
        gc.freeze()


@pytest.fixture
def module(request: pytest.FixtureRequest) -> ModuleType:
    """The module under test: selectors_ffi, or the standard library's selectors."""
    return subject_module(request.config)


def open_descriptors() -> set[str]:
    """Return the numbers of this process's descriptors, empty where they cannot be listed.

    Idle wakers, which the process keeps for its next selectors, are closed before.
    """
    close_idle_wakers()
    return set(os.listdir(DESCRIPTORS)) if DESCRIPTORS else set()


@pytest.fixture
def make(subject: Subject) -> Iterator[Callable[[], Any]]:
    """Return a maker of selectors; all are closed at the end, and no descriptor may be left."""
    before = open_descriptors()
    made = []

    def make_one() -> Any:
        made.append(subject.make())
        return made[-1]

    yield make_one
    for selector in made:
        selector.close()
    if subject.closes_later:
        return
    left = open_descriptors() - before
    # One more is the descriptor of the listing itself, if it took a new number.
    assert len(left) <= 1, f"descriptors left open: {sorted(left)}"


@pytest.fixture
def selector(make: Callable[[], Any]) -> Any:
    """An open selector."""
    return make()


@pytest.fixture
def new_pair() -> Iterator[Callable[[], Pair]]:
    """Return a maker of connected, non-blocking sockets; all are closed at the end."""
    made: list[socket.socket] = []

    def make_pair() -> Pair:
        left, right = socket.socketpair()
        made.extend((left, right))
        left.setblocking(False)
        right.setblocking(False)
        return left, right

    yield make_pair
    for end in made:
        end.close()


@pytest.fixture
def pair(new_pair: Callable[[], Pair]) -> Pair:
    """Two connected sockets."""
    return new_pair()


@pytest.fixture
def pairs(new_pair: Callable[[], Pair]) -> list[Pair]:
    """Four pairs of connected sockets."""
    return [new_pair() for _ in range(4)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The read and write descriptors of a pipe; the test may close either."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


@pytest.fixture
def snapshot(subject: Subject) -> Callable[[Any], object]:
    """Return what a selector and its kernel know, to be compared before and after."""

    def take(selector: Any) -> object:
        registry = list(selector.get_map().items())
        ready = sorted((key.fd, events) for key, events in selector.select(0))
        return registry, ready, kernel_list(subject, selector)

    return take


def kernel_list(subject: Subject, selector: Any) -> object:
    """Return the registrations as Linux's epoll itself lists them; None for other kernels."""
    if not (subject.on_host and subject.mechanism == "epoll"):
        return None
    with open(f"/proc/self/fdinfo/{selector.fileno()}") as lines:
        return sorted(line.split()[1:4] for line in lines if line.startswith("tfd"))
