"""Instructions per operation, counted by callgrind: the one measure of speed that repeats.

``python -m tests.instructions`` writes the baseline of this interpreter anew; see ``fits`` for what
it is compared with.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.instructions.workload import CALLS, OPERATIONS, SIDES

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.05
SAME_BUILD = 0.02
TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


def interpreter():
    """Return the name of the baseline for this interpreter."""
    import _cffi_backend

    minor = ".".join(platform.python_version_tuple()[:2])
    name = f"{platform.python_implementation()} {minor}, cffi {_cffi_backend.__version__}"
    return f"{name}, {platform.machine()}"


def why_not():
    """Return why nothing can be counted here, or None."""
    if platform.python_implementation() != "CPython":
        return "instructions of a compiler at run time do not repeat"
    if sys.platform != "linux":
        return "the operations are of epoll"
    if sys.gettrace() is not None or "coverage" in sys.modules:
        return "the interpreter is being traced"
    return None if shutil.which("valgrind") else "there is no valgrind"


def count():
    """Return operation -> {"stdlib": instructions per call, "ours": ...}; about ten seconds."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDEVMODE": ""}
        environment.pop("SELECTORS_FFI_DEBUG", None)
        environment.pop("COVERAGE_PROCESS_CONFIG", None)  # the tests may be measured, this is not
        subprocess.run(
            [
                "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
                "--dump-before=getppid", sys.executable, "-m", "tests.instructions.workload",
            ],
            cwd=Path(__file__).parents[2], env=environment, check=True, timeout=300,
            capture_output=True,
        )  # fmt: skip
        # One dump for what came before each marker, and the last one for the rest.
        dumps = [Path(f"{out}.{i}") for i in range(1, 3 * len(OPERATIONS) * len(SIDES) + 1)]
        totals = [int(TOTAL.search(dump.read_text())[1]) for dump in dumps]
    counts = {}
    for name in OPERATIONS:
        counts[name] = {}
        for side in SIDES:
            # Whatever led here, then CALLS calls, then twice as many; the rest is the loop's.
            _, once, twice = totals[:3]
            del totals[:3]
            counts[name][side] = round((twice - once) / CALLS)
    return counts


def read():
    """Return the committed baselines, by name of the interpreter."""
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}


def fits(baseline, counts):
    """Tell whether a baseline was made with this very build.

    Compilers and their options differ from build to build of one version. The standard library's
    counts tell: where those have not changed, ours are comparable.
    """
    return all(
        abs(counts[name]["stdlib"] - sides["stdlib"]) <= SAME_BUILD * sides["stdlib"]
        for name, sides in baseline.items()
    )


def grown(baseline, counts):
    """Return a line for each operation that takes more instructions than the baseline allows."""
    return [
        f"{name}: {sides['ours']} -> {counts[name]['ours']} instructions"
        for name, sides in baseline.items()
        if counts[name]["ours"] > sides["ours"] * (1 + TOLERANCE)
    ]
