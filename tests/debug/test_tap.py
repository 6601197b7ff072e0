"""The tap: what it does where a call or a decoder fails, and what it leaves alone."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from selectors_ffi.binding import ATOMIC_STEP, load
from selectors_ffi.debug import Debug, tap
from selectors_ffi.debug.decode import form
from selectors_ffi.debug.observer import Observer


def keep_nothing(record):
    """A sink."""


class Undecodable:
    """A form that cannot read anything."""

    def enter(self, arguments):
        raise LookupError

    def leave(self, arguments, texts, result):
        raise LookupError

    keep = kept = ready = armed = leave
    arms = waits = True
    lazy = False


def test_what_cannot_be_decoded_breaks_nothing():
    """A decoder that raises is named in the record, and the call goes on."""
    broken = Undecodable()
    assert tap._enter(broken, (1,)) == ["/* undecoded: LookupError */"]
    assert tap._leave(broken, (1,), ["1"], 0) == "undecoded: LookupError"
    assert tap._keep(broken, (1,)) == (1,)
    assert tap._kept(broken, (1,), (2,), 0) == (1,)
    arguments = form.Arguments(broken, (1,), 0)
    assert arguments == ["/* undecoded: LookupError */"]
    assert repr(arguments) == "('/* undecoded: LookupError */',)"
    selector = Selector()
    observer = Observer(selector, Debug.EVENTS, keep_nothing)
    here = observer.here()
    here.heard = []
    observer.heard(here, broken, (1,), 1)
    assert here.heard == [(broken, [], 1)]


class Selector:
    """Something that an observer can look at."""


@pytest.mark.parametrize("flags", [Debug.SYSCALLS, Debug.EVENTS])
def test_a_call_that_raises(flags):
    """A function that raises is recorded with the exception's name, and the exception goes on."""
    kept = []
    ffi = load().ffi

    def poll(fds, count, timeout):
        raise KeyboardInterrupt

    library = SimpleNamespace(poll=poll, __version__="1")
    whole = type(load())(load().target, ffi, library)
    selector = Selector()
    tapped = tap.tapped(whole, Observer(selector, flags, kept.append))

    assert repr(tapped.lib).startswith("Tap(namespace(")
    assert tapped.lib.__version__ == "1"
    with pytest.raises(KeyboardInterrupt):
        tapped.lib.poll(ffi.NULL, 0, 0)
    expected = [("KeyboardInterrupt", None)] if flags == Debug.SYSCALLS else []
    assert [(one.note, one.result) for one in kept] == expected


def test_what_no_flag_needs_is_not_tapped():
    """Checks of poll(2) need none of its calls, but its errno must be the caller's."""
    ffi = load().ffi

    def poll(fds, count, timeout):
        ffi.errno = errno.EINTR
        return -1

    whole = type(load())(load().target, ffi, SimpleNamespace(poll=poll))
    tapped = tap.tapped(whole, Observer(Selector(), Debug.CHECKS, keep_nothing))
    assert (tapped.lib.poll is poll) is ATOMIC_STEP
    assert tapped.ask(tapped.lib.poll, ffi.NULL, 0, 0) == -errno.EINTR
