"""The checks of this folder, checked: every single mistake in a declaration is caught.

Each mutation is one plausible slip: a field moved by one place, left out, of another
width or sign; a struct packed or not; a constant off by one or exchanged with its
neighbour; a symbol of another ABI; an argument of another type; the target of another
system. None is compiled: the comparisons run on the mutated declaration. The counts
are printed by ``pytest -rP``.
"""

from __future__ import annotations

import re

import pytest

from selectors_ffi._abi import TARGETS, load_ffi
from selectors_ffi._abi import target as abi
from tests.source import CDEF

from . import facts
from .layout import Field, lay_out, structs_of
from .prototypes import parse, prototypes_of

HOSTS_OF = {
    target: [facts.HOSTS[host] for host, its in facts.TARGET_OF.items() if its == target]
    for target in TARGETS
}

# A type of another width in every data model, and the same width with the other sign.
OTHER_WIDTH = {
    "short": "int",
    "unsigned short": "unsigned int",
    "int": "int64_t",
    "unsigned int": "uint64_t",
    "long": "short",
    "unsigned long": "unsigned short",
    "int16_t": "int32_t",
    "uint16_t": "uint32_t",
    "int32_t": "int64_t",
    "uint32_t": "uint16_t",
    "int64_t": "int32_t",
    "uint64_t": "uint32_t",
    "intptr_t": "int16_t",
    "uintptr_t": "uint16_t",
    "void *": "short",
}
OTHER_SIGN = {
    "short": "unsigned short",
    "int": "unsigned int",
    "long": "unsigned long",
    "int16_t": "uint16_t",
    "int32_t": "uint32_t",
    "int64_t": "uint64_t",
    "intptr_t": "uintptr_t",
}
OTHER_SIGN.update({unsigned: signed for signed, unsigned in OTHER_SIGN.items()})
OTHER_SIGN["void *"] = "uintptr_t"


def exchange(items, first, second):
    """Return the items with two of them exchanged."""
    mutated = list(items)
    mutated[first], mutated[second] = mutated[second], mutated[first]
    return tuple(mutated)


def mutated_structs(declared):
    """Yield (what, struct) for each slip in one struct."""
    fields = declared.fields
    for i, field in enumerate(fields):
        neighbour = i + 1 if i + 1 < len(fields) else i - 1
        without = fields[:i] + fields[i + 1 :]
        variants = {
            "moved": exchange(fields, i, neighbour),
            "left out": without,
            "twice": (*fields[:i], field._replace(name=f"{field.name}_"), *fields[i:]),
            "renamed": (*fields[:i], field._replace(name=f"{field.name}_"), *fields[i + 1 :]),
        }
        for what, table in (("width", OTHER_WIDTH), ("sign", OTHER_SIGN)):
            other = field._replace(ctype=table[field.ctype])
            variants[what] = (*fields[:i], other, *fields[i + 1 :])
        if field.length is None:
            variants["array"] = (*fields[:i], field._replace(length=1), *fields[i + 1 :])
        else:
            other = field._replace(length=field.length + 1)
            variants["length"] = (*fields[:i], other, *fields[i + 1 :])
        for what, mutated in variants.items():
            yield f"{declared.name}.{field.name} {what}", declared._replace(fields=mutated)
    yield f"{declared.name} longer", declared._replace(fields=(*fields, Field("extra", "short")))


def survives(target, structs):
    """Say whether no host of a target objects to mutated structs."""
    return not any(facts.layout_differences(target, structs, host) for host in HOSTS_OF[target])


@pytest.mark.parametrize("target", TARGETS)
def test_every_slip_in_a_struct_is_caught(target):
    """A field moved, left out, doubled, renamed, resized or with the other sign."""
    structs = structs_of(load_ffi(target))
    survivors, count = [], 0
    for name, declared in structs.items():
        for what, mutated in mutated_structs(declared):
            count += 1
            if survives(target, {**structs, name: mutated}):
                survivors.append(what)
    assert survivors == []
    fields = sum(len(declared.fields) for declared in structs.values())
    assert count == 7 * fields + len(structs)
    print(f"{target}: {count} mutated structs, all caught")


@pytest.mark.parametrize("target", TARGETS)
def test_packing_is_caught(target):
    """A struct packed that is not, or the reverse, wherever that makes a difference."""
    structs = structs_of(load_ffi(target))
    count = 0
    for name, declared in structs.items():
        other = declared._replace(packed=not declared.packed)
        places = [
            (lay_out(which, host.model).sizeof, lay_out(which, host.model).fields)
            for host in HOSTS_OF[target]
            for which in (declared, other)
        ]
        differs = any(places[i] != places[i + 1] for i in range(0, len(places), 2))
        if differs:
            count += 1
            assert not survives(target, {**structs, name: other}), name
    print(f"{target}: {count} structs packed or unpacked, all caught")


