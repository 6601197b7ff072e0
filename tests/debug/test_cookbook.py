"""docs/cookbook.md: every program is run, and prints what the page says, but for the numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cookbook.md").read_text("utf-8")
PROGRAMS = {match[2]: match[1] for match in re.finditer(r"```python\n(# (\w+\.py)\n[\s\S]*?)```", PAGE)}
RUNS = re.findall(r"```console\n\$ (.*)\n([\s\S]*?)```", PAGE)

if not sys.platform.startswith("linux") or sys.implementation.name != "cpython":
    pytest.skip("the page shows CPython on Linux", allow_module_level=True)
if sys.version_info < (3, 11):
    pytest.skip("sockets had another repr", allow_module_level=True)


def masked(text):
    """Return the lines without numbers, tables sorted: their order is that of the times."""
    text = re.sub(r"epoll_pwait2|epoll_wait", "epoll_wait", text)
    lines = (re.sub(r"\d+(\.\d+)?", "N", " ".join(line.split())) for line in text.splitlines())
    return sorted(line for line in lines if line)


def test_every_program_is_shown_with_its_output():
    """Six programs, each run once."""
    assert len(PROGRAMS) == len(RUNS) == 6
    assert all(any(name in command for command, _ in RUNS) for name in PROGRAMS)


@pytest.mark.parametrize(("command", "expected"), RUNS, ids=[command for command, _ in RUNS])
def test_output(command, expected, tmp_path):
    """The command prints what is shown, but for numbers."""
    import selectors_ffi

    if selectors_ffi.DefaultSelector.__name__ != "EpollSelector":
        pytest.skip("the page shows epoll")
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    words = command.split(" 2>&1 | head -")
    arguments = words[0].split()[1:]
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    lines = done.stdout.splitlines(keepends=True)
    shown = "".join(lines[: int(words[1])] if len(words) > 1 else lines)

    assert masked(shown.replace(f"{tmp_path}/", "")) == masked(expected)
