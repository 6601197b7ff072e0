"""The workflows: what they run cannot change behind our back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ZIZMOR = Path(sys.executable).parent / "zizmor"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_every_action_is_pinned(path):
    """An action is named by a commit, with its version beside it; rights are given by job."""
    text = path.read_text("utf-8")
    uses = re.findall(r"uses: (.*)", text)

    assert uses
    assert [one for one in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", one)] == []
    assert re.search(r"^permissions: \{\}$", text, re.M)


def test_one_hash_for_an_action():
    """The workflows agree about the commit of an action."""
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, rest in re.findall(r"uses: ([\w./-]+)@(.*)", path.read_text("utf-8")):
            found.setdefault(name, set()).add(rest)

    assert found
    assert {name: rests for name, rests in found.items() if len(rests) > 1} == {}


def test_oldest_cffi_is_run():
    """The oldest cffi that the package declares to need is the one that a job installs."""
    declared = re.search(r"cffi>=([\d.]+);", (ROOT / "pyproject.toml").read_text("utf-8"))[1]

    assert f'"cffi=={declared}"' in (ROOT / ".github/workflows/ci.yml").read_text("utf-8")


@pytest.mark.skipif(not ZIZMOR.exists(), reason="zizmor is not installed")
def test_zizmor_finds_nothing():
    """zizmor knows of no weakness in the workflows."""
    command = [str(ZIZMOR), "--offline", str(ROOT / ".github")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