@pytest.mark.parametrize("target", TARGETS)
def test_every_constant_off_by_one_is_caught(target):
    """One more, one less, or the value of the next constant."""
    constants = facts.constants_of(load_ffi(target))
    names = list(constants)
    survivors, count = [], 0
    for name, following in zip(names, [*names[1:], names[0]]):
        for value in {constants[name] + 1, constants[name] - 1, constants[following]}:
            if value == constants[name]:
                continue
            count += 1
            mutated = {**constants, name: value}
            if not any(facts.constant_differences(mutated, host) for host in HOSTS_OF[target]):
                survivors.append((name, value))
    assert survivors == []
    assert count >= 2 * len(constants)
    print(f"{target}: {count} mutated constants, all caught")


def all_symbols(function):
    """Return every link symbol that any target has for a C function."""
    found = {function}
    for target in TARGETS:
        found.update(abi.symbols_for(target, function))
    return found


def mutated_symbols(target):
    """Yield (what, symbol table) for each slip in a target's link symbols."""
    functions = sorted(prototypes_of(target))
    table = {function: abi.symbols_for(target, function) for function in functions}
    for function, neighbour in zip(functions, [*functions[1:], functions[0]]):
        right = table[function]
        for wrong in sorted(all_symbols(function) - set(right)):
            yield f"{function} as {wrong}", {**table, function: (wrong,)}
        if neighbour != function:
            yield f"{function} as its neighbour", {**table, function: table[neighbour]}
        for i in range(len(right)):
            if len(right) > 1:
                yield (
                    f"{function} without {right[i]}",
                    {**table, function: right[:i] + right[i + 1 :]},
                )
        if target == "darwin" and function == "select":
            yield "the variants of select reversed", {**table, function: right[::-1]}


def declared_prototypes(target):
    """Return what the cdef files of a target declare."""
    build_ffi = pytest.importorskip("build_ffi")
    found = {}
    for name in build_ffi.TARGETS[target]:
        found.update(parse((CDEF / name).read_text(encoding="utf-8")))
    return found


def wanted_prototypes(target, table):
    """Return what a symbol table says has to be declared."""
    wanted = {}
    for function, prototype in prototypes_of(target).items():
        for symbol in table[function]:
            wanted[symbol] = prototype.replace(f" {function}(", f" {symbol}(")
    return wanted


@pytest.mark.parametrize("target", TARGETS)
def test_every_other_symbol_is_caught(target):
    """A symbol of another ABI, or of the neighbouring function, is not what is linked."""
    declared = declared_prototypes(target)
    functions = prototypes_of(target)
    survivors, count, by_link = [], 0, 0
    for what, table in mutated_symbols(target):
        count += 1
        linked = any(facts.link_differences(table, functions, host) for host in HOSTS_OF[target])
        by_link += linked
        if not linked and declared == wanted_prototypes(target, table):
            survivors.append(what)
    assert survivors == []
    assert count >= len(functions)
    print(f"{target}: {count} mutated symbols, all caught, {by_link} by the headers' own links")


@pytest.mark.parametrize("target", TARGETS)
def test_every_other_argument_is_caught(target):
    """An argument or a result of another type changes what is read from a cdef file."""
    build_ffi = pytest.importorskip("build_ffi")
    words = re.compile(r"\b(?:int|void|char|size_t|ssize_t|nfds_t|const|struct \w+|fd_set)\b")
    survivors, count = [], 0
    for name in build_ffi.TARGETS[target]:
        text = (CDEF / name).read_text(encoding="utf-8")
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        before = parse(text)
        for statement in re.finditer(r"^[a-z][^;{}#]*\([^;]*\);", text, re.MULTILINE):
            for word in words.finditer(text, statement.start(), statement.end()):
                count += 1
                mutated = text[: word.start()] + "double" + text[word.end() :]
                if parse(mutated) == before:
                    survivors.append((name, statement.group(), word.group()))
    assert survivors == []
    assert count > len(prototypes_of(target))
    print(f"{target}: {count} mutated arguments, all caught")


def fits(target, host):
    """Say whether nothing at all tells a target's declarations from a host's."""
    ffi = load_ffi(target)
    return not (
        facts.layout_differences(target, structs_of(ffi), host)
        or facts.constant_differences(facts.constants_of(ffi), host)
        or facts.link_differences(abi.SYMBOLS[target], prototypes_of(target), host)
    )


def is_same(right, other, host):
    """Say whether a process cannot be given a wrong ABI by the name of another target."""
    if host.model.pointer == 8:
        # 64-bit time, and a C long of 64 bits: the plain names in either.
        return (right, other) in {("linux_x86", "linux_x32"), ("linux", "linux_riscv32")}
    # musl does not pack epoll_event on i386, where it has no padding anyway.
    return host.name == "linux-musl-i386" and other == "linux_time64"


@pytest.mark.parametrize("host", facts.HOSTS)
def test_every_other_target_is_caught(host):
    """A host given the target of another system, version or processor fails a check."""
    right = facts.TARGET_OF[host]
    assert fits(right, facts.HOSTS[host])
    wrong = [
        target
        for target in TARGETS
        if target != right
        and not is_same(right, target, facts.HOSTS[host])
        and fits(target, facts.HOSTS[host])
    ]
    assert wrong == []
