"""What else is measured where it is installed, and the room for it."""

from __future__ import annotations

import collections
import collections.abc
import importlib
from typing import Any


def packages() -> dict[str, Any]:
    """Return the installed packages that stand in for ``selectors``: name -> module.

    selectors2 2.0.2 takes ``Mapping`` from ``collections``, where it was until Python 3.9.
    """
    if not hasattr(collections, "Mapping"):
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    return installed("selectors2")


def installed(name: str) -> dict[str, Any]:
    """Return {name: module}, or nothing if there is no such module."""
    try:
        return {name: importlib.import_module(name)}
    except ImportError:
        return {}


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
