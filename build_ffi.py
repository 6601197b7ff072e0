"""Compile the C declarations of selectors_ffi/_abi/cdef/ into importable modules.

``python build_ffi.py`` rewrites ``selectors_ffi/_abi/generated/*.py``, which are
committed: a user needs neither this file nor cffi's parser, and no C compiler is
called, here or there. The output is the same for every cffi from 1.14.3 on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from cffi import FFI

ABI = Path(__file__).parent / "selectors_ffi" / "_abi"
CDEF = ABI / "cdef"
GENERATED = ABI / "generated"

LINUX = ("linux_epoll_event.h", "linux.h")

# Target -> its cdef files. The order is that of use: a type before the call that takes it.
TARGETS: dict[str, tuple[str, ...]] = {
    "linux": ("linux_time.h", "linux_flags.h", *LINUX, "linux_calls.h"),
    "linux_x86": ("linux_time.h", "linux_flags.h", *LINUX, "linux_calls.h"),
    "linux_mips": ("linux_time.h", "linux_flags_mips.h", *LINUX, "linux_calls.h"),
    "linux_sparc": ("linux_time_sparc.h", "linux_flags_sparc.h", *LINUX, "linux_calls.h"),
    # 64-bit time on 32-bit processors that once had 32-bit time: other symbols.
    "linux_time64": ("linux_time64.h", "linux_flags.h", *LINUX, "linux_calls64.h"),
    "linux_x86_time64": ("linux_time64.h", "linux_flags.h", *LINUX, "linux_calls64.h"),
    "linux_mips_time64": ("linux_time64.h", "linux_flags_mips.h", *LINUX, "linux_calls64.h"),
    # 64-bit time on 32-bit processors that never had another: plain symbols.
    "linux_x32": ("linux_time64.h", "linux_flags.h", *LINUX, "linux_calls.h"),
    "linux_riscv32": ("linux_time64.h", "linux_flags.h", *LINUX, "linux_calls.h"),
    "darwin": ("darwin.h",),
    "freebsd": ("freebsd_time.h", "freebsd_kevent.h", "freebsd.h"),
    "freebsd_i386": ("freebsd_time_i386.h", "freebsd_kevent.h", "freebsd.h"),
    "freebsd11": ("freebsd_time.h", "freebsd11_kevent.h", "freebsd.h"),
    "freebsd11_i386": ("freebsd_time_i386.h", "freebsd11_kevent.h", "freebsd.h"),
    "netbsd": ("netbsd.h", "netbsd_kevent.h"),
    "netbsd11": ("netbsd.h", "netbsd11_kevent.h"),
    "openbsd": ("openbsd.h",),
    "dragonfly": ("dragonfly.h",),
    "sunos": ("sunos.h",),
    "windows": ("windows.h",),
    "libkqueue": ("libkqueue.h",),
    # Not an ABI: names whose presence tells which one this is.
    "probe": ("probe.h",),
}

# (target, file) whose structs have no padding.
PACKED = {
    ("linux_x86", "linux_epoll_event.h"),
    ("linux_x86_time64", "linux_epoll_event.h"),
    ("linux_x32", "linux_epoll_event.h"),
}


def generate(target: str) -> str:
    """Return the text of the generated module of one target."""
    ffi = FFI()
    for name in TARGETS[target]:
        source = (CDEF / name).read_text(encoding="utf-8")
        ffi.cdef(source, packed=(target, name) in PACKED)
    ffi.set_source(f"selectors_ffi._abi.generated.{target}", None, compiler_verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / f"{target}.py"
        ffi.emit_python_code(str(module))
        return module.read_text(encoding="utf-8")


def main() -> None:
    """Rewrite the generated modules, and remove those of targets that are gone."""
    for stale in GENERATED.glob("*.py"):
        if stale.stem not in TARGETS and stale.name != "__init__.py":
            stale.unlink()
    for target in TARGETS:
        (GENERATED / f"{target}.py").write_bytes(generate(target).encode("utf-8"))


if __name__ == "__main__":
    main()
