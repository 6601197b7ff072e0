"""The pytest plugin, used by suites of a few lines in an interpreter of their own."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

import selectors_ffi
from tests import apart, needs

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ORDER = """
import selectors, socket

def test_order():
    (a, b), (c, d) = socket.socketpair(), socket.socketpair()
    b.send(b"x")
    d.send(b"x")
    with a, b, c, d, selectors.DefaultSelector() as selector:
        selector.register(a, selectors.EVENT_READ, "data")
        selector.register(c, selectors.EVENT_READ, "stop")
        assert selector.select()[0][0].data == "data"
"""
LOOP = """
import asyncio, unittest

async def mechanism():
    await asyncio.sleep(0.001)
    return type(asyncio.get_running_loop()._selector).__module__ + type(
        asyncio.get_running_loop()._selector
    ).__name__

def test_function():
    print("on", asyncio.run(mechanism()))

class Test(unittest.TestCase):
    def test_method(self):
        print("on", asyncio.run(mechanism()))
"""


@pytest.fixture
def suite(tmp_path):
    """Run pytest on a file with the plugin; return (status, output)."""

    def run(text, *options, plugin=True, under=""):
        folder = tmp_path / under
        folder.mkdir(exist_ok=True)
        if text is not None:
            (folder / "test_user.py").write_text(text, encoding="utf-8")
        chosen = ["-p", "selectors_ffi.testing.pytest_plugin"] if plugin else []
        done = apart.python(
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-rPfE",
            *chosen,
            *options,
            cwd=folder,
            timeout=100,
            **ENVIRONMENT,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_it_is_not_loaded_unless_asked_for(suite):
    """Without -p there are no options, and a suite runs on the standard library."""
    assert suite(ORDER, "--selectors-chaos=7", plugin=False)[0] == 4
    status, output = suite(LOOP, plugin=False)
    assert (status, output.count("on selectorsEpollSelector")) in ((0, 2), (0, 0))
    assert "selectors_ffi" not in output


def test_without_an_option_nothing_changes(suite):
    """Loaded, it leaves the standard library's classes alone."""
    status, output = suite(LOOP)

    assert status == 0
    assert output.count("on selectors_ffi") == 0


def test_a_failure_names_its_seed(suite):
    """Under ten seeds the bug is found; the command that is printed finds it again."""
    assert suite(ORDER)[0] == 0
    status, output = suite(ORDER, "--selectors-chaos=10 seeds")

    assert status == 1
    assert "selectors_ffi: chaos under seed 1 to 10" in output
    seed = re.search(r"^chaos under seed (\d+)$", output, re.MULTILINE)[1]
    repeat = f"--selectors-chaos={seed} 'test_user.py::test_order[seed-{seed}]'"
    assert f"to repeat it: pytest -p selectors_ffi.testing.pytest_plugin {repeat}\n" in output
    status, output = suite(ORDER, f"--selectors-chaos={seed}", f"test_user.py::test_order[seed-{seed}]")
    assert status == 1
    assert "1 failed" in output


@needs.selector_loop
def test_asyncio_is_reached(suite):
    """Functions run under every seed, methods of unittest once; all on our selectors."""
    seed = "def test_seed(selectors_seed):\n    assert selectors_seed in (1, 2, 3)\n"
    status, output = suite(LOOP + seed, "--selectors-chaos=3 seeds")

    assert status == 0
    assert "7 passed" in output
    assert output.count("on selectors_ffi.backends.") == 4


