"""Ownership: the descriptor, file objects and data of selectors that are dropped, copied or lost."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import sys
import time
import weakref

import pytest

from selectors_ffi import EVENT_READ as READ
from selectors_ffi import EVENT_WRITE as WRITE
from selectors_ffi import ONESHOT
from selectors_ffi.backends import SelectSelector
from selectors_ffi.backends.wake import SocketWaker, Waker
from tests import apart

from . import needs
from .crew import PATIENCE
from .wakers import close_idle_wakers

BOTH = READ | WRITE
REFERENCE_COUNTS = sys.implementation.name == "cpython"

pytestmark = pytest.mark.ours


def collect():
    """Run finalisers; PyPy needs more than one round."""
    for _ in range(1 if REFERENCE_COUNTS else 2):
        gc.collect()


@pytest.fixture
def unraisable(monkeypatch):
    """The exceptions of finalisers, which Python only shows."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(repr(args.exc_value)))
    return told


def test_an_unclosed_loop_is_collected(subject, unraisable):
    """asyncio's loop closes itself in its finaliser, and finds its selector as it was."""
    if subject.kernel not in ("host", "simulated_linux"):
        pytest.skip("asyncio of this host")
    loop = asyncio.SelectorEventLoop(subject.make())
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.warns(ResourceWarning, match="unclosed") as told:
        del loop
        for _ in range(10):  # PyPy may take more rounds
            if not told:
                collect()
    assert unraisable == []


def test_an_owner_unregisters_in_its_finaliser(subject, pair):
    """The registry of a selector in a cycle is whole when its owner is finalised."""
    outcome = []

    class Server:
        def __init__(self):
            self.selector, self.me = subject.make(), self
            self.selector.register(pair[0], READ)

        def __del__(self):
            outcome.append(self.selector.unregister(pair[0]).fileobj)
            self.selector.close()

    Server()
    collect()
    assert outcome == [pair[0]]


#: What an owner does in its finaliser, with a selector that watches ``near`` -> what comes of it.
LAST_USES = {
    "select": lambda selector, near: [key.fileobj is near for key, _ in selector.select(0)] == [True],
    "modify": lambda selector, near: selector.modify(near, READ | WRITE).events == READ | WRITE,
    "register": lambda selector, near: selector.unregister(near) and selector.register(near, WRITE),
    "wakeup": lambda selector, near: selector.wakeup() is None and selector.select(20) is not None,
    "fileno": lambda selector, near: not hasattr(selector, "fileno") or selector.fileno() >= 0,
    "close": lambda selector, near: selector.close() is None,
}


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("use", LAST_USES.values(), ids=LAST_USES)
def test_a_finaliser_may_use_a_selector_that_is_older_than_its_owner(subject, pair, use, woken):
    """CPython finalises what is in a cycle in any order. The kernel's object stays open."""
    outcome = []

    class Server:
        def __init__(self, selector):
            self.selector, self.me = selector, self

        def __del__(self):
            outcome.append(bool(use(self.selector, pair[0])))

    if not (REFERENCE_COUNTS or woken):
        pytest.skip("collecting takes long")
    close_idle_wakers()
    before = descriptors()
    pair[1].send(b"x")
    selector = subject.make()
    selector.register(pair[0], READ)
    if woken:
        selector.wakeup()
        selector.select(0)
    Server(selector)
    del selector
    collect()
    assert outcome == [True]
    close_idle_wakers()
    if descriptors() != before:
        collect()
    close_idle_wakers()
    assert descriptors() == before


def descriptors():
    """Return how many descriptors the process has, where that can be seen."""
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


@pytest.mark.parametrize("used", [False, True])
def test_a_copy_leaves_the_original_alone(subject, pair, used, tmp_path):
    """A copy that is dropped closes nothing, and the original closes its own number once."""
    near, far = pair
    selector = subject.make()
    key = selector.register(near, READ)
    if used:
        selector.select(0)
    copy.copy(selector)
    collect()
    far.send(b"x")
    assert selector.select(0) == [(key, READ)]
    with open(tmp_path / "innocent", "w+b") as innocent:
        selector.close()
        del selector
        collect()
        os.fstat(innocent.fileno())


