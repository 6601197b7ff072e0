"""Which ABI this process has: its target, and the link symbol of each C function.

The decision is a pure function of what ``Host`` holds and of the symbols that libc
exports. It goes by symbol and by the process, never by the kernel's release or word
size: an old jail on a new kernel, or a 32-bit Python on a 64-bit kernel, has the ABI
of its own C library. Where nothing certain is known there is no target, and the
reason says so; there is no guess and no nearest match.
"""

from __future__ import annotations

import os
import struct
import sys

from . import TARGETS, load_probe

TYPE_CHECKING = False  # typing's own costs a few milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable

    # Whether libc exports a symbol; ``name@VERSION`` asks for that version of it.
    Has = Callable[[str], bool]

# C function -> link symbols, tried in order; all take the same structs. A function
# that is not here has its own name. A symbol with other structs is another target.
_PLAIN: Mapping[str, tuple[str, ...]] = {}
_TIME64: Mapping[str, tuple[str, ...]] = {
    "select": ("__select_time64", "__select64"),
    "ppoll": ("__ppoll_time64", "__ppoll64"),
    "epoll_pwait2": ("__epoll_pwait2_time64",),
}

SYMBOLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(TARGETS, _PLAIN),
    "linux_time64": _TIME64,
    "linux_x86_time64": _TIME64,
    "linux_mips_time64": _TIME64,
    # The first is the only one without the limit of nfds <= 1024.
    "darwin": {"select": ("select$DARWIN_EXTSN", "select$1050", "select")},
    "netbsd": {"select": ("__select50",), "kevent": ("__kevent50",)},
    "netbsd11": {"select": ("__select50",), "kevent": ("__kevent100",)},
}


class Host:
    """What a process knows of its own ABI without asking libc.

    Args:
        platform: ``sys.platform``, but "android" also where Python before 3.13 says "linux".
        machine: the processor of the process, see ``process_machine``.
        pointer_size: in bytes.
        byteorder: "little" or "big".
    """

    def __init__(self, platform: str, machine: str, pointer_size: int, byteorder: str) -> None:
        self.platform = platform
        self.machine = machine
        self.pointer_size = pointer_size
        self.byteorder = byteorder


class Decision:
    """The target of a process, or None; ``reason`` says why in either case."""

    def __init__(self, target: str | None, reason: str) -> None:
        self.target = target
        self.reason = reason


def symbols_for(target: str, name: str) -> tuple[str, ...]:
    """Return the link symbols of one C function, in the order to try them."""
    return SYMBOLS[target].get(name, (name,))


def decide(platform: str, machine: str, pointer_size: int, byteorder: str, has: Has) -> Decision:
    """Return the target for a process, from ``Host``'s fields and libc's symbols."""
    host = Host(platform, process_machine(machine, pointer_size), pointer_size, byteorder)
    choose = _SYSTEMS.get(platform.rstrip("0123456789"))
    if choose is None:
        return Decision(None, f"the ABI of {platform} is not known")
    return choose(host, has)


def process_machine(machine: str, pointer_size: int, align_int64: int = 4) -> str:
    """Return the processor that a process runs as, by one name each.

    Args:
        machine: what uname says, of the kernel.
        pointer_size: of the process, in bytes.
        align_int64: of an int64_t in a struct; tells x32 (8) from i386 (4).
    """
    machine = machine.lower()
    if machine in ("x86_64", "amd64", "x32", "i86pc", "i386", "i486", "i586", "i686"):
        if pointer_size == 8:
            return "x86_64"
        return "x32" if machine == "x32" or align_int64 == 8 else "i386"
    for prefix, narrow, wide in _PROCESSORS:
        if machine.startswith(prefix):
            return wide if pointer_size == 8 else narrow
    return machine


# How uname's names begin -> the 32-bit and the 64-bit processor.
_PROCESSORS = (
    ("aarch64", "arm", "aarch64"),
    ("arm64", "arm", "aarch64"),
    ("arm", "arm", "aarch64"),
    ("riscv", "riscv32", "riscv64"),
    ("mips", "mips", "mips64"),
    ("ppc", "ppc", "ppc64"),
    ("powerpc", "ppc", "ppc64"),
    ("sparc", "sparc", "sparc64"),
    ("sun4", "sparc", "sparc64"),
    ("s390", "s390", "s390x"),
    ("loongarch", "loongarch32", "loongarch64"),
)


def current() -> Host:
    """Return what is known of this process."""
    system = "android" if hasattr(sys, "getandroidapilevel") else sys.platform
    size = struct.calcsize("P")
    align = struct.calcsize("iq") - struct.calcsize("q")
    # Windows has no uname, and an ABI that does not depend on the processor.
    machine = os.uname().machine if hasattr(os, "uname") else ""
    return Host(system, process_machine(machine, size, align), size, sys.byteorder)


def host(has: Has) -> Decision:
    """Return the target of this process; ``has`` is ``presence(...)``, as a rule."""
    here = current()
    return decide(here.platform, here.machine, here.pointer_size, here.byteorder, has)


