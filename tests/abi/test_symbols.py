"""Which target and which link symbols each host gets."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from selectors_ffi._abi import TARGETS, load_ffi, load_probe
from selectors_ffi._abi import target as abi
from tests.source import CDEF

from . import facts
from .layout import HOST
from .prototypes import NFDS_T, parse, prototypes_of, system_of

PAIRS = [pytest.param(facts.HOSTS[host], target, id=host) for host, target in facts.TARGET_OF.items()]
WITH_PROCESS = [pair for pair in PAIRS if pair.values[0].platform]


def decide(host, **changes):
    """Ask for the target of a process on one of the facts' hosts."""
    model = host.model
    machine = abi.process_machine(host.uname_machine, model.pointer, model.align_int64)
    arguments = {
        "platform": host.platform,
        "machine": machine,
        "pointer_size": model.pointer,
        "byteorder": model.byteorder,
        "has": host.has,
        **changes,
    }
    return abi.decide(**arguments)


@pytest.mark.parametrize(("host", "target"), WITH_PROCESS)
def test_each_host_gets_its_target(host, target):
    """The decision finds the target of each host of the facts, and gives a reason."""
    decision = decide(host)
    assert decision.target == target, decision.reason
    assert decision.reason


@pytest.mark.parametrize(("host", "target"), PAIRS)
def test_link_symbols_are_those_of_the_headers(host, target):
    """Each C function is called by the name that the host's headers link it to."""
    functions = prototypes_of(target)
    assert facts.link_differences(abi.SYMBOLS[target], functions, host) == []


@pytest.mark.parametrize("target", TARGETS)
def test_prototypes_are_those_of_the_manuals(target):
    """Every declared function, under each of its link symbols, has the manual's types."""
    build_ffi = pytest.importorskip("build_ffi")
    declared = {}
    for name in build_ffi.TARGETS[target]:
        declared.update(parse((CDEF / name).read_text(encoding="utf-8")))
    wanted = {}
    for function, prototype in prototypes_of(target).items():
        for symbol in abi.symbols_for(target, function):
            wanted[symbol] = prototype.replace(f" {function}(", f" {symbol}(")
    assert declared == wanted


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in ("windows", "libkqueue")])
def test_nfds_t(target):
    """poll's count is an unsigned long on Linux and SunOS, an unsigned int elsewhere."""
    wanted = NFDS_T.get(system_of(target), "unsigned int")
    assert load_ffi(target).typeof("nfds_t").cname == wanted


def never(symbol):
    """Stand for a libc without any symbol of interest."""
    return False


@pytest.mark.parametrize(
    ("platform", "machine", "size", "order"),
    [
        ("android", "aarch64", 8, "little"),
        ("aix", "", 8, "big"),
        ("gnu0", "i686", 4, "little"),
        ("cygwin", "x86_64", 8, "little"),
        ("haiku1", "x86_64", 8, "little"),
        ("ios", "arm64", 8, "little"),
        ("emscripten", "wasm32", 4, "little"),
        ("wasi", "wasm32", 4, "little"),
        ("midnightbsd3", "amd64", 8, "little"),
        ("gnukfreebsd10", "x86_64", 8, "little"),
        ("", "", 8, "little"),
        ("plan9", "amd64", 8, "little"),
        # A known system on a processor whose headers nobody compared.
        ("linux", "m68k", 4, "big"),
        ("linux", "alpha", 8, "little"),
        ("linux", "parisc", 4, "big"),
        ("linux", "sh4", 4, "little"),
        ("linux", "sparc64", 4, "big"),
        ("linux", "s390x", 4, "big"),
        ("linux", "loongarch64", 4, "little"),
        ("linux", "ia64", 8, "little"),
        ("linux", "", 8, "little"),
        ("linux", "x86_64", 8, "big"),
        ("linux", "s390x", 8, "little"),
        ("darwin", "i386", 4, "little"),
        ("darwin", "Power Macintosh", 4, "big"),
        ("sunos5", "i86pc", 4, "little"),
        ("dragonfly6", "i386", 4, "little"),
        ("freebsd14", "powerpc", 4, "big"),
        ("freebsd14", "mips", 4, "big"),
    ],
)
def test_nothing_certain_no_target(platform, machine, size, order):
    """Where the ABI is not known there is no target, and the reason names the host."""
    for has in (never, lambda symbol: True):
        decision = abi.decide(platform, machine, size, order, has)
        assert decision.target is None
        assert "not known" in decision.reason
        assert platform in decision.reason


@pytest.mark.parametrize("platform", ["freebsd13", "netbsd10"])
def test_no_expected_symbol_no_target(platform):
    """A libc without any kevent that we know is refused, not guessed."""
    decision = abi.decide(platform, "amd64", 8, "little", never)
    assert decision.target is None
    assert "kevent" in decision.reason


