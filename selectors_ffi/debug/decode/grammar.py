"""Grammar: numbers, pointers, times, arrays and results as strace(1) writes them.

The one grammar of every line, described for readers in ``docs/debugging.md``.
"""

from __future__ import annotations

import os
from errno import errorcode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ELLIPSIS_AFTER",
    "address",
    "array",
    "errno_name",
    "is_null",
    "outcome",
    "seconds",
    "struct",
    "timeval",
]

#: An array longer than this is cut and ends in "...", as in strace.
ELLIPSIS_AFTER = 32

_STRERROR: dict[int, str] = {}


def is_null(ffi: Any, value: object) -> bool:
    """Tell whether an argument is the null pointer, as cdata or as None."""
    if value is None:
        return True
    return isinstance(value, ffi.CData) and ffi.typeof(value).kind == "pointer" and not value


def address(ffi: Any, value: object) -> str:
    """Return a pointer argument that cannot be decoded: NULL or its address in hexadecimal."""
    if is_null(ffi, value):
        return "NULL"
    if isinstance(value, ffi.CData):
        try:
            return hex(int(ffi.cast("uintptr_t", value)))
        except (TypeError, NotImplementedError):
            return "?"
    if isinstance(value, int):
        return hex(value) if value else "NULL"
    return f"/* {type(value).__name__} */"


def array(items: Iterable[str], separator: str = ", ") -> str:
    """Return ``[a, b]``; the caller cuts at ``ELLIPSIS_AFTER`` before decoding further items."""
    return f"[{separator.join(items)}]"


def struct(**fields: object) -> str:
    """Return ``{name=value, ...}`` in the order given."""
    return "{" + ", ".join(f"{name}={value}" for name, value in fields.items()) + "}"


def timeval(ffi: Any, value: Any) -> str:
    """Return a ``struct timeval *`` or ``struct timespec *`` by its own field names."""
    if is_null(ffi, value):
        return "NULL"
    kind = ffi.typeof(value)
    if kind.kind in ("pointer", "array"):
        kind, value = kind.item, value[0]
    names = [name for name, _ in kind.fields or () if name.startswith("tv_")]
    return struct(**{name: int(getattr(value, name)) for name in names})


def errno_name(number: int) -> str:
    """Return the name of an errno, or its number where the system has no name for it."""
    return errorcode.get(number, str(number))


def outcome(result: int | None, errno: int, note: str) -> str:
    """Return what follows the equals sign: the result, and a failure's errno by name and text."""
    if result is None:
        return f"? ({note})" if note else "?"
    if result == -1 and errno:
        text = _STRERROR.get(errno)
        if text is None:
            text = _STRERROR[errno] = os.strerror(errno)
        return f"-1 {errno_name(errno)} ({text})"
    return f"{result} ({note})" if note else f"{result}"


def seconds(nanoseconds: int) -> str:
    """Return a duration as strace -T does: seconds with six decimals, in angle brackets."""
    return f"<{nanoseconds / 1e9:.6f}>"
