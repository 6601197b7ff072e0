"""The README: its commands and its claims about files."""

from __future__ import annotations

import re

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
    """The systems that were not run are named as such in the support table."""
    rows = [line for line in README.read_text("utf-8").splitlines() if line.startswith("| ")]

    for system in ("FreeBSD", "macOS", "Solaris", "Windows"):
        assert any(system in row and "not run" in row for row in rows)
