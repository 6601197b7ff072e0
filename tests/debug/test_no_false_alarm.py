"""Programs that do nothing wrong, with every check on and every warning an error."""

from __future__ import annotations

import importlib.util
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import apart

BACKENDS = ("SelectSelector", "PollSelector", "EpollSelector", "KqueueSelector", "DefaultSelector")

if importlib.util.find_spec("test.test_selectors") is None:
    SUITE = "this Python ships no test package"
elif os.name != "posix":
    SUITE = "run on Unix"
else:
    SUITE = ""

# CPython's suite, on our classes, each made with every flag on. test_modify_unregister patches a
# private attribute of the stdlib's classes.
PROGRAM = """
import sys, unittest, warnings
import selectors_ffi, selectors_ffi.backends
from selectors_ffi import debug
from test import test_selectors as suite

lines = []
debug.debugging(sys.argv[1], lines.append).__enter__()
tests = unittest.TestSuite()
count = 0
for name in sys.argv[2].split(","):
    ours = getattr(selectors_ffi, name, None)
    theirs = getattr(suite, name + "TestCase", None)
    if ours is None or theirs is None:
        continue
    case = type(name, (theirs,), {"SELECTOR": ours, "__unittest_skip__": False})
    for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
        if "test_modify_unregister" not in test.id():
            tests.addTest(test)
    count += 1
for lint in debug.LINTS:
    warnings.filterwarnings("error", category=lint)
result = unittest.TextTestRunner(verbosity=0).run(tests)
print(f"classes={count} lines={len(lines)}"
      f" lints={sorted({one.id for one in lines if isinstance(one, debug.Lint)})}")
sys.exit(not result.wasSuccessful())
"""


@pytest.fixture(scope="module")
def suites():
    """Start CPython's suite on every backend at the same time: most of its seconds are waits."""
    import selectors_ffi

    # Not leaks: test_register_file really leaves a selector open.
    words = "-c", PROGRAM, "syscalls,events,stats,checks"
    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        here = [name for name in BACKENDS if hasattr(selectors_ffi, name)]
        yield {name: pool.submit(apart.python, *words, name, timeout=58) for name in here}


@pytest.mark.skipif(bool(SUITE), reason=SUITE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_suite_of_cpython(suites, backend):
    """CPython's own selector suite passes on every backend, traced and checked, without a lint."""
    if backend in ("EpollSelector", "KqueueSelector"):
        import selectors_ffi

        if not hasattr(selectors_ffi, backend):
            pytest.skip("not on this system")
    done = suites[backend].result()

    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"classes=1 lines=[1-9]\d\d+ lints=\[\]", done.stdout), done.stdout


def test_demo():
    """The demonstration, traced with every check on, tells no lint and ends well."""
    done = apart.python("-W", "error", "-m", "selectors_ffi", "demo", SELECTORS_FFI_DEBUG="checks,leaks")

    assert done.returncode == 0, done.stderr
    assert "SEL0" not in done.stdout + done.stderr


def test_asyncio():
    """asyncio's own echo, with a hundred connections, tells no lint."""
    program = """
import asyncio, selectors_ffi, warnings
from selectors_ffi import debugging

async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()

async def client(address):
    reader, writer = await asyncio.open_connection(*address)
    for _ in range(20):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await asyncio.gather(*[client(address) for _ in range(100)])
    server.close()

lints = []
with debugging("checks,leaks", lints.append):
    loop = asyncio.SelectorEventLoop(selectors_ffi.DefaultSelector())
loop.run_until_complete(main())
loop.close()
print(len(lints))
"""
    done = apart.python("-W", "error", "-c", program)

    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
