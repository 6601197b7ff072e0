"""The self-test of the kernel passes what fits and catches what does not."""

from __future__ import annotations

import errno
import os
import re
import runpy
import sys
import time
from pathlib import Path

import pytest

from selectors_ffi import binding as seam
from selectors_ffi import selftest
from selectors_ffi._abi import load_ffi
from selectors_ffi._abi import target as abi
from selectors_ffi.testing.library import Proxy
from tests import apart
from tests.kernels import bsd, linux, solaris
from tests.kernels.faulty import FaultyLibrary
from tests.source import CDEF

from . import facts
from .layout import HOST, cdef, structs_of
from .test_mutation import mutated_structs

MECHANISMS = ("select", "poll", "epoll", "devpoll", "kqueue", "eventport")
REAL = abi.host(abi.presence(lambda ffi: ffi.dlopen(None))).target if os.name == "posix" else None

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux") or REAL is None, reason="runs on the kernel of Linux"
)


@pytest.fixture(autouse=True)
def forget():
    """Each test starts without outcomes of others, and leaves them as they were."""
    before = dict(selftest._outcomes)
    selftest._outcomes.clear()
    yield
    selftest._outcomes.clear()
    selftest._outcomes.update(before)


@pytest.fixture(autouse=True)
def no_leak():
    """A self-test closes every descriptor that it opened, whatever it found."""
    free = os.dup(0)
    os.close(free)
    yield
    again = os.dup(0)
    os.close(again)
    assert again == free


@pytest.fixture
def variant(tmp_path):
    """Compile a target's declarations with text replaced: (old, new) ... in any cdef file."""

    def compiled(target, *changes, packed=None):
        ffi = declare(target, changes, packed)
        ffi.set_source("variant", None, compiler_verbose=False)
        ffi.emit_python_code(str(tmp_path / "variant.py"))
        module = runpy.run_path(str(tmp_path / "variant.py"))
        return module["ffi"]

    return compiled


def declare(target, changes, packed):
    """Read the cdef files of a target, some text replaced."""
    build_ffi = pytest.importorskip("build_ffi")
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    left = [old for old, _ in changes]
    for name in build_ffi.TARGETS[target]:
        text = (CDEF / name).read_text(encoding="utf-8")
        for old, new in changes:
            if old in text and old in left:
                left.remove(old)
            text = text.replace(old, new)
        is_packed = (target, name) in build_ffi.PACKED
        if packed is not None and name == "linux_epoll_event.h":
            is_packed = packed
        ffi.cdef(text, packed=is_packed)
    assert not left, f"not in the cdef: {left}"
    return ffi


def real(ffi):
    """Bind declarations to the running kernel."""
    return seam.Binding(REAL, ffi, ffi.dlopen(None))


def refusal(binding, mechanism):
    """Run a test that has to fail, often enough for a corrupted heap to show."""
    for _ in range(20):
        with pytest.raises(selftest.SelfTestError) as caught:
            selftest.check(binding, mechanism)
    assert isinstance(caught.value, ImportError)
    assert caught.value.report.mechanism == mechanism
    assert caught.value.report.problems
    return str(caught.value)


@pytest.mark.skipif(REAL is None, reason="needs a kernel whose ABI is known")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_this_kernel_passes(mechanism):
    """What this host has passes, and the report says what was tested."""
    binding = seam.load()
    try:
        report = selftest.check(binding, mechanism)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOENT):
            raise
        pytest.skip(f"no {mechanism} here: {error}")
    assert report.problems == ()
    assert report.target == REAL
    assert report.sizeof == binding.ffi.sizeof(report.struct)


@pytest.mark.parametrize("system", bsd.VARIANTS)
def test_every_bsd_kernel_passes(system):
    """The kqueue of each BSD, in its own layout, passes."""
    kernel = bsd.SimulatedBSD(system)
    assert selftest.check(kernel.binding(), "kqueue").problems == ()


@pytest.mark.parametrize("system", solaris.VARIANTS)
def test_every_solaris_kernel_passes(system):
    """/dev/poll and the event ports of illumos and of Solaris pass."""
    kernel = solaris.SimulatedSolaris(system)
    assert selftest.check(kernel.binding(), "devpoll").problems == ()
    assert selftest.check(kernel.binding(), "eventport").problems == ()


