"""Grammar: flags by name, numbers, pointers, times, arrays and results as strace(1) writes them.

It is the one grammar of every line; ``docs/debugging.md`` describes it for readers.

The names are those of ``vocabulary``, their values come from the target's declarations. A name that
these lack is left out: its bit is shown in hexadecimal rather than under a name that belongs to another
system.
"""

from __future__ import annotations

import errno as errnos
import os
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "WINSOCK",
    "Bits",
    "Names",
    "address",
    "array",
    "errno_name",
    "is_null",
    "outcome",
    "seconds",
    "struct",
    "timeval",
]


def _declared(ffi: Any, names: Iterable[str]) -> dict[str, int]:
    """Return those of ``names`` that the target declares; open(2)'s flags are the host's own."""
    values = {}
    for name in names:
        try:
            values[name] = int(ffi.integer_const(name))
        except (AttributeError, ffi.error):
            if name.startswith("O_") and hasattr(os, name):
                values[name] = int(getattr(os, name))
    return values


class Bits:
    """A set of bits with names.

    Args:
        values: name -> value, in the order in which names are to appear.
        width: size in bits of the C type, so that a negative number shows its true bits.
    """

    def __init__(self, values: Mapping[str, int], width: int = 32) -> None:
        self.mask: int = (1 << width) - 1
        self.pairs: list[tuple[int, str]] = [
            (value & self.mask, name) for name, value in values.items() if value
        ]
        self._memo: dict[int, str] = {}

    @classmethod
    def of(cls, ffi: Any, names: Iterable[str], width: int = 32) -> Bits:
        """Return the family ``names`` as the target declares it."""
        return cls(_declared(ffi, names), width)

    def of_names(self, *names: str) -> int:
        """Return the bits of those of ``names`` that the target has."""
        bits = 0
        for value, name in self.pairs:
            if name in names:
                bits |= value
        return bits

    def __call__(self, value: int) -> str:
        """Return ``A|B|0x40``; no bit is ``0``."""
        text = self._memo.get(value)
        if text is None:
            text = self._memo[value] = self._render(value & self.mask)
        return text

    def _render(self, rest: int) -> str:
        names = []
        for bits, name in self.pairs:
            # A second name for bits already named (POLLWRNORM is POLLOUT on the BSDs) is left out.
            if bits & rest == bits:
                names.append(name)
                rest &= ~bits
        if rest or not names:
            names.append(hex(rest) if rest else "0")
        return "|".join(names)


class Names:
    """An enumeration: each value has one name; an unknown one shows as a number."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.names: dict[int, str] = {value: name for name, value in reversed(list(values.items()))}

    @classmethod
    def of(cls, ffi: Any, names: Iterable[str]) -> Names:
        """Return the enumeration ``names`` as the target declares it."""
        return cls(_declared(ffi, names))

    def __call__(self, value: int) -> str:
        return self.names.get(value) or (hex(value) if value > 0 else str(value))


#: An array longer than this is cut and ends in "...", as in strace.
ELLIPSIS_AFTER = 32

#: Winsock's errors of select, sockets and resources, which ``errno`` has on Windows alone. winsock2.h
WINSOCK = {
    10004: "WSAEINTR",
    10009: "WSAEBADF",
    10013: "WSAEACCES",
    10014: "WSAEFAULT",
    10022: "WSAEINVAL",
    10024: "WSAEMFILE",
    10035: "WSAEWOULDBLOCK",
    10036: "WSAEINPROGRESS",
    10038: "WSAENOTSOCK",
    10050: "WSAENETDOWN",
    10055: "WSAENOBUFS",
    10093: "WSANOTINITIALISED",
}

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


def array(items: Iterable[str]) -> str:
    """Return ``[a, b]``, cut at ``ELLIPSIS_AFTER``: of more items, one more than is shown is needed.

    A list is faster than an iterator, where it is known how many items there are.
    """
    shown = items if isinstance(items, list) else list(islice(items, ELLIPSIS_AFTER + 1))
    if len(shown) > ELLIPSIS_AFTER:
        shown = [*shown[:ELLIPSIS_AFTER], "..."]
    return f"[{', '.join(shown)}]"


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
    return errnos.errorcode.get(number) or WINSOCK.get(number, str(number))


def _errno_text(number: int) -> str:
    """Return what the system says of an errno; of Winsock's, what it says of that of the same name."""
    name = WINSOCK.get(number, "")[len("WSA") :]
    return os.strerror(getattr(errnos, name, number))


def outcome(result: int | None, errno: int, note: str) -> str:
    """Return what follows the equals sign: the result, and a failure's errno by name and text."""
    if result is None:
        return f"? ({note})" if note else "?"
    if result == -1 and errno:
        text = _STRERROR.get(errno)
        if text is None:
            text = _STRERROR[errno] = _errno_text(errno)
        return f"-1 {errno_name(errno)} ({text})" + (f" ({note})" if note else "")
    return f"{result} ({note})" if note else f"{result}"


def seconds(nanoseconds: int) -> str:
    """Return a duration as strace -T does: seconds with six decimals, in angle brackets."""
    return f"<{nanoseconds / 1e9:.6f}>"
