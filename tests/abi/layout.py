"""Where a C compiler puts the fields of a struct, for any data model.

Knows the rules of alignment and nothing of cffi's arithmetic, so that each checks
the other on this host, and so that a 32-bit layout is tested on a 64-bit host.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Model(NamedTuple):
    """A data model: sizes of long and pointer, alignment of an int64_t in a struct."""

    long: int
    pointer: int
    align_int64: int
    byteorder: str


class Field(NamedTuple):
    """A declared field; ``length`` is that of an array, 0 an open one, None no array."""

    name: str
    ctype: str
    length: int | None = None


class Struct(NamedTuple):
    """A declared struct."""

    name: str
    fields: tuple[Field, ...]
    packed: bool = False


class Place(NamedTuple):
    """Where a field lies. ``kind``: signed, unsigned, pointer or array."""

    offset: int
    size: int
    kind: str
    element: int | None = None
    element_kind: str | None = None


class Layout(NamedTuple):
    """A struct in one data model."""

    sizeof: int
    align: int
    fields: Mapping[str, Place]


HOST = Model(
    long=struct.calcsize("l"),
    pointer=struct.calcsize("P"),
    align_int64=struct.calcsize("iq") - struct.calcsize("q"),
    byteorder=sys.byteorder,
)

_FIXED = {
    "short": (2, "signed"),
    "unsigned short": (2, "unsigned"),
    "int": (4, "signed"),
    "unsigned int": (4, "unsigned"),
    "int16_t": (2, "signed"),
    "uint16_t": (2, "unsigned"),
    "int32_t": (4, "signed"),
    "uint32_t": (4, "unsigned"),
    "int64_t": (8, "signed"),
    "uint64_t": (8, "unsigned"),
}


def _scalar(ctype: str, model: Model) -> tuple[int, int, str]:
    """Return size, alignment and kind."""
    if ctype.endswith("*"):
        return model.pointer, model.pointer, "pointer"
    if ctype in ("long", "unsigned long"):
        size, kind = model.long, "signed" if ctype == "long" else "unsigned"
    elif ctype in ("intptr_t", "uintptr_t"):
        size, kind = model.pointer, "signed" if ctype == "intptr_t" else "unsigned"
    else:
        size, kind = _FIXED[ctype]
    return size, model.align_int64 if size == 8 else size, kind


def lay_out(declared: Struct, model: Model) -> Layout:
    """Place the fields as the psABI of every system here does: each at the next
    multiple of its alignment, the whole rounded up to that of the strictest."""
    offset, strictest = 0, 1
    places = {}
    for field in declared.fields:
        element, align, kind = _scalar(field.ctype, model)
        if declared.packed:
            align = 1
        strictest = max(strictest, align)
        offset = -(-offset // align) * align
        if field.length is None:
            places[field.name] = Place(offset, element, kind)
        else:
            places[field.name] = Place(offset, element * field.length, "array", element, kind)
        offset += places[field.name].size
    return Layout(-(-offset // strictest) * strictest, strictest, places)


def structs_of(ffi: Any) -> dict[str, Struct]:
    """Read the structs that an FFI declares: names and types, no number of its own."""
    found = {}
    for name in ffi.list_types()[1]:
        ctype = ffi.typeof(f"struct {name}")
        fields = []
        for field_name, field in ctype.fields:
            length = None
            item = field.type
            if item.kind == "array":
                length = item.length or 0
                item = item.item
            spelling = "void *" if item.kind == "pointer" else item.cname
            fields.append(Field(field_name, spelling, length))
        natural = Struct(name, tuple(fields))
        widest = lay_out(natural, HOST).align
        found[name] = natural._replace(packed=widest > 1 and ffi.alignof(ctype) == 1)
    return found


def cdef(structs: Iterable[Struct]) -> str:
    """Spell structs as C, for cffi or a compiler."""
    lines = []
    for declared in structs:
        lines.append(f"struct {declared.name} {{")
        for field in declared.fields:
            array = "" if field.length is None else f"[{field.length or ''}]"
            lines.append(f"    {field.ctype} {field.name}{array};")
        lines.append("};")
    return "\n".join(lines)