@pytest.mark.parametrize("target", ["linux", "linux_x86"])
def test_both_layouts_of_epoll_pass(target):
    """The packed and the natural epoll_event pass on the kernel that has them."""
    kernel = linux.SimulatedLinux(target)
    assert selftest.check(kernel.binding(), "epoll").problems == ()


@on_linux
def test_other_epoll_layout_on_the_real_kernel(variant):
    """16 bytes where the kernel has 12, or 12 where it has 16."""
    right = load_ffi(REAL).sizeof("struct epoll_event")
    ffi = variant(REAL, packed=right == 16)
    if ffi.sizeof("struct epoll_event") == right:
        pytest.skip("packed or not, this processor aligns the struct to 4 bytes")
    message = refusal(real(ffi), "epoll")
    assert f"struct epoll_event of {28 - right} bytes" in message
    assert "records of 3" in message or "were written" in message


packing = pytest.mark.skipif(
    HOST.align_int64 == 4, reason="struct epoll_event has no padding on this processor"
)


@packing
@pytest.mark.parametrize(("declared", "kernel"), [("linux", "linux_x86"), ("linux_x86", "linux")])
def test_other_epoll_layout_on_a_simulated_kernel(declared, kernel):
    """The same, both ways round, on any host."""
    simulated = linux.SimulatedLinux(kernel, ffi=load_ffi(declared))
    message = refusal(simulated.binding(), "epoll")
    assert ("were written" in message) == (declared == "linux_x86")


@pytest.mark.parametrize(
    ("declared", "kernel"),
    [
        ("freebsd11", "freebsd"),
        ("freebsd", "freebsd11"),
        ("netbsd", "netbsd11"),
        ("netbsd11", "netbsd"),
    ],
)
def test_other_kevent_of_the_same_system(declared, kernel):
    """A 32-byte kevent on a 64-byte kernel and the reverse, and NetBSD's 40 and 72."""
    simulated = bsd.SimulatedBSD(kernel, ffi=load_ffi(declared))
    link = simulated.lib
    # Whatever its name in libc: the test is about the struct.
    for name in ("kevent", "__kevent50", "__kevent100"):
        setattr(link, name, simulated.kevent)
    message = refusal(seam.Binding(declared, simulated.ffi, link), "kqueue")
    size = load_ffi(declared).sizeof("struct kevent")
    assert f"struct kevent of {size} bytes" in message
    shorter = size < load_ffi(kernel).sizeof("struct kevent")
    assert ("were written" in message) == shorter
    assert "expected 0x" in message


@pytest.mark.parametrize("kernel", ["openbsd", "freebsd"])
def test_kevent_of_another_system(kernel):
    """NetBSD's struct, or its filters, elsewhere: nothing is registered, or garbage."""
    simulated = bsd.SimulatedBSD(kernel, ffi=load_ffi("netbsd"))
    link = simulated.lib
    link.__kevent50 = simulated.kevent
    refusal(seam.Binding("netbsd", simulated.ffi, link), "kqueue")


@on_linux
def test_other_timeval_on_the_real_kernel(variant):
    """A 32-bit timeval where the kernel has 64 bits, or 64 where it has 32."""
    long, other = ("long", "int32_t") if HOST.long == 8 else ("long", "int64_t")
    if HOST.long == 4 and REAL.endswith(("64", "x32", "riscv32")):
        long, other = "int64_t", "int32_t"
    ffi = variant(REAL, (f"{long} tv_", f"{other} tv_"))
    assert ffi.sizeof("struct timeval") in (8, 16)
    assert ffi.sizeof("struct timeval") != load_ffi(REAL).sizeof("struct timeval")
    before = time.monotonic()
    message = refusal(real(ffi), "select")
    assert "struct timeval of" in message
    assert time.monotonic() - before < 10


def answers(binding, function):
    """Say whether libc has a call, and the kernel too."""
    if not binding.has(function):
        return False
    if function == "ppoll":
        return True  # in every kernel that runs Python
    null = binding.ffi.NULL
    with pytest.raises(OSError) as caught:
        binding.call(binding.function(function), -1, null, 0, null, null)
    return caught.value.errno not in (errno.ENOSYS, errno.EPERM)


