"""regular_files="ready": what epoll and kqueue refuse is watched by poll(2) beside them."""

from __future__ import annotations

import errno
import gc
import os
import pty
import socket
import sys
import tempfile
import threading
import time

import pytest

from selectors_ffi import EDGE, EVENT_READ, EVENT_WRITE, LEVEL, ONESHOT
from selectors_ffi.backends import KqueueSelector, regular_files
from selectors_ffi.debug import Debug, debugging, switch
from selectors_ffi.testing import kernel

from .crew import PATIENCE
from .test_races import Handler, every

pytestmark = pytest.mark.ours

BOTH = EVENT_READ | EVENT_WRITE


@pytest.fixture
def make_ready(subject):
    """Return a maker of selectors with the keyword; all are closed at the end."""
    made = []

    def make(**options):
        binding = {} if subject.binding is None else {"binding": subject.binding()}
        made.append(subject.cls(regular_files="ready", **binding, **options))
        return made[-1]

    yield make
    for selector in made:
        selector.close()


@pytest.fixture
def ready(subject, make_ready):
    """A selector with the keyword, whose kernel takes files of its own or not."""
    if subject.winsock:
        pytest.skip("Winsock knows sockets only")
    return make_ready()


@pytest.fixture
def refusing(subject, ready):
    """A selector with the keyword, whose kernel is Linux's epoll and refuses files."""
    if subject.mechanism != "epoll":
        pytest.skip(f"{subject} refuses no regular file")
    return ready


@pytest.fixture
def file():
    """A regular file that was written to, at its beginning."""
    with tempfile.TemporaryFile() as opened:
        opened.write(b"something")
        opened.seek(0)
        yield opened


@pytest.fixture
def terminal():
    """A terminal with nothing to read, and the end at which a user would type."""
    far, near = pty.openpty()
    yield near, far
    for end in (near, far):
        os.close(end)


def masks(selector, timeout=0):
    """Return the masks that a wait returns."""
    return [events for _, events in selector.select(timeout)]


@pytest.mark.parametrize("value", ["", "yes", True, 1])
def test_other_values(subject, value):
    """Anything but "ready" and None is a ValueError that says so."""
    with pytest.raises(ValueError, match="'ready'"):
        subject.cls(regular_files=value)


def test_without_the_keyword(subject, selector, file):
    """The default is the standard library's: epoll refuses a regular file."""
    if subject.mechanism != "epoll":
        pytest.skip(f"{subject} refuses no regular file")
    with pytest.raises(PermissionError):
        selector.register(file, EVENT_READ)


def test_it_is_the_same_class(subject, ready):
    """isinstance and the name stay what they are."""
    assert isinstance(ready, subject.cls)
    assert type(ready).__name__ == subject.backend


def test_a_regular_file_is_ready(ready, file):
    """A regular file with data is ready for reading and writing in every wait, as poll(2) says."""
    key = ready.register(file, BOTH, "data")

    assert dict(ready.select(5)) == dict(ready.select()) == {key: BOTH}
    assert ready.get_key(file) is key
    assert ready.unregister(file) is key
    assert masks(ready) == []


def test_dev_null_is_ready(refusing):
    """So is /dev/null, a usual standard input."""
    with open(os.devnull) as null:
        refusing.register(null, EVENT_READ)
        assert masks(refusing) == masks(refusing, None) == [EVENT_READ]


def test_beside_other_descriptors(ready, file, pair):
    """What the kernel takes is reported together with what it refuses."""
    left, right = pair
    ready.register(left, EVENT_READ, "socket")
    ready.register(file, EVENT_READ, "file")
    assert [key.data for key, _ in ready.select(5)] == ["file"]

    right.send(b"x")

    assert {key.data for key, _ in ready.select(5)} == {"socket", "file"}
    ready.unregister(file)
    assert [key.data for key, _ in ready.select(5)] == ["socket"]
    left.recv(1)
    assert ready.select(0) == []


