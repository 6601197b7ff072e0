"""docs/testing.md, docs/kernels.md and the examples: what they show is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from selectors_ffi.testing import KERNELS
from selectors_ffi.testing.kernels import options_of
from tests import apart

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")
PROGRAMS = {match[2]: match[1] for match in re.finditer(r"```python\n(# (\w+\.py)[\s\S]*?)```", PAGE)}
OUTPUT = {
    "enospc.py": "connection 3: {ENOSPC}, closed\n3 registered, 1 fault injected\n",
    "storm.py": "[] 1000 interruptions True\n",
    "collector.py": "without chaos: [b'result\\n']\nlost under chaos: True\nlost once mended: False\n",
    "eof.py": "{{filter=EVFILT_READ, flags=EV_EOF, fflags=0, data=10}}\nb'last w'\nb'ords'\n",
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the page shows a Unix host")


def run(*words, **variables):
    """Run an interpreter; return (status, all that it has written)."""
    done = apart.python(*words, stderr=subprocess.STDOUT, timeout=100, **variables)
    return done.returncode, done.stdout


def test_the_page_is_short():
    """Four complete examples on at most 150 lines."""
    assert len(PAGE.splitlines()) <= 150
    assert set(PROGRAMS) == set(OUTPUT)


@pytest.mark.parametrize("name", OUTPUT)
def test_every_example_runs(tmp_path, name):
    """Each prints what it is about, and is right."""
    import errno

    (tmp_path / name).write_text(PROGRAMS[name], "utf-8")
    expected = OUTPUT[name].format(ENOSPC=os.strerror(errno.ENOSPC))
    if name == "storm.py" and sys.platform == "win32":
        pytest.skip("Winsock's select is never interrupted")

    assert run(str(tmp_path / name)) == (0, expected)


def test_the_tests_with_the_plugin():
    """examples/test_with_plugin.py passes, those for pytest-asyncio and anyio where there is one."""
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "selectors_ffi.testing.pytest_plugin")
    for plugin in ("pytest_asyncio.plugin", "anyio.pytest_plugin"):
        words += ("-p", plugin) if find_spec(plugin.partition(".")[0]) else ()
    path = str(ROOT / "examples" / "test_with_plugin.py")
    status, output = run(*words, path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_ADDOPTS="-c /dev/null")
    passed = 9 + words.count("-p") - 2
    assert (status, f"{passed} passed" in output) == (0, True), output


def test_a_program_on_another_kernel(tmp_path):
    """The last command of the page: a program, on the kernel and the class of macOS."""
    path = tmp_path / "program.py"
    path.write_text("import asyncio\nprint(asyncio.new_event_loop()._selector.__class__.__name__)\n")
    status, output = run("-m", "selectors_ffi", "run", str(path), SELECTORS_FFI_KERNEL="darwin")
    assert status == 0
    assert output.startswith("KqueueSelector\n")


def test_every_kernel_and_option_is_listed():
    """docs/kernels.md names each kernel, and each option that is not a layout or a number."""
    text = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    internal = {"kevent", "select", "layout", "timespec", "read", "write", "add_again", "target"}
    for name in KERNELS:
        assert f"`{name}`" in text
        for option in set(options_of(name)) - internal:
            assert f"`{option}`" in text, option
