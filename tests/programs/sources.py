"""The tests that a project has in its source distribution and not in what is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

LIMIT = 120  # seconds to have it


def source_of(project: str, folder: Path) -> Path:
    """Put the sources of the installed version into ``folder``; return their folder.

    Raises:
        OSError: it is not to be had here; the text says why.
    """
    found = folder / project
    words = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(found)]
    command = [sys.executable, "-m", "pip", *words, f"{project}=={version(project)}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise OSError(f"its source was not there after {LIMIT} s") from None
    archives = list(found.glob("*.tar.gz"))
    if done.returncode or not archives:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(f"its source is not to be had: {' '.join(last)}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(found, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    source = next(path for path in found.iterdir() if path.is_dir())
    # What the project's own configuration asks for (coverage, many processes) is not for here.
    (source / "tests" / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return source
