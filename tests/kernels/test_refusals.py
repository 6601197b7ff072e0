"""What the simulated kernels refuse, and with which errno: arguments, limits, what is not modelled."""

from __future__ import annotations

import errno
import os
import pty
import resource
import select
import signal
import socket
import stat
import tempfile
import threading

import pytest

from selectors_ffi import EDGE, EVENT_READ, backends
from selectors_ffi.testing import KERNELS, kernel
from selectors_ffi.testing.kernels import bsd, host, options_of, solaris

UNIX = [name for name in KERNELS if name != "windows"]
BSD = [name for name in KERNELS if name in bsd.VARIANTS]
SOLARIS = [name for name in KERNELS if name in solaris.VARIANTS]
MAKERS = {"linux": ("epoll_create1", 0)}
MAKERS.update((name, ("kqueue",)) for name in BSD)
MAKERS.update((name, ("open", b"/dev/poll", os.O_RDWR)) for name in SOLARIS)


class Caller:
    """A C program on a simulated kernel."""

    def __init__(self, name, **options):
        self.binding = kernel(name, **options)
        self.kernel = self.binding.lib.kernel
        self.ffi = self.binding.ffi
        self.NULL = self.ffi.NULL
        self.constant = self.binding.constant

    def __call__(self, function, *arguments):
        """Return the result, and the errno if it is -1."""
        self.ffi.errno = 0
        result = self.binding.function(function)(*arguments)
        return result, self.ffi.errno if result == -1 else 0

    def time(self, kind, seconds, fraction):
        """A struct timespec or timeval."""
        return self.ffi.new(f"struct {kind} *", (seconds, fraction))


@pytest.mark.parametrize("name", MAKERS)
def test_no_descriptor_is_left(name):
    """At RLIMIT_NOFILE making a kernel object is EMFILE."""
    caller = Caller(name)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        found = caller(*MAKERS[name])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == (-1, errno.EMFILE)


@pytest.mark.parametrize("name", MAKERS)
def test_closing(name):
    """close(2) of what is not open is EBADF; of another descriptor, that descriptor's end."""
    caller = Caller(name)
    made, _ = caller(*MAKERS[name])
    other = os.dup(0)
    assert caller("close", other) == (0, 0)
    assert caller("close", other) == (-1, errno.EBADF)
    assert caller("close", made) == (0, 0)


@pytest.mark.parametrize("name", UNIX)
def test_times_that_are_none(name):
    """U7: select and ppoll refuse what is no time."""
    caller = Caller(name)
    wrong = caller.time("timeval", 0, 1_000_000)
    assert caller("select", 0, caller.NULL, caller.NULL, caller.NULL, wrong) == (-1, errno.EINVAL)
    if caller.binding.has("ppoll"):
        wrong = caller.time("timespec", -1, 0)
        assert caller("ppoll", caller.NULL, 0, wrong, caller.NULL) == (-1, errno.EINVAL)
        assert caller("ppoll", caller.NULL, 0, caller.time("timespec", 0, 1000), caller.NULL) == (0, 0)


@pytest.mark.parametrize("name", UNIX)
def test_poll_of_an_array(name, pair):
    """U1, U2: negative entries are passed over, closed ones reported; NULL is EFAULT."""
    near, _ = pair
    caller = Caller(name)
    out = caller.constant("POLLOUT")
    array = caller.ffi.new("struct pollfd[]", [(-1, out, 7), (10**6, out, 0), (near.fileno(), out, 0)])
    assert caller("poll", array, 3, -1) == (2, 0)
    assert [entry.revents for entry in array] == [0, caller.constant("POLLNVAL"), out]
    assert caller("poll", caller.NULL, 1, 0) == (-1, errno.EFAULT)


@pytest.mark.parametrize("name", UNIX)
def test_select_of_a_negative_number(name):
    """EINVAL, as select(2) has it."""
    caller = Caller(name)
    now = caller.time("timeval", 0, 0)
    assert caller("select", -1, caller.NULL, caller.NULL, caller.NULL, now) == (-1, errno.EINVAL)


