"""Two changes of one descriptor at the same time, in every order, without luck.

What the second thread does, it does in the middle of the first one's call: before or after one of
its system calls, or at one of its bytecodes, as a signal handler would. Whatever comes of it, registry
and kernel agree afterwards, and what is ready is reported.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from errno import EEXIST
from selectors import EVENT_READ, EVENT_WRITE

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi.testing.library import Proxy

from . import tally
from .bytecodes import AtBytecode
from .kernels.faulty import FaultyLibrary
from .kernels.machines import MACHINES
from .scripts import CHANGES

BOTH = EVENT_READ | EVENT_WRITE
WAITS = ("epoll_wait", "epoll_pwait2", "kevent", "ioctl", "port_getn")
NAMES = ("epoll", "simulated_linux", "freebsd", "netbsd11", "illumos", "solaris11", "illumos_ports")
STAGES = [machine for machine in MACHINES if machine.name in NAMES]


class Stage(Proxy):
    """A library in which something happens before or after chosen calls.

    ``script`` maps (moment, n) to what happens "before" or "after" the n-th change, from 1.
    """

    def __init__(self, whole, function):
        functions = [function]
        if function == "port_associate":
            functions.append("port_dissociate")
        super().__init__(whole, self.decide, functions)
        self.script = {}
        self.calls = 0
        self._busy = False

    def decide(self, call):
        """The hook: play what the script has for this call."""
        if self._busy or (call.name == "kevent" and call.arguments[4]):
            return call.run()
        self.calls += 1
        self.act("before", n := self.calls)
        result = call.run()
        self.act("after", n)
        return result

    def act(self, moment, n):
        """Play one part of the script, if it has one for this moment."""
        action = self.script.pop((moment, n), None)
        if action is not None:
            self._busy = True
            try:
                action()
            finally:
                self._busy = False


def register(selector, fd, name):
    return selector.register(fd, EVENT_READ if name == "first" else EVENT_WRITE, name)


def widen(selector, fd, name):
    return selector.modify(fd, BOTH, name)


def narrow(selector, fd, name):
    return selector.modify(fd, EVENT_READ if name == "first" else EVENT_WRITE, name)


def relabel(selector, fd, name):
    return selector.modify(fd, selector.get_key(fd).events, name)


def unregister(selector, fd, name):
    return selector.unregister(fd)


def replace(selector, fd, name):
    selector.unregister(fd)
    return selector.register(fd, EVENT_WRITE, name)


def flash(selector, fd, name):
    selector.register(fd, EVENT_WRITE, name)
    return selector.unregister(fd)


def look(selector, fd, name):
    return selector.select(0)


OPERATIONS = [register, widen, narrow, relabel, unregister, replace, flash]


def attempt(operation, selector, fd, name):
    """Run an operation, which may find that the other thread was faster."""
    try:
        operation(selector, fd, name)
    except KeyError:
        pass


@pytest.mark.parametrize("machine", STAGES, ids=str)
@pytest.mark.parametrize("first", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("second", [*OPERATIONS, look], ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("registered", [0, EVENT_READ, BOTH])
def test_one_operation_inside_another(machine, first, second, registered):
    """Before and after each system call of one thread's operation another thread does a whole one."""
    for n in range(1, 6):
        played = [
            perform(machine, first, second, registered, moment, n) for moment in ("before", "after")
        ]
        tally.count("orders of two changes of one descriptor", sum(played))
        if not any(played):
            return


def perform(machine, first, second, registered, moment, n):
    """The two operations in one order; tell whether the first one has an n-th call."""
    stage = []
    session = machine.boot(
        lambda whole: stage.append(Stage(whole, CHANGES[machine.mechanism])) or stage[0]
    )
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        far.send(b"x")
        fd = near.fileno()
        if registered:
            selector.register(fd, registered, "before")
        script, n = stage[0].script, stage[0].calls + n
        script[moment, n] = lambda: attempt(second, selector, fd, "second")
        attempt(first, selector, fd, "first")
        played = not script
        script.clear()
        where = f"{moment} call {n}"
        agree(session, selector, where)
        heal(session, selector, near, where)
        return played