def presence(open_library: Callable[[Any], Any]) -> Has:
    """Return a ``has`` that looks symbols up in a library, opened when first asked.

    Args:
        open_library: called with an FFI, returns the library opened with it:
            ``lambda ffi: ffi.dlopen(None)``.
    """
    opened: list[Any] = []

    def has(symbol: str) -> bool:
        if not opened:
            ffi = load_probe()
            opened.extend((ffi, open_library(ffi)))
        ffi, library = opened
        name, _, version = symbol.partition("@")
        try:
            if not version:
                return bool(getattr(library, name))
            if not sys.platform.startswith("freebsd"):
                return False  # RTLD_DEFAULT has another number there
            handle = ffi.cast("void *", ffi.integer_const("RTLD_DEFAULT"))
            return bool(library.dlvsym(handle, name.encode(), version.encode()))
        except (AttributeError, ffi.error):
            return False

    return has


def _linux(host: Host, has: Has) -> Decision:
    known = {
        # processor: (byte orders, target, target where libc has 64-bit time beside 32-bit time)
        "x86_64": ("little", "linux_x86", ""),
        "aarch64": ("little big", "linux", ""),
        "riscv64": ("little", "linux", ""),
        "ppc64": ("little big", "linux", ""),
        "s390x": ("big", "linux", ""),
        "loongarch64": ("little", "linux", ""),
        "mips64": ("little big", "linux_mips", ""),
        "sparc64": ("big", "linux_sparc", ""),
        "i386": ("little", "linux_x86", "linux_x86_time64"),
        "arm": ("little big", "linux", "linux_time64"),
        "ppc": ("little big", "linux", "linux_time64"),
        "mips": ("little big", "linux_mips", "linux_mips_time64"),
        "x32": ("little", "linux_x32", ""),
        "riscv32": ("little", "linux_riscv32", ""),
    }
    orders, target, time64 = known.get(host.machine, ("", "", ""))
    if host.byteorder not in orders.split():
        return _unknown(host)
    kind = f"{host.machine} process on Linux"
    if not time64:
        return Decision(target, kind)
    for symbol in ("__select_time64", "__select64"):
        if has(symbol):
            return Decision(time64, f"{kind}, libc has {symbol}: 64-bit time")
    return Decision(target, f"{kind}, libc has no select with 64-bit time")


def _darwin(host: Host, has: Has) -> Decision:
    if host.machine not in ("x86_64", "aarch64"):
        return _unknown(host)
    return Decision("darwin", f"{host.machine} process on macOS")


def _freebsd(host: Host, has: Has) -> Decision:
    known = ("x86_64", "i386", "aarch64", "arm", "riscv64", "ppc64")
    if host.machine not in known:
        return _unknown(host)
    suffix = "_i386" if host.machine == "i386" else ""
    if has("kevent@FBSD_1.5"):
        return Decision("freebsd" + suffix, "libc has kevent@FBSD_1.5: struct kevent of FreeBSD 12")
    if has("kevent@FBSD_1.0"):
        return Decision(
            "freebsd11" + suffix, "libc has no kevent later than FBSD_1.0: that of FreeBSD 11"
        )
    return Decision(None, "libc does not tell the versions of its kevent")


def _netbsd(host: Host, has: Has) -> Decision:
    if has("__kevent100"):
        return Decision("netbsd11", "libc has __kevent100: struct kevent of NetBSD 11")
    if has("__kevent50"):
        return Decision("netbsd", "libc has __kevent50: struct kevent of NetBSD 6 to 10")
    return Decision(None, "libc has neither __kevent100 nor __kevent50")


def _openbsd(host: Host, has: Has) -> Decision:
    return Decision("openbsd", f"{host.pointer_size * 8}-bit process on OpenBSD")


def _dragonfly(host: Host, has: Has) -> Decision:
    if host.machine != "x86_64":
        return _unknown(host)
    return Decision("dragonfly", "x86_64 process on DragonFly BSD")


def _sunos(host: Host, has: Has) -> Decision:
    if host.pointer_size != 8:
        return _unknown(host)
    return Decision("sunos", "64-bit process on illumos or Solaris")


def _windows(host: Host, has: Has) -> Decision:
    return Decision("windows", f"{host.pointer_size * 8}-bit process on Windows")


def _unknown(host: Host) -> Decision:
    bits = host.pointer_size * 8
    return Decision(
        None,
        f"the ABI of a {bits}-bit, {host.byteorder} endian {host.machine or 'nameless'} process"
        f" on {host.platform} is not known",
    )


# sys.platform, without the release that some systems add to it.
_SYSTEMS: Mapping[str, Callable[[Host, Has], Decision]] = {
    "linux": _linux,
    "darwin": _darwin,
    "freebsd": _freebsd,
    "netbsd": _netbsd,
    "openbsd": _openbsd,
    "dragonfly": _dragonfly,
    "sunos": _sunos,
    "win": _windows,
}
