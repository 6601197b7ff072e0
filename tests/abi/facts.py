"""What the headers say (facts.json), and how a declaration is compared with it.

A comparison returns sentences, one per difference, so that the mutation test can
run it on broken declarations. A difference that is meant is listed here with its
reason, and nowhere else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .layout import Layout, Model, Place, Struct, lay_out

_DATA = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))


class Host(NamedTuple):
    """One host of the facts. ``exports`` is None where nobody listed them."""

    name: str
    system: str
    platform: str | None
    uname_machine: str | None
    model: Model
    nfds_t: tuple[int, str] | None
    fd_mask: int | None
    structs: Mapping[str, Layout]
    constants: Mapping[str, int]
    link: Mapping[str, str]
    exports: frozenset[str] | None

    def has(self, symbol: str) -> bool:
        """Say whether libc exports a symbol, or the version of it after the @."""
        if self.exports is None:
            return False
        name, _, version = symbol.partition("@")
        if version:
            return symbol in self.exports
        return any(exported.partition("@")[0] == name for exported in self.exports)


def _layout(fact: Mapping[str, Any]) -> Layout:
    fields = {name: Place(*place) for name, place in fact["fields"].items()}
    return Layout(fact["sizeof"], fact["align"], fields)


def _host(name: str, fact: Mapping[str, Any]) -> Host:
    process = fact.get("process") or (None, None)
    return Host(
        name=name,
        system=fact["system"],
        platform=process[0],
        uname_machine=process[1],
        model=Model(**fact["model"]),
        nfds_t=tuple(fact["nfds_t"]) if "nfds_t" in fact else None,
        fd_mask=fact.get("fd_mask"),
        structs={struct: _layout(layout) for struct, layout in fact["structs"].items()},
        constants={**_DATA["constants"][fact["system"]], **fact["constants"]},
        link=fact["link"],
        exports=frozenset(fact["exports"]) if "exports" in fact else None,
    )


HOSTS: Mapping[str, Host] = {name: _host(name, fact) for name, fact in _DATA["hosts"].items()}

# The target that each host has to get, written by hand.
TARGET_OF: Mapping[str, str] = {
    host: target
    for target, hosts in {
        "linux": """
            linux-glibc-aarch64 linux-musl-aarch64 linux-glibc-riscv64 linux-musl-riscv64
            linux-glibc-s390x linux-musl-s390x linux-glibc-ppc64le linux-musl-ppc64le
            linux-glibc-loongarch64 linux-musl-loongarch64 linux-glibc-armv7hf
        """,
        "linux_x86": "linux-glibc-x86_64 linux-musl-x86_64 linux-glibc-i386",
        "linux_mips": "linux-glibc-mipsel linux-glibc-mips64el linux-musl-mips64el",
        "linux_sparc": "linux-glibc-sparc64",
        "linux_time64": "linux-glibc-armv7hf-time64 linux-musl-armv7hf linux-musl-ppc32",
        "linux_x86_time64": "linux-glibc-i386-time64 linux-musl-i386",
        "linux_mips_time64": "linux-glibc-mipsel-time64 linux-musl-mipsel",
        "linux_x32": "linux-glibc-x32 linux-musl-x32",
        "linux_riscv32": "linux-glibc-riscv32 linux-musl-riscv32",
        "darwin": """
            macos-x86_64 macos-x86_64-darwin_c_source macos-x86_64-unlimited_select
            macos-aarch64 macos-aarch64-darwin_c_source macos-aarch64-unlimited_select
        """,
        "freebsd": """
            freebsd-x86_64 freebsd-aarch64 freebsd-armv7hf freebsd-riscv64 freebsd-ppc64
        """,
        "freebsd_i386": "freebsd-i386",
        "freebsd11": """
            freebsd11-x86_64 freebsd11-aarch64 freebsd11-armv7hf freebsd11-riscv64 freebsd11-ppc64
        """,
        "freebsd11_i386": "freebsd11-i386",
        "netbsd": """
            netbsd-x86_64-pre11 netbsd-aarch64-pre11 netbsd-i386-pre11 netbsd-armv7hf-pre11
        """,
        "netbsd11": """
            netbsd-x86_64 netbsd-aarch64 netbsd-i386 netbsd-armv7hf netbsd-riscv64 netbsd-sparc64
        """,
        "openbsd": """
            openbsd-x86_64 openbsd-aarch64 openbsd-i386 openbsd-armv7 openbsd-riscv64
            openbsd-sparc64
        """,
        "dragonfly": "dragonfly-x86_64",
        "sunos": "illumos-x86_64 solaris-x86_64",
        "windows": """
            windows-x86_64 windows-x86_64-fdset512 windows-aarch64 windows-aarch64-fdset512
            windows-i386 windows-i386-fdset512
        """,
        "libkqueue": "libkqueue-lp64 libkqueue-ilp32",
    }.items()
    for host in hosts.split()
}

# 32-bit processors with 64-bit time: tv_nsec is a long beside four bytes of padding.
# We declare the kernel's int64_t (struct __kernel_timespec), which covers both.
WIDE_NSEC = ("linux_time64", "linux_x86_time64", "linux_mips_time64", "linux_x32", "linux_riscv32")

# (target, struct): fields that the header of some system lacks, at the end.
LONGER = {("sunos", "dvpoll"): ("dp_setp",)}  # Oracle Solaris; DP_POLL reads what is before

# Alignment other than the header's. All offsets and sizes agree, we pass whole arrays,
# and memory from cffi is aligned for anything.
OTHER_ALIGNMENT = {
    ("darwin", "kevent"),  # pragma pack(4): 4 there, 8 here
    ("linux_x86_time64", "epoll_event"),  # musl/i386: 4 there, packed here as in glibc
}


def layout_differences(target: str, structs: Mapping[str, Struct], host: Host) -> list[str]:
    """Compare the declared structs of a target with a host's."""
    found = []
    for name, declared in structs.items():
        ours = lay_out(declared, host.model)
        theirs = host.structs.get(name)
        if theirs is None:
            found.append(f"struct {name}: the headers have none")
            continue
        longer = LONGER.get((target, name), ())
        extra = [field for field in longer if field not in theirs.fields]
        is_open = any(field.length == 0 for field in declared.fields)
        if ours.sizeof != theirs.sizeof and not extra and not is_open:
            found.append(f"sizeof(struct {name}): {ours.sizeof}, is {theirs.sizeof}")
        if ours.align != theirs.align and (target, name) not in OTHER_ALIGNMENT:
            found.append(f"alignof(struct {name}): {ours.align}, is {theirs.align}")
        if set(ours.fields) - set(extra) != set(theirs.fields):
            found.append(f"fields of struct {name}: {list(ours.fields)}, are {list(theirs.fields)}")
            continue
        for field, place in ours.fields.items():
            if field in extra:
                fact = Place(theirs.sizeof, host.model.pointer, "pointer")
            else:
                fact = theirs.fields[field]
            if not _same(target, name, field, place, fact, host.model):
                found.append(f"struct {name}.{field}: {place}, is {fact}")
    return found


