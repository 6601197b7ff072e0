"""Parent and child after fork(2), by each mechanism's own rule."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
import time
import traceback
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from selectors_ffi import EDGE, ONESHOT, Debug, _abi, debugging
from selectors_ffi.debug import Lint, RingSink, Syscall
from selectors_ffi.testing import chaos
from selectors_ffi.testing.library import Proxy, proxied

from . import tally
from .crew import Crew, asleep
from .kernels import host
from .kernels.machines import SOME, no_descriptor_left

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")

BOTH = EVENT_READ | EVENT_WRITE
MAKERS = {
    "epoll": "epoll_create1",
    "kqueue": "kqueue",
    "devpoll": "open",
    "eventport": "port_create",
}


@pytest.fixture(params=SOME, ids=str)
def session(request):
    """A booted machine, of every kind."""
    return request.param.boot()


def in_child(function):
    """Run ``function`` in a forked child; its exception is this test's failure."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(50)  # a child that hangs is a failure, and not left behind
        os.close(reader)
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0, said
    tally.count("forks made")


def test_a_child_loads_declarations_though_a_thread_of_its_parent_did():
    """What only that thread could unlock is no obstacle."""
    loading, done = threading.Event(), threading.Event()

    def load():
        with _abi._first_use:
            loading.set()
            done.wait()

    crew = Crew()
    crew.start(load)
    loading.wait()
    in_child(lambda: _abi.load_ffi("darwin"))
    done.set()
    crew.join()


def test_a_child_that_closes_leaves_the_parent_alone(session, pair):
    """close() in the child takes nothing from the parent's selector."""
    near, far = pair
    with session.selector() as selector:
        key = selector.register(near, BOTH)
        in_child(selector.close)
        far.send(b"x")
        assert selector.select(1) == [(key, BOTH)]
        assert selector.modify(near, EVENT_READ).events == EVENT_READ
        assert session.watched(selector) in (None, {near.fileno(): EVENT_READ})


def test_a_new_selector_in_the_child(session, pair):
    """The child makes its own, with the old one open beside it or not; both processes hear."""
    near, far = pair
    far.send(b"x")
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)

        def child():
            for _ in range(2):
                with session.selector() as own:
                    assert own.select(0) == []
                    assert own.register(near, EVENT_READ) == key
                    assert own.select(1) == [(key, EVENT_READ)]
                selector.close()

        in_child(child)
        assert selector.select(1) == [(key, EVENT_READ)]


def test_an_untouched_child_harms_nobody(session, pair):
    """A child that lets the selector be collected, or exits, takes nothing from the parent."""
    near, _ = pair
    holder = [session.selector()]
    key = holder[0].register(near, EVENT_WRITE)
    in_child(holder.clear)
    assert holder[0].select(0) == [(key, EVENT_WRITE)]
    holder[0].close()


def test_select_and_poll_are_copies(session, pair):
    """select(2), poll(2): the interest is in the process, so the child's is its own from then on."""
    if session.machine.mechanism not in ("select", "poll"):
        pytest.skip("the interest is in the kernel")
    near, _ = pair
    with session.selector() as selector:
        key = selector.register(near, EVENT_WRITE)

        def child():
            assert selector.select(0) == [(key, EVENT_WRITE)]
            selector.unregister(near)
            assert selector.select(0) == []

        in_child(child)
        assert selector.select(0) == [(key, EVENT_WRITE)]


def test_epoll_is_shared(session, pair):
    """epoll(7): one list for both processes; what the child removes, the parent does not hear."""
    if session.machine.mechanism != "epoll" or session.machine.simulated:
        pytest.skip("only the host's epoll is shared with a child")
    near, far = pair
    other, far_other = socket.socketpair()
    with other, far_other, session.selector() as selector:
        selector.register(near, EVENT_WRITE)
        kept = selector.register(other, EVENT_WRITE)
        in_child(lambda: selector.unregister(near))
        assert session.watched(selector) == {other.fileno(): EVENT_WRITE}
        assert selector.select(0) == [(kept, EVENT_WRITE)]
        # The parent is not stuck: its own entry can be changed, removed and made again.
        assert selector.modify(near, EVENT_READ).events == EVENT_READ
        far.send(b"x")
        assert {key.fileobj for key, _ in selector.select(0)} == {near, other}
        selector.unregister(near)
        assert selector.register(near, EVENT_READ).fileobj is near


