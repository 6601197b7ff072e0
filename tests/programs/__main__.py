"""Compare real programs on our selectors with the same on the standard library's, test by test.

python -m tests.programs            every suite whose package is installed
python -m tests.programs --weekly   those that take long, too
python -m tests.programs --only asyncio

Each suite runs on ours, and what does not pass there on the standard library's, with --weekly all of it.
Several suites run at a time: they wait more than they work. Tests with different outcomes run again,
with nothing beside them; a difference that stays is a failure, unless ``suites.py`` says why it must be.
Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import servers, sources
from .suites import SUITES, WEEKLY, Suite

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AT_ONCE = 6
LIMIT = 300  # seconds for one suite

Outcomes = dict[str, str]
#: Project -> the folder of its source, where its tests are not installed.
SOURCES: dict[str, Path] = {}


def main() -> int:
    """Run the suites and the servers, print a line for each; 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", metavar="TEXT", default="", help="what has TEXT in its name")
    parser.add_argument("--weekly", action="store_true", help="also what takes long")
    options = parser.parse_args()
    begun = time.monotonic()
    chosen = [suite for suite in SUITES if options.only in suite.name]
    if not options.weekly:
        chosen = [suite for suite in chosen if suite.name not in WEEKLY]
    with ThreadPoolExecutor(AT_ONCE) as pool, tempfile.TemporaryDirectory() as folder:
        here = prepared(chosen, pool, Path(folder))
        pairs = pool.map(partial(run_pair, whole=options.weekly), here)
        differ = [compare(suite, *pair) for suite, pair in zip(here, list(pairs))]
    wrong = servers.check(options.only)
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if any(differ) or wrong else 0


def prepared(suites: list[Suite], pool: ThreadPoolExecutor, folder: Path) -> list[Suite]:
    """Return the suites that can run here; say of each other one why it is not run."""
    here = []
    for suite, missing in zip(suites, pool.map(Suite.missing, suites)):
        if missing:
            print(f"{suite.name}: not run, {', '.join(missing)} cannot be imported here")
        else:
            here.append(suite)
    fetched = {
        name: pool.submit(sources.source_of, name, folder) for name in {s.source for s in here} - {""}
    }
    for suite in [suite for suite in here if suite.source]:
        try:
            SOURCES[suite.source] = fetched[suite.source].result()
        except OSError as error:
            print(f"{suite.name}: not run, {error}")
            here.remove(suite)
    return here


def run_pair(suite: Suite, whole: bool) -> tuple[Outcomes, Outcomes]:
    """Run a suite on ours and on the standard library's selectors; return (stdlib's, our) outcomes.

    One after the other: the tests of some listen on numbered ports. Without ``whole`` the standard
    library is taken to pass what ours passes.
    """
    ours = run(suite, "ours")
    others = [test for test, outcome in ours.items() if outcome != "passed"]
    whole = whole or suite.name in others
    stdlib = run(suite, "stdlib", others) if others and not whole else {}
    if whole or not stdlib.keys() >= set(others):  # one of them cannot be run alone
        return run(suite, "stdlib"), ours
    return {**ours, **stdlib}, ours


def run(suite: Suite, whose: str, only: list[str] | None = None) -> Outcomes:
    """Run a suite, or some tests of it, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.json"
        what = suite.what if only is None else selection(suite, only)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONUNBUFFERED", None)  # curio's tests expect a line in one piece
        place = Path(folder)
        if suite.source:
            place = place / "source"
            shutil.copytree(SOURCES[suite.source], place)
            place = place / "tests"
        try:
            done = subprocess.run(
                [sys.executable, str(HERE / "outcomes.py"), whose, str(file), *what],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return {suite.name: f"not through after {LIMIT} s"}
        if not file.exists():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            return {suite.name: f"ended with status {done.returncode}: {' '.join(last)}"}
        outcomes: Outcomes = json.loads(file.read_text("utf-8"))
        # pytest names a test by its path from where it began.
        return {name.rpartition("site-packages/")[2]: value for name, value in outcomes.items()}


def selection(suite: Suite, tests: list[str]) -> tuple[str, ...]:
    """Return what runs some tests of a suite alone."""
    if suite.what[0] != "pytest":
        # Of a fixture, "setUpClass (package.module.Class)", the class.
        return tuple(test.partition("(")[2].rstrip(")") or test for test in tests)
    words = [" and ".join(test.rpartition("::")[2].partition("[")[0].split()) for test in tests]
    return (*suite.what, "-k", " or ".join(sorted(set(words))))


def compare(suite: Suite, stdlib: Outcomes, ours: Outcomes) -> list[str]:
    """Print how a suite went; return the tests that differ and must not."""
    different = differences(suite, stdlib, ours)
    for _ in range(2):
        if not different or suite.name in different:
            break
        again = [run(suite, whose, different) for whose in ("stdlib", "ours")]
        stdlib, ours = {**stdlib, **again[0]}, {**ours, **again[1]}
        different = differences(suite, stdlib, ours)
    passed = sum(outcome == "passed" for outcome in ours.values())
    allowed = [test for test in suite.differs if stdlib.get(test) != ours.get(test)]
    told = f", {len(allowed)} differ as they must" if allowed else ""
    print(f"{suite.name}: {len(ours)} tests, {passed} passed{told}, {len(different)} wrong", flush=True)
    for test in different:
        print(f"    {test}: {stdlib.get(test)} on the stdlib, {ours.get(test)} on ours")
    if not passed:
        print(f"    nothing passed: {stdlib} on the stdlib, {ours} on ours")
        return ["nothing"]
    return different


def differences(suite: Suite, stdlib: Outcomes, ours: Outcomes) -> list[str]:
    """Return the tests whose outcomes differ, without those that may."""
    return sorted(
        test
        for test in {*stdlib, *ours}
        if stdlib.get(test) != ours.get(test) and test not in suite.differs
    )


if __name__ == "__main__":
    sys.exit(main())
