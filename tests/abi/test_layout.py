"""Every struct and constant of every target, against the headers of its systems."""

from __future__ import annotations

from random import Random

import pytest

from selectors_ffi._abi import TARGETS, load_ffi
from tests.abi.sizes import expected_size

from . import facts
from .layout import HOST, Field, Model, Struct, cdef, lay_out, structs_of

PAIRS = [pytest.param(facts.HOSTS[host], target, id=host) for host, target in facts.TARGET_OF.items()]
WITH_PROCESS = [pair for pair in PAIRS if pair.values[0].platform]

SUNOS = [facts.HOSTS[name] for name in ("illumos-x86_64", "solaris-x86_64")]


def test_every_host_has_a_target_and_every_target_a_host():
    """No host of the facts is left out, and no target goes unchecked."""
    assert set(facts.HOSTS) == set(facts.TARGET_OF)
    assert set(TARGETS) == set(facts.TARGET_OF.values())


@pytest.mark.parametrize(("host", "target"), PAIRS)
def test_layout_is_that_of_the_headers(host, target):
    """Size, alignment, and each field's offset, size and sign are those of the host."""
    structs = structs_of(load_ffi(target))
    assert structs
    assert facts.layout_differences(target, structs, host) == []


@pytest.mark.parametrize(("host", "target"), PAIRS)
def test_constants_are_those_of_the_headers(host, target):
    """Every declared constant has the host's number, and none is unknown there."""
    constants = facts.constants_of(load_ffi(target))
    assert constants
    assert facts.constant_differences(constants, host) == []


@pytest.mark.parametrize(("host", "target"), PAIRS)
def test_nfds_t_is_that_of_the_headers(host, target):
    """The count that poll takes is as wide as the host's."""
    if host.nfds_t is None:
        pytest.skip("no fact about nfds_t for this host")
    ffi = load_ffi(target)
    width = lay_out(Struct("s", (Field("n", ffi.typeof("nfds_t").cname),)), host.model)
    assert (width.sizeof, width.fields["n"].kind) == host.nfds_t


@pytest.mark.parametrize(("host", "target"), PAIRS)
def test_fd_mask_is_that_of_the_headers(host, target):
    """A set is made of words of the host's width; on big endian another one finds nothing."""
    if host.fd_mask is None:
        pytest.skip("no bitmap of descriptors on this host")
    ctype = load_ffi(target).typeof("fd_mask").cname
    word = lay_out(Struct("s", (Field("word", ctype),)), host.model).fields["word"]
    assert (word.size, word.kind) == (host.fd_mask, "unsigned")


@pytest.mark.parametrize("target", TARGETS)
def test_calculator_agrees_with_cffi(target):
    """For this host's data model the layout calculator and cffi find the same places."""
    ffi = load_ffi(target)
    for name, declared in structs_of(ffi).items():
        ours = lay_out(declared, HOST)
        ctype = ffi.typeof(f"struct {name}")
        assert (ours.sizeof, ours.align) == (ffi.sizeof(ctype), ffi.alignof(ctype))
        for field_name, field in ctype.fields:
            place = ours.fields[field_name]
            assert place.offset == field.offset
            if field.type.kind != "array" or field.type.length is not None:
                assert place.size == ffi.sizeof(field.type)
            if field.type.kind == "primitive":
                minus_one = int(ffi.cast(field.type, -1))
                assert place.kind == ("signed" if minus_one < 0 else "unsigned")


SCALARS = [
    "short",
    "unsigned short",
    "int",
    "unsigned int",
    "long",
    "unsigned long",
    "int16_t",
    "uint16_t",
    "int32_t",
    "uint32_t",
    "int64_t",
    "uint64_t",
    "intptr_t",
    "uintptr_t",
    "void *",
]


