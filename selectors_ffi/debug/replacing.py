"""Replacing: this package's selectors in place of the standard library's, in a whole process.

Done in the ``selectors`` module itself, so that ``import selectors`` finds it before and after;
and in every loaded module that took a class out of it by name (``subprocess._PopenSelector``,
``socketserver._ServerSelector``, ``from selectors import DefaultSelector``). What cannot be
reached: classes derived from the stdlib's before, and names kept inside functions or objects.
"""

from __future__ import annotations

import selectors
import sys
from types import ModuleType

__all__ = ["replace_selectors"]

_NAMES = (
    "SelectSelector",
    "PollSelector",
    "EpollSelector",
    "DevpollSelector",
    "KqueueSelector",
    "DefaultSelector",
)


def replace_selectors() -> list[str]:
    """Put this package's classes in place of the stdlib's.

    Returns:
        The places changed, as ``module.name``.
    """
    ours = sys.modules[__package__.partition(".")[0]]
    replaced = {}
    for name in _NAMES:
        old, new = getattr(selectors, name, None), getattr(ours, name, None)
        if isinstance(old, type) and new is not None and old is not new:
            replaced[old] = new
    changed = []
    for module in list(sys.modules.values()):
        # Not into this package's own, which names the stdlib's classes on purpose.
        if isinstance(module, ModuleType) and not module.__name__.startswith(f"{ours.__name__}."):
            changed += _replace_in(module, replaced)
    return changed


def _replace_in(module: ModuleType, replaced: dict[type, type]) -> list[str]:
    """Replace what the module names, without asking it (a module's ``__getattr__`` may import)."""
    changed = []
    for name, value in list(vars(module).items()):
        if isinstance(value, type) and value in replaced:
            setattr(module, name, replaced[value])
            changed.append(f"{module.__name__}.{name}")
    return changed
