"""The numbers of the simulated kernels are those of the declarations, which the facts confirm."""

from __future__ import annotations

import os

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi._abi import load_ffi
from selectors_ffi.testing.kernels import NAMES, bsd, kernel, linux, options_of, ports, solaris

#: Of illumos alone; Solaris, which shares the declarations, does not have them.
UNDECLARED = {"POLLONESHOT", "POLLET"}


def numbers(module):
    """Return {name: number} of a module's native constants."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith(("EV_", "NOTE_", "EPOLL", "POLL", "DP_")) and isinstance(value, int)
    }


@pytest.mark.parametrize("system", bsd.VARIANTS)
def test_numbers_of_bsd(system):
    """The flags and filters of each system's kqueue."""
    variant = bsd.VARIANTS[system]
    constant = load_ffi(system).integer_const

    found = numbers(bsd)
    assert {"EV_ADD", "EV_EOF", "NOTE_TRIGGER"} <= set(found)
    assert found == {name: constant(name) for name in found}
    filters = variant.read, variant.write, variant.user
    assert filters == tuple(map(constant, ("EVFILT_READ", "EVFILT_WRITE", "EVFILT_USER")))

    if variant.oob is None:
        with pytest.raises(AttributeError):
            constant("EVFILT_EXCEPT")
    else:
        assert variant.oob == (constant("EVFILT_EXCEPT"), constant("NOTE_OOB"))


def test_numbers_of_solaris():
    """The flags of poll and the requests of /dev/poll."""
    constant = load_ffi("sunos").integer_const
    assert constant("PORT_SOURCE_FD") == ports.PORT_SOURCE_FD
    assert constant("PORT_SOURCE_USER") == ports.PORT_SOURCE_USER
    found = {name: number for name, number in numbers(solaris).items() if name not in UNDECLARED}

    assert {"POLLREMOVE", "DP_POLL"} <= set(found)
    assert found == {name: constant(name) for name in found}


@pytest.mark.parametrize("target", ["linux", "linux_x86"])
def test_numbers_of_linux(target):
    """The flags of epoll. EPOLL_CLOEXEC is O_CLOEXEC, sys/epoll.h."""
    constant = load_ffi(target).integer_const
    found = numbers(linux)
    cloexec = found.pop("EPOLL_CLOEXEC")

    assert {"EPOLLIN", "EPOLL_CTL_MOD"} <= set(found)
    assert found == {name: constant(name) for name in found}
    assert cloexec == getattr(os, "O_CLOEXEC", cloexec) or os.uname().machine.startswith("sparc")


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_is_made_by_its_name(name):
    """``kernel(name)`` is a fresh simulated kernel each time, with the options it names."""
    one, other = kernel(name), kernel(name)

    assert one.lib.kernel is not other.lib.kernel
    assert repr(one.lib) == f"<simulated {name}>"
    assert kernel(name, **options_of(name)).target == one.target


def test_an_unknown_kernel():
    """The message lists the kernels that there are."""
    with pytest.raises(ValueError, match=r"'freebsd13'; known: freebsd, freebsd11, .*darwin \(macOS\)"):
        kernel("freebsd13")


@pytest.mark.parametrize(
    ("name", "known"),
    [("freebsd", "kevent, select, "), ("illumos", "absent, "), ("linux", "target"), ("windows", "none")],
)
def test_an_unknown_option(name, known):
    """The message lists the options that this kernel has."""
    with pytest.raises(
        ValueError, match=f"unknown option 'slow' of the kernel {name}; known: .*{known}"
    ):
        kernel(name, slow=True)


def test_a_value_of_another_type():
    """The message shows the default of the option."""
    said = "the option tick of the kernel netbsd is int, as 10000000 is, not '10ms'"
    with pytest.raises(ValueError, match=said):
        kernel("netbsd", tick="10ms")


@pytest.mark.parametrize(
    ("name", "option"), [("netbsd", "user"), ("darwin", "oob"), ("solaris11", "limit_inclusive")]
)
def test_none_is_a_value_where_the_definition_says_so(name, option):
    """``user=None``: the system has no EVFILT_USER."""
    assert getattr(kernel(name, **{option: None}).lib.kernel.variant, option) is None


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "freebsd",
            {"oob": 1},
            r"the option oob of the kernel freebsd is tuple\[int, int\] \| None, as",
        ),
        ("freebsd", {"tick": 0}, "tick is a number of nanoseconds above 0, not 0"),
        ("freebsd", {"makers": ("kqueue", "nosuch")}, "unknown 'nosuch' in makers; known: kqueue, "),
        ("linux", {"target": "bogus"}, "unknown target 'bogus'; known: linux, linux_x86"),
    ],
)
def test_a_value_that_an_option_does_not_have(name, options, said):
    """It is a ValueError when the kernel is made, and not an error of another kind in a call."""
    with pytest.raises(ValueError, match=said):
        kernel(name, **options)
