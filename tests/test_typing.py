"""The type of ``data`` is kept for type checkers, and nothing of it is there at run time."""

from __future__ import annotations

import importlib.util
import re
import runpy
import selectors as stdlib
import subprocess
import sys
from pathlib import Path

import pytest

import selectors_ffi
from tests.pages import Page

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "tests" / "typing_examples"
COMMANDS = {"mypy": ["--strict", "--no-error-summary", "--no-warn-unused-ignores"], "pyright": []}


def check(checker, path):
    """Return the line numbers in which a type checker finds mistakes in a file, and all it says."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    command = [sys.executable, "-m", checker, *COMMANDS[checker], str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    said = done.stdout + done.stderr
    if checker == "pyright" and not re.search(r"^\d+ errors?", done.stdout, re.M):
        pytest.skip(f"pyright does not run: {said.strip().splitlines()[-1:]}")
    found = re.findall(rf"{re.escape(path.name)}:(\d+)(?::\d+)?[: -]+error", done.stdout)
    return sorted({int(line) for line in found}), said


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", COMMANDS)
def test_types_are_kept(checker):
    """A type checker agrees with every ``assert_type`` of the example."""
    lines, said = check(checker, EXAMPLES / "kept.py")

    assert lines == [], said


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", COMMANDS)
def test_mistakes_are_found(checker):
    """A type checker finds the mistakes in the lines that are marked, and no others."""
    path = EXAMPLES / "refused.py"
    text = path.read_text("utf-8").splitlines()
    marked = [number for number, line in enumerate(text, 1) if "# mistake" in line]
    lines, said = check(checker, path)

    assert lines == marked, said


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", COMMANDS)
def test_the_documented_example(checker, tmp_path):
    """A type checker finds in the example of docs/beyond.md the one mistake that the page tells."""
    files = Page("docs/beyond.md").files
    (text,) = [text for text in files.values() if "SelectorKey[" in text]
    path = tmp_path / "documented.py"
    path.write_text(text, "utf-8")
    lines, said = check(checker, path)

    wrong = [
        number for number, line in enumerate(text.splitlines(), 1) if "type checker refuses" in line
    ]
    assert lines == wrong, said


def test_the_example_runs():
    """The example is a program, not only types."""
    runpy.run_path(str(EXAMPLES / "kept.py"), run_name="__main__")


def test_nothing_of_it_is_there_at_run_time():
    """Keys are of the standard library's class, and nothing is imported for types."""
    assert selectors_ffi.SelectorKey is stdlib.SelectorKey
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from selectors_ffi.backends import interface\n"
        "print(hasattr(interface, 'Data'), 'typing_extensions' in sys.modules)"
    )
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
