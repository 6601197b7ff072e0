"""The binding itself: its library, its functions by name, its errors."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from selectors_ffi import binding
from selectors_ffi._abi import load_ffi
from selectors_ffi._abi.target import Decision
from selectors_ffi.binding import Binding, load


@pytest.fixture
def fresh():
    """Bindings are kept; these are forgotten."""
    kept = binding._loaded.copy()
    binding._loaded.clear()
    yield
    binding._loaded.clear()
    binding._loaded.update(kept)


def test_one_binding_of_the_process(fresh):
    """However it is asked for, the host's library has one binding."""
    assert binding.default() is load() is load(None, library=None)


def test_repr_names_target_and_library():
    """The repr says which declarations there are and what does the work."""
    assert repr(Binding("linux", load().ffi, "libc")) == "Binding('linux', lib='libc')"


def test_a_library_without_close():
    """A library that has no close(2), an emulator's say, leaves closing to this process."""
    reader, writer = os.pipe()
    made = Binding("linux", load().ffi, SimpleNamespace())
    made.ffi.errno = errno.EXDEV

    made.close(writer)

    assert os.read(reader, 1) == b""
    assert made.ffi.errno == errno.EXDEV
    os.close(reader)


def test_closing_is_interrupted_once():
    """EINTR from close(2) is success, and no trace of it is left: it may happen in a finaliser."""
    ffi = load().ffi
    closed = []

    def close(fd):
        closed.append(fd)
        ffi.errno = errno.EINTR
        return -1

    ffi.errno = errno.EXDEV
    Binding("linux", ffi, SimpleNamespace(close=close)).close(7)
    assert closed == [7]
    assert ffi.errno == errno.EXDEV


def test_an_unknown_system(fresh, monkeypatch):
    """Where nothing certain is known, loading is ENOSYS and says why."""
    monkeypatch.setattr(binding, "host", lambda has: Decision(None, "nothing is known of Hurd"))

    with pytest.raises(OSError, match="nothing is known of Hurd") as caught:
        load()
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize(
    ("target", "library", "opened"),
    [("windows", None, "ws2_32"), ("linux", None, None), ("libkqueue", "my.so", "my.so")],
)
def test_which_library_is_opened(fresh, monkeypatch, target, library, opened):
    """Windows' select is in a library of its own; elsewhere the C library is there already."""
    seen = []
    monkeypatch.setattr(binding, "open_library", lambda ffi, name: seen.append((ffi, name)))

    made = load(target, library=library)

    assert seen == [(load_ffi(target), opened)]
    assert made.target == target
    assert made.opened


def test_this_host(fresh):
    """Without arguments it is this process's own interface, opened once."""
    assert load() is load(None)
    assert load().opened
    assert load().has("select")