@on_linux
@pytest.mark.parametrize(("mechanism", "function"), [("poll", "ppoll"), ("epoll", "epoll_pwait2")])
def test_other_timespec_on_the_real_kernel(variant, mechanism, function):
    """With a 32-bit timespec the one call that takes it is not used, the mechanism is."""
    if HOST.long != 8:
        pytest.skip("32-bit C libraries differ; the select test covers their time")
    ffi = variant(REAL, ("long tv_", "int32_t tv_"))
    binding = real(ffi)
    if not answers(binding, function):
        pytest.skip(f"no {function} here")
    for _ in range(20):
        report = selftest.check(binding, mechanism)
        assert report.problems == ()
        assert list(report.unfit) == [function]
    assert f"{function} with no time" in report.unfit[function]
    assert "struct timespec of 8 bytes" in report.unfit[function]
    assert selftest.require(binding, mechanism) is binding
    assert not binding.has(function)
    # Another binding of the same library knows it too.
    again = seam.Binding(binding.target, binding.ffi, binding.lib)
    assert again.has(function)
    assert not selftest.require(again, mechanism).has(function)


@on_linux
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("short events;\n    short revents;", "short revents;\n    short events;"),
        ("int fd;\n    short events;", "long fd;\n    short events;"),
        ("short events;\n", "int events;\n"),
    ],
)
def test_other_pollfd_on_the_real_kernel(variant, old, new):
    """A pollfd with fields exchanged or too wide is caught."""
    if "long" in new and HOST.long == 4:
        new = new.replace("long", "int64_t")
    refusal(real(variant(REAL, (old, new))), "poll")


@pytest.mark.parametrize("system", solaris.VARIANTS)
def test_dvpoll_as_its_manual_page_has_it(variant, system):
    """With an int for dp_nfds the timeout is read as the high half of the count."""
    if HOST.pointer != 8:
        pytest.skip("the two are of one size in a 32-bit process")
    ffi = variant("sunos", ("nfds_t dp_nfds; ", "int dp_nfds; "))
    refusal(solaris.SimulatedSolaris(system, ffi=ffi).binding(), "devpoll")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int portev_events;", "long portev_events;"),
        ("unsigned short portev_pad;", "unsigned short portev_pad[5];"),
        ("void *portev_user;", "unsigned int portev_user;"),
    ],
)
def test_other_port_event(variant, old, new):
    """A port_event that is too long or too short, or has a narrow field, is caught."""
    if HOST.pointer != 8:
        pytest.skip("the target is of 64-bit processes")
    ffi = variant("sunos", (old, new))
    message = refusal(solaris.SimulatedSolaris("illumos", ffi=ffi).binding(), "eventport")
    assert "struct port_event" in message


def test_no_kernel_writes_past_the_buffers():
    """The longest record of any system, thrice, fits into the memory that is handed out."""
    longest = max(
        layout.sizeof
        for host in facts.HOSTS.values()
        for name, layout in host.structs.items()
        if name in ("epoll_event", "kevent", "pollfd", "dvpoll", "port_event", "timeval", "timespec")
    )
    assert longest == 72
    assert longest <= selftest.ROOM
    assert selftest.READY >= 3


class Counting(Proxy):
    """A library that counts the epolls made with it."""

    def __init__(self, binding):
        super().__init__(binding, self.count)
        self.made = 0

    def count(self, call):
        self.made += call.name == "epoll_create1"
        return call.run()


@pytest.fixture
def counted():
    """A simulated epoll whose library counts."""
    kernel = linux.SimulatedLinux("linux_x86")
    return seam.Binding("linux_x86", kernel.ffi, Counting(kernel.binding()))


def test_once_per_library(counted, monkeypatch):
    """The first use tests, the next do not; another library is tested for itself."""
    monkeypatch.delenv("SELECTORS_FFI_SELFTEST", raising=False)
    assert selftest.require(counted, "epoll") is counted
    assert selftest.require(counted, "epoll") is counted
    assert counted.lib.made == 1
    other = seam.Binding(counted.target, counted.ffi, Counting(counted))
    selftest.require(other, "epoll")
    assert other.lib.made == 1


