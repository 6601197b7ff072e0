"""The proxy of a library: hooks before and after each call, errno, names, notes."""

from __future__ import annotations

import errno
import os
from selectors import EVENT_READ, EVENT_WRITE

import pytest

import selectors_ffi
from selectors_ffi.binding import Binding, load
from selectors_ffi.testing import chaos
from selectors_ffi.testing.answers import answer_of
from selectors_ffi.testing.calls import descriptors, functions_of, sets_of
from selectors_ffi.testing.library import Call, name_of, proxied, take_note


def plain(call):
    """A hook that changes nothing."""
    return call.run()


def test_a_hook_sees_and_replaces_arguments(below, subject, pair):
    """Each call has its name, symbol and arguments; what the hook returns is the result."""
    near, _ = pair
    seen = []

    def hook(call):
        seen.append(call.name)
        assert below.find(call.name)[0] == call.symbol
        assert name_of(below.target, call.symbol) == call.name
        return call.run()

    with subject.cls(binding=proxied(below, hook)) as selector:
        key = selector.register(near, EVENT_WRITE)
        assert selector.select(1) == [(key, EVENT_WRITE)]
    assert set(seen) <= set(functions_of(below)) | {"WSAGetLastError"}


def test_it_looks_like_the_library():
    """repr, dir and what is no function come from below; an unknown name is what it is there."""
    below = load()
    binding = proxied(below, plain)

    assert repr(binding.lib) == f"Proxy({below.lib!r})"
    assert set(dir(below.lib)) <= set(dir(binding.lib))
    assert binding.lib.__class__.__name__ == "Proxy"
    assert not binding.has("nothing")
    assert functions_of(binding) == functions_of(below)
    simulated = _windows()
    if simulated is not None:
        assert proxied(simulated, plain).lib.kernel is simulated.lib.kernel


@pytest.mark.skipif(os.name != "posix", reason="Winsock leaves errno alone")
def test_errno_is_that_of_the_call():
    """A hook's own failing calls change nothing; a call that succeeds leaves errno alone."""
    below = load()
    name = next(name for name in ("poll", "select") if below.has(name))

    def hook(call):
        result = call.run()
        call.binding.ffi.errno = errno.EXDEV
        return result

    binding = proxied(below, hook)
    binding.ffi.errno = errno.ENOLCK
    arguments = (below.ffi.NULL, 0, 0) if name == "poll" else (0, *[below.ffi.NULL] * 4)
    assert binding.call(binding.function(name), *arguments) == 0
    assert binding.ffi.errno == errno.ENOLCK


@pytest.mark.skipif(os.name != "posix", reason="poll(2)")
@pytest.mark.parametrize("code", [errno.EPERM, errno.EINTR, errno.ENOMEM])
def test_a_call_that_is_made_to_fail(code):
    """``fail`` is what a C function does; EPERM, which is 1, is EPERM on every interpreter."""
    binding = proxied(load(), lambda call: call.fail(code))
    with pytest.raises(OSError) as caught:
        binding.call(binding.function("poll"), binding.ffi.NULL, 0, 0)
    assert caught.value.errno == code


@pytest.mark.skipif(os.name != "posix", reason="poll(2)")
def test_notes_are_taken_once():
    """The note of a call is told to whoever asks first, in the thread that made the call."""

    def hook(call):
        call.note = "MINE"
        return call.run()

    inner = proxied(load(), hook)
    outer = proxied(inner, plain)
    poll = outer.function("poll")
    poll(outer.ffi.NULL, 0, 0)
    assert [take_note(poll), take_note(poll), take_note(inner.function("poll"))] == ["MINE", "", ""]
    assert take_note(len) == ""


def test_only_chosen_functions():
    """Functions that are not asked for are those of the library itself, at no cost."""
    below = load()
    binding = proxied(below, plain, ["select"])
    others = [name for name in functions_of(below) if name != "select"]
    other = next(iter(others), "WSAGetLastError")
    assert binding.function(other) is below.function(other)
    assert binding.function("select") is not below.function("select")


def test_a_set_that_is_null(pair):
    """NULL for a set is an empty one, on Unix and on Windows, and is not written to."""
    near, _ = pair
    for binding in [load()] + [s for s in [_windows()] if s]:
        NULL = binding.ffi.NULL
        call = Call(binding, "select", "select", len, (near.fileno() + 1, NULL, NULL, NULL, NULL))
        assert [one.members() for one in sets_of(call)] == [[], [], []]
        assert answer_of(call).write([]) == 0
        assert descriptors(call) == set()


def _windows():
    if os.name != "posix":
        return None
    from selectors_ffi.testing import kernel

    return kernel("windows")


@pytest.mark.skipif(not hasattr(selectors_ffi, "EpollSelector"), reason="epoll is Linux's")
def test_an_epoll_that_replaces_another(pair):
    """dup3(2): what chaos knows of the registrations goes with the set to its new number."""
    near, _ = pair
    binding = chaos(3, spurious=True)
    call, constant, ffi = binding.call, binding.constant, binding.ffi
    function = binding.function
    old, new = (call(function("epoll_create1"), 0) for _ in range(2))
    event = ffi.new("struct epoll_event *", {"events": constant("EPOLLIN"), "data": 9})
    call(function("epoll_ctl"), new, constant("EPOLL_CTL_ADD"), near.fileno(), event)
    call(function("dup3"), new, old, 0)
    room = ffi.new("struct epoll_event[]", 4)
    seen = set()
    for _ in range(100):
        n = call(function("epoll_wait"), old, room, 4, 0)
        seen |= {room[i].data for i in range(n)}
    assert seen == {9}
    for fd in (old, new):
        os.close(fd)


def test_what_a_call_is_about(below, subject, pair):
    """The descriptors of each call: its own, those that it changes, those that it is handed."""
    near, _ = pair
    found = {}

    def hook(call):
        found.setdefault(call.name, set()).update(descriptors(call))
        return call.run()

    with subject.cls(binding=proxied(below, hook)) as selector:
        selector.register(near, EVENT_READ | EVENT_WRITE)
        selector.select(0)
        own = {selector.fileno()} if subject.kernel_keeps_list else set()
    assert near.fileno() in set().union(*found.values())
    assert own <= set().union(*found.values())
    assert isinstance(proxied(below, hook), Binding)
