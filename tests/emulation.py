"""Whether this process runs under user-mode emulation, as qemu-user does it.

There the processor is another one than the kernel's, and some of the kernel's work
is done by the emulator, within limits of its own.
"""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from selectors_ffi._abi.target import process_machine

#: The processors whose kernels run each other's programs without an emulator.
_FAMILIES = ({"x86_64", "i386"}, {"aarch64", "arm"})


def _emulated() -> bool:
    try:
        kernel = Path("/proc/sys/kernel/arch").read_text(encoding="ascii").strip()  # Linux 6.1
    except OSError:
        return False
    machines = {process_machine(kernel, 8), process_machine(platform.machine(), 8)}
    return len(machines) > 1 and not any(machines <= family for family in _FAMILIES)


EMULATED = _emulated()


def needs_large_sets(mechanism: str) -> None:
    """Skip what hands select(2) a number above FD_SETSIZE, where an emulator cannot take it.

    qemu-user 11.1 copies the sets into an fd_set of its own whatever their size. The call made by
    ctypes alone, with a number of 1030, is answered by the kernel and ends the emulator: "bit out
    of range 0 - FD_SETSIZE on fd_set".
    """
    if EMULATED and mechanism == "select":
        pytest.skip("qemu copies the sets into an fd_set of its own, and ends itself past its end")