@packing
def test_refused_once_refused_always(monkeypatch):
    """A failure is remembered, and raised afresh with the same report."""
    monkeypatch.delenv("SELECTORS_FFI_SELFTEST", raising=False)
    kernel = linux.SimulatedLinux("linux_x86", ffi=load_ffi("linux"))
    binding = seam.Binding("linux", kernel.ffi, Counting(kernel.binding()))
    failures = []
    for _ in range(3):
        with pytest.raises(selftest.SelfTestError) as caught:
            selftest.require(binding, "epoll")
        failures.append(caught.value)
    assert binding.lib.made == 1
    assert failures[0] is not failures[1]
    assert failures[0].report == failures[1].report == failures[2].report


def test_skipped_on_request(monkeypatch):
    """SELECTORS_FFI_SELFTEST=0 lets even a wrong declaration through."""
    monkeypatch.setenv("SELECTORS_FFI_SELFTEST", "0")
    kernel = linux.SimulatedLinux("linux_x86", ffi=load_ffi("linux"))
    binding = seam.Binding("linux", kernel.ffi, Counting(kernel.binding()))
    assert selftest.require(binding, "epoll") is binding
    assert binding.lib.made == 0


def test_nothing_left_to_test_with(counted, monkeypatch):
    """Without a free descriptor there is no test and no verdict: next time, then."""
    monkeypatch.delenv("SELECTORS_FFI_SELFTEST", raising=False)

    def pipe():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as full:
        full.setattr(os, "pipe", pipe)
        assert selftest.require(counted, "epoll") is counted
    assert counted.lib.made == 0
    selftest.require(counted, "epoll")
    assert counted.lib.made == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM])
def test_the_kernel_is_short_of_something(counted, monkeypatch, code):
    """A limit that is reached says nothing about a struct: no refusal, and no verdict."""
    monkeypatch.delenv("SELECTORS_FFI_SELFTEST", raising=False)

    def epoll_ctl(epfd, op, fd, event):
        counted.ffi.errno = code
        return -1

    with monkeypatch.context() as short:
        short.setattr(counted.lib, "epoll_ctl", epoll_ctl, raising=False)
        assert selftest.require(counted, "epoll") is counted
    assert counted.lib.made == 1
    selftest.require(counted, "epoll")
    assert counted.lib.made == 2


def test_missing_mechanism_is_no_failed_test(monkeypatch):
    """A host without the call says ENOSYS, as ever; that is no wrong declaration."""
    monkeypatch.delenv("SELECTORS_FFI_SELFTEST", raising=False)
    binding = bsd.SimulatedBSD("openbsd").binding()
    with pytest.raises(OSError, match="epoll_create1") as caught:
        selftest.require(binding, "epoll")
    assert caught.value.errno == errno.ENOSYS


def test_windows_is_not_tested():
    """On Windows there is nothing to test with, and the binding is taken as it is."""
    binding = seam.Binding("windows", load_ffi("windows"), object())
    assert selftest.require(binding, "select") is binding


# The same system with epoll_event packed the other way.
OTHER_PACKING = {
    "linux": "linux_x86",
    "linux_x86": "linux",
    "linux_time64": "linux_x86_time64",
    "linux_mips": "linux_x86",
    "linux_riscv32": "linux_x86_time64",
}


@packing
@pytest.mark.skipif(REAL not in OTHER_PACKING, reason="needs epoll")
@pytest.mark.parametrize("skipped", [False, True])
def test_the_default_moves_on(skipped):
    """With the wrong epoll_event there is no EpollSelector here, and the default is another."""
    generated = Path(abi.__file__).parent / "generated"
    program = f"""if True:
        import importlib.util, sys
        name = "selectors_ffi._abi.generated.{REAL}"
        path = {str(generated / (OTHER_PACKING[REAL] + ".py"))!r}
        spec = importlib.util.spec_from_file_location(name, path)
        wrong = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(wrong)
        sys.modules[name] = wrong
        sys.path.insert(0, {str(generated.parents[2])!r})
        import selectors_ffi
        from selectors_ffi import backends
        print(selectors_ffi.DefaultSelector.__name__, hasattr(selectors_ffi, "EpollSelector"))
        try:
            backends.EpollSelector().close()
        except ImportError as error:
            print(error)
    """
    variables = {"SELECTORS_FFI_SELFTEST": "0" if skipped else "1", "SELECTORS_FFI_BACKEND": ""}
    output = apart.python("-c", program, **variables).stdout
    if skipped:
        assert output == "EpollSelector True\n"
    else:
        lines = output.splitlines()
        assert lines[0] == "PollSelector False"
        assert "epoll does not fit this kernel" in lines[1]


