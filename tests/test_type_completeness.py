"""Every public name has a known type: for those who type-check programs that use the package."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
@pytest.mark.timeout(300)
def test_all_types_are_known(tmp_path):
    """Pyright finds no public name whose type it has to guess."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "selectors_ffi", "--ignoreexternal"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable],
        cwd=tmp_path,  # it must find the package as an installed one
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    found = done.stdout.splitlines()
    wrong = [" ".join(found[i - 1 : i + 2]) for i, line in enumerate(found) if "error: " in line]
    assert "Type completeness score: 100%" in done.stdout, "\n".join(wrong) or done.stderr
