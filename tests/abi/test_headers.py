"""The host's own headers as witness, where a C compiler happens to be present.

The package never needs one. The probe includes the system's headers, prints what
they say, and repeats our prototypes, which the compiler refuses if they differ.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from selectors_ffi._abi import load_ffi
from selectors_ffi._abi import target as abi

from . import facts
from .layout import HOST, Place, lay_out, structs_of
from .prototypes import prototypes_of

TARGET = abi.host(abi.presence(lambda ffi: ffi.dlopen(None))).target if os.name == "posix" else None
COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = [
    pytest.mark.skipif(TARGET is None, reason="no target for this host"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler here (none is ever needed)"),
]

HEADERS = (
    "sys/types.h",
    "sys/time.h",
    "sys/select.h",
    "fcntl.h",
    "poll.h",
    "time.h",
    "unistd.h",
    "sys/ioctl.h",
    "sys/epoll.h",
    "sys/event.h",
    "sys/devpoll.h",
)


def probe(structs, constants, prototypes):
    """Write the C program."""
    lines = ["#include <stddef.h>", "#include <stdio.h>"]
    for header in HEADERS:
        lines += [f"#if __has_include(<{header}>)", f"#include <{header}>", "#endif"]
    # void * stands for a type of the header's own; there is nothing to compare then.
    lines += [f"extern {text};" for text in prototypes if "void *" not in text]
    lines.append("int main(void) {")
    lines.append('    printf("model %zu %zu\\n", sizeof(long), sizeof(void *));')
    for name, declared in structs.items():
        lines.append(f"    {{ static struct {name} s; (void)s;")
        lines.append(f'    printf("struct {name} %zu %zu\\n", sizeof(s), _Alignof(struct {name}));')
        for field in declared.fields:
            member = "data.u64" if (name, field.name) == ("epoll_event", "data") else field.name
            place = f"offsetof(struct {name}, {field.name}), sizeof(s.{field.name})"
            kind = f"((__typeof__(s.{member}))-1 < (__typeof__(s.{member}))1)"
            if field.length is not None or field.ctype.endswith("*"):
                kind = "2"
            lines.append(f'    printf("field {name} {field.name} %zu %zu %d\\n", {place}, (int){kind});')
        lines.append("    }")
    for name in constants:
        lines += [
            f"#ifdef {name}",
            f'    printf("constant {name} %lld\\n", (long long)({name}));',
            "#endif",
        ]
    lines += ["    return 0;", "}", ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    """Compile and run the probe; return its output, split into words."""
    folder = tmp_path_factory.mktemp("probe")
    ffi = load_ffi(TARGET)
    source = folder / "probe.c"
    source.write_text(
        probe(structs_of(ffi), facts.constants_of(ffi), prototypes_of(TARGET).values()),
        encoding="utf-8",
    )
    flags = ["-D_GNU_SOURCE", "-D_DARWIN_C_SOURCE", "-D__EXTENSIONS__", "-w"]
    if TARGET.endswith("_time64"):
        flags += ["-D_TIME_BITS=64", "-D_FILE_OFFSET_BITS=64"]
    program = folder / "probe"
    compiled = subprocess.run(
        [COMPILER, *flags, "-o", str(program), str(source)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if "error" not in compiled.stderr and compiled.returncode:
        pytest.skip(f"{COMPILER} cannot make a program here: {compiled.stderr[:200]}")
    assert compiled.returncode == 0, compiled.stderr
    output = subprocess.run([str(program)], capture_output=True, text=True, timeout=50, check=True)
    words = [line.split() for line in output.stdout.splitlines()]
    if ["model", str(HOST.long), str(HOST.pointer)] not in words:
        pytest.skip("the compiler makes programs of another data model than this Python's")
    return words


def test_structs_are_those_of_the_headers_here(witness):
    """Every declared struct has the size, and every field the place, that the compiler says."""
    structs = structs_of(load_ffi(TARGET))
    theirs = {row[1]: (int(row[2]), int(row[3])) for row in witness if row[0] == "struct"}
    fields = {(row[1], row[2]): tuple(map(int, row[3:])) for row in witness if row[0] == "field"}
    compared = 0
    for name, declared in structs.items():
        ours = lay_out(declared, HOST)
        assert ours.sizeof == theirs[name][0] or (TARGET, name) in facts.LONGER
        assert ours.align == theirs[name][1] or (TARGET, name) in facts.OTHER_ALIGNMENT
        for field, place in ours.fields.items():
            offset, size, signed = fields[name, field]
            if (name, field) == ("timespec", "tv_nsec") and TARGET in facts.WIDE_NSEC:
                offset, size = 8, 8
            kind = {0: "unsigned", 1: "signed", 2: place.kind}[signed]
            if (name, field) == ("kevent", "udata"):
                kind = place.kind
            seen = Place(offset, size, kind, place.element, place.element_kind)
            assert place == seen, f"struct {name}.{field}"
            compared += 1
    assert compared == sum(len(declared.fields) for declared in structs.values())


def test_constants_are_those_of_the_headers_here(witness):
    """Every declared constant that these headers know has their number."""
    ours = facts.constants_of(load_ffi(TARGET))
    theirs = {row[1]: int(row[2]) for row in witness if row[0] == "constant"}
    assert {name: ours[name] for name in theirs} == theirs
    # Older headers lack what newer ones brought; most is there.
    assert len(theirs) > 0.7 * len(ours)


@pytest.mark.skipif(sys.platform != "linux", reason="names a constant of Linux")
def test_the_probe_can_fail(witness):
    """The compiler is listened to: a wrong prototype does not compile."""
    source = probe({}, [], ["int poll(double)"])
    compiled = subprocess.run(
        [COMPILER, "-w", "-fsyntax-only", "-x", "c", "-"],
        input=source,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert compiled.returncode != 0
    assert "poll" in compiled.stderr