@needs.selector_loop
def test_a_conftest_may_load_it(suite, tmp_path):
    """It then begins later, and all the same before the tests."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["selectors_ffi.testing.pytest_plugin"]')
    status, output = suite(LOOP, "--selectors-chaos=3 seeds", plugin=False)
    assert (status, "4 passed" in output) == (0, True), output
    assert output.count("on selectors_ffi.backends.") == 4
    assert suite(LOOP, "--selectors-chaos=x", plugin=False)[0] == 4


@pytest.mark.skipif(os.name != "posix", reason="the simulated kernels need a Unix host")
@pytest.mark.parametrize(("name", "cls"), [("darwin", "Kqueue"), ("illumos", "Devpoll")])
def test_a_suite_on_another_kernel(suite, name, cls):
    """asyncio waits as it would there, and a module imports that system's classes."""
    text = f"from selectors_ffi import {cls}Selector, DefaultSelector\n{LOOP}\n" + (
        "def test_default():\n"
        f"    assert DefaultSelector is {cls}Selector\n"
        "    import selectors_ffi\n"
        "    assert not hasattr(selectors_ffi, 'EpollSelector')\n"
    )
    status, output = suite(text, f"--selectors-kernel={name}")

    assert status == 0, output
    assert f"selectors_ffi: kernel {name}" in output
    assert output.count(f"{cls}Selector\n") >= 2


def test_what_is_printed_repeats_the_failure_where_pytest_was_started(suite, tmp_path):
    """The line names the test as it is seen from the working directory, quoted for a shell."""
    (tmp_path / "pytest.ini").write_text("[pytest]")
    text = "import pytest\n@pytest.mark.parametrize('it', [\"it's\"])\ndef test(it): raise ValueError"
    status, output = suite(text, "--selectors-chaos=3", under="below")
    assert (status, "1 failed" in output) == (1, True), output
    (command,) = re.findall("^to repeat it: pytest (.*)$", output, re.MULTILINE)
    words = shlex.split(command)
    assert words[-1] == "test_user.py::test[seed-3-it's]"
    status, output = suite(None, *words, plugin=False, under="below")
    assert (status, "1 failed" in output) == (1, True), output


def test_the_checks_are_part_of_what_repeats_a_failure(suite):
    """A lint is a failure with --selectors-checks alone."""
    text = "import selectors\ndef test():\n    selectors.DefaultSelector().select(0)\n"
    status, output = suite(text, "--selectors-chaos=3", "--selectors-checks")
    assert status == 1
    (command,) = re.findall("^to repeat it: pytest (.*)$", output, re.MULTILINE)
    status, output = suite(None, *shlex.split(command), plugin=False)
    assert (status, "SEL009" in output) == (1, True), output


@pytest.mark.skipif(os.name != "posix", reason="the simulated kernels need a Unix host")
def test_the_kernel_is_part_of_what_repeats_a_failure(suite):
    """A seed alone would run the test on this host's kernel."""
    status, output = suite(
        "def test(): raise ValueError", "--selectors-chaos=3", "--selectors-kernel=darwin"
    )
    assert status == 1
    assert "--selectors-chaos=3 --selectors-kernel=darwin 'test_user.py::test[seed-3]'" in output


def test_lints_are_failures(suite):
    """A lint fails the test that it is found in, a leak the test that leaked."""
    status, output = suite(
        "import selectors, socket\n"
        "def test_leak():\n"
        "    selectors.DefaultSelector().select(0)\n"
        "def test_closed():\n"
        "    a, b = socket.socketpair()\n"
        "    with b, selectors.DefaultSelector() as selector:\n"
        "        selector.register(a, selectors.EVENT_READ)\n"
        "        number = a.fileno()\n"
        "        a.close()\n"
        "        try: selector.select(0)\n"
        "        except OSError: pass  # of select(2)\n"
        "        selector.unregister(number)\n"
        "def test_clean():\n"
        "    with selectors.DefaultSelector() as selector:\n"
        "        selector.select(0)\n",
        "--selectors-checks",
    )

    assert status == 1
    assert re.search(r"FAILED test_user.py::test_closed - .*SEL001", output)
    # poll's and select's selectors go at once, the others with the collector after the test.
    at_once = selectors_ffi.DefaultSelector.__name__ in ("PollSelector", "SelectSelector")
    told, counts = ("FAILED", "2 failed, 1 passed") if at_once else ("ERROR", "1 failed, 2 passed")
    assert re.search(rf"{told} test_user.py::test_leak - .*SEL009", output)
    assert counts in output


SHARED = """
import asyncio, pytest, time

@pytest.fixture(scope="module")
def loop():
    made = asyncio.new_event_loop()
    yield made
    made.close()
"""