def test_modify(ready, file):
    """The interest and the trigger of a file can be changed."""
    ready.register(file, EVENT_READ)
    ready.modify(file, EVENT_WRITE, "data")
    assert masks(ready, 5) == masks(ready) == [EVENT_WRITE]

    ready.modify(file, EVENT_READ, trigger=ONESHOT)
    assert masks(ready, 5) == [EVENT_READ]
    assert masks(ready) == masks(ready, 0.01) == []
    ready.modify(file, EVENT_READ)
    assert masks(ready, 5) == [EVENT_READ]

    ready.modify(file, EVENT_READ, trigger=LEVEL)
    assert masks(ready, 5) == masks(ready) == [EVENT_READ]


def test_no_edges(refusing, file):
    """poll(2) shows no edges, so the kernel's refusal stays one."""
    with pytest.raises(PermissionError) as caught:
        refusing.register(file, EVENT_READ, trigger=EDGE)

    assert caught.value.errno == errno.EPERM
    assert len(refusing.get_map()) == 0


def test_a_file_that_was_closed(refusing, file):
    """A file that is closed before it is unregistered is forgotten, as epoll forgets."""
    refusing.register(file, EVENT_READ)
    assert masks(refusing) == [EVENT_READ]

    file.close()

    assert masks(refusing) == masks(refusing, 0.01) == []
    assert refusing.unregister(file)


def test_a_number_that_is_reused(refusing, pair):
    """A closed file's number is a socket's afterwards: modify() gives it to the kernel."""
    left, right = pair
    number = os.open(__file__, os.O_RDONLY)
    refusing.register(number, EVENT_READ)
    os.dup2(left.fileno(), number)

    refusing.modify(number, EVENT_READ, "socket")

    assert masks(refusing) == []
    right.send(b"x")
    assert masks(refusing, 5) == [EVENT_READ]
    os.close(number)


def test_a_terminal_waits(subject, ready, terminal):
    """A terminal with nothing to read does not end a wait, and makes no busy loop."""
    near, far = terminal
    ready.register(near, EVENT_READ)
    began, spent = time.monotonic(), time.process_time()

    assert masks(ready, 0.2) == []

    assert time.monotonic() - began >= 0.2
    if subject.on_host:
        assert time.process_time() - spent < 0.1
    os.write(far, b"typed\n")
    assert masks(ready, 5) == [EVENT_READ]
    assert os.read(near, 10) == b"typed\n"
    assert masks(ready) == []


def test_a_terminal_that_the_kernel_refuses(terminal):
    """Old releases of macOS refuse a terminal with EINVAL; other descriptors are reported with it."""
    near, far = terminal
    binding = kernel("darwin", terminal=errno.EINVAL)
    with KqueueSelector(binding=binding) as selector:
        with pytest.raises(OSError, match="terminal") as caught:
            selector.register(near, EVENT_READ)
    assert caught.value.errno == errno.EINVAL
    left, right = socket.socketpair()
    with left, right, KqueueSelector(binding=binding, regular_files="ready") as ready:
        ready.register(near, BOTH, "terminal")
        ready.register(left, EVENT_READ, "socket")
        assert [(key.data, events) for key, events in ready.select(5)] == [("terminal", EVENT_WRITE)]
        ready.modify(near, EVENT_READ, "terminal")
        assert ready.select(0.01) == []

        right.send(b"x")
        assert [key.data for key, _ in ready.select(5)] == ["socket"]
        os.write(far, b"typed\n")
        assert {key.data for key, _ in ready.select(5)} == {"socket", "terminal"}
        assert {event.key.data for event in ready.select_raw(5)} == {"socket", "terminal"}