@pytest.mark.parametrize(
    ("machine", "size", "align", "process"),
    [
        ("x86_64", 8, 8, "x86_64"),
        ("x86_64", 4, 4, "i386"),
        ("x86_64", 4, 8, "x32"),
        ("i686", 4, 4, "i386"),
        ("amd64", 4, 4, "i386"),
        ("AMD64", 8, 8, "x86_64"),
        ("aarch64", 4, 8, "arm"),
        ("aarch64", 8, 8, "aarch64"),
        ("arm64", 8, 8, "aarch64"),
        ("armv8l", 4, 8, "arm"),
        ("armv7l", 4, 8, "arm"),
        ("mips64", 4, 8, "mips"),
        ("ppc64le", 8, 8, "ppc64"),
        ("ppc64", 4, 8, "ppc"),
        ("riscv64", 4, 8, "riscv32"),
        ("s390x", 4, 8, "s390"),
        ("sun4v", 8, 8, "sparc64"),
    ],
)
def test_processor_of_the_process_not_of_the_kernel(machine, size, align, process):
    """A 32-bit process on a 64-bit kernel counts as what it is."""
    assert abi.process_machine(machine, size, align) == process


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("linux-glibc-i386-time64", "linux_x86_time64"),
        ("linux-glibc-i386", "linux_x86"),
        ("linux-musl-i386", "linux_x86_time64"),
    ],
)
def test_32_bit_python_on_a_64_bit_kernel(host, target):
    """uname says x86_64 there; the process's pointer size and its libc decide."""
    assert decide(facts.HOSTS[host], machine="x86_64").target == target


def test_old_jail_on_a_new_kernel():
    """FreeBSD's release is not asked: an 11 libc gets the 11 struct, and the reverse."""
    old, new = facts.HOSTS["freebsd11-x86_64"], facts.HOSTS["freebsd-x86_64"]
    assert decide(old, platform="freebsd14").target == "freebsd11"
    assert decide(new, platform="freebsd11").target == "freebsd"


def test_musl_before_64_bit_time():
    """A 32-bit musl without the _time64 names has 32-bit time under the plain ones."""
    host = facts.HOSTS["linux-musl-i386"]
    assert decide(host, has=never).target == "linux_x86"
    assert abi.symbols_for("linux_x86", "select") == ("select",)


@pytest.mark.parametrize("target", [name for name in TARGETS if name.endswith("_time64")])
def test_plain_names_of_32_bit_time_cannot_be_called(target):
    """Beside 64-bit time the plain symbols take the short structs: they are not declared."""
    declared = facts.names_of(load_ffi(target))
    for name in ("select", "ppoll", "epoll_pwait2"):
        assert name not in abi.symbols_for(target, name)
        assert name not in declared


@pytest.mark.parametrize("target", ["netbsd", "netbsd11"])
def test_plain_names_of_old_netbsd_cannot_be_called(target):
    """NetBSD's plain select and kevent take 32-bit time: they are not declared."""
    names = facts.names_of(load_ffi(target))
    assert "select" not in names
    assert "kevent" not in names
    assert ("__kevent100" in names) == (target == "netbsd11")
    assert ("__kevent50" in names) == (target == "netbsd")


def test_every_target_has_a_symbol_table():
    """The table of link symbols knows each target, and only those."""
    assert set(abi.SYMBOLS) == set(TARGETS)


def test_unknown_target():
    """A name that is no target is a ValueError that lists the names."""
    with pytest.raises(ValueError, match="unknown target 'vms': one of linux,"):
        load_ffi("vms")
    with pytest.raises(ValueError, match="unknown target 'probe'"):
        load_ffi("probe")


def test_this_process():
    """The running interpreter's own facts are what the decision is made from."""
    host = abi.current()
    assert host.pointer_size == HOST.pointer
    assert host.byteorder == sys.byteorder
    assert host.platform == sys.platform or host.platform == "android"


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc or musl for its symbols")
def test_presence_asks_the_library_once_and_lazily():
    """No library is opened before the first question, and one only."""
    opened = []

    def open_library(ffi):
        opened.append(ffi)
        return ffi.dlopen(None)

    has = abi.presence(open_library)
    assert opened == []
    assert has("__kevent100") is False
    assert has("kevent@FBSD_1.5") is False
    assert has("no_such_name_at_all") is False
    assert opened == [load_probe()]
    assert abi.host(has).target in (None, *TARGETS)


@pytest.mark.skipif(sys.platform != "linux", reason="a symbol that Linux' C libraries share")
def test_presence_finds_what_is_there():
    """Where the select of 64-bit time is, it is found: as the C library says itself."""
    import ctypes

    libc = ctypes.CDLL(None)
    has = abi.presence(lambda ffi: ffi.dlopen(None))
    for name in ("__select64", "__select_time64"):
        assert has(name) == hasattr(libc, name)


def test_versioned_symbols_of_freebsd(monkeypatch):
    """A versioned symbol is looked up with dlvsym(3) on FreeBSD, and taken for absent elsewhere."""
    asked = []

    def dlvsym(handle, name, version):
        asked.append((name, version))
        return name == b"kevent"

    has = abi.presence(lambda ffi: SimpleNamespace(dlvsym=dlvsym, kevent=1))
    monkeypatch.setattr(abi.sys, "platform", "linux")
    assert not has("kevent@FBSD_1.0")
    monkeypatch.setattr(abi.sys, "platform", "freebsd14")
    assert has("kevent@FBSD_1.0")
    assert not has("other@FBSD_1.0")
    assert has("kevent")
    assert not has("other")
    assert asked == [(b"kevent", b"FBSD_1.0"), (b"other", b"FBSD_1.0")]
