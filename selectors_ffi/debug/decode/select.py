"""select(2): bitmaps of words, or Windows' counted arrays; input and output at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ...binding import pointer_to
from .form import Form, Native
from .grammar import is_null, timeval

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMS", "Select", "members"]

_NAMES = ("in", "out", "exc")
_SETS = ("READ", "WRITE", "EXCEPT")


def _counted(ffi: Any) -> bool:
    """Tell whether ``fd_set`` is Windows' ``{count, array}``."""
    try:
        kind = ffi.typeof("fd_set")
    except (ffi.error, ValueError, KeyError):
        return False
    return kind.kind == "struct" and any(name == "fd_count" for name, _ in kind.fields or ())


def members(ffi: Any, fds: Any, nfds: int) -> list[int]:
    """Return the descriptors in a set, ascending (Windows: in the array's order)."""
    if _counted(ffi):
        counted = pointer_to(ffi, "fd_set", fds)[0]
        base = pointer_to(ffi, "char", ffi.addressof(counted)) + ffi.offsetof("fd_set", "fd_array")
        handles = ffi.cast("uintptr_t *", base)
        return [int(handles[index]) for index in range(int(counted.fd_count))]
    bits = _bits(ffi, fds, nfds)
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def _bits(ffi: Any, fds: Any, nfds: int) -> int:
    """Return the first ``nfds`` bits of a bitmap of words in this machine's byte order."""
    word = int(ffi.sizeof("fd_mask"))
    count = -(-nfds // (8 * word))
    raw = bytes(ffi.buffer(pointer_to(ffi, "char", fds), count * word))
    if sys.byteorder == "big":  # bit 0 is in the first word's last byte
        raw = b"".join(raw[at : at + word][::-1] for at in range(0, len(raw), word))
    return int.from_bytes(raw, "little") & ((1 << nfds) - 1)


class Select(Form):
    """``select(8, [4 7], [], NULL, {tv_sec=0, tv_usec=0}) = 1 (in [4])``."""

    zero = "Timeout"

    waits = True

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        nfds = int(arguments[0])
        sets = [self._set(fds, nfds) for fds in arguments[1:4]]
        return [str(nfds), *sets, timeval(self.ffi, arguments[4])]

    def _set(self, fds: Any, nfds: int) -> str:
        if is_null(self.ffi, fds):
            return "NULL"
        # Sets are the only arrays that strace writes out however long they are.
        return f"[{' '.join(map(str, members(self.ffi, fds, nfds)))}]"

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        if result <= 0:
            return super().leave(arguments, texts, result)
        sets = zip(_NAMES, (self._set(fds, int(arguments[0])) for fds in arguments[1:4]))
        return ", ".join(f"{name} {text}" for name, text in sets if text not in ("NULL", "[]"))

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        return [
            Native(fd, None, name, False)
            for name, fds in zip(_SETS, arguments[1:4])
            if not is_null(self.ffi, fds)
            for fd in members(self.ffi, fds, int(arguments[0]))
        ]


FORMS: dict[str, type[Form]] = {"select": Select}
