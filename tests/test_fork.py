"""Parent and child after fork(2), by each mechanism's own rule."""

from __future__ import annotations

import errno
import os
import socket
import traceback
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from . import tally
from .kernels import host
from .kernels.machines import MACHINES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")

BOTH = EVENT_READ | EVENT_WRITE


@pytest.fixture(params=MACHINES, ids=str)
def session(request):
    """A booted machine, of every kind."""
    return request.param.boot()


@pytest.fixture
def pair():
    """Two connected sockets."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def in_child(function):
    """Run ``function`` in a forked child; its exception is this test's failure."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
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