STAGES = ["made", "waited", "registered", "reported"]  # what the original has done when it is copied


def two(make, copied, register=bool):
    """Return a selector and its copy. ``register`` is called before or after the copy is made."""
    selector = make()
    for step in STAGES[1 : STAGES.index(copied) + 1]:
        register(selector) if step == "registered" else [selector.select(0) for _ in range(3)]
    other = copy.copy(selector)
    if copied in ("made", "waited"):
        register(selector)
    return selector, other


def both_say(selectors, expected):
    """Tell whether each selector returns the same, also when it is asked again."""
    ordered = [sorted(one.select(0), key=str) for one in selectors * 3]
    return ordered == [sorted(expected, key=str)] * len(ordered)


@pytest.mark.parametrize("events", [READ, BOTH])
@pytest.mark.parametrize("copied", STAGES)
@pytest.mark.parametrize("turn", [1, -1], ids=["original", "copy"])
def test_what_changes_one_copy_changes_the_other(make, pairs, events, copied, turn):
    """A key that one of them has changed or removed is never returned by the other."""
    (near, far), (late, peer), *rest = pairs
    for end in (far, peer):
        end.send(b"x")
    key = []
    selectors = two(make, copied, lambda one: key.append(one.register(near, events, "old")))
    assert both_say(selectors, [(key[0], events)])
    one, other = selectors[::turn]
    for data in ("new", "newer"):
        changed = one.modify(near, events, data)
        assert both_say(selectors, [(changed, events)])
        one, other = other, one
    changed = one.modify(near, BOTH if events == READ else READ)
    assert both_say(selectors, [(changed, changed.events)])
    one.unregister(near)
    changed = one.register(near, events, "again")
    assert both_say(selectors, [(changed, events)])
    added = other.register(late, events)
    assert both_say(selectors, [(changed, events), (added, events)])
    more = [(one.register(end, WRITE), WRITE) for end, _ in rest]
    more += [(other.register(end, WRITE), WRITE) for _, end in rest]
    assert both_say(selectors, [(changed, events), (added, events), *more])
    changed = other.modify(near, WRITE, "last")
    assert both_say(selectors, [(changed, WRITE), (added, events), *more])
    one.unregister(near)
    assert both_say(selectors, [(added, events), *more])


@pytest.mark.parametrize("copied", ["made", "reported"])
def test_one_copy_knows_of_the_triggers_of_the_other(make, pair, copied):
    """What ONESHOT has reported to one of them is not reported to the other, and can be armed by it."""
    pair[1].send(b"x")
    one, other = two(make, copied)
    try:
        key = one.register(pair[0], READ, trigger=ONESHOT)
    except NotImplementedError:
        pytest.skip("it has no such trigger")
    for first, second in ((other, one), (one, other)):
        assert first.select(0) == [(key, READ)]
        assert first.select(0) == second.select(0) == []
        key = second.modify(pair[0], READ)


@pytest.mark.parametrize("copied", ["made", "waited"])
@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("turn", [1, -1], ids=["original", "copy"])
def test_a_copy_wakes_its_original(make, pair, copied, woken, turn):
    """wakeup() of either ends the next wait of either, and no wait after it."""
    selectors = two(make, copied, lambda one: one.register(pair[0], READ))
    if woken:
        selectors[0].wakeup()
        selectors[0].select(PATIENCE)
    one, other = selectors[::turn]
    for waits in (other, one):
        one.wakeup()
        assert waits.select(PATIENCE) == []
        for quiet in (one, other):
            begin = time.monotonic()
            assert quiet.select(0.02) == []
            assert time.monotonic() - begin >= 0.02