@pytest.mark.parametrize("name", UNIX)
def test_select_looks_at_no_more_than_nfds(name, pair):
    """U5: a bit at or above nfds is neither looked at nor left."""
    near, _ = pair
    caller = Caller(name)
    fd = near.fileno()
    bits = 8 * caller.ffi.sizeof("fd_mask")
    writes = caller.ffi.new("fd_mask[]", fd // bits + 1)
    writes[fd // bits] = 1 << fd % bits
    now = caller.time("timeval", 0, 0)
    assert caller("select", fd + 1, caller.NULL, writes, caller.NULL, now) == (1, 0)
    assert writes[fd // bits] == 1 << fd % bits
    assert caller("select", fd, caller.NULL, writes, caller.NULL, now) == (0, 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("name", UNIX)
@pytest.mark.parametrize("function", ["poll", "select"])
def test_interrupted(name, function, pair):
    """A signal ends a wait with EINTR, the handler having run."""
    near, _ = pair
    caller = Caller(name)
    runs = []
    previous = signal.signal(signal.SIGALRM, lambda *_: runs.append(None))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        if function == "poll":
            array = caller.ffi.new("struct pollfd[]", [(near.fileno(), caller.constant("POLLIN"), 0)])
            found = caller("poll", array, 1, -1)
        else:
            found = caller("select", 0, caller.NULL, caller.NULL, caller.NULL, caller.NULL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert found == (-1, errno.EINTR)
    assert runs


def test_times_of_epoll(pair):
    """epoll_pwait2 takes NULL for ever, and refuses what is no time."""
    near, _ = pair
    caller = Caller("linux")
    epfd, _ = caller("epoll_create1", 0)
    event = caller.ffi.new("struct epoll_event *", {"events": caller.constant("EPOLLOUT"), "data": 7})
    assert caller("epoll_ctl", epfd, caller.constant("EPOLL_CTL_ADD"), near.fileno(), event) == (0, 0)
    room = caller.ffi.new("struct epoll_event[]", 2)
    assert caller("epoll_pwait2", epfd, room, 2, caller.NULL, caller.NULL) == (1, 0)
    wrong = caller.time("timespec", 0, 10**9)
    assert caller("epoll_pwait2", epfd, room, 2, wrong, caller.NULL) == (-1, errno.EINVAL)
    caller("close", epfd)


@pytest.mark.parametrize("step", ["set_inheritable", "set_blocking"])
def test_a_handler_that_raises_as_a_call_falls_asleep(step, pair, monkeypatch):
    """What the simulated call has opened by then is closed."""

    def handler(*_):
        raise KeyError

    caller = Caller("linux")
    epfd, _ = caller("epoll_create1", 0)
    room = caller.ffi.new("struct epoll_event[]", 2)
    before = host.open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, handler)
        with pytest.raises(KeyError):
            caller("epoll_wait", epfd, room, 2, -1)
    assert host.open_descriptors() == before
    caller("close", epfd)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_has_no_sleepers(pair):
    """A thread that sleeps in a simulated call stays in the parent, with the pipe that wakes it."""
    near, far = pair
    caller = Caller("linux")
    epfd, _ = caller("epoll_create1", 0)
    event = caller.ffi.new("struct epoll_event *", {"events": caller.constant("EPOLLIN"), "data": 7})
    caller("epoll_ctl", epfd, caller.constant("EPOLL_CTL_ADD"), near.fileno(), event)
    room = caller.ffi.new("struct epoll_event[]", 2)
    found = []
    thread = threading.Thread(target=lambda: found.append(caller("epoll_wait", epfd, room, 2, -1)))
    thread.start()
    sleepers = caller.kernel.handles[epfd].sleepers
    while not len(sleepers):
        threading.Event().wait(0.001)
    before = len(host.open_descriptors())
    child = os.fork()
    if child == 0:
        left = len(caller.kernel.handles[epfd].sleepers), before - len(host.open_descriptors())
        os._exit(0 if left == (0, 1) else 1)
    status = os.waitpid(child, 0)[1]
    far.send(b"x")
    thread.join()
    assert status == 0
    assert found == [(1, 0)]
    caller("close", epfd)


class Queue(Caller):
    """A C program with a kqueue."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.kq, _ = self("kqueue")

    def change(self, fd, filt="EVFILT_WRITE", flags="EV_ADD"):
        """Apply one change without room for events."""
        changes = self.ffi.new("struct kevent[]", 1)
        changes[0].ident = fd
        changes[0].filter = self.constant(filt) if isinstance(filt, str) else filt
        changes[0].flags = sum(self.constant(flag) for flag in flags.split("|"))
        return self("kevent", self.kq, changes, 1, self.NULL, 0, self.NULL)

    def ready(self):
        """Which descriptors are ready."""
        room = self.ffi.new("struct kevent[]", 8)
        n, _ = self("kevent", self.kq, self.NULL, 0, room, 8, self.time("timespec", 0, 0))
        return [room[i].ident for i in range(n)]


@pytest.fixture(params=BSD)
def queue(request):
    """A kqueue of every system."""
    made = Queue(request.param)
    yield made
    made("close", made.kq)


def test_arguments_of_kevent(queue, pair):
    """Negative counts are EINVAL, NULL for an array EFAULT, an unknown filter EINVAL."""
    near, _ = pair
    null, none = queue.NULL, queue.time("timespec", 0, 0)
    assert queue("kevent", queue.kq, null, -1, null, 0, none) == (-1, errno.EINVAL)
    assert queue("kevent", queue.kq, null, 1, null, 0, none) == (-1, errno.EFAULT)
    assert queue("kevent", queue.kq, null, 0, null, 1, none) == (-1, errno.EFAULT)
    assert queue.change(near.fileno(), filt=99) == (-1, errno.EINVAL)


def test_disabled_registrations(queue, pair):
    """EV_DISABLE silences a registration, EV_ENABLE lets it be heard; EV_RECEIPT changes nothing."""
    fd = pair[0].fileno()
    assert queue.change(fd) == (0, 0)
    for flags, expected in (("EV_DISABLE", []), ("EV_ENABLE", [fd]), ("EV_ADD|EV_RECEIPT", [fd])):
        assert queue.change(fd, flags=flags) == (0, 0)
        assert queue.ready() == expected


def test_regular_files(queue):
    """K12: always writable, readable up to the end."""
    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
        file.flush()
        fd = file.fileno()
        queue.change(fd, "EVFILT_READ")
        assert queue.ready() == []
        os.lseek(fd, 0, os.SEEK_SET)
        assert queue.ready() == [fd]
        queue.change(fd, "EVFILT_WRITE")
        assert queue.ready() == [fd, fd]


def test_terminals():
    """K12: old releases of macOS refuse a terminal, and the option says so."""
    ends = pty.openpty()
    for options, expected in (({}, (0, 0)), ({"terminal": errno.EINVAL}, (-1, errno.EINVAL))):
        queue = Queue("darwin", **options)
        assert queue.change(ends[1]) == expected
        queue("close", queue.kq)
    for end in ends:
        os.close(end)


def test_closed_while_it_is_looked_at(queue, pair, monkeypatch):
    """A descriptor that is closed between two looks is reported by neither."""
    queue.change(pair[0].fileno())
    monkeypatch.setattr(host, "examine", lambda wanted: dict.fromkeys(wanted, host.NVAL))
    assert queue.ready() == []


def test_a_kqueue_that_was_closed_before_the_fork(queue):
    """K8: the child closes no number that is not the kqueue's any more."""
    os.close(queue.kq)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.fstat(reader)
            os.fstat(writer)
        except OSError:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(reader)
    os.close(writer)


class Poller(Caller):
    """A C program with an open /dev/poll."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.fd, _ = self("open", b"/dev/poll", os.O_RDWR)

    def write(self, fd, events):
        """Write one entry."""
        entries = self.ffi.new("struct pollfd[]", [(fd, events, 0)])
        return self("write", self.fd, entries, self.ffi.sizeof(entries))

    def poll(self, fds, timeout=0):
        """DP_POLL with room for one."""
        order = self.ffi.new("struct dvpoll *", {"dp_fds": fds, "dp_nfds": 1, "dp_timeout": timeout})
        return self("ioctl", self.fd, self.constant("DP_POLL"), order)


@pytest.fixture(params=SOLARIS)
def poller(request):
    """A /dev/poll of every system."""
    made = Poller(request.param)
    yield made
    made("close", made.fd)


def test_arguments_of_dev_poll(poller, pair):
    """What is no handle is EBADF, NULL is EFAULT, an unknown request EINVAL."""
    near, _ = pair
    out, null = poller.constant("POLLOUT"), poller.NULL
    assert poller("open", b"/dev/null", os.O_RDWR) == (-1, errno.ENOENT)
    assert poller("write", near.fileno(), null, 0) == (-1, errno.EBADF)
    assert poller("ioctl", near.fileno(), 1, null) == (-1, errno.EBADF)
    assert poller("write", poller.fd, null, 8) == (-1, errno.EFAULT)
    assert poller("ioctl", poller.fd, 1, null) == (-1, errno.EFAULT)
    assert poller("ioctl", poller.fd, 1, poller.ffi.new("int *")) == (-1, errno.EINVAL)
    assert poller.write(near.fileno(), out) == (8, 0)
    assert poller.poll(null) == (-1, errno.EFAULT)
    with pytest.raises(NotImplementedError, match="POLLET"):
        poller.write(near.fileno(), solaris.POLLET)


def test_a_handle_of_another_process(poller):
    """F1: the process that used it first owns it; another one gets EACCES from write and ioctl."""
    poller.write(10**6, 0)
    child = os.fork()
    if child == 0:
        refused = (-1, errno.EACCES)
        os._exit(0 if poller.write(10**6, 0) == poller.poll(poller.NULL) == refused else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_closed_at_the_moment_of_the_look(poller, pair, monkeypatch):
    """A descriptor that is closed between two looks is not reported in the first."""
    poller.write(pair[0].fileno(), poller.constant("POLLOUT"))
    monkeypatch.setattr(host, "examine", lambda wanted: dict.fromkeys(wanted, host.NVAL))
    assert poller.poll(poller.ffi.new("struct pollfd[]", 1)) == (0, 0)


def test_a_number_that_is_another_file_now(poller, pair):
    """C3, C6: a stale entry is of the old file, until something happens there; illumos compares."""
    near, far = pair
    spare, other = socket.socketpair()
    with spare, other:
        number = os.dup(near.fileno())
        poller.write(number, poller.constant("POLLIN"))
        os.dup2(spare.fileno(), number)
        far.send(b"x")
        room = poller.ffi.new("struct pollfd[]", 1)
        assert poller.poll(room) == (0, 0)
        other.send(b"x")
        assert poller.poll(room) == (1, 0)
        assert room[0].fd == number
        os.close(number)


@pytest.mark.parametrize("end", ["signal", "close"])
def test_a_write_that_waits_for_readers(end, pair):
    """T2, W12: on the Solaris line a write waits; a signal or a close of the handle ends that."""
    poller = Poller("solaris11")
    handle = poller.kernel.handles[poller.fd]
    handle.polling.append(-1)  # a thread that sleeps in DP_POLL and does not return
    numbers = []
    previous = signal.signal(signal.SIGALRM, lambda *_: numbers.append(None))
    main = threading.main_thread().ident

    def interrupt():
        while not len(handle.sleepers):
            threading.Event().wait(0.001)
        if end == "signal":
            signal.pthread_kill(main, signal.SIGALRM)
        else:
            poller.kernel.close(poller.fd)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        found = poller.write(pair[0].fileno(), poller.constant("POLLOUT"))
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, previous)
        if end == "signal":
            poller("close", poller.fd)
    assert found == (-1, errno.EINTR if end == "signal" else errno.EBADF)


def test_sockets_and_times_of_winsock(pair):
    """A negative time is WSAEINVAL, and the kernel keeps no list."""
    near, _ = pair
    caller = Caller("windows")
    one = caller.ffi.new("fd_set *", {"fd_count": 1, "fd_array": [near.fileno()]})
    now = caller.ffi.new("struct timeval *", (-1, 0))
    assert caller.binding.lib.select(0, caller.NULL, one, caller.NULL, now) == -1
    assert caller.binding.lib.WSAGetLastError() == 10022
    with pytest.raises(NotImplementedError, match="no list"):
        caller.kernel.watched(0)


def test_hosts_that_are_no_unix(monkeypatch):
    """Where there is no fcntl, a kernel is ENOSYS, an unknown one still a ValueError."""
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(OSError, match="need a Unix host") as caught:
        kernel("freebsd")
    assert caught.value.errno == errno.ENOSYS
    assert options_of("freebsd") == {}
    with pytest.raises(ValueError, match="unknown kernel"):
        kernel("nt")


def test_poll_of_the_host_that_fails():
    """An error of the host's own poll(2) is not taken for an answer of the simulated one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError) as caught:
            host.examine(dict.fromkeys(range(1000, 1100), host.IN))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EINVAL


def can_be_polled(fd):
    """Look at a device."""
    return host.can_be_polled(fd, host.File(0, 0, 0, stat.S_IFCHR))


def test_a_host_without_epoll(monkeypatch):
    """It is not asked which devices can be polled."""
    monkeypatch.delattr(select, "epoll", raising=False)
    assert can_be_polled(0)


def test_the_extent_of_what_is_closed():
    """There is nothing to read at a descriptor that another thread has closed."""
    assert host.extent(10**6) == (0, 0)


@pytest.mark.parametrize(
    "look",
    [host.file_of, host.unread, host.extent, can_be_polled, lambda _: host.open_descriptors()],
)
def test_an_oserror_of_a_signal_handler_is_no_closed_descriptor(monkeypatch, look):
    """A handler's InterruptedError comes out of a look at the host, whose own errors have an errno."""

    def handled(*_):
        raise InterruptedError("of a signal handler")

    with monkeypatch.context() as patch:
        for module, name in ((host.os, "fstat"), (host.fcntl, "fcntl"), (host.fcntl, "ioctl")):
            patch.setattr(module, name, handled)
        patch.setattr(select, "epoll", handled, raising=False)
        with pytest.raises(InterruptedError, match="of a signal handler"):
            look(0)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="edges are those of the host's epoll(7)")
@pytest.mark.parametrize("name", ["EpollSelector-linux", "KqueueSelector-freebsd"])
def test_an_oserror_of_a_signal_handler_is_no_lack_of_descriptors(monkeypatch, pair, name):
    """It comes out of the wait or the registration that the handler has interrupted."""

    def handled(*_):
        raise InterruptedError("of a signal handler")

    backend, _, system = name.partition("-")
    with getattr(backends, backend)(binding=kernel(system)) as selector, monkeypatch.context() as patch:
        selector.register(pair[0], EVENT_READ)
        patch.setattr(os, "pipe", handled)
        with pytest.raises(InterruptedError, match="of a signal handler"):
            selector.select(1)
        patch.setattr(select, "epoll", handled)
        with pytest.raises(InterruptedError, match="of a signal handler"):
            selector.register(pair[1], EVENT_READ, trigger=EDGE)
