# ruff: noqa: E501 - the rows of the table are long
"""Runs the reliability tests and writes what they did to docs/reliability.md.

``python -m tests.reliability`` runs the long profile with this interpreter.
Arguments name others, each with its profile: ``long=python3.13 short=pypy3``; after a
colon comes a module of tests that is run alone: ``long=python3.13:test_soak``.
Nothing is written unless every test passes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PAGE = os.path.join(ROOT, "docs", "reliability.md")

TESTS = (
    "kernels",
    "test_faults.py",
    "test_random_programs.py",
    "test_threads.py",
    "test_signals.py",
    "test_races.py",
    "test_fork.py",
    "test_errno.py",
    "test_async_exceptions.py",
    "test_soak.py",
)

#: What is counted -> the tests that count it.
FIGURES = {
    "faults injected": "test_faults",
    "steps of random programs": "test_random_programs",
    "threads run": "test_threads",
    "orders of two changes of one descriptor": "test_races",
    "signals handled": "test_signals, test_errno, test_contract_select",
    "forks made": "test_fork",
    "asynchronous exceptions": "test_async_exceptions",
    "descriptors held by epoll": "test_soak",
    "descriptors held by poll": "test_soak",
    "descriptors held by select": "test_soak",
    "register and unregister cycles": "test_soak",
    "events delivered in a ring": "test_soak",
    "selectors made and dropped": "test_soak",
    "searches for leaked descriptors": "all of these",
}

HEAD = """\
# Reliability

Written by `python -m tests.reliability`; every figure was counted by the tests while they ran,
and all of them passed. Linux's epoll, poll and select are the real ones. kqueue and /dev/poll
ran on simulated kernels (`selectors_ffi.testing.kernels`): FreeBSD 11 and 12+, NetBSD 6 to 10 and 11, OpenBSD,
DragonFly, macOS; illumos, Solaris 10 and 11. They use those systems' own memory layouts and
real descriptors, and follow their manuals and sources; they are not those systems. A simulated
epoll runs the same programs as the real one and must agree with it.

"""

TAIL = """
## What is asked of the selectors

| test | afterwards |
|---|---|
| each system call fails, at each place of a program, with each errno of its manual | the caller gets that errno in the right subclass of `OSError`, or does not notice it; registry, kernel and the caller's view agree; the same call succeeds when made again; no descriptor is left |
| random programs of calls, closes, duplicates, reused numbers, writes, shutdowns and signals | each step is what an oracle of the mechanism predicts; the standard library's selector on the same descriptors agrees |
| threads register, change, remove, wait and close at once | no wake-up is lost, no key is wrong, no wait returns before its time |
| a second thread does its whole register, modify or unregister before or after each system call of the first one's, on the same descriptor | registry and kernel agree, and what is ready is reported as it is registered |
| signal handlers return, raise, make failing calls, use or close the very selector | waits are not shortened, exceptions come out, no errno is changed |
| fork | epoll is shared, kqueue is gone and its number spared, /dev/poll says whose it is, poll and select are copies |
| `KeyboardInterrupt` at every bytecode of register, unregister, modify and select (PyPy: every line); in the short profile at every 167th of select, and `KeyError` and `TimeoutError` at every fifth of the others | the descriptor can be unregistered and registered again, others are as before; the next wait is right |
| as many descriptors as the limit allows, cycles and events without end | memory and descriptors stay flat; idle descriptors cost epoll nothing |

## Under chaos

`python -m tests.upstream_chaos` runs CPython's own tests on our selectors while waits answer in other
orders and at other times ([docs/testing.md](testing.md)). With CPython 3.13.0, `test_selectors`,
`test_socketserver` and all of `test_asyncio` that is not for Windows (28 modules, 2 500 tests) ran under
20 seeds. Nothing failed but what assumes more than the manuals promise:

