"""Counts of what the tests really did, for ``tests.reliability``.

With SELECTORS_FFI_TALLY naming a file, the counts of the process are appended
to it as one line of JSON when the process ends.
"""

from __future__ import annotations

import atexit
import collections
import json
import os

counts: collections.Counter[str] = collections.Counter()


def count(what: str, number: int = 1) -> None:
    """Add to a figure."""
    counts[what] += number


def long_profile() -> bool:
    """Whether the long profile is asked for; the short one is for every commit."""
    return os.environ.get("SELECTORS_FFI_PROFILE") == "long"


def _write(path: str, process: int) -> None:
    if os.getpid() == process:
        with open(path, "a", encoding="utf-8") as out:
            out.write(json.dumps(counts) + "\n")


if "SELECTORS_FFI_TALLY" in os.environ:
    atexit.register(_write, os.environ["SELECTORS_FFI_TALLY"], os.getpid())