@pytest.mark.parametrize("first", [False, True], ids=["the first file", "another file"])
def test_another_thread_registers_a_file(ready, file, terminal, first):
    """A wait that is in progress hears of a file that another thread registers."""
    if first:
        ready.register(terminal[0], EVENT_READ)
    found = []
    began = threading.Event()

    def wait():
        began.set()
        found.extend(ready.select(10))

    thread = threading.Thread(target=wait)
    thread.start()
    began.wait()
    key = ready.register(file, EVENT_READ)
    thread.join()

    assert found == [(key, EVENT_READ)]


def test_all_waits_hear_of_a_file(refusing, file, pair):
    """Each thread that waits while another one registers the first file returns it."""
    refusing.register(pair[0], EVENT_READ)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(refusing.select(20))) for _ in range(3)]
    for thread in threads:
        thread.start()
    key = refusing.register(file, EVENT_READ)
    begun = time.monotonic()
    for thread in threads:
        thread.join()

    assert found == [(key, EVENT_READ)] * 3
    assert time.monotonic() - begun < 15


def test_a_wakeup_beside_a_file(refusing, file, pair):
    """wakeup() ends a wait also if a file comes and goes at the same time."""
    refusing.register(pair[0], EVENT_READ)
    for turn in range(20):
        found = []
        thread = threading.Thread(target=lambda found=found: found.append(masks(refusing, 20)))
        thread.start()
        while turn % 2 and not refusing._alone:
            pass  # the wait has not begun
        refusing.register(file, EVENT_READ)
        refusing.unregister(file)
        refusing.wakeup()
        begun = time.monotonic()
        thread.join()

        assert found in ([[]], [[EVENT_READ]])
        assert time.monotonic() - begun < 15
        if found[0]:  # which has left the wake-up to the next one
            masks(refusing)


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("timeout", [0, 20])
def test_two_waits_begin(make_ready, file, timeout):
    """A file is reported to a signal handler's wait, and to the one that it interrupts.

    At every seventh bytecode, on PyPy at every third line; at every one with the long profile.
    """
    place, reached = 1, True
    while reached:
        with make_ready() as selector:
            found = []

            def wait(selector=selector, found=found):
                found.append(selector.select(timeout))

            key = selector.register(file, EVENT_READ)
            reached = Handler(place, wait).run(wait)
            assert found == [[(key, EVENT_READ)]] * (1 + reached), f"at bytecode {place}"
        place += every(7)


def test_a_file_comes_as_a_wait_begins(refusing, file, pair):
    """A wait reports a file that a signal handler registers, wherever it is before it sleeps.

    At every seventh bytecode, on PyPy at every third line; at every one with the long profile.
    """
    refusing.register(pair[0], EVENT_READ)
    place, reached = 1, True
    while reached:
        came = []

        def register(came=came):
            came.append((refusing.register(file, EVENT_READ), time.monotonic()))

        handler, found, begun = Handler(place, register), [], time.monotonic()
        reached = handler.run(lambda found=found: found.extend(refusing.select(0.3)))
        if reached:
            key, when = came[0]
            assert found == [(key, EVENT_READ)] or when - begun > 0.2, f"at bytecode {place}"
            refusing.unregister(file)
        place += every(7)


@pytest.mark.parametrize("method", ["wakeup", "close"])
def test_another_thread_ends_the_wait(ready, terminal, method):
    """wakeup() and close() end a wait for a terminal."""
    ready.register(terminal[0], EVENT_READ)
    found = []

    def wait():
        try:
            found.append(ready.select(30))
        except ValueError:  # it was closed before the wait began
            found.append([])

    thread = threading.Thread(target=wait)
    thread.start()
    getattr(ready, method)()
    thread.join(20)

    assert not thread.is_alive()
    assert found == [[]]