def test_kqueue_stays_behind(session, pair):
    """kqueue(2): in the child every method but close says closed; close spares the number."""
    if session.machine.mechanism != "kqueue":
        pytest.skip("the kernel object is inherited")
    near, _ = pair
    with session.selector() as selector:
        number = selector.fileno()
        key = selector.register(near, EVENT_WRITE)

        def child():
            assert host.file_of(number) is None
            taken = os.open(os.devnull, os.O_RDONLY)
            assert os.dup2(taken, number) == number  # somebody else's from here on
            for call in (
                selector.fileno,
                lambda: selector.select(0),
                lambda: selector.register(taken, EVENT_READ),
            ):
                with pytest.raises(ValueError, match="closed"):
                    call()
            selector.close()
            assert host.file_of(number) == host.file_of(taken)

        in_child(child)
        assert selector.select(0) == [(key, EVENT_WRITE)]


def test_devpoll_is_owned(session, pair):
    """/dev/poll: EACCES in the child, said in words; the parent goes on (F1, F2)."""
    if session.machine.mechanism != "devpoll":
        pytest.skip("no other kernel object has an owner")
    near, far = pair
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)

        def child():
            for call in (
                lambda: selector.select(0),
                lambda: selector.register(far, EVENT_READ),
                lambda: selector.modify(near, BOTH),
            ):
                with pytest.raises(PermissionError, match="another process") as caught:
                    call()
                assert caught.value.errno == errno.EACCES
            assert list(selector.get_map()) == [near.fileno()]
            selector.close()

        in_child(child)
        far.send(b"x")
        assert selector.select(1) == [(key, EVENT_READ)]
        assert session.watched(selector) == {near.fileno(): EVENT_READ}


def test_reopen_in_the_child(session, pair):
    """The child goes on with the parent's registrations, and what it changes is not the parent's."""
    near, _ = pair
    other, far_other = socket.socketpair()
    with other, far_other, session.selector() as selector:
        kept = selector.register(near, EVENT_READ, "kept")
        gone = selector.register(other, EVENT_READ, "gone")
        far_other.send(b"x")

        def child():
            with no_descriptor_left():
                selector.reopen()
                assert selector.select(1) == [(gone, EVENT_READ)]
                assert selector.get_key(near) is kept
                selector.unregister(other)
                own = selector.modify(near, BOTH, "own")
                assert selector.select(1) == [(own, EVENT_WRITE)]
                assert session.watched(selector) in (None, {near.fileno(): BOTH})
                selector.reopen()
                assert selector.select(1) == [(own, EVENT_WRITE)]
                in_child(lambda: (selector.reopen(), selector.unregister(near)))
                assert selector.select(1) == [(own, EVENT_WRITE)]
                selector.close()

        in_child(child)
        assert selector.select(1) == [(gone, EVENT_READ)]
        expected = {near.fileno(): EVENT_READ, other.fileno(): EVENT_READ}
        assert session.watched(selector) in (None, expected)


def test_reopen_where_it_was_made(session, pair):
    """In the process that made the selector reopen() does no harm, before and after a fork."""
    near, far = pair
    with session.selector() as selector:
        selector.reopen()
        key = selector.register(near, BOTH)
        for _ in range(2):
            selector.reopen()
            assert selector.select(0) == [(key, EVENT_WRITE)]
            in_child(lambda: None)
        far.send(b"x")
        selector.reopen()
        assert selector.select(0) == [(key, BOTH)]
        assert session.watched(selector) in (None, {near.fileno(): BOTH})


def waiting(session, selector, found):
    """Return a crew whose thread waits in the selector for what is to be in ``found``."""
    crew = Crew()
    thread = crew.start(lambda: found.extend(selector.select(30)))
    if not session.machine.simulated:
        asleep(thread, session.machine.mechanism.replace("select", "poll"))
    return crew


def test_reopen_while_another_thread_waits(session, pair):
    """A thread that waits meanwhile hears of what comes later."""
    near, far = pair
    found = []
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        crew = waiting(session, selector, found)
        selector.reopen()
        far.send(b"x")
        crew.join()
        assert found == [(key, EVENT_READ)]


def test_reopen_that_an_exception_ends_while_another_thread_waits(session, pair):
    """What woke the thread does not go on waking all waits of the set that stayed."""
    if session.machine.mechanism != "epoll":
        pytest.skip("only an epoll set is replaced")
    near, far = pair
    raising, found = [KeyboardInterrupt()], []

    def hook(call):
        if call.name == "dup3" and raising:
            raise raising.pop()
        return call.run()

    session = session.machine.boot(lambda whole: Proxy(whole, hook))
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        crew = waiting(session, selector, found)
        with pytest.raises(KeyboardInterrupt):
            selector.reopen()
        assert session.watched(selector) == {near.fileno(): EVENT_READ}
        far.send(b"x")
        crew.join()
        assert found == [(key, EVENT_READ)]