def agree(session, selector, where):
    """Registry and kernel hold the same, and what is ready is reported as registered."""
    registry = {key.fd: key.events for key in selector.get_map().values()}
    assert session.watched(selector) == registry, where
    for _ in range(2):
        assert dict(selector.select(0)) == {key: key.events for key in selector.get_map().values()}, (
            where
        )


def heal(session, selector, near, where):
    """The descriptor can be registered anew and removed."""
    if near.fileno() in selector.get_map():
        selector.unregister(near)
    selector.register(near, BOTH, "last")
    agree(session, selector, where)
    selector.unregister(near)
    agree(session, selector, where)


class Handler(AtBytecode):
    """Something is done at the n-th bytecode, as in a signal handler."""

    def __init__(self, place, action):
        super().__init__(place)
        self.act = action


def every(bytecodes):
    """How many bytecodes lie between two places, or lines on PyPy."""
    if tally.long_profile():
        return 1
    return bytecodes if sys.implementation.name == "cpython" else 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", STAGES, ids=str)
@pytest.mark.parametrize(
    "first", [register, widen, narrow, unregister, look], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("second", [register, narrow, unregister, replace], ids=lambda one: one.__name__)
def test_a_signal_handler_at_every_bytecode(machine, first, second):
    """Wherever a handler changes the descriptor of the call that it interrupts, both changes are right.

    At every 13th bytecode, on PyPy at every third line; at every one with the long profile.
    """
    step = every(13)
    registered = 0 if first is register else EVENT_READ
    place = 1
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        fd = near.fileno()
        reached = True
        while reached:
            session = machine.boot()
            with session.selector() as selector:
                if registered:
                    selector.register(fd, registered, "before")
                handler = Handler(
                    place, lambda selector=selector: attempt(second, selector, fd, "second")
                )
                reached = handler.run(lambda selector=selector: attempt(first, selector, fd, "first"))
                agree(session, selector, f"at bytecode {place}")
                heal(session, selector, near, f"at bytecode {place}")
            place += step
    tally.count("orders of two changes of one descriptor", place // step)


TABLES = [machine for machine in MACHINES if machine.mechanism in ("poll", "select")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", TABLES + STAGES, ids=str)
@pytest.mark.parametrize("change", [widen, relabel], ids=lambda one: one.__name__)
def test_modify_does_not_undo_an_unregister(machine, change):
    """What a signal handler unregisters in the middle of ``modify`` stays unregistered.

    Three lines are let pass, which look at the registry and write it: CPython 3.11 and newer run no
    handler between them.
    """
    place, undone, reached = 1, [], True
    near, far = socket.socketpair()
    with near, far:
        fd = near.fileno()
        while reached:
            with machine.boot().selector() as selector:
                selector.register(fd, EVENT_READ, "before")
                handler = Handler(place, lambda selector=selector: selector.unregister(fd))
                reached = handler.run(lambda selector=selector: attempt(change, selector, fd, "new"))
                if reached and fd in selector.get_map():
                    undone.append(place)
            place += 1
    assert place > (100 if sys.implementation.name == "cpython" else 20)
    assert len(undone) <= (12 if sys.implementation.name == "cpython" else 2), undone


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", TABLES + STAGES, ids=str)
@pytest.mark.parametrize(
    "change", [widen, narrow, relabel, unregister, replace], ids=lambda one: one.__name__
)
def test_a_wait_at_every_bytecode_of_a_change(machine, change):
    """Wherever another wait comes in the middle of a change, it and later ones report keys only.

    At every fifth bytecode, on PyPy at every third line; at every one with the long profile.
    """
    near, far = socket.socketpair()
    with near, far, machine.boot().selector() as selector:
        far.send(b"x")
        fd, place, reached = near.fileno(), 1, True

        def look():
            for key, events in selector.select(0):
                assert (key.fd, key.data) in [(fd, "before"), (fd, "after")], place
                assert events & BOTH == events != 0, place

        while reached:
            key = selector.register(fd, EVENT_READ, "before")
            assert selector.select(0) == [(key, EVENT_READ)]
            handler = Handler(place, look)
            reached = handler.run(lambda: change(selector, fd, "after"))
            expected = {key: key.events for key in selector.get_map().values()}
            assert dict(selector.select(0)) == expected, place
            for registered in list(selector.get_map()):
                selector.unregister(registered)
            place += every(5)
    tally.count("waits in the middle of a change", place // every(5))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_a_wait_at_every_bytecode_of_close(machine):
    """Wherever another wait comes in the middle of ``close``, every later one raises ValueError."""
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        place, reached = 1, True
        while reached:
            selector = machine.boot().selector()
            key = selector.register(near, EVENT_READ)
            assert selector.select(0) == [(key, EVENT_READ)]

            def look(selector=selector, key=key):
                with contextlib.suppress(ValueError):  # it is closed
                    assert selector.select(0) in ([], [(key, EVENT_READ)])

            reached = Handler(place, look).run(selector.close)
            with pytest.raises(ValueError, match="closed"):
                selector.select(0)
            place += 1


@pytest.mark.parametrize("machine", STAGES, ids=str)
@pytest.mark.parametrize("first", [register, widen], ids=lambda operation: operation.__name__)
def test_two_signal_handlers_in_one_operation(machine, first):
    """What one handler removes and a later one registers is watched when the operation ends."""
    stage = []
    session = machine.boot(
        lambda whole: stage.append(Stage(whole, CHANGES[machine.mechanism])) or stage[0]
    )
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        far.send(b"x")
        fd, script = near.fileno(), stage[0].script
        if first is widen:
            register(selector, fd, "first")
        n = stage[0].calls
        script["before", n + 1] = lambda: unregister(selector, fd, "handler")
        script["before", n + 2] = lambda: register(selector, fd, "handler")
        first(selector, fd, "first")
        assert not script
        assert selector.get_key(fd).data == "handler"
        agree(session, selector, first.__name__)
        heal(session, selector, near, first.__name__)


def test_kernel_that_never_agrees():
    """A registration that the kernel has, and has not, is given up at last."""
    if "epoll" not in [machine.name for machine in MACHINES]:
        pytest.skip("needs epoll")
    refusals = []

    def refuse(call):
        refusals.append(call.arguments[1])
        return call.fail(EEXIST)

    (machine,) = [machine for machine in MACHINES if machine.name == "epoll"]
    left, right = socket.socketpair()
    with (
        left,
        right,
        machine.boot(lambda whole: Proxy(whole, refuse, ["epoll_ctl"])).selector() as selector,
    ):
        with pytest.raises(FileExistsError):
            selector.register(left, EVENT_READ)
        assert 2 < len(refusals) < 20
        assert not selector.get_map()


def watch_unregistered(session, selector, fd):
    """Have the kernel watch a descriptor for writing that the registry does not hold."""
    ffi, constant = session.binding.ffi, session.binding.constant
    function = session.binding.function(CHANGES[session.machine.mechanism])
    if session.machine.mechanism == "epoll":
        event = ffi.new("struct epoll_event *", {"events": constant("EPOLLOUT"), "data": fd})
        done = function(selector._descriptor.fd, constant("EPOLL_CTL_ADD"), fd, event)
    elif session.machine.mechanism == "kqueue":
        change = ffi.new("struct kevent[1]")
        change[0].ident, change[0].filter = fd, constant("EVFILT_WRITE")
        change[0].flags = constant("EV_ADD")
        done = function(selector._descriptor.fd, change, 1, ffi.NULL, 0, ffi.NULL)
    elif session.machine.mechanism == "eventport":
        source, events = constant("PORT_SOURCE_FD"), constant("POLLOUT")
        done = function(selector._descriptor.fd, source, fd, events, ffi.NULL)
    else:
        array = ffi.new("struct pollfd[]", [(fd, constant("POLLOUT"), 0)])
        done = function(selector._descriptor.fd, array, ffi.sizeof(array))
    assert done >= 0


@pytest.mark.parametrize("machine", STAGES, ids=str)
@pytest.mark.parametrize("timeout", [0.2, 0.01, 0, -1])
def test_what_is_of_no_registration_is_removed(machine, timeout):
    """The kernel is told to forget what an interrupted call has left there; the wait takes its time."""
    session = machine.boot()
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        selector.register(far, EVENT_READ)
        watch_unregistered(session, selector, near.fileno())
        begin = time.monotonic()
        assert selector.select(timeout) == []
        assert time.monotonic() - begin >= timeout
        assert session.watched(selector) == {far.fileno(): EVENT_READ}
        near.send(b"x")
        assert [key.fileobj for key, _ in selector.select(timeout)] == [far]


@pytest.mark.parametrize("machine", STAGES, ids=str)
def test_what_the_caller_has_added_stays(machine):
    """After fileno() the kernel's list may be the caller's, too: select() returns [] for its events."""
    if machine.mechanism == "eventport":
        pytest.skip("an association brings one event, to the call that takes it")
    session = machine.boot()
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        key = selector.register(far, EVENT_READ)
        selector.fileno()
        watch_unregistered(session, selector, near.fileno())
        for timeout in (None, 30, 0):
            assert selector.select(timeout) == []
        assert session.watched(selector) == {far.fileno(): EVENT_READ, near.fileno(): EVENT_WRITE}
        near.send(b"x")
        assert selector.select(30) == [(key, EVENT_READ)]


@pytest.mark.parametrize("timeout", [0.05, 0])
@pytest.mark.parametrize("machine", STAGES, ids=str)
def test_an_event_of_an_older_registration(machine, timeout):
    """What a wait has fetched is not reported for another file that has got the number meanwhile."""
    actions = []

    def hook(call):
        result = call.run()
        brought = result > 0 or (call.name == "port_getn" and result == 0)
        if actions and brought and (call.name != "kevent" or call.arguments[4]):
            actions.pop()()
        return result

    session = machine.boot(lambda whole: Proxy(whole, hook, WAITS))
    near, far = socket.socketpair()
    idle, other = socket.socketpair()
    number = os.dup(near.fileno())
    with near, far, idle, other, session.selector() as selector:
        far.send(b"x")
        selector.register(number, EVENT_READ, "old")

        def reuse():
            selector.unregister(number)
            os.dup2(idle.fileno(), number)
            selector.register(number, EVENT_READ, "new")

        actions.append(reuse)
        begin = time.monotonic()
        assert selector.select(timeout) == []
        assert time.monotonic() - begin >= timeout
        assert not actions
        other.send(b"x")
        assert [key.data for key, _ in selector.select(30)] == ["new"]
        selector.unregister(number)
        os.close(number)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("machine", STAGES, ids=str)
def test_registered_while_it_is_removed(machine, moment):
    """What was left behind is removed; registered by a handler meanwhile, it is watched again."""
    stage = []
    session = machine.boot(
        lambda whole: stage.append(Stage(whole, CHANGES[machine.mechanism])) or stage[0]
    )
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        watch_unregistered(session, selector, near.fileno())
        script, n = stage[0].script, stage[0].calls + 1
        script[moment, n] = lambda: selector.register(near, BOTH, "handler")
        selector.select(0.01)
        assert not script
        far.send(b"x")
        agree(session, selector, moment)


@pytest.mark.parametrize("machine", [m for m in STAGES if m.mechanism != "devpoll"], ids=str)
def test_closed_by_another_thread(machine):
    """modify of what another thread has unregistered and closed meanwhile: EBADF, nothing is left.

    /dev/poll has looked whether the descriptor is open before it writes.
    """
    stage = []
    session = machine.boot(
        lambda whole: stage.append(Stage(whole, CHANGES[machine.mechanism])) or stage[0]
    )
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        fd = near.fileno()
        selector.register(fd, EVENT_READ)

        def close():
            selector.unregister(fd)
            near.close()

        stage[0].script["before", stage[0].calls + 1] = close
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            selector.modify(fd, BOTH)
        assert not selector.get_map()
        assert session.watched(selector) == {}
        assert selector.select(0) == []


@pytest.mark.parametrize("machine", STAGES, ids=str)
@pytest.mark.parametrize("code", [errno.EBADF, errno.ENOMEM])
def test_overtaken_and_refused(machine, code, monkeypatch):
    """When the kernel refuses what an overtaken call sets right, the last change stays registered."""
    stage = []
    session = machine.boot(
        lambda whole: stage.append(Stage(whole, CHANGES[machine.mechanism])) or stage[0]
    )
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        selector.register(near, EVENT_READ)

        def fail():
            session.binding.ffi.errno = code
            return -1

        def refuse(fd, events, was):
            monkeypatch.undo()
            session.binding.call(fail)

        def overtake():
            selector.modify(near, EVENT_WRITE)
            monkeypatch.setattr(selector, "_watch", refuse)

        stage[0].script["after", stage[0].calls + 1] = overtake
        selector.modify(near, BOTH)
        assert selector.get_key(near).events == EVENT_WRITE
        far.send(b"x")
        selector.modify(near, BOTH)
        agree(session, selector, "after the next change")


@pytest.mark.parametrize("machine", [m for m in STAGES if m.mechanism == "kqueue"], ids=str)
def test_raw_event_of_another_registration(machine):
    """A native event with a serial that is not ours is of no key, though its number is registered."""
    session = machine.boot()
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        key = selector.register(near, EVENT_WRITE)
        assert [event.key for event in selector.select_raw(0)] == [key]
        watch_unregistered(session, selector, near.fileno())
        assert [(event.fd, event.key) for event in selector.select_raw(0)] == [(key.fd, None)]
        assert selector.select(0) == [(key, EVENT_WRITE)]


class Named:
    """An object with a descriptor."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        """The descriptor."""
        return self.fd


@pytest.mark.parametrize("machine", STAGES, ids=str)
@pytest.mark.parametrize("before", [int, Named])
@pytest.mark.parametrize("after", [int, Named])
def test_a_number_that_names_another_file(machine, before, after):
    """modify with another object watches the file that the number names now; a number says nothing."""
    session = machine.boot()
    (old, _), (new, new_far) = pairs = [socket.socketpair() for _ in range(2)]
    number = os.dup(old.fileno())
    with session.selector() as selector:
        selector.register(before(number), EVENT_READ)
        os.dup2(new.fileno(), number)
        new_far.send(b"x")
        key = selector.modify(after(number), EVENT_READ, "data")
        if before is not int or after is not int:
            assert session.watched(selector)[number] == EVENT_READ
            assert selector.select(0.1) == [(key, EVENT_READ)]
        selector.unregister(number)
    for one in (number, *(end.detach() for pair in pairs for end in pair)):
        os.close(one)


@pytest.mark.parametrize("machine", STAGES, ids=str)
def test_raw_wait_of_a_closed_selector(machine):
    """select_raw of a closed selector is a ValueError, as select is."""
    selector = machine.boot().selector()
    selector.close()
    with pytest.raises(ValueError, match="closed"):
        selector.select_raw(0)


@pytest.mark.parametrize("machine", STAGES, ids=str)
def test_raw_wait_that_is_refused(machine):
    """select_raw raises the kernel's errno, and the next wait is a fresh one."""
    library = []
    session = machine.boot(lambda whole: library.append(FaultyLibrary(whole)) or library[0])
    near, far = socket.socketpair()
    with near, far, session.selector() as selector:
        selector.register(near, EVENT_WRITE)
        (event,) = selector.select_raw(0)
        if machine.mechanism != "kqueue":  # the others have no such fields
            assert (event.fflags, event.data) == (0, 0)
        # The same call again: its name is that of which the count has grown.
        last = [name for name in library[0].calls if name.lstrip("_").startswith(WAITS)]
        for name in last:
            library[0].plan[name, library[0].calls[name] + 1] = errno.EINVAL
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            selector.select_raw(0)
        assert [event.fd for event in selector.select_raw(0)] == [near.fileno()]


@pytest.mark.parametrize("machine", [m for m in STAGES if m.mechanism == "kqueue"], ids=str)
@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("wanted", [EVENT_READ, EVENT_WRITE])
def test_a_change_between_two_events_of_one_descriptor(machine, place, wanted):
    """Reading and writing are two events of kqueue; a result is of one registration."""
    near, far = socket.socketpair()
    with near, far, machine.boot().selector() as selector:
        old = selector.register(near, BOTH)
        far.send(b"x")

        class Narrowing(dict):
            looks = 0

            def get(self, fd, default=None):
                self.looks += 1
                if self.looks == place:
                    selector.modify(near, wanted)
                return super().get(fd, default)

        selector._serials = Narrowing(selector._serials)
        ((key, events),) = selector.select(30)
        if place == 1:
            assert (key, events) == (selector.get_key(near), wanted)
        else:
            assert key == old
            assert events != BOTH
        assert selector.select(0) == [(selector.get_key(near), wanted)]
