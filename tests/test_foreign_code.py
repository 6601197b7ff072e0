"""Classes of other programs on ours: their own register, select and parameters; odd arguments."""

from __future__ import annotations

import copy
import decimal
import fractions
import importlib.util
import os
import pickle
import signal
import socket
import sys
import threading
import time

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ as READ
from selectors_ffi import EVENT_WRITE as WRITE
from selectors_ffi.testing import inject, injecting
from tests import needs

from .alarms import alarm
from .crew import Crew

BOTH = READ | WRITE

pytestmark = pytest.mark.ours


class Recording(selectors_ffi._BaseSelectorImpl):
    """As selectors for other event loops: register and unregister are its own, modify is inherited."""

    def __init__(self):
        super().__init__()
        self.watched = {}

    def register(self, fileobj, events, data=None):
        key = super().register(fileobj, events, data)
        self.watched[key.fd] = events
        return key

    def unregister(self, fileobj):
        key = super().unregister(fileobj)
        del self.watched[key.fd]
        return key

    def select(self, timeout=None):
        return [(key, key.events) for key in self.get_map().values()]


@pytest.mark.parametrize("flags", [None, "stats,checks"])
def test_modify_of_a_third_party_selector(pair, flags):
    """modify() goes through the selector's own register and unregister, with and without debug flags."""
    with selectors_ffi.debugging(flags) if flags else Recording(), Recording() as selector:
        selector.register(pair[0], READ)
        key = selector.modify(pair[0], BOTH, "data")
        assert selector.watched == {pair[0].fileno(): BOTH}
        assert selector.get_key(pair[0]) == key
        assert selector.modify(pair[0], BOTH, "new").data == "new"
        assert selector.select(0) == [(selector.get_key(pair[0]), BOTH)]
        selector.unregister(pair[0])
        assert selector.watched == {}


@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector"])
def test_modify_of_a_subclass_of_a_backend(pair, name):
    """modify() of our classes does not call register and unregister, which a subclass may override."""
    cls = getattr(selectors_ffi, name, None)
    if cls is None:
        pytest.skip("this system has no such mechanism")
    called = []

    class Recorded(cls):
        def register(self, fileobj, events, data=None):
            called.append("register")
            return super().register(fileobj, events, data)

        def unregister(self, fileobj):
            called.append("unregister")
            return super().unregister(fileobj)

    with Recorded() as selector:
        selector.register(pair[0], READ)
        assert selector.modify(pair[0], BOTH).events == BOTH
    assert called == ["register"]


def test_the_private_map_is_not_assigned():
    """``_map`` is the mapping that get_map() returns, and an AttributeError to assign."""
    with Recording() as selector:
        assert selector._map is selector.get_map()
        with pytest.raises(AttributeError):
            selector._map = None


def test_no_copies(subject, selector):
    """A selector is neither pickled nor copied with all that it refers to."""
    if not subject.on_host:
        pytest.skip("the library of a simulated kernel is an object of Python")
    for copies in (pickle.dumps, copy.deepcopy):
        with pytest.raises((TypeError, copy.Error, pickle.PicklingError)):
            copies(selector)


@pytest.mark.filterwarnings("error")
def test_a_bool_as_a_descriptor(pair):
    """True is descriptor 1, without a warning."""
    with Recording() as selector:
        assert selector.register(True, READ).fd == 1
        assert selector.unregister(1).fileobj is True


def with_limit(cls):
    """Return a subclass whose select takes one argument more."""

    class Limited(cls):
        def select(self, timeout=None, limit=None):
            return super().select(timeout)[:limit]

    return Limited


def with_own_debug(cls):
    """Return a subclass that uses the name ``debug`` for something of its own."""

    class Own(cls):
        def __init__(self, debug=False):
            super().__init__()
            self.debug = debug

    return Own


@pytest.mark.parametrize("flags", [None, "stats", "all"])
@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector"])
def test_a_select_with_more_parameters(pairs, name, flags, capsys):
    """Its signature is the subclass's own, with and without debug flags."""
    cls = getattr(selectors_ffi, name, None)
    if cls is None:
        pytest.skip("this system has no such mechanism")
    with with_limit(cls)(debug=flags) as selector:
        for near, _ in pairs:
            selector.register(near, WRITE)
        assert len(selector.select(0)) == len(pairs)
        assert len(selector.select(0, limit=2)) == 2
        assert len(selector.select(timeout=0, limit=1)) == 1


