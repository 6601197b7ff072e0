"""A plugin for pytest: a whole suite under chaos, on another kernel, or with lints as failures.

Not loaded unless asked for: ``pytest -p selectors_ffi.testing.pytest_plugin --selectors-chaos=7``.
With one of the options, this package's classes stand in place of the standard library's, so that
asyncio, socketserver and the rest are reached.

``--selectors-chaos=SEED``, ``--selectors-chaos="N seeds"``
    Run each test under one seed of chaos, or under N of them, from 1 on. A failure names its seed
    and how to repeat it. Methods of ``unittest.TestCase``, which pytest cannot run more than once,
    have one of the seeds each.
``--selectors-kernel=NAME``
    Run the suite on a simulated kernel; DefaultSelector is what that system would have.
``--selectors-checks``
    What ``Debug.CHECKS`` and ``Debug.LEAKS`` find in a test is a failure of the test.

The fixtures work without the options. ``inject(text)`` and ``chaos(seed)`` are for the rest of the
test: for the loop that runs it, if the test is a coroutine, and for every selector that is made. In a
test that asks for one of the two, our classes stand in place of the standard library's. ``kernel(name)``
returns the binding of a simulated kernel.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Callable

import pytest

from selectors_ffi import install
from selectors_ffi.backends.base import Backend

from . import KERNELS, Chaos, Injection, UnreachedWarning, chaotic, injecting
from . import kernel as make_kernel
from .blocks import Block
from .chaos import decided_by
from .library import Hook, proxied
from .repeating import shown

if TYPE_CHECKING:
    from selectors_ffi.binding import Binding

SEED = "selectors_seed"
#: Each test is made so often before the first one runs.
MOST = 10_000
_STACK = pytest.StashKey[ExitStack]()
_SEEDS = pytest.StashKey["list[int]"]()
#: Tests may share a loop. So all of a run have one chaos and one list of lints, of the test that runs.
_CHAOS = pytest.StashKey[Chaos]()
_LINTS = pytest.StashKey["list[object]"]()
_USED = pytest.StashKey["list[int]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("selectors_ffi")
    group.addoption(
        "--selectors-chaos",
        metavar="SEED|'N seeds'",
        help="run each test under a seed of chaos, or under N seeds",
    )
    group.addoption(
        "--selectors-kernel",
        metavar="NAME",
        help=f"run the suite on a simulated kernel: {', '.join(KERNELS)}",
    )
    group.addoption(
        "--selectors-checks", action="store_true", help="a lint of selectors_ffi is a failure"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Take our classes before a conftest takes the standard library's."""
    _begin(early_config, early_config.known_args_namespace)


def pytest_configure(config: pytest.Config) -> None:
    """Do it now if a conftest has loaded this plugin."""
    if _SEEDS not in config.stash:
        _begin(config, config.option)


def _begin(config: pytest.Config, options: Any) -> None:
    """Do what the options ask for."""
    config.stash[_SEEDS] = _seeds(options.selectors_chaos)
    if options.selectors_kernel is not None:
        _change_kernel(options.selectors_kernel)
    if config.stash[_SEEDS]:
        config.stash[_CHAOS] = Chaos(config.stash[_SEEDS][0])
    config.stash[_LINTS] = []
    if config.stash[_SEEDS] or options.selectors_kernel or options.selectors_checks:
        install()


def _seeds(text: str | None) -> list[int]:
    """Return the seeds that an option asks for."""
    if text is None:
        return []
    found = re.fullmatch(r"\s*(-?\d+)\s*(seeds?)?\s*", text)
    if found is None:
        raise pytest.UsageError(f"--selectors-chaos={text}: neither a seed nor 'N seeds'")
    if found[2] and int(found[1]) < 1:
        raise pytest.UsageError(f"--selectors-chaos={text}: at least 1 seed")
    if found[2] and int(found[1]) > MOST:
        raise pytest.UsageError(f"--selectors-chaos={text}: at most {MOST} seeds")
    return list(range(1, int(found[1]) + 1)) if found[2] else [int(found[1])]


