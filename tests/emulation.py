"""Whether this process runs under user-mode emulation, as qemu-user does it.

There the processor is another one than the kernel's, and some of the kernel's work
is done by the emulator, within limits of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from selectors_ffi._abi.target import process_machine

#: The processors whose kernels run each other's programs without an emulator.
_FAMILIES = ({"x86_64", "i386"}, {"aarch64", "arm"})


def _emulated() -> bool:
    try:
        kernel = Path("/proc/sys/kernel/arch").read_text(encoding="ascii").strip()  # Linux 6.1
    except OSError:
        return False
    machines = {process_machine(kernel, 8), process_machine(os.uname().machine, 8)}
    return len(machines) > 1 and not any(machines <= family for family in _FAMILIES)


EMULATED = _emulated()
