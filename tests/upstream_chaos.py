"""CPython's own tests under seeds of chaos: ``python -m tests.upstream_chaos [--seeds N] [MODULE ...]``.

Each module is run once without chaos, then under each seed, always on our selectors. A test that
fails under a seed only is a defect of ours, unless it assumes what no manual promises: those are
listed here by name, with the reason. Ends with status 1 if there are others.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent

_ASYNCIO = """
    base_events buffered_proto events runners selector_events sendfile server sock_lowlevel ssl
    sslproto streams subprocess unix_events
"""
MODULES = (
    "test.test_selectors",
    "test.test_socketserver",
    *(f"test.test_asyncio.test_{name}" for name in _ASYNCIO.split()),
)

#: Test, without its class -> what it assumes.
ASSUMPTIONS = {
    "test_above_fd_setsize": "one select() reports all of thousands of ready descriptors;"
    " epoll_wait(2) may report them over successive calls",
}

FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)


def main() -> int:
    """Run all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream_chaos")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("modules", nargs="*", default=MODULES)
    options = parser.parse_args()
    unexpected = 0
    for module in options.modules:
        begun = time.monotonic()
        count, baseline, log = run(module, None)
        if not count:
            print(f"{module}: not run\n{log[-1000:]}")
            continue
        assumed: set[str] = set()
        for seed in range(1, options.seeds + 1):
            ran, failed, log = run(module, seed)
            new = failed - baseline
            assumed |= {test for test in new if test.partition(" ")[0] in ASSUMPTIONS}
            bad = new - assumed
            if bad or ran != count:
                unexpected += 1
                print(f"{module}, seed {seed}: {ran} of {count} run, {sorted(bad)}\n{log[-5000:]}")
        print(
            f"{module}: {count} tests, {options.seeds} seeds, {len(baseline)} fail without chaos,"
            f" {len(assumed)} under it for what they assume, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        for test in sorted(assumed):
            print(f"    {test}: {ASSUMPTIONS[test.partition(' ')[0]]}")
    return 1 if unexpected else 0


def run(module: str, seed: int | None) -> tuple[int, set[str], str]:
    """Run a module; return (number of tests, tests that failed, output)."""
    chaos = [] if seed is None else ["--chaos", str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "selectors_ffi", "run", *chaos, "-m", "unittest", module],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=900,
    )
    ran = re.search(r"^Ran (\d+) tests", done.stdout, re.MULTILINE)
    failed = {f"{name} ({where})" for name, where in FAILED.findall(done.stdout)}
    return int(ran[1]) if ran else 0, failed, done.stdout


if __name__ == "__main__":
    sys.exit(main())
