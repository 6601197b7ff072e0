"""Descriptors of the debugger: none has a number that the program has just closed."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
from time import monotonic

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, debugging
from selectors_ffi.debug import attached, evidence, naming, schedule, turns
from selectors_ffi.debug.output import HIGH
from tests import apart

pytestmark = pytest.mark.skipif(
    not os.path.exists(f"/proc/self/task/{threading.get_native_id()}/schedstat"),
    reason="needs schedstat of Linux",
)


@pytest.fixture
def numbers():
    """Return a function that lists the files of schedules that are open."""
    turns._watchdog.stop()
    schedule.keep(())

    def opened():
        return {
            fd for fd in os.listdir("/proc/self/fd") if naming.link_of(int(fd)).endswith("schedstat")
        }

    return opened


@pytest.fixture
def wait():
    """Let a selector wait, so that its thread is watched."""
    with debugging("checks", lambda record: None), selectors_ffi.PollSelector() as selector:
        selector.select(0)
        yield selector


def until(done):
    """Wait until something has happened in another thread."""
    deadline = monotonic() + 30
    while not done():
        assert monotonic() < deadline


@pytest.mark.filterwarnings("ignore::selectors_ffi.debug.SelectorWarning")
def test_a_closed_number_stays_closed(monkeypatch):
    """A wait on a number that was just closed fails, also if our thread looks all the time."""
    monkeypatch.setattr(turns, "_interval", lambda: 0)
    turns._watchdog.stop()
    with debugging("checks", lambda record: None), selectors_ffi.SelectSelector() as selector:
        selector.select(0)
        assert turns._watchdog.running
        for _ in range(1000):
            read, write = os.pipe()
            selector.register(read, EVENT_READ)
            os.close(read)
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                selector.select(0)
            assert caught.value.errno == errno.EBADF
            selector.unregister(read)
            os.close(write)


def test_a_watchdog_that_ends_by_itself_as_it_is_stopped():
    """The next one is not told to end for it."""
    turns._watchdog.stop()
    watchdog = turns._Watchdog()

    def end_when_asked():
        until(lambda: not watchdog._wake.locked())
        return False

    watchdog._goes_on = end_when_asked
    watchdog.start()
    watchdog.stop()
    assert watchdog._wake.locked()


def test_what_asks_a_socket_has_a_high_number(monkeypatch):
    """A duplicate to ask a socket with, or whether a descriptor is left, is out of the program's way."""
    monkeypatch.setattr(os, "dup", lambda fd: pytest.fail("a low number"))
    with socket.socket() as sock:
        with naming.borrowed(sock.fileno()) as asked:
            assert asked.fileno() >= HIGH
        assert evidence.descriptors_left(sock.fileno())


def test_the_thread_that_waits_for_a_command():
    """What it waits for has a high number as long as the command is attached."""
    ours, theirs = socket.socketpair()
    low = ours.fileno()
    connection = attached._Connection(ours.detach())

    def sockets():
        numbers = [int(fd) for fd in os.listdir("/proc/self/fd")]
        return {fd for fd in numbers if fd >= HIGH and naming.kind_of(fd) == "socket"}

    before = sockets()
    thread = threading.Thread(target=connection.wait_for_end)
    thread.start()
    until(lambda: sockets() > before)
    assert naming.kind_of(low) == "closed"
    theirs.close()
    thread.join()
    connection.close()


def test_the_times_of_a_thread(numbers):
    """The processor time of a thread that is followed grows; of others nothing is known."""
    thread = threading.get_native_id()
    assert schedule.times_of(thread) == (0, 0, 0)
    schedule.follow()
    schedule.follow()
    assert len(numbers()) == 1
    before = schedule.times_of(thread)[0]
    until(lambda: schedule.times_of(thread)[0] > before + 1_000_000)
    schedule.keep(())
    assert numbers() == set()


def test_a_thread_that_has_ended(numbers):
    """Nothing is known of it, and its file is closed."""
    ended = threading.Thread(target=schedule.follow)
    ended.start()
    ended.join()
    until(lambda: not os.path.exists(f"/proc/self/task/{ended.native_id}"))
    assert schedule.times_of(ended.native_id) == (0, 0, 0)
    assert numbers() == set()


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "closed and reused"])
def test_the_program_closes_our_file(numbers, reused, tmp_path):
    """The times are unknown then; what has the number now is neither read nor closed."""
    thread = threading.get_native_id()
    schedule.follow()
    (text,) = numbers()
    number = int(text)
    os.close(number)
    if reused:
        (tmp_path / "other").write_text("1 2 3")
        low = os.open(tmp_path / "other", os.O_RDONLY)
        os.dup2(low, number)
        os.close(low)
    assert schedule.times_of(thread) == (0, 0, 0)
    schedule.keep(())
    if reused:
        assert os.read(number, 9) == b"1 2 3"
        os.close(number)
    schedule.follow()
    assert schedule.times_of(thread)[0] > 0, "it can be opened anew"


def test_the_files_of_a_selector(numbers):
    """A thread that waits has one file for all its selectors; it is closed when all of them are."""
    with debugging("checks", lambda record: None):
        first, second = selectors_ffi.PollSelector(), selectors_ffi.PollSelector()
    first.select(0)
    second.select(0)
    assert len(numbers()) == 2, "this thread's and our own"
    first.close()
    second.close()
    until(lambda: len(numbers()) < 2)
    del first, second
    gc.collect()
    until(lambda: not numbers())


def test_a_forked_child_has_no_file_of_its_parents(numbers, wait):
    """The child closes its copies, and opens its own when it waits."""
    parents = numbers()
    pid = os.fork()
    if pid == 0:
        left = numbers()
        wait.select(0)
        known = schedule.times_of(threading.get_native_id())[0] > 0
        os._exit(bool(left) or not known)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(parents - numbers()) == 1, "our thread has ended; the loop's file stays"


LOW = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
import selectors_ffi
selector = selectors_ffi.PollSelector(debug="checks")
before = os.listdir("/proc/self/fd")
selector.select(0)
assert os.listdir("/proc/self/fd") == before
from selectors_ffi.debug import evidence, schedule
assert schedule.times_of(os.getpid()) == (0, 0, 0)
assert evidence.descriptors_left(0)
"""


def test_without_a_high_number_nothing_is_kept_open():
    """Where the limit is low, the times are unknown: a low number is the program's."""
    done = apart.python("-c", LOW)
    assert done.stderr == ""
