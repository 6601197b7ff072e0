"""How to repeat a run: the command as a shell takes it, with the variables that decide about it."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from .ambient import CHAOS, INJECT, KERNEL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["shown"]

_DECIDING = (KERNEL, "SELECTORS_FFI_BACKEND", INJECT, CHAOS)


def shown(command: Sequence[str], without: str = "") -> str:
    """Return a line for a shell that runs a command as the variables of this process have it.

    Args:
        command: the program and its arguments.
        without: a variable that was not set in the run, whatever it is here.
    """
    values = {name: os.environ[name] for name in _DECIDING if os.environ.get(name)}
    if without in values:
        values[without] = ""  # which is as if it were not set
    if os.name == "nt":  # as cmd takes it, where it is an error to unset what is not set
        decided = [f'set "{name}={value}" &' for name, value in values.items()]
        return " ".join([*decided, subprocess.list2cmdline(command)])
    decided = [f"{name}={value and shlex.quote(value)}" for name, value in values.items()]
    return " ".join([*decided, *map(shlex.quote, command)])