@pytest.mark.parametrize("seed", range(60))
def test_calculator_agrees_with_cffi_on_any_struct(seed):
    """The calculator is right about structs that nobody wrote for it."""
    cffi = pytest.importorskip("cffi")
    random = Random(seed)
    fields = tuple(
        Field(f"f{i}", random.choice(SCALARS), random.choice([None, None, 1, 3, 4]))
        for i in range(random.randint(1, 8))
    )
    declared = Struct("s", fields, packed=random.random() < 0.3)
    ffi = cffi.FFI()
    ffi.cdef(cdef([declared]), packed=declared.packed)
    ours = lay_out(declared, HOST)
    assert (ours.sizeof, ours.align) == (ffi.sizeof("struct s"), ffi.alignof("struct s"))
    for field in fields:
        assert ours.fields[field.name].offset == ffi.offsetof("struct s", field.name)


LP64 = Model(8, 8, 8, "little")
ARM = Model(4, 4, 8, "little")
I386 = Model(4, 4, 4, "little")

# The sizes on top of the files in cdef/.
SIZES = [
    ("linux", "epoll_event", 16, 16, None),
    ("linux_x86", "epoll_event", 12, None, 12),
    ("linux", "timeval", 16, 8, None),
    ("linux_time64", "timespec", None, 16, None),
    ("linux_x86_time64", "timespec", None, None, 16),
    ("darwin", "kevent", 32, None, None),
    ("freebsd", "kevent", 64, 64, None),
    ("freebsd_i386", "kevent", None, None, 56),
    ("freebsd_i386", "timeval", None, None, 8),
    ("freebsd11", "kevent", 32, 20, None),
    ("freebsd11_i386", "kevent", None, None, 20),
    ("netbsd", "kevent", 40, 32, 28),
    ("netbsd11", "kevent", 72, 64, 60),
    ("netbsd", "timeval", 16, 16, 12),
    ("openbsd", "kevent", 32, 32, 24),
    ("openbsd", "timespec", 16, 16, 12),
    ("dragonfly", "kevent", 32, None, None),
    ("sunos", "dvpoll", 32, None, None),
    ("windows", "timeval", 8, 8, 8),
    ("libkqueue", "kevent", 32, 20, 20),
]


@pytest.mark.parametrize(("target", "struct", "lp64", "arm", "i386"), SIZES)
def test_sizes_in_the_comments_of_cdef(target, struct, lp64, arm, i386):
    """The tables on top of the cdef files are true."""
    declared = structs_of(load_ffi(target))[struct]
    for model, size in ((LP64, lp64), (ARM, arm), (I386, i386)):
        if size is not None:
            assert lay_out(declared, model).sizeof == size


def test_signs_that_matter():
    """The top bit of EPOLLET and of revents survives; NetBSD's filters have no sign."""
    linux = load_ffi("linux")
    event = linux.new("struct epoll_event *")
    event.events = linux.integer_const("EPOLLET")
    assert event.events == 1 << 31
    event.data = 2**64 - 1
    assert event.data == 2**64 - 1
    entry = linux.new("struct pollfd *", {"revents": -1})
    assert entry.revents == -1
    change = load_ffi("netbsd").new("struct kevent *")
    change.filter = 2**32 - 1
    assert change.filter == 2**32 - 1
    change = load_ffi("freebsd").new("struct kevent *")
    change.filter = load_ffi("freebsd").integer_const("EVFILT_READ")
    assert change.filter == -1
    change.flags = 0xFFFF
    assert change.flags == 0xFFFF


@pytest.mark.parametrize(("host", "target"), PAIRS)
def test_expected_sizes(host, target):
    """The size that ``info`` expects of each struct is that of the host's headers."""
    for name in structs_of(load_ffi(target)):
        expected = expected_size(target, name, host.model.pointer, host.model.align_int64)
        if name == "fd_set":
            assert expected is None  # FD_SETSIZE elements there, as many as needed here
        elif (target, name) in facts.LONGER:
            assert expected == max(each.structs[name].sizeof for each in SUNOS)
        else:
            assert expected == host.structs[name].sizeof, name


def test_no_expected_size_of_what_is_not_there():
    """Asked about a struct that a system does not have, there is no number."""
    assert expected_size("linux", "kevent") is None
    assert expected_size("windows", "pollfd") is None
    assert expected_size("linux", "pollfd") == 8
