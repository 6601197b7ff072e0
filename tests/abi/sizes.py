"""What the systems' headers say each struct's size is: a second opinion on the declarations."""

from __future__ import annotations

import struct

# (target, struct) -> bytes in a 64-bit process, in a 32-bit process that aligns int64_t to
# 8 bytes, and in one that aligns it to 4 (i386); 0 where there is no such process.
_SIZES: dict[tuple[str, str], tuple[int, int, int]] = {
    ("linux", "timeval"): (16, 8, 8),
    ("linux", "timespec"): (16, 8, 8),
    ("linux", "epoll_event"): (16, 16, 12),
    ("linux_time64", "timeval"): (16, 16, 16),
    ("linux_time64", "timespec"): (16, 16, 16),
    ("linux_x86", "epoll_event"): (12, 12, 12),
    ("darwin", "timeval"): (16, 0, 0),
    ("darwin", "timespec"): (16, 0, 0),
    ("darwin", "kevent"): (32, 0, 0),
    ("freebsd", "timeval"): (16, 16, 8),
    ("freebsd", "timespec"): (16, 16, 8),
    ("freebsd", "kevent"): (64, 64, 56),
    ("freebsd11", "kevent"): (32, 20, 20),
    ("netbsd", "timeval"): (16, 16, 12),
    ("netbsd", "timespec"): (16, 16, 12),
    ("netbsd", "kevent"): (40, 32, 28),
    ("netbsd11", "kevent"): (72, 64, 60),
    ("openbsd", "timeval"): (16, 16, 12),
    ("openbsd", "timespec"): (16, 16, 12),
    ("openbsd", "kevent"): (32, 32, 24),
    ("dragonfly", "timeval"): (16, 0, 0),
    ("dragonfly", "timespec"): (16, 0, 0),
    ("dragonfly", "kevent"): (32, 0, 0),
    ("sunos", "timeval"): (16, 0, 0),
    ("sunos", "timespec"): (16, 0, 0),
    ("sunos", "dvpoll"): (32, 0, 0),
    ("sunos", "port_event"): (24, 0, 0),
    ("windows", "timeval"): (8, 8, 8),
    ("libkqueue", "timespec"): (16, 8, 8),
    ("libkqueue", "kevent"): (32, 20, 20),
}

# The same wherever there is one.
_SAME = {"pollfd": 8}

# Targets with the sizes of another one, or of several, the first that has the struct.
_LIKE: dict[str, tuple[str, ...]] = {
    "linux_x86": ("linux_x86", "linux"),
    "linux_mips": ("linux",),
    "linux_sparc": ("linux",),
    "linux_time64": ("linux_time64", "linux"),
    "linux_x86_time64": ("linux_x86", "linux_time64"),
    "linux_mips_time64": ("linux_time64", "linux"),
    "linux_x32": ("linux_x86", "linux_time64"),
    "linux_riscv32": ("linux_time64", "linux"),
    "freebsd_i386": ("freebsd",),
    "freebsd11": ("freebsd11", "freebsd"),
    "freebsd11_i386": ("freebsd11", "freebsd"),
    "netbsd11": ("netbsd11", "netbsd"),
}


def expected_size(
    target: str, name: str, pointer_size: int | None = None, align_int64: int | None = None
) -> int | None:
    """Return the size of ``struct name`` in the headers of a target, in bytes.

    Args:
        target: one of ``TARGETS``.
        name: without "struct".
        pointer_size: that of the process asked about; by default this one.
        align_int64: how it aligns an int64_t in a struct; by default as this one.

    Returns:
        None where the headers have no such struct, or its size is no constant.
    """
    if pointer_size is None:
        pointer_size = struct.calcsize("P")
    if align_int64 is None:
        align_int64 = struct.calcsize("iq") - struct.calcsize("q")
    if name in _SAME:
        return None if target in ("windows", "libkqueue") else _SAME[name]
    for like in _LIKE.get(target, (target,)):
        sizes = _SIZES.get((like, name))
        if sizes:
            column = 0 if pointer_size == 8 else 1 if align_int64 == 8 else 2
            return sizes[column] or None
    return None
