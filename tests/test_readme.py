"""The README: its commands and its claims about files."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import selectors_ffi
from tests.readme import README, commands


def test_two_commands():
    """Set-up is two lines: one ends in the demo, one in the tests."""
    first, second = commands()

    assert first.startswith("python3 -m venv ")
    assert first.endswith(" -m selectors_ffi demo")
    assert ".[test]" in second
    assert second.endswith(" -m pytest -q")


def test_links_to_files():
    """Every relative link and every file named in code exists."""
    text = README.read_text("utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    targets += re.findall(r"`((?:\.github|docs|examples|tests|benchmarks)/[^`\s*]+)`", text)

    assert targets
    assert [name for name in targets if not (README.parent / name).exists()] == []


def test_says_what_was_not_run():
    """The systems that nobody ran are named as such in the support table."""
    rows = [line for line in README.read_text("utf-8").splitlines() if line.startswith("| ")]

    for system in ("FreeBSD", "macOS", "Solaris", "Windows"):
        assert any(system in row and "not run" in row for row in rows)


def test_trace_is_what_trace_prints():
    """The trace in the README is that of the example, up to numbers, times and addresses."""
    block = re.search(r"^```console\n\$ \S+ (.*?)\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
    done = subprocess.run(
        [sys.executable, *block[1].split()], cwd=README.parent, stderr=subprocess.PIPE, text=True
    )
    if "epoll_pwait2" not in done.stderr:
        default = selectors_ffi.DefaultSelector.__name__
        pytest.skip(f"the README shows epoll with epoll_pwait2; here it is {default} without")

    assert without_numbers(done.stderr) == without_numbers(block[2])


def without_numbers(text):
    """Return a trace with what differs from run to run, or by Python's repr, taken out."""
    text = re.sub(r"<socket\.socket.*?(\)?)$", r"SOCKET\1", text, flags=re.M)
    return re.sub(r"<.*?>|0x[0-9a-f]+|\b\d+\b", "N", text)
