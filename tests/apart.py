"""Programs that run apart from the tests, in an interpreter that can import this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from tests.source import ROOT


def python(
    *words: object,
    cwd: Path | None = None,
    timeout: float = 50,
    stderr: int | IO[str] = subprocess.PIPE,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter on ``words``, with ``variables`` in its environment."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=timeout,
    )


def trace(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run ``trace`` on ``words``; the settings are those of ``python``."""
    return python("-m", "selectors_ffi", "trace", *words, **settings)