| test | what it assumes |
|---|---|
| `test_above_fd_setsize` of epoll and poll | one `select()` reports all of thousands of ready descriptors; `epoll_wait(2)` may report them over successive calls, and `poll(2)` does not say how soon |
| `test_modify_unregister`, also without chaos | a refused `modify` loses the registration: [differences](differences.md) |

With `spurious`, `test_socketserver` may hang: `serve_forever()` waits for a blocking listener with a selector
and then blocks in `accept()`, which is what `select(2)`, BUGS, warns of.

## Coverage

`coverage run -m pytest`, then `coverage combine` and `coverage report`, with the settings in
`pyproject.toml`: below 99.9 % of the branches on CPython is a failure. Tests set up what other
interpreters, older kernels and other systems run. The lines left out name Windows, PyPy, or systems
whose ABI is not known.

## What is not proven

- The other systems' real kernels: nothing here ran on them.
- A stale registration (its number is closed, a duplicate keeps the file open) goes on waking epoll. The
  set is replaced by one without it, unless the set may not be ours alone: after `fileno()` or a fork,
  and on a kernel without dup3(2). Then `select()` returns an empty list at once, over and over, as the
  standard library does. libkqueue reports such a descriptor too, and nothing can stop it; a wait that
  gets no other event looks again every 20 ms.
- With several registrations of one number that changed its file back and forth while all those
  files stayed open, epoll's event of one may be taken for another's; the oracle calls it vague.
- What /dev/poll reports for a closed descriptor before it is unregistered differs between
  releases; only that nothing impossible is returned is checked.
"""


def main(arguments: list[str]) -> int:
    """Run all, write the page."""
    columns = []
    for argument in arguments or [f"long={sys.executable}"]:
        profile, _, python = argument.partition("=")
        python, _, module = python.partition(":")
        columns.append(run(profile, python, (f"{module}.py",) if module else TESTS))
    with open(PAGE, "w", encoding="utf-8") as page:
        page.write(HEAD + table(columns) + TAIL)
    print(table(columns))
    return 0


def run(profile: str, python: str, modules: tuple[str, ...]) -> tuple[str, Counter[str]]:
    """One interpreter's (title, figures)."""
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "tally")
        environment = {**os.environ, "SELECTORS_FFI_TALLY": path, "SELECTORS_FFI_PROFILE": profile}
        tests = [os.path.join("tests", name) for name in modules]
        started = time.monotonic()
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout)
        figures: Counter[str] = Counter()
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                figures.update(json.loads(line))
    figures["seconds"] = round(time.monotonic() - started)
    figures["tests passed"] = int(re.findall(r"(\d+) passed", done.stdout)[-1])
    asked = "import platform as p; print(p.python_implementation(), p.python_version())"
    name = subprocess.run([python, "-c", asked], stdout=subprocess.PIPE, text=True, check=True)
    part = "" if modules == TESTS else f" of {modules[0][:-3]}"
    return f"{name.stdout.strip()}, {profile} profile{part}", figures


def table(columns: list[tuple[str, Counter[str]]]) -> str:
    """The figures, one column for each run."""
    lines = [
        f"Measured on {platform.system()} {platform.release().split('-')[0]}, "
        f"{platform.machine()}, {os.cpu_count()} processors.",
        "",
        "| | " + " | ".join(title for title, _ in columns) + " | counted by |",
        "|---|" + "---:|" * len(columns) + "---|",
    ]
    rows = {"tests passed": "pytest", **FIGURES}
    for row, source in rows.items():
        # A column of one module alone has nothing to say about the others.
        cells = " | ".join(f"{figures[row]:,}" if figures[row] else "" for _, figures in columns)
        lines.append(f"| {row} | {cells} | {source} |")
    zeros = " | ".join("0" for _ in columns)
    lines.append(f"| descriptors found leaked | {zeros} | all of these |")
    cells = " | ".join(f"{figures['seconds']:,}" for _, figures in columns)
    lines.append(f"| seconds | {cells} | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