def test_closed_between_two_looks(refusing, file, pair, monkeypatch):
    """A wait that goes on because the set reports what is of no registration ends with its selector."""
    left, right = pair
    refusing.register(file, EVENT_READ, trigger=ONESHOT)
    assert masks(refusing) == [EVENT_READ]
    refusing.fileno()  # from now on the set is not replaced
    number = os.dup(left.fileno())
    refusing.register(number, EVENT_READ)
    os.close(number)
    refusing.unregister(number)
    right.send(b"x")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        refusing.close()  # as another thread does

    monkeypatch.setattr(regular_files, "sleep", sleep)
    assert refusing.select(30) == []
    assert len(pauses) == 1
    with pytest.raises(ValueError, match="closed"):
        refusing.select(30)


def test_wakeup_before_the_wait(ready, terminal):
    """wakeup() ends the next wait, and only that."""
    ready.register(terminal[0], EVENT_READ)
    ready.wakeup()

    assert ready.select(30) == []
    assert ready.select(0.01) == []


def test_errors_of_a_wait(ready, terminal):
    """What a timeout cannot be, and a closed selector, are refused as without files."""
    ready.register(terminal[0], EVENT_READ)
    with pytest.raises(ValueError):
        ready.select(float("nan"))
    with pytest.raises(OverflowError):
        ready.select(float("inf"))
    ready.close()
    with pytest.raises(ValueError, match="closed"):
        ready.select(0)


def test_it_is_seen(subject, make_ready, file):
    """describe() and select_raw() have the file; debugging shows the calls of poll(2)."""
    if subject.winsock:
        pytest.skip("Winsock knows sockets only")
    calls = []
    ready = make_ready(debug=Debug.SYSCALLS | Debug.EVENTS)
    ready._observer.emit.sink = calls.append
    ready.register(file, EVENT_READ, "data")

    (event,) = ready.select_raw(5)
    assert (event.key.data, event.readable) == ("data", True)
    assert masks(ready, 5) == [EVENT_READ]
    assert not ready.describe().differences
    if subject.mechanism == "epoll":
        assert {"poll", "ppoll"} & {getattr(call, "name", "") for call in calls}


def test_it_is_seen_in_a_block(subject, make_ready, file):
    """Within debugging() a file is watched, too."""
    if subject.winsock:
        pytest.skip("Winsock knows sockets only")
    with debugging("syscalls,leaks", lambda record: None):
        ready = make_ready()
        ready.register(file, EVENT_READ)
        assert masks(ready, 5) == [EVENT_READ]


def test_it_is_switched(refusing, file):
    """Debugging that is switched on later shows one selector, and its calls of poll(2)."""
    refusing.register(file, EVENT_READ)
    refusing.select(0)
    records = []
    with switch(Debug.SYSCALLS | Debug.EVENTS, sink=records.append) as switched:
        assert masks(refusing) == [EVENT_READ]

    assert switched.ours >= 1
    mine = {record.source.selector for record in records}
    assert len(mine) == 1
    assert {"poll", "ppoll"} & {getattr(record, "name", "") for record in records}


def test_no_warning_of_a_file_that_was_asked_for(subject, make_ready, file):
    """The check for regular files is silent about a selector that was told to watch them."""
    if subject.mechanism != "epoll":
        pytest.skip(f"{subject} refuses no regular file")
    selector = make_ready(debug=Debug.CHECKS)
    selector.register(file, EVENT_READ)
    assert masks(selector) == [EVENT_READ]


def test_a_class_of_the_callers(subject, file):
    """A subclass stays what it is, and hears of no subclass of its own."""
    if subject.mechanism != "epoll" or not subject.on_host:
        pytest.skip("one mechanism is enough")
    heard = []

    class Mine(subject.cls):
        def __init_subclass__(cls):
            heard.append(cls)

    with Mine(regular_files="ready") as selector:
        selector.register(file, EVENT_READ)
        assert isinstance(selector, Mine)
        assert masks(selector) == [EVENT_READ]
    assert heard == []