@pytest.mark.parametrize("flags", [None, "stats"])
@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector"])
def test_a_subclass_with_a_debug_of_its_own(pair, name, flags):
    """Its parameter is its own; flags of the surroundings hold for it as for others."""
    cls = getattr(selectors_ffi, name, None)
    if cls is None:
        pytest.skip("this system has no such mechanism")
    with selectors_ffi.debugging(flags) if flags else cls(), with_own_debug(cls)(debug=True) as selector:
        assert selector.debug is True
        selector.register(pair[0], WRITE)
        assert len(selector.select(0)) == 1
        if flags:
            assert selector.stats().waits.count == 1


# -- time


@pytest.mark.parametrize(
    "seconds",
    [fractions.Fraction(1, 50), decimal.Decimal("0.02"), True],
    ids=["Fraction", "Decimal", "bool"],
)
def test_a_number_of_another_type(subject, selector, pair, seconds):
    """A timeout of any type that float() takes is waited for, never less."""
    if seconds is True and not (subject.on_host and subject.mechanism == "poll"):
        pytest.skip("a second on each would be long")
    selector.register(pair[0], READ)
    begin = time.monotonic()
    assert selector.select(seconds) == []
    assert time.monotonic() - begin >= float(seconds)


class Narrow:
    """A number whose arithmetic overflows, as numpy's int32: it is to be converted before any."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return float(self.value)

    def __le__(self, other):
        return self.value <= other

    def __eq__(self, other):
        return self.value == other

    __hash__ = None

    def _overflows(self, other):
        raise AssertionError("arithmetic in a foreign type")

    __mul__ = __rmul__ = __add__ = __radd__ = __sub__ = __rsub__ = _overflows
    __floordiv__ = __rfloordiv__ = __truediv__ = __mod__ = __divmod__ = __rdivmod__ = _overflows


@pytest.mark.parametrize("value", [0.02, 0, 2**30])
def test_a_number_is_converted_before_arithmetic(selector, pair, value):
    """A narrow integer type cannot overflow: a wait counts in floats from the beginning."""
    near, far = pair
    selector.register(near, READ)
    begin = time.monotonic()
    if value < 1:
        assert selector.select(Narrow(value)) == []
        assert time.monotonic() - begin >= value
    far.send(b"x")
    assert len(selector.select(Narrow(value))) == 1


@pytest.mark.parametrize("value", [0.0103, 0.02, 0])
def test_a_number_in_a_wait_that_is_interrupted(subject, value):
    """The wait goes on, and asks no more of the number than at its beginning."""
    if not subject.on_host:
        pytest.skip("the calls of this host are interrupted")
    with injecting("wait:error=EINTR:when=1") as injection, subject.cls() as selector:
        begin = time.monotonic()
        assert selector.select(Narrow(value)) == []
        assert time.monotonic() - begin >= value
    assert injection.hits == 1


def test_a_number_that_changes(selector):
    """A number may be changed after the wait that it was given to: the next wait sees it anew."""

    class Seconds:
        value = 0.2003

        def __float__(self):
            return self.value

        def __le__(self, other):
            return self.value <= other

    seconds = Seconds()
    assert selector.select(seconds) == []
    seconds.value = 0.0103
    begin = time.monotonic()
    assert selector.select(seconds) == []
    assert 0.0103 <= time.monotonic() - begin < 0.2


@pytest.mark.parametrize("days", [25, 60, 365])
def test_a_timeout_of_months(selector, pair, days):
    """There is no ceiling of ours: a wait of a year begins, and ends with the first event."""
    near, far = pair
    selector.register(near, READ)
    far.send(b"x")
    assert len(selector.select(days * 86400)) == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("frozen", ["modules", "time"])
def test_a_frozen_clock(selector, pair, frozen, monkeypatch):
    """Interrupted over and over, a wait ends though time.monotonic stands still, as freezegun has it."""
    real = time.monotonic
    names = [
        (module, name)
        for module in [*sys.modules.values()]
        for name, value in [*getattr(module, "__dict__", {}).items()]
        if value is real and (frozen == "modules" or module is time)
    ]
    selector.register(pair[0], READ)
    wanted = [selector.select(0)]
    begin = time.clock_gettime(time.CLOCK_MONOTONIC)
    with monkeypatch.context() as patch:
        for module, name in names:
            patch.setattr(module, name, lambda: 1000.0)
        with alarm(lambda *_: None, 0.01, 0.01):
            wanted.append(selector.select(0.05))
    assert wanted == [[], []]
    assert 0.05 <= time.clock_gettime(time.CLOCK_MONOTONIC) - begin < 20


@needs.another_clock
def test_an_import_while_time_is_frozen(monkeypatch):
    """The clock of a package that is imported in a frozen test advances."""
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 1000.0)
        file = sys.modules["selectors_ffi.backends.process"].__file__
        spec = importlib.util.spec_from_file_location("selectors_ffi.backends.apart", file)
        apart = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(apart)
    own = apart.clock
    assert own() != 1000.0
    assert abs(time.clock_gettime(time.CLOCK_MONOTONIC) - own()) < 20


# -- the mapping


def test_snapshots_while_another_thread_registers(selector, new_pair):
    """values(), items() and a look-up of a closed file object never find the registry in the middle."""
    ends = [new_pair()[0] for _ in range(20)]
    over = threading.Event()

    def churn():
        while not over.is_set():
            for end in ends:
                selector.register(end, READ)
            for end in ends:
                selector.unregister(end)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    crew = Crew()
    crew.start(churn)
    try:
        view, closed = selector.get_map(), new_pair()[0]
        closed.close()
        for _ in range(300):
            assert all(key.events == READ for key in list(view.values()))
            assert all(fd == key.fd for fd, key in list(view.items()))
            with pytest.raises(ValueError, match="Invalid file descriptor"):
                view[closed]
    finally:
        sys.setswitchinterval(before)
        over.set()
        crew.join()


# -- refusals


@pytest.mark.skipif(os.name != "posix", reason="files of Unix")
@pytest.mark.parametrize("what", ["/dev/null", "a regular file", "a directory"])
def test_a_refusal_names_the_file(what, tmp_path):
    """What epoll refuses is named: its descriptor, what it is, and which classes take it."""
    if not hasattr(selectors_ffi, "EpollSelector"):
        pytest.skip("needs epoll")
    (tmp_path / "file").write_text("x")
    path = {"/dev/null": os.devnull, "a regular file": tmp_path / "file", "a directory": tmp_path}[what]
    fd = os.open(path, os.O_RDONLY)
    with selectors_ffi.EpollSelector() as selector:
        with pytest.raises(PermissionError) as caught:
            selector.register(fd, READ)
        told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert f"descriptor {fd} is {what}" in told
        assert "PollSelector" in told
        assert not selector.get_map()
    os.close(fd)


@needs.refusals_at_once
def test_a_closed_descriptor_is_named():
    """EBADF says which descriptor is closed, and what to do."""
    with selectors_ffi.DefaultSelector() as selector:
        fd = os.open(os.devnull, os.O_RDONLY)
        os.close(fd)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            selector.register(fd, READ)
        told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert f"descriptor {fd} is not open" in told


@pytest.mark.skipif(os.name != "posix", reason="files of Unix")
def test_a_refusal_advises_only_what_helps():
    """Neither regular_files= nor another class helps a socket, or the selector's own descriptor."""
    if not hasattr(selectors_ffi, "EpollSelector"):
        pytest.skip("needs epoll")
    near, far = socket.socketpair()
    refusing = inject("epoll_ctl:error=EPERM")
    with near, far, selectors_ffi.EpollSelector(binding=refusing) as selector:
        with pytest.raises(PermissionError) as caught:
            selector.register(near, READ)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "a sandbox may forbid it" in told
    assert "regular_files" not in told
    with selectors_ffi.EpollSelector() as selector:
        own = selector.fileno()
        with pytest.raises(OSError, match="Invalid argument") as caught:
            selector.register(own, READ)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert f"descriptor {own} is a file that epoll has refused" in told