@needs.selector_loop
def test_a_lint_is_of_the_test_that_runs(suite):
    """Also in a loop that an earlier test has made, and not if that test has failed before."""
    text = SHARED + (
        "async def block():\n"
        "    time.sleep(0.3)\n"
        "    await asyncio.sleep(0.001)\n"
        "def test_first(loop): loop.run_until_complete(asyncio.sleep(0.001))\n"
        "def test_second(loop): loop.run_until_complete(block())\n"
        "def test_failing(loop):\n"
        "    async def again(): await block()\n"
        "    loop.run_until_complete(again())\n"
        "    raise ValueError\n"
        "def test_last(loop): loop.run_until_complete(asyncio.sleep(0.001))\n"
    )
    status, output = suite(text, "--selectors-checks")
    assert (status, "2 failed, 2 passed" in output) == (1, True), output
    assert re.search("FAILED test_user.py::test_second - .*SEL010", output)
    assert "FAILED test_user.py::test_failing - ValueError" in output


@needs.selector_loop
def test_a_shared_loop_runs_under_the_seed_of_each_test(suite):
    """A failure names the seed that was in force, whichever test has made the loop."""
    text = SHARED + (
        "def test_seed(loop, selectors_seed):\n"
        "    hook = loop._selector._binding.lib.hook\n"
        "    before = sum(hook.counts.values())\n"
        "    for _ in range(50): loop.run_until_complete(asyncio.sleep(0.0001))\n"
        "    assert hook.seed == selectors_seed\n"
        "    assert sum(hook.counts.values()) > before\n"
    )
    status, output = suite(text, "--selectors-chaos=3 seeds")
    assert (status, "3 passed" in output) == (0, True), output


@needs.selector_loop
@needs.simulated_kernels
def test_a_kernel_that_tests_share_has_chaos(suite):
    """A fixture of a module may put it in force: each test has its seed there, the rest this host."""
    text = SHARED + (
        "import selectors_ffi\n"
        "from selectors_ffi.testing import on_kernel\n"
        "async def selector():\n"
        "    await asyncio.sleep(0.001)\n"
        "    return asyncio.get_running_loop()._selector\n"
        "@pytest.fixture(scope='class')\n"
        "def kernel():\n"
        "    with on_kernel('darwin'):\n"
        "        yield\n"
        "class Test:\n"
        "    @pytest.mark.parametrize('number', [1, 2])\n"
        "    def test_kernel(self, kernel, number, selectors_seed):\n"
        "        found = asyncio.run(selector())\n"
        "        assert type(found).__name__ == 'KqueueSelector'\n"
        "        assert number == 1 or found._binding.lib.hook.seed == selectors_seed\n"
        "def test_host():\n"
        "    assert asyncio.run(selector())._binding.target != 'darwin'\n"
    )
    status, output = suite(text, "--selectors-chaos=3 seeds")
    assert (status, "9 passed" in output) == (0, True), output


def test_the_fixtures(suite):
    """inject, chaos and kernel, without any option; what they do ends with the test."""
    status, output = suite(
        "import os, pytest, selectors, selectors_ffi, socket\n"
        "def test_inject(inject):\n"
        "    injection = inject('wait:error=ENOMEM:when=1')\n"
        "    near, far = socket.socketpair()\n"
        "    with near, far, selectors.DefaultSelector() as selector:\n"
        "        selector.register(near, 1)\n"
        "        with pytest.raises(OSError):\n"
        "            selector.select(0)\n"
        "    assert injection.hits == 1\n"
        "def test_nothing_is_left():\n"
        "    assert selectors.DefaultSelector.__module__ == 'selectors'\n"
        "    with selectors_ffi.DefaultSelector() as selector:\n"
        "        selector.select(0)\n"
        "def test_chaos(chaos, selectors_seed):\n"
        "    assert selectors_seed is None\n"
        "    assert chaos().seed == chaos(1).seed == 1\n"
        "    assert chaos(7).seed == 7\n"
        "    assert selectors.DefaultSelector.__module__.startswith('selectors_ffi')\n"
        "def test_failure(chaos):\n"
        "    chaos(8)\n"
        "    raise ValueError\n"
        "@pytest.mark.skipif(os.name != 'posix', reason='')\n"
        "def test_kernel(kernel):\n"
        "    selectors_ffi.backends.KqueueSelector(binding=kernel('openbsd')).close()\n"
        "@pytest.mark.skipif(os.name != 'posix', reason='')\n"
        "@pytest.mark.parametrize('kernel', ['darwin', 'freebsd'], indirect=True)\n"
        "def test_kernels(kernel):\n"
        "    selectors_ffi.backends.KqueueSelector(binding=kernel).close()\n"
    )
    assert status == 1
    assert "1 failed" in output
    assert "FAILED test_user.py::test_failure - ValueError" in output
    assert "chaos under seed 8\n" in output