def _change_kernel(name: str) -> None:
    from .ambient import begin_kernel

    try:
        begin_kernel(name, "--selectors-kernel")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is in force."""
    said = []
    seeds = config.stash.get(_SEEDS, [])
    if seeds:
        said.append(f"chaos under seed {seeds[0]}" + (f" to {seeds[-1]}" if len(seeds) > 1 else ""))
    if config.getoption("--selectors-kernel"):
        said.append(f"kernel {config.getoption('--selectors-kernel')}")
    if config.getoption("--selectors-checks"):
        said.append("checks")
    return [f"selectors_ffi: {', '.join(said)}"] if said else []


@pytest.fixture(name=SEED)
def selectors_seed(request: pytest.FixtureRequest) -> int | None:
    """The seed of chaos under which the test runs, by ``--selectors-chaos``; None without."""
    return getattr(request, "param", None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test under every seed."""
    seeds = metafunc.config.stash.get(_SEEDS, [])
    if seeds:
        if SEED not in metafunc.fixturenames:
            metafunc.fixturenames.append(SEED)
        ids = [f"seed-{seed}" for seed in seeds]
        metafunc.parametrize(SEED, seeds, indirect=True, ids=ids)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Put chaos and checks in force before the fixtures of the test are made."""
    with ExitStack() as stack:
        item.stash[_STACK] = stack
        item.stash[_USED] = []
        item.config.stash[_LINTS].clear()
        if {"inject", "chaos"}.intersection(getattr(item, "fixturenames", ())):
            stack.enter_context(install())  # before a fixture makes the loop that runs the test
        seed = _seed_of(item)
        if seed is not None:
            item.stash[_USED].append(seed)
            stack.enter_context(_Seeded(item.config.stash[_CHAOS], seed))
        if item.config.getoption("--selectors-checks"):
            from selectors_ffi.debug import Debug, debugging

            stack.enter_context(debugging(Debug.CHECKS | Debug.LEAKS, item.config.stash[_LINTS].append))
        yield


class _Seeded(Block):
    """A test under a seed: selectors that it makes, or shares with earlier tests, have its chaos."""

    def __init__(self, decided: Chaos, seed: int) -> None:
        super().__init__()
        self._decided = decided
        self._seed = seed

    def make(self) -> Binding:
        self._decided.begin(self._seed)
        return decided_by(self._decided)


def _seed_of(item: pytest.Item) -> int | None:
    seeds = item.config.stash.get(_SEEDS, [])
    if not seeds:
        return None
    callspec = getattr(item, "callspec", None)
    if callspec is not None and SEED in callspec.params:
        return int(callspec.params[SEED])
    return seeds[zlib.crc32(item.nodeid.encode()) % len(seeds)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test in which a check has found something."""
    outcome: Any = yield
    if outcome.excinfo is None:
        try:
            _fail_for_lints(item)
        except pytest.fail.Exception as failure:
            outcome.force_exception(failure)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Look for what only the end of the test has shown: selectors left open, faults never met."""
    outcome: Any = yield
    try:
        try:
            if item.config.getoption("--selectors-checks") and outcome.excinfo is None:
                for _ in range(2):  # PyPy runs a finaliser after the collection that has found it
                    gc.collect()
                _fail_for_lints(item)
        finally:
            # Not where the protocol ends, which is no longer the test's: its filters may raise here.
            item.stash[_STACK].close()
    except (pytest.fail.Exception, Warning) as failure:
        if outcome.excinfo is None:
            outcome.force_exception(failure)


def _fail_for_lints(item: pytest.Item) -> None:
    lints = item.config.stash[_LINTS]
    found = lints[:]
    del lints[: len(found)]  # another thread may have found something meanwhile
    if found:
        pytest.fail("\n".join(map(str, found)), pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Name the seed of a test that fails."""
    outcome: Any = yield
    report = outcome.get_result()
    seeds = item.stash.get(_USED, [])
    if report.failed and seeds:
        text = f"chaos under seed {', '.join(map(str, seeds))}"
        if item.config.stash.get(_SEEDS, []):
            text += f"\nto repeat it: {_command(item, seeds[0])}"
        report.sections.append(("selectors_ffi", text))


def _command(item: pytest.Item, seed: int) -> str:
    """Return the line for a shell that runs a test again, under a seed and with the same options."""
    options = ["-p", __name__, f"--selectors-chaos={seed}"]
    if item.config.getoption("--selectors-kernel"):
        options.append(f"--selectors-kernel={item.config.getoption('--selectors-kernel')}")
    if item.config.getoption("--selectors-checks"):
        options.append("--selectors-checks")
    path, colons, name = item.nodeid.partition("::")
    path = str(item.config.rootpath / path)
    with suppress(ValueError):  # Windows, where the working directory is on another drive
        path = os.path.relpath(path, item.config.invocation_params.dir)
    return shown(["pytest", *options, f"{path}{colons}{name}"])


@pytest.fixture
def inject(request: pytest.FixtureRequest) -> Callable[[str], Injection]:
    """A function of expressions, see ``testing.inject``: selectors made in the rest of the test obey.

    It returns the ``Injection``. One that altered no call is an ``UnreachedWarning``.
    """

    def begin(text: str) -> Injection:
        injection: Injection = _enter(request, injecting(text))
        return injection

    return begin


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Callable[..., Chaos]:
    """A function of a seed, see ``testing.chaos``: selectors made in the rest of the test have chaos.

    It returns the ``Chaos``. Without a seed it is the one of ``--selectors-chaos``, else 1.
    """

    def begin(seed: int | None = None, spurious: bool = False) -> Chaos:
        used = request.node.stash[_USED]
        chosen = seed if seed is not None else (used or [1])[0]
        if chosen not in used:
            used.append(chosen)
        decided: Chaos = _enter(request, chaotic(chosen, spurious))
        return decided

    return begin


def _enter(request: pytest.FixtureRequest, block: Block) -> Any:
    """Enter a block for the rest of the test; its hook also decides for the loop that runs the test."""
    stack = request.node.stash[_STACK]
    stack.enter_context(install())  # of a test that has asked for the fixture only now
    hook = stack.enter_context(block)
    _reach_running_loop(stack, hook)
    return hook


def _reach_running_loop(stack: ExitStack, hook: Hook) -> None:
    """Let ``hook`` decide about the calls of the loop that runs the test, until ``stack`` ends."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return
    selector: Any = getattr(loop, "_selector", None)
    if not isinstance(selector, Backend):
        said = f"the running {type(loop).__name__} is not reached: it waits without a selector of ours"
        warnings.warn(said, UnreachedWarning, stacklevel=4)
        return
    below = selector._binding
    selector._rebind(proxied(below, hook))
    stack.callback(lambda: selector._closed or selector._rebind(below))


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Callable[..., Binding] | Binding:
    """``testing.kernel``: a function of a name that returns a simulated kernel's binding.

    Parametrized indirectly with names, it is the binding itself.
    """
    name = getattr(request, "param", None)
    return make_kernel if name is None else make_kernel(name)