def test_a_thread_that_moves_to_another_set_waits_on(session, pair):
    """It is woken before the process has the new set; a set shared with a child is no other matter."""
    if session.machine.mechanism != "epoll":
        pytest.skip("only an epoll set is replaced")
    near, far = pair
    found, looks = [], threading.Semaphore(0)

    def hook(call):
        if call.name.startswith("epoll_") and "wait" in call.name:
            looks.release()
        if call.name == "dup3":
            for _ in range(3):  # the thread has come back from the old set, and looks again
                assert looks.acquire(timeout=5)
        return call.run()

    session = session.machine.boot(lambda whole: Proxy(whole, hook))
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        crew = waiting(session, selector, found)
        in_child(bool)  # from now on the set may be another process's, too
        selector.reopen()
        far.send(b"x")
        crew.join()
        assert found == [(key, EVENT_READ)]


def test_the_parents_waiting_threads_are_not_in_the_child(session, pair):
    """A thread of the parent waits at the time of the fork: the child's changes and waits do not."""
    near, far = pair
    found = []
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        crew = waiting(session, selector, found)

        def child():
            selector.reopen()
            own = selector.modify(near, BOTH)
            for _ in range(3):
                assert selector.select(1) == [(own, EVENT_WRITE)]
            selector.modify(near, EVENT_READ)
            inner = Crew()
            inner.start(lambda: found.append(selector.select(30)))
            selector.wakeup()
            inner.join()
            assert found == [[]]
            selector.close()

        in_child(child)
        far.send(b"x")
        crew.join()
        assert found == [(key, EVENT_READ)]


@pytest.mark.parametrize("change", ["modify", "register"])
def test_what_a_child_puts_back_is_heard(session, pair, change):
    """The parent, in which a thread waited at the fork, hears of what the child puts back."""
    if session.machine.mechanism != "epoll" or session.machine.simulated:
        pytest.skip("only the host's epoll is shared with a child")
    near, far = pair
    found = []
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ)
        crew = waiting(session, selector, found)

        def child():
            if change == "modify":
                selector.modify(near, BOTH)
                selector.modify(near, EVENT_READ)
            else:
                selector.unregister(near)
                selector.register(near, EVENT_READ)

        in_child(child)
        selector.wakeup()
        crew.join()
        far.send(b"x")
        for _ in range(3):
            assert selector.select(30) == [(key, EVENT_READ)]


def test_wakeup_before_reopen_is_kept(session):
    """A wakeup() of the child ends its next wait, though the waker is a new one."""
    with session.selector() as selector:
        selector.wakeup()
        assert selector.select(30) == []

        def child():
            selector.reopen()
            selector.wakeup()
            selector.reopen()
            assert selector.select(30) == []
            assert selector.select(0) == []

        in_child(child)


def test_wakeup_before_the_fork_is_kept(session):
    """What has not ended a wait of the parent yet ends one of each process, also after reopen()."""
    with session.selector() as selector:
        selector.wakeup()

        def child():
            selector.reopen()
            begun = time.monotonic()
            assert selector.select(30) == []
            assert time.monotonic() - begun < 20
            assert selector.select(0) == []

        in_child(child)
        begun = time.monotonic()
        assert selector.select(30) == []
        assert time.monotonic() - begun < 20


def test_reopen_with_a_closed_descriptor(session, pair):
    """What was closed stays registered and unwatched, also if the new object gets its number."""
    if session.machine.mechanism in ("select", "poll"):
        pytest.skip("the kernel keeps no list; each wait says what is closed")
    near, _ = pair
    closed, far_closed = socket.socketpair()
    with far_closed, session.selector() as selector:
        old = selector.register(closed, EVENT_READ)
        key = selector.register(near, EVENT_WRITE)
        number = closed.fileno()

        def child():
            closed.close()
            selector.reopen()
            assert selector.select(0) == [(key, EVENT_WRITE)]
            assert selector.get_key(number) is old
            assert selector.discard(closed) is old
            selector.close()

        in_child(child)
        closed.close()


def test_reopen_that_is_refused(session, pair):
    """The kernel has no new object: an OSError, and reopen() works when it has one."""
    maker = MAKERS.get(session.machine.mechanism)
    if maker is None:
        pytest.skip("there is no kernel object")
    near, _ = pair
    refuse = []

    def decide(call):
        named = call.name.startswith(maker)
        return call.fail(errno.EMFILE) if refuse and named else call.run()

    session.binding = proxied(session.binding, decide)
    with session.selector() as selector:
        key = selector.register(near, EVENT_WRITE)

        def child():
            with no_descriptor_left():
                refuse.append(True)
                with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                    selector.reopen()
                assert selector.snapshot() == {near.fileno(): key}
                refuse.clear()
                selector.reopen()
                assert selector.select(1) == [(key, EVENT_WRITE)]
                selector.close()

        in_child(child)
        assert selector.select(1) == [(key, EVENT_WRITE)]