@needs.selector_loop
def test_the_loop_that_runs_the_test_is_reached(suite):
    """Also from inside of it, as in a coroutine that a plugin runs; a loop of another kind is named."""
    status, output = suite(
        "import asyncio, pytest\n"
        "@pytest.fixture\n"
        "def run():\n"
        "    loop = asyncio.new_event_loop()\n"
        "    yield loop.run_until_complete\n"
        "    loop.close()\n"
        "async def turns():\n"
        "    for _ in range(20):\n"
        "        await asyncio.sleep(0.0001)\n"
        "def test_inject(run, inject):\n"
        "    async def test():\n"
        "        injection = inject('wait:error=EINTR:when=1..3')\n"
        "        await turns()\n"
        "        assert injection.hits == 3\n"
        "    run(test())\n"
        "def test_chaos(run, chaos):\n"
        "    async def test():\n"
        "        decided = chaos(3)\n"
        "        await turns()\n"
        "        assert decided.counts['interrupted']\n"
        "    run(test())\n"
        "def test_another(inject, monkeypatch):\n"
        "    async def test():\n"
        "        with monkeypatch.context() as patch, pytest.warns(match='Loop is not reached'):\n"
        "            patch.setattr(asyncio.get_running_loop(), '_selector', None)\n"
        "            inject('close:error=EIO:when=1')\n"
        "    asyncio.run(test())\n"
    )
    assert (status, "3 passed" in output) == (0, True), output


def test_what_is_not_reached_is_a_warning(suite):
    """An injection that altered no call is told at the end of the test."""
    text = "def test_inject(inject):\n    inject('wait:error=EIO')\n"
    status, output = suite(text)
    assert status == 0
    assert ".py:2: UnreachedWarning: wait:error=EIO: not reached, calls of wait: 0" in output


def test_unreached_fault_where_warnings_are_errors(suite):
    """A fault that met no call is an error of its test, not of pytest; the next test runs."""
    text = """
import asyncio

def test_unreached(inject):
    inject("control:error=EIO:when=7")

def test_next():
    asyncio.run(asyncio.sleep(0))
"""
    for options in ((), ("--selectors-checks",)):
        status, output = suite(text, "-W", "error", *options)
        assert (status, output.count("ERROR at teardown of test_unreached")) == (1, 1), output
        assert "UnreachedWarning: control:error=EIO:when=7: not reached" in output
        assert "2 passed, 1 error" in output


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--selectors-chaos=x", "--selectors-chaos=x: neither a seed nor 'N seeds'"),
        ("--selectors-chaos=0 seeds", "--selectors-chaos=0 seeds: at least 1 seed"),
        ("--selectors-chaos=10001 seeds", "--selectors-chaos=10001 seeds: at most 10000 seeds"),
        ("--selectors-chaos=", "--selectors-chaos=: neither a seed nor 'N seeds'"),
        ("--selectors-kernel=mac", "--selectors-kernel: unknown kernel 'mac'; known: freebsd, "),
    ],
)
def test_a_wrong_option(suite, option, said):
    """One line, and no test is run."""
    status, output = suite(ORDER, option)

    assert status == 4
    assert f"ERROR: {said}" in output
    assert "passed" not in output
