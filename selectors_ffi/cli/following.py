"""Following: trace the Python processes that a traced program starts.

A child finds two variables in its environment. ``PYTHONPATH`` begins with a folder of ours whose
``sitecustomize`` calls ``begin``; ``SELECTORS_FFI_TRACE`` holds the settings. This reaches children of
subprocess and of multiprocessing, by spawn and forkserver; a forked child is traced anyway. It does
not reach a child that is started without the environment, or with ``python -I``, ``-E`` or ``-S``.
"""

from __future__ import annotations

import json
import os
import stat

from .tracing import Settings, Tracing

__all__ = ["VARIABLE", "begin", "children_follow"]

VARIABLE = "SELECTORS_FFI_TRACE"
_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "children")


def children_follow(settings: Settings) -> Settings:
    """Have children traced, too; return the settings that this process and they share."""
    if settings.output:
        settings = settings._replace(output=os.path.abspath(settings.output))
    else:
        settings = settings._replace(terminal=_own_standard_error())
    settings = settings._replace(first=os.getpid())
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_FOLDER, before)))
    os.environ[VARIABLE] = json.dumps(settings._asdict())
    return settings


def _own_standard_error() -> str:
    """Return a path by which a child can open our standard error; "" if there is none."""
    try:
        mode = os.fstat(2).st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode):
        _append(2)  # else what one process writes would lie over what another has written
    path = f"/proc/{os.getpid()}/fd/2"
    return path if os.path.exists(path) and not stat.S_ISSOCK(mode) else ""


def _append(fd: int) -> None:
    try:
        from fcntl import F_GETFL, F_SETFL, fcntl

        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | os.O_APPEND)
    except (ImportError, OSError):
        pass


def begin() -> None:
    """Trace this process, which a traced one has started."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    settings = Settings(**json.loads(text))
    tracing = Tracing(settings, child=True)
    tracing.open()
    tracing.begin()