def _same(target: str, struct: str, field: str, ours: Place, fact: Place, model: Model) -> bool:
    if struct == "kevent" and field == "udata":
        # A pointer that we keep a number in.
        return ours == fact._replace(kind="unsigned")
    if struct == "epoll_event" and field == "data":
        # A union, of which we use u64.
        return ours == fact._replace(kind="unsigned")
    if struct == "fd_set" and field == "fd_array":
        # Open, where the header has FD_SETSIZE elements.
        return ours == fact._replace(size=0)
    if struct == "timespec" and field == "tv_nsec" and target in WIDE_NSEC:
        # The header's long has to be the low half of ours, or all of it.
        end = 16 if model.byteorder == "big" else 8 + fact.size
        return ours == Place(8, 8, "signed") and fact == Place(end - fact.size, fact.size, "signed")
    return ours == fact


def constants_of(ffi: Any) -> dict[str, int]:
    """Read the constants that an FFI declares."""
    found = {}
    for name in names_of(ffi):
        try:
            found[name] = ffi.integer_const(name)
        except (AttributeError, ffi.error):
            pass  # a function
    return found


def names_of(ffi: Any) -> list[str]:
    """Read the names of the functions and constants that an FFI declares."""
    # Any library does: it lists what is declared, whether it has it or not.
    return dir(ffi.dlopen("kernel32.dll" if sys.platform == "win32" else None))


def constant_differences(constants: Mapping[str, int], host: Host) -> list[str]:
    """Compare declared constants with a host's."""
    found = []
    for name, value in constants.items():
        if name == "FD_SETSIZE" and host.name.endswith("-fdset512"):
            value *= 8  # CPython's own choice; ours has no such limit
        fact = host.constants.get(name)
        if fact != value:
            found.append(f"{name}: {value}, is {fact}")
    return found


# macOS: the headers give select$DARWIN_EXTSN only to those who define _DARWIN_C_SOURCE;
# we want it always, as CPython does.
_OTHER_SELECT = ("macos-x86_64", "macos-aarch64")


def link_differences(
    symbols: Mapping[str, Iterable[str]], functions: Iterable[str], host: Host
) -> list[str]:
    """Compare the link symbol that each C function gets with the headers'.

    Args:
        symbols: C function -> link symbols in order; a missing one has its own name.
        functions: the C functions that the target declares.
    """
    found = []
    for function in functions:
        candidates = tuple(symbols.get(function, (function,)))
        fact = host.link.get(function)
        if host.exports is not None and function in _LISTED:
            candidates = tuple(name for name in candidates if host.has(name))
        elif fact is None:
            continue  # nobody listed this one
        chosen = candidates[0] if candidates else None
        if function == "select" and host.name in _OTHER_SELECT:
            fact = "select$DARWIN_EXTSN"
        if chosen != fact:
            found.append(f"{function}: {chosen}, is {fact}")
    return found


# The functions that ``exports`` is about.
_LISTED = frozenset(
    [
        "select",
        "poll",
        "ppoll",
        "epoll_create1",
        "epoll_ctl",
        "epoll_wait",
        "epoll_pwait2",
        "kqueue",
        "kqueue1",
        "kqueuex",
        "kevent",
    ]
)