def overriding(cls):
    """Return a subclass that notes what it is asked, and what it returns."""

    class Overriding(cls):
        def __init__(self, **options):
            self.calls = []
            super().__init__(**options)

        def register(self, fileobj, events, data=None):
            self.calls.append("register")
            return super().register(fileobj, events, data)

        def unregister(self, fileobj):
            self.calls.append("unregister")
            return super().unregister(fileobj)

        def modify(self, fileobj, events, data=None):
            self.calls.append("modify")
            return super().modify(fileobj, events, data)

        def select(self, timeout=None):
            found = super().select(timeout)
            self.calls.append((timeout, len(found)))
            return found

        def close(self):
            self.calls.append("close")
            super().close()

    return Overriding


@pytest.mark.parametrize("flags", [None, "stats", "syscalls,leaks"])
def test_overridden_methods(subject, file, pair, flags):
    """Each method that a subclass overrides is called once a call, and sees files and all else."""
    if subject.winsock:
        pytest.skip("Winsock knows sockets only")
    cls = overriding(subject.cls)
    binding = {} if subject.binding is None else {"binding": subject.binding()}
    left, right = pair
    right.send(b"x")
    with (
        debugging("", lambda record: None),
        cls(regular_files="ready", debug=flags, **binding) as selector,
    ):
        assert isinstance(selector, cls)
        selector.register(file, EVENT_READ)
        selector.register(left, EVENT_READ)
        assert sorted(masks(selector, 5)) == [EVENT_READ, EVENT_READ]
        selector.modify(file, EVENT_WRITE)
        selector.unregister(file)
        assert masks(selector, None) == [EVENT_READ]
        if flags == "stats":
            assert selector.stats().waits.count == 2
    assert selector.calls == ["register", "register", (5, 2), "modify", "unregister", (None, 1), "close"]


def test_overridden_select_on_a_kernel_that_refuses_terminals(terminal):
    """On kqueue, too, an overridden select() sees what poll(2) has found."""
    near, far = terminal
    os.write(far, b"typed\n")
    options = {"binding": kernel("darwin", terminal=errno.EINVAL), "regular_files": "ready"}
    with overriding(KqueueSelector)(**options) as selector:
        selector.register(near, EVENT_READ)
        assert masks(selector, 5) == [EVENT_READ]
        assert selector.calls == ["register", (5, 1)]


def test_one_more_of_its_own_class(refusing, file):
    """type(selector) makes selectors that watch files, too."""
    with type(refusing)(binding=refusing._binding, regular_files="ready") as selector:
        assert type(selector) is type(refusing)
        selector.register(file, EVENT_READ)
        assert masks(selector) == [EVENT_READ]


def test_it_is_freed_at_once(refusing, file):
    """A selector that is dropped with files registered is in no cycle: its descriptor is closed."""
    if sys.implementation.name != "cpython":
        pytest.skip("only CPython frees at once")
    selector = type(refusing).__mro__[2](binding=refusing._binding, regular_files="ready")
    selector.register(file, EVENT_READ)
    assert masks(selector) == [EVENT_READ]
    number = selector._descriptor.fd

    gc.disable()
    try:
        del selector
        # On a busy machine the watchdog of an earlier test may hold the frame of our select().
        deadline = time.monotonic() + PATIENCE
        while is_open(number) and time.monotonic() < deadline:
            os.sched_yield()
        assert not is_open(number)
    finally:
        gc.enable()


def is_open(number):
    """Tell whether a descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_a_forked_child_reopens(subject, refusing, file, pair):
    """After reopen() the child watches the files, and by a set of its own what the kernel takes."""
    if not subject.on_host:
        pytest.skip("a kernel of its own in the child")
    left, right = pair
    refusing.register(file, EVENT_READ, "file")
    refusing.register(left, EVENT_READ, "socket")
    assert masks(refusing) == [EVENT_READ]

    def child():
        refusing.reopen()
        right.send(b"x")
        return sorted(key.data for key, _ in refusing.select(5)) == ["file", "socket"]

    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if child() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sorted(key.data for key, _ in refusing.select(5)) == ["file", "socket"]
