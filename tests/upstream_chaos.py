"""CPython's own tests under seeds of chaos: ``python -m tests.upstream_chaos [--seeds N] [MODULE ...]``.

The modules are test_selectors, test_socketserver, and all of test_asyncio that this system has. Each is
run once without chaos, then under each seed, always on our selectors. A test that fails is a defect of
ours, unless it assumes what no manual promises: those are listed here by name, with the reason. Ends
with status 1 if there are others.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent

MODULES = ("test.test_selectors", "test.test_socketserver")
_OF_WINDOWS = ("test_proactor_events", "test_windows_events", "test_windows_utils")
_LONGEST = 900  # seconds that one run takes

#: Test, without its class -> what it assumes.
ASSUMPTIONS = {
    "test_above_fd_setsize": "one select() reports all of thousands of ready descriptors;"
    " epoll_wait(2) may report them over successive calls, and poll(2) does not say how soon",
    "test_modify_unregister": "the private attribute _selector_cls, and that a refused modify loses the"
    " registration; see docs/differences.md",
}

FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)


def main() -> int:
    """Run all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream_chaos")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("modules", nargs="*", default=(*MODULES, *asyncio_modules()))
    options = parser.parse_args()
    # In the background a shell ignores it, and so would the tests that interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unexpected = 0
    for module in options.modules:
        begun = time.monotonic()
        count, baseline, log = run(module, None)
        if not count:
            print(f"{module}: not run\n{log[-1000:]}")
            continue
        assumed: set[str] = set()
        for seed in (None, *range(1, options.seeds + 1)):
            ran, failed, log = run(module, seed) if seed else (count, baseline, log)
            assumed |= {test for test in failed if test.partition(" ")[0] in ASSUMPTIONS}
            bad = failed - assumed
            if bad or ran != count:
                unexpected += 1
                print(f"{module}, seed {seed}: {ran} of {count} run, {sorted(bad)}\n{log[-5000:]}")
        print(
            f"{module}: {count} tests, without chaos and under {options.seeds} seeds,"
            f" {len(assumed)} fail for what they assume, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        for test in sorted(assumed):
            print(f"    {test}: {ASSUMPTIONS[test.partition(' ')[0]]}")
    return 1 if unexpected else 0


def asyncio_modules() -> list[str]:
    """Return the names of the modules of asyncio's own tests."""
    spec = find_spec("test.test_asyncio")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else ROOT / "nowhere"
    names = sorted(path.stem for path in folder.glob("test_*.py"))
    return [f"test.test_asyncio.{name}" for name in names if name not in _OF_WINDOWS]


def run(module: str, seed: int | None) -> tuple[int, set[str], str]:
    """Run a module; return (number of tests, tests that failed, output)."""
    chaos = [] if seed is None else ["--chaos", str(seed)]
    with subprocess.Popen(
        [sys.executable, "-m", "selectors_ffi", "run", *chaos, "-m", "unittest", module],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        try:
            output, _ = child.communicate(timeout=_LONGEST)
        except subprocess.TimeoutExpired:
            child.kill()
            output = f"{child.communicate()[0]}\nnot through after {_LONGEST} s"
    ran = re.search(r"^Ran (\d+) tests?", output, re.MULTILINE)
    failed = {f"{name} ({where})" for name, where in FAILED.findall(output)}
    return int(ran[1]) if ran else 0, failed, output


if __name__ == "__main__":
    sys.exit(main())
