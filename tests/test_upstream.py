"""CPython's own test.test_selectors, run on our classes."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import apart

# It replaces the private attribute selectors.EpollSelector._selector_cls and then expects
# the entry to be lost; ours keeps what the kernel still has.
EXCLUDED = "test_modify_unregister"
CLASSES = {
    "DefaultSelector": "DefaultSelectorTestCase",
    "SelectSelector": "SelectSelectorTestCase",
    "PollSelector": "PollSelectorTestCase",
    "EpollSelector": "EpollSelectorTestCase",
    "DevpollSelector": "DevpollSelectorTestCase",
    "KqueueSelector": "KqueueSelectorTestCase",
    "EventPortSelector": "DevpollSelectorTestCase",  # there is none for it
}


def subject(kernel, name):
    """Return the class ``name`` of the standard library, of this host or of a simulated kernel."""
    if kernel == "stdlib":
        return getattr(importlib.import_module("selectors"), name)
    if kernel == "host":
        return getattr(importlib.import_module("selectors_ffi"), name)
    from selectors_ffi import backends
    from tests.kernels import KERNELS

    cls = getattr(backends, name)
    binding = next(make for row, backend, make in KERNELS if (row, backend) == (kernel, name))
    return type(name, (cls,), {"__init__": lambda self: cls.__init__(self, binding=binding())})


def run(kernel, name):
    """Run the suite in this process; return what ran, what failed and what was skipped."""
    from test import support, test_selectors

    support.use_resources = ["cpu"]
    if kernel not in ("stdlib", "host"):
        import resource

        # A simulated kernel looks at every descriptor in Python: past FD_SETSIZE is enough.
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, 1200))
    case = type(
        f"{name} on {kernel}",
        (getattr(test_selectors, CLASSES[name]),),
        # The suite skips a class that the host's selectors lack; ours is not that class.
        {"SELECTOR": subject(kernel, name), "__unittest_skip__": False},
    )
    names = unittest.defaultTestLoader.getTestCaseNames(case)
    tests = [case(test) for test in names if test != EXCLUDED]
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(unittest.TestSuite(tests))
    return {
        "defined": len(names),
        "run": result.testsRun,
        "bad": [str(test) for test, _ in result.failures + result.errors],
        "skipped": {test._testMethodName: reason for test, reason in result.skipped},
    }


def run_apart(kernel, name):
    """Run the suite in an interpreter of its own, whose warnings and limits are its own."""
    done = apart.python("-m", "tests.test_upstream", kernel, name, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def here():
    """Return the (kernel, class) pairs that this host can run."""
    import selectors

    found = [("host", name) for name in CLASSES if hasattr(selectors, name)]
    if os.name == "posix":
        from tests.kernels.machines import SOME

        found += [(machine.name, machine.backend) for machine in SOME if machine.simulated]
    return found


try:
    importlib.import_module("test.test_selectors")
    MISSING = ""
except (ImportError, unittest.SkipTest) as error:
    MISSING = f"this {platform.python_implementation()} ships no test.test_selectors: {error}"


def pytest_generate_tests(metafunc):
    """Ask for the kernels only when the tests are collected, not in the child processes."""
    metafunc.parametrize(("kernel", "name"), here())


@pytest.fixture(scope="session")
def results(request):
    """Start the suite on every subject, four at a time: most of its seconds are waits."""
    import selectors

    asked = {
        (item.callspec.params["kernel"], item.callspec.params["name"])
        for item in request.session.items
        if getattr(item, "function", None) is test_selectors
    }
    stdlib = {("stdlib", name) for _, name in asked if hasattr(selectors, name)}
    with ThreadPoolExecutor(4) as pool:
        yield {pair: pool.submit(run_apart, *pair) for pair in sorted(asked | stdlib)}


@pytest.mark.timeout(400)
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_selectors(results, kernel, name):
    """As many of CPython's tests run as for its own class, and none fails."""
    import selectors

    ours, log = results[kernel, name].result()

    assert ours["bad"] == [], log
    assert ours["run"] == ours["defined"] - 1
    if hasattr(selectors, name):
        stdlib, _ = results["stdlib", name].result()
        assert ours == stdlib
    else:
        assert ours["skipped"] == {}, log


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))