@on_linux
@pytest.mark.parametrize(
    ("mechanism", "struct", "slips"),
    [
        ("epoll", "epoll_event", ("moved", "width", "array", "renamed", "longer")),
        ("poll", "pollfd", ("moved", "width", "array", "renamed", "longer")),
    ],
)
def test_every_slip_that_matters_is_caught(variant, mechanism, struct, slips):
    """A field of a record moved by one place, of another width, or a record too long.

    A wrong sign is harmless here, and caught by the comparison with the headers.
    """
    declared = structs_of(load_ffi(REAL))[struct]
    (text,) = re.findall(
        rf"struct {struct} {{.*?}};",
        "".join(path.read_text(encoding="utf-8") for path in recipe(REAL)),
        re.DOTALL,
    )
    caught = []
    for what, mutated in mutated_structs(declared):
        if what.split()[-1] in slips:
            ffi = variant(REAL, (text, cdef([mutated])))
            with pytest.raises(selftest.SelfTestError):
                selftest.check(real(ffi), mechanism)
            caught.append(what)
    assert len(caught) >= len(declared.fields)


def recipe(target):
    """Return the cdef files of a target."""
    build_ffi = pytest.importorskip("build_ffi")
    return [CDEF / name for name in build_ffi.TARGETS[target]]


@pytest.fixture
def library():
    """A binding of the host, and its library that can be made to fail."""
    whole = seam.load()
    library = FaultyLibrary(whole)
    return seam.Binding(whole.target, whole.ffi, library), library


@on_linux
@pytest.mark.parametrize("mechanism", ["epoll", "poll"])
def test_what_is_not_there_is_not_tested(library, mechanism):
    """A kernel without the calls with nanoseconds passes without them."""
    binding, _ = library
    binding.refused.update(("ppoll", "epoll_pwait2"))
    report = selftest.check(binding, mechanism)
    assert (report.problems, report.unfit) == ((), {})


@on_linux
@pytest.mark.parametrize(
    ("code", "place", "said"),
    [
        (errno.EPERM, 1, None),
        (errno.ENOSYS, 1, None),
        (errno.EFAULT, 1, "with no time"),
        (errno.EFAULT, 2, "expected EINVAL"),
    ],
)
def test_a_call_that_can_be_done_without(library, code, place, said):
    """ppoll that a sandbox forbids is no finding; refused for another reason it is not used."""
    binding, library = library
    if not binding.has("ppoll"):
        pytest.skip("the C library has no ppoll for this process")
    library.plan[binding.find("ppoll")[0], place] = code
    report = selftest.check(binding, "poll")
    assert report.problems == ()
    if said is None:
        assert report.unfit == {}
    else:
        assert said in report.unfit["ppoll"]
        assert os.strerror(code) in report.unfit["ppoll"]


@on_linux
@pytest.mark.parametrize("mechanism", ["poll", "select", "epoll"])
def test_a_refusal_is_told_with_its_reason(library, mechanism):
    """A call that is refused, most likely for a misread argument, fails the test."""
    binding, library = library
    name = {"epoll": "epoll_ctl"}.get(mechanism, mechanism)
    library.plan[binding.find(name)[0], 1] = errno.EINVAL
    with pytest.raises(selftest.SelfTestError, match=os.strerror(errno.EINVAL)):
        selftest.check(binding, mechanism)


@on_linux
def test_a_select_that_forgets(library, monkeypatch):
    """A count that is not that of the bits is told with both sets."""
    binding, library = library
    symbol, select = binding.find("select")
    monkeypatch.setattr(library, symbol, lambda *arguments: select(*arguments) - 1, raising=False)
    assert "2 ready of 3, set" in refusal(binding, "select")


@on_linux
def test_select_of_high_descriptors(library, monkeypatch):
    """Where all descriptors are above FD_SETSIZE only the time struct is tested."""
    binding, library = library
    whole = type(binding).constant
    monkeypatch.setattr(
        type(binding), "constant",
        lambda self, name: 1 if name == "FD_SETSIZE" else whole(self, name),
    )  # fmt: skip
    assert selftest.check(binding, "select").problems == ()
    assert library.calls[binding.find("select")[0]] == 2