@pytest.mark.parametrize("copied", STAGES)
@pytest.mark.parametrize("turn", [1, -1], ids=["original", "copy"])
def test_to_close_one_copy_is_to_close_the_other(make, pair, copied, turn):
    """On every class: what remains says that it is closed, and no waker is given back twice."""
    selectors = two(make, copied, lambda one: one.register(pair[0], READ))
    selectors[0].wakeup()
    selectors[0].select(PATIENCE)
    one, other = selectors[::turn]
    one.close()
    assert other.get_map() is None
    for use in (other.select, other.wakeup, lambda: other.register(pair[0], READ)):
        with pytest.raises(ValueError, match="closed selector"):
            use()
    other.close()
    for kind in (Waker, SocketWaker):
        assert len(kind.pool) == len(set(map(id, kind.pool)))


@pytest.mark.parametrize("turn", [1, -1], ids=["original", "copy"])
def test_one_copy_outlives_the_other(subject, pair, turn):
    """With the attributes of a subclass, in slots and out of them."""

    class Labelled(subject.cls):
        __slots__ = ("label",)

    pair[1].send(b"x")
    selector = Labelled(**({"binding": subject.binding()} if subject.binding else {}))
    selector.label, selector.more = "in a slot", "beside it"
    key = selector.register(pair[0], BOTH)
    one = [selector, copy.copy(selector)][::turn].pop()
    del selector
    collect()
    with one:
        assert type(one) is Labelled
        assert (one.label, one.more) == ("in a slot", "beside it")
        assert both_say((one,), [(key, BOTH)])


@needs.procfs
@pytest.mark.skipif(not REFERENCE_COUNTS, reason="this interpreter collects later")
@pytest.mark.parametrize("used", ["never", "registered", "waited", "woken", "mapped", "copied"])
def test_a_dropped_selector_frees_its_descriptor(subject, pair, used):
    """Without the cycle collector: no selector is in a cycle."""
    if not subject.on_host:
        pytest.skip("a simulated kernel has descriptors of its own")
    close_idle_wakers()
    gc.disable()
    try:
        before = os.listdir("/proc/self/fd")
        for _ in range(5):
            selector = subject.make()
            if used != "never":
                selector.register(pair[0], BOTH)
            if used in ("waited", "woken"):
                selector.select(0)
            if used == "woken":
                selector.wakeup()
                selector.select(0)
            view = selector.get_map() if used == "mapped" else None
            other = copy.copy(selector) if used == "copied" else None
            del selector, view, other
        close_idle_wakers()
        assert len(os.listdir("/proc/self/fd")) == len(before)
    finally:
        gc.enable()


class Thing:
    """Data that can be watched."""


@pytest.mark.parametrize("events", [READ, BOTH])
@pytest.mark.parametrize("how", ["unregister", "modify", "discard", "close"])
@pytest.mark.parametrize("waits", [0, 3])
def test_nothing_keeps_data_and_file_objects(selector, pairs, events, how, waits):
    """After unregister, modify or close neither the old data nor the old file object is reachable."""
    if not REFERENCE_COUNTS and not (waits and events == BOTH):
        pytest.skip("a collection takes a quarter of a second here")

    class File(Thing):
        def fileno(self):
            return pairs[0][0].fileno()

    file, data = File(), Thing()
    gone = weakref.ref(file), weakref.ref(data)
    for near, far in pairs[1:]:
        selector.register(near, BOTH)
        far.send(b"x")
    pairs[0][1].send(b"x")
    selector.register(file, events, data)
    for _ in range(waits):
        selector.select(0)
    if how == "modify":
        selector.modify(pairs[0][0], events, "new")
    elif how == "close":
        selector.close()
    else:
        getattr(selector, how)(file)
    del file, data
    if not REFERENCE_COUNTS:  # else they are gone at once, without the cycle collector
        gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_nothing_is_kept_of_an_exception(selector, pair, monkeypatch):
    """What a refused register has made is gone with the exception."""

    class File(Thing):
        def fileno(self):
            return 2**70

    file, data = File(), Thing()
    gone = weakref.ref(file), weakref.ref(data)
    selector.register(pair[0], READ)
    selector.select(0)
    with pytest.raises(OverflowError):
        selector.register(file, READ, data)
    del file, data
    if not REFERENCE_COUNTS:  # else they are gone at once, without the cycle collector
        gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert list(selector.get_map()) == [pair[0].fileno()]


