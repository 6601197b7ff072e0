"""Run a suite in this process and write each test's outcome: ``python outcomes.py WHOSE FILE WHAT...``.

``WHOSE`` is ``ours`` or ``stdlib``. ``WHAT`` is modules of unittest, or ``pytest`` and its arguments.
Nothing of the suite is imported before our selectors are installed.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import unittest
from typing import Any


class Outcomes(unittest.TextTestResult):
    """The outcome of every test and subtest, by its name."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.outcomes: dict[str, str] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        """Note that a test ended, well if nothing else was noted."""
        super().stopTest(test)
        self.outcomes.setdefault(test.id(), "passed")

    def addError(self, test: Any, err: Any) -> None:
        """Note an error; also of a fixture, which is no test."""
        super().addError(test, err)
        self.outcomes[test.id()] = f"error: {err[0].__name__}"

    def addFailure(self, test: Any, err: Any) -> None:
        """Note a failure."""
        super().addFailure(test, err)
        self.outcomes[test.id()] = f"failed: {err[0].__name__}"

    def addSkip(self, test: Any, reason: str) -> None:
        """Note that a test was skipped."""
        super().addSkip(test, reason)
        self.outcomes[test.id()] = "skipped"

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """Note a failure that the suite expects."""
        super().addExpectedFailure(test, err)
        self.outcomes[test.id()] = "expected failure"

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        """Note a failed subtest as its test's failure."""
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcomes[test.id()] = f"failed: {err[0].__name__}"


def run_unittest(modules: list[str]) -> dict[str, str]:
    """Run modules of unittest."""
    # Tornado's own runner does the same: its tests allow no line in the log.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    runner = unittest.TextTestRunner(resultclass=Outcomes, verbosity=0, stream=sys.stderr)
    result = runner.run(suite)
    assert isinstance(result, Outcomes)
    return result.outcomes


class Plugin:
    """The outcome of every test of pytest."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the call of a test, and what failed before or after it."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_collectreport(self, report: Any) -> None:
        """Note a module that cannot be imported."""
        if report.outcome == "failed":
            self.outcomes[report.nodeid] = "not collected"


def run_pytest(arguments: list[str]) -> dict[str, str]:
    """Run pytest."""
    import pytest

    plugin = Plugin()
    pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[plugin])
    return plugin.outcomes


def main(whose: str, file: str, what: list[str]) -> None:
    """Install our selectors if asked to, run, write."""
    # In the background a shell ignores it. Then tests that interrupt themselves would go on without end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if whose == "ours":
        import selectors_ffi

        selectors_ffi.install()
    outcomes = run_pytest(what[1:]) if what[0] == "pytest" else run_unittest(what)
    import selectors

    installed = "stdlib" if selectors.SelectSelector.__module__ == "selectors" else "ours"
    assert installed == whose, "the suite has put other selectors in place"
    with open(file, "w", encoding="utf-8") as output:
        json.dump(outcomes, output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
