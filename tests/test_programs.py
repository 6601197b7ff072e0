"""The comparison of real programs notices what it is made for; the programs have a step of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.programs import __main__ as programs
from tests.programs.suites import SUITES, WEEKLY, Suite

HERE = Path(programs.__file__).parent


@pytest.fixture
def reruns(monkeypatch):
    """Have every suite give the outcomes of this list when it is run again, in turn."""
    outcomes = []
    monkeypatch.setattr(programs, "run", lambda suite, whose, only=None: outcomes.pop(0))
    return outcomes


def test_equal_outcomes(capsys):
    """The same outcomes are no difference."""
    assert programs.compare(Suite("x", ()), {"a": "passed"}, {"a": "passed"}) == []
    assert capsys.readouterr().out == "x: 1 tests, 1 passed, 0 wrong\n"


def test_difference_that_stays(capsys, reruns):
    """A test that fails with ours, and again when it runs alone, is told with both outcomes."""
    reruns += [{"a": "passed"}, {"a": "failed: OSError"}] * 2
    stdlib, ours = {"a": "passed", "b": "passed"}, {"a": "failed: KeyError", "b": "passed"}

    assert programs.compare(Suite("x", ()), stdlib, ours) == ["a"]
    assert "    a: passed on the stdlib, failed: OSError on ours\n" in capsys.readouterr().out


def test_difference_that_goes_away(reruns):
    """A test that passes with both when it runs alone is no difference."""
    reruns += [{"a": "passed"}, {"a": "passed"}]

    assert programs.compare(Suite("x", ()), {"a": "failed: X"}, {"a": "passed"}) == []


def test_missing_test(reruns):
    """A test that one side does not run at all is a difference."""
    reruns += [{}, {}] * 2

    assert programs.compare(Suite("x", ()), {"a": "passed", "b": "passed"}, {"b": "passed"}) == ["a"]


def test_allowed_difference(capsys):
    """A difference with a reason is counted, and is no failure."""
    suite = Suite("x", (), differs={"a": "the reason"})

    assert programs.compare(suite, {"a": "passed", "b": "passed"}, {"a": "x", "b": "passed"}) == []
    assert "1 differ as they must" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ours", "alone", "runs"),
    [
        ({"a": "passed"}, None, []),
        ({"a": "passed", "b": "skipped"}, {"b": "skipped"}, [["b"]]),
        ({"a": "passed", "b": "skipped"}, {}, [["b"], None]),  # it cannot be run alone
        ({"x": "not through after 300 s"}, None, [None]),
    ],
)
def test_what_the_standard_library_runs(monkeypatch, ours, alone, runs):
    """It runs what did not pass with ours, and all of a suite where that is not enough."""
    asked = []

    def run(suite, whose, only=None):
        if whose == "ours":
            return ours
        asked.append(only)
        return {"all": "passed"} if only is None else alone

    monkeypatch.setattr(programs, "run", run)
    stdlib, _ = programs.run_pair(Suite("x", ()), whole=False)
    assert asked == runs
    assert stdlib == ({"all": "passed"} if None in runs else {**ours, **(alone or {})})

    asked.clear()
    assert programs.run_pair(Suite("x", ()), whole=True) == ({"all": "passed"}, ours)


def test_suite_in_which_nothing_passes(capsys):
    """A suite that does not run on either side has not shown anything, and both sides are told."""
    broken = {"x": "ended with status 1: ImportError"}

    assert programs.compare(Suite("x", ()), broken, broken) == ["nothing"]
    assert f"nothing passed: {broken} on the stdlib, {broken} on ours\n" in capsys.readouterr().out


def test_selection():
    """What differed is run again alone: by its name, a fixture by its class, pytest's by -k."""
    suite = Suite("x", ("test.test_x",))
    assert programs.selection(suite, ["test.test_x.A.test_b", "setUpClass (test.test_x.B)"]) == (
        "test.test_x.A.test_b",
        "test.test_x.B",
    )
    suite = Suite("x", ("pytest", "--pyargs", "x"))
    assert programs.selection(suite, ["x/test_a.py::A::test_b[1]", "x/test_a.py::test_c"]) == (
        *("pytest", "--pyargs", "x", "-k"),
        "test_b or test_c",
    )


def test_weekly_suites_exist():
    """What the daily run leaves out is named as it is called."""
    assert set(WEEKLY) <= {suite.name for suite in SUITES}


INTERRUPT = """
import signal, unittest
class Case(unittest.TestCase):
    def test_interrupt(self):
        with self.assertRaises(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)
"""
UNITTEST = """
import selectors, unittest
class Case(unittest.TestCase):
    def test_good(self): pass
    def test_whose(self): self.assertEqual(selectors.SelectSelector.__module__, "selectors")
    def test_error(self): {}["x"]
    def test_skipped(self): self.skipTest("x")
    @unittest.expectedFailure
    def test_expected(self): self.fail()
    def test_parts(self):
        with self.subTest(): pass
        with self.subTest(): self.fail()
"""
PYTEST = """
import pytest, selectors
def test_good(): pass
def test_whose(): assert selectors.SelectSelector.__module__ == "selectors"
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture
def broken(): raise KeyError
def test_error(broken): pass
"""


def outcomes(folder, whose, *what, before=None):
    """Run ``outcomes.py`` in a folder; return what it wrote, by the last part of each name.

    ``before`` is called in its process first.
    """
    file = folder / "outcomes.json"
    command = [sys.executable, str(HERE / "outcomes.py"), whose, str(file), *what]
    environment = {"PYTHONPATH": f"{folder}:{HERE.parents[1]}", "PATH": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, preexec_fn=before
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text("utf-8"))
    return {name.replace("::", ".").rpartition(".")[2]: value for name, value in found.items()}


@pytest.mark.skipif(sys.platform == "win32", reason="the path of modules is separated otherwise")
@pytest.mark.parametrize("whose", ["stdlib", "ours"])
def test_outcomes(tmp_path, whose):
    """Every outcome of unittest and of pytest is written, with the selectors that were asked for."""
    (tmp_path / "cases.py").write_text(UNITTEST)
    (tmp_path / "test_cases.py").write_text(PYTEST)
    same = whose == "stdlib"

    assert outcomes(tmp_path, whose, "cases") == {
        "test_good": "passed",
        "test_whose": "passed" if same else "failed: AssertionError",
        "test_error": "error: KeyError",
        "test_skipped": "skipped",
        "test_expected": "expected failure",
        "test_parts": "failed: AssertionError",
    }
    assert outcomes(tmp_path, whose, "pytest", "test_cases.py") == {
        "test_good": "passed",
        "test_whose": "passed" if same else "failed",
        "test_skipped": "skipped",
        "test_error": "failed",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="no shell there has SIGINT ignored")
def test_a_suite_is_interrupted_in_the_background(tmp_path):
    """SIGINT interrupts a suite, also if this program ignores it, as what a script starts with & does.

    Some tests of asyncio go on until they have interrupted themselves.
    """
    (tmp_path / "cases.py").write_text(INTERRUPT)
    ignored = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)

    assert outcomes(tmp_path, "stdlib", "cases", before=ignored) == {"test_interrupt": "passed"}