DAEMON = """
import os, sys, threading, selectors_ffi as S
r, w = os.pipe()
selector = getattr(S, sys.argv[1])()
selector.register(r, S.EVENT_READ)
if sys.argv[2] == "thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
selector.select(0.001)
selector.wakeup()
selector.select(1)
os.closerange(3, 200)                      # what a daemon does
innocent = [os.open(sys.argv[3], os.O_RDWR) for _ in range(20)]
try:
    selector.wakeup()                      # its numbers are the innocent file's
except OSError:
    pass
try:
    selector.select(0)
except OSError:
    pass
try:
    selector.close()
except OSError:
    pass
del selector
for n in range(3):                         # a new one works
    r, w = os.pipe()
    with getattr(S, sys.argv[1])() as selector:
        selector.register(r, S.EVENT_READ)
        selector.wakeup()
        assert selector.select(5) == []
        os.write(w, b"x")
        assert len(selector.select(5)) == 1
lost = []
for fd in innocent:
    try:
        os.fstat(fd)
    except OSError:
        lost.append(fd)
assert os.stat(sys.argv[3]).st_size == 0, "something was written into a file of the program"
print(len(lost))
"""


@pytest.mark.skipif(os.name != "posix", reason="daemons are Unix's")
@pytest.mark.parametrize("threads", ["thread", "alone"])
@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector", "SelectSelector"])
def test_a_daemon_that_closed_all_descriptors(name, threads, tmp_path):
    """No waker of before writes into the files that have its numbers now, or closes them.

    epoll's own number is lost with the rest: close() closes what has the number now, as in the standard
    library. A program closes its selectors before it closes all descriptors.
    """
    import selectors_ffi

    if not hasattr(selectors_ffi, name):
        pytest.skip("this system has no such mechanism")
    innocent = tmp_path / "innocent"
    innocent.write_bytes(b"")
    done = apart.python("-c", DAEMON, name, threads, innocent, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) <= (name == "EpollSelector")


ENDINGS = {
    "global": "s.wakeup()",
    "cycle": "class C: pass\nc = C(); c.c = c; c.s = s; del s",
    "atexit": "import atexit; atexit.register(s.close)",
    "owner": ("class C:\n    def __del__(self): s.unregister(r); s.close()\nc = C(); c.c = c"),
    "waiting daemon": (
        "import threading\nbegun = threading.Event()\n"
        "def wait(): begun.set(); s.unregister(r); s.select()\n"
        "threading.Thread(target=wait, daemon=True).start(); begun.wait()"
    ),
    "asyncio": (
        "import asyncio; s.unregister(r)\n"
        "loop = asyncio.SelectorEventLoop(s); loop.run_until_complete(asyncio.sleep(0))"
    ),
    "no descriptors": "s.wakeup(); os.closerange(3, 200)",
}


@pytest.mark.parametrize("name", ["DefaultSelector", "PollSelector", "SelectSelector"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends(name, ending):
    """A program that ends with a selector open, in whatever state, ends without a word."""
    import selectors_ffi

    if not hasattr(selectors_ffi, name):
        pytest.skip("this system has no such mechanism")
    code = (
        "import os, socket, selectors_ffi as S\nr, w = socket.socketpair(); w.send(b'x')\n"
        f"s = S.{name}()\ns.register(r, S.EVENT_READ); s.select(0); s.select(1)\n{ENDINGS[ending]}"
    )
    done = apart.python("-W", "ignore", "-c", code, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_pooled_table_keeps_nothing(pair):
    """Tables that the process keeps for later selectors hold no key."""
    data = Thing()
    gone = weakref.ref(data)
    with SelectSelector() as selector:
        selector.register(pair[0], BOTH, data)
        selector.select(0)
        selector.select(0.001)
    del data
    collect()
    assert gone() is None