def test_close_while_the_child_reopens(pair):
    """The set keeps its number until it is replaced, so that no other file is."""
    opened = []

    def hook(call):
        if call.name == "dup3":
            selector.close()
            opened.append(os.open(os.devnull, os.O_RDONLY))
        return call.run()

    machine = next(machine for machine in SOME if str(machine) == "epoll")
    selector = machine.boot(lambda whole: Proxy(whole, hook)).selector()
    selector.register(pair[0], EVENT_READ)

    def child():
        with contextlib.suppress(OSError, ValueError):
            selector.reopen()
        assert os.path.samestat(os.fstat(opened[0]), os.stat(os.devnull))

    in_child(child)
    selector.close()


def test_reopen_of_a_closed_selector(session):
    """A closed selector cannot be opened again."""
    selector = session.selector()
    selector.close()
    with pytest.raises(ValueError, match="closed"):
        selector.reopen()


def test_reopen_ends_sharing(session, pair):
    """epoll(7): after reopen() the set is the child's alone, so a stale registration is removed."""
    if session.machine.mechanism != "epoll":
        pytest.skip("no other kernel object is shared")
    near, far = pair
    with session.selector() as selector:
        selector.register(near, EVENT_READ)
        far.send(b"x")

        def child():
            selector.reopen()
            copy = near.dup()
            near.close()
            selector.discard(near)
            for _ in range(3):
                assert selector.select(0) == []
            assert session.watched(selector) == {}
            copy.close()

        in_child(child)


def test_reopen_keeps_triggers(session, pair):
    """ONESHOT: what has been reported stays so in the child, until modify(); what has not comes once."""
    near, far = pair
    other, far_other = socket.socketpair()
    far.send(b"x")
    far_other.send(b"x")
    with other, far_other, session.selector() as selector:
        spent = selector.register(near, EVENT_READ, "spent", trigger=ONESHOT)
        assert selector.select(0) == [(spent, EVENT_READ)]
        armed = selector.register(other, EVENT_READ, "armed", trigger=ONESHOT)

        def child():
            selector.reopen()
            assert selector.select(1) == [(armed, EVENT_READ)]
            assert selector.select(0) == []
            again = selector.modify(near, EVENT_READ, "again")
            assert selector.select(1) == [(again, EVENT_READ)]
            assert selector.select(0) == []

        in_child(child)
        assert selector.select(1) == [(armed, EVENT_READ)]


def test_reopen_keeps_edges(session, pair):
    """EDGE: the new object reports once what is ready, and then what is new."""
    if session.machine.mechanism not in ("epoll", "kqueue"):
        pytest.skip("it has no edges")
    near, far = pair
    far.send(b"x")
    with session.selector() as selector:
        key = selector.register(near, EVENT_READ, trigger=EDGE)
        assert selector.select(0) == [(key, EVENT_READ)]

        def child():
            selector.reopen()
            for _ in range(2):
                assert selector.select(1) == [(key, EVENT_READ)]
                assert selector.select(0) == []
                far.send(b"x")

        in_child(child)


def test_reopen_in_trace_and_description(session, pair):
    """The trace shows the calls that make the new object; describe() finds it in order."""
    near, far = pair
    far.send(b"x")
    sink = RingSink(1000)
    with debugging(Debug.SYSCALLS | Debug.EVENTS | Debug.CHECKS, sink), session.selector() as selector:
        key = selector.register(near, EVENT_READ)

        def child():
            made = len(sink.records())
            selector.reopen()
            called = [one.name for one in sink.records()[made:] if isinstance(one, Syscall)]
            maker = MAKERS.get(session.machine.mechanism)
            assert maker is None or any(name.startswith(maker) for name in called)
            assert selector.select(1) == [(key, EVENT_READ)]
            (raw,) = selector.select_raw(1)
            assert raw.key is key
            assert raw.readable
            described = selector.describe()
            assert [row.fd for row in described.rows] == [near.fileno()]
            assert described.differences in (None, [])
            assert not [one for one in sink.records() if isinstance(one, Lint)]

        in_child(child)


@pytest.mark.parametrize("seed", range(5))
def test_reopen_under_chaos(session, pair, seed):
    """Whatever order and time of answers: the child hears of what is ready, and the parent, too."""
    near, far = pair
    other, far_other = socket.socketpair()
    session.binding = chaos(seed, session.binding)
    with other, far_other, session.selector() as selector:
        keys = {selector.register(end, BOTH, "data") for end in (near, far, other)}

        def hears():
            heard = set()
            while heard != keys:
                heard |= {key for key, events in selector.select(1) if events == EVENT_WRITE}

        def child():
            selector.reopen()
            hears()
            assert selector.discard(other) in keys
            assert set(selector.snapshot().values()) < keys

        in_child(child)
        hears()
