"""Simulated kernels as they are used: by asyncio, by whole programs, by blocks, with poll and select."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
from contextlib import ExitStack
from selectors import EVENT_READ, EVENT_WRITE

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels need a Unix host", allow_module_level=True)

import selectors_ffi
from selectors_ffi import backends
from selectors_ffi.testing import KERNELS, chaotic, kernel, on_kernel
from selectors_ffi.testing.kernels import bsd, solaris
from tests import apart

ECHO = """
import asyncio
import selectors_ffi

selectors_ffi.install()

async def handle(reader, writer):
    while data := await reader.readline():
        writer.write(data)
        await writer.drain()
    writer.close()

async def ask(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    moved = 0
    for turn in range(2):
        line = b"%d-%d-%s\\n" % (number, turn, b"x" * (number * 37 % 5000))
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line
        moved += len(line)
    writer.close()
    await writer.wait_closed()
    return moved

async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    moved = sum(await asyncio.gather(*(ask(port, number) for number in range(100))))
    server.close()
    print(type(asyncio.get_running_loop()._selector).__name__, moved)

asyncio.run(main())
"""
CLASSES = {"illumos": "Devpoll", "solaris11": "Devpoll", "solaris10": "Devpoll"}
CLASSES.update(linux="Epoll", windows="Select")


def python(*words, **variables):
    """Run an interpreter; return (status, output, errors)."""
    done = apart.python(*words, timeout=100, **variables)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", KERNELS)
def test_asyncio_on_every_kernel(name):
    """A hundred streams are echoed byte by byte, from asyncio.run, by that system's own class."""
    moved = sum(2 * (len(b"%d-0-\n" % number) + number * 37 % 5000) for number in range(100))
    status, output, errors = python("-c", ECHO, SELECTORS_FFI_KERNEL=name)

    assert (status, errors) == (0, "")
    assert output == f"{CLASSES.get(name, 'Kqueue')}Selector {moved}\n"


def test_the_tools_on_another_kernel():
    """info says which kernel it is, and trace shows its calls."""
    status, output, _ = python("-m", "selectors_ffi", "info", SELECTORS_FFI_KERNEL="netbsd11")
    assert status == 0
    assert "<simulated netbsd11>" in output
    assert "__kevent100" in output
    program = "import selectors; selectors.DefaultSelector().select(0)"
    status, _, errors = python(
        "-m", "selectors_ffi", "trace", "-c", program, SELECTORS_FFI_KERNEL="illumos"
    )
    assert status == 0
    assert 'open("/dev/poll", O_RDWR|O_CLOEXEC)' in errors


def test_a_host_that_is_no_unix(monkeypatch):
    """There the variable is wrong, and the message says why."""
    from selectors_ffi.testing.ambient import begin_kernel

    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(ValueError, match=r"SELECTORS_FFI_KERNEL: .* need a Unix host"):
        begin_kernel("darwin", "SELECTORS_FFI_KERNEL")


def test_nothing_is_imported_unless_asked_for():
    """Without a variable the package does not import ``testing``, and looks at nothing more."""
    program = (
        "import sys, selectors_ffi\n"
        "from selectors_ffi import binding\n"
        "assert not [name for name in sys.modules if name.startswith('selectors_ffi.testing')]\n"
        "assert binding.ambient is None and binding.default() is binding.load()\n"
    )
    assert python("-c", program) == (0, "", "")


def test_a_block(pair):
    """Selectors of the kernel's classes can be made in the block, others not; afterwards as before."""
    near, _ = pair
    before = selectors_ffi.DefaultSelector
    with on_kernel("openbsd") as simulated:
        assert selectors_ffi.DefaultSelector is selectors_ffi.KqueueSelector is backends.KqueueSelector
        with on_kernel("solaris11"):
            assert selectors_ffi.DefaultSelector is backends.DevpollSelector
            assert not hasattr(selectors_ffi, "KqueueSelector")
        assert selectors_ffi.run(name_of_the_loops_selector()) == "KqueueSelector"
        assert isinstance(simulated, bsd.SimulatedBSD)
        with backends.KqueueSelector() as selector:
            key = selector.register(near, EVENT_WRITE)
            assert simulated.watched(selector.fileno()) == {near.fileno(): EVENT_WRITE}
            assert selector.select(1) == [(key, EVENT_WRITE)]
        with pytest.raises(OSError, match="no epoll_ctl in target openbsd"):
            backends.EpollSelector()
    assert selectors_ffi.DefaultSelector is before
    with selectors_ffi.DefaultSelector() as selector:
        assert selector.register(near, EVENT_WRITE)
    with pytest.raises(ValueError, match="unknown kernel"):
        on_kernel("vms")


async def name_of_the_loops_selector():
    """The class that the running loop waits with."""
    return type(asyncio.get_running_loop()._selector).__name__


@pytest.mark.parametrize("second", [on_kernel("illumos"), chaotic(3)], ids=["kernel", "chaos"])
def test_blocks_that_overlap(second):
    """As in two tasks: what is exported is always of the kernel in force, and at last this host's."""
    before = selectors_ffi.DefaultSelector
    with ExitStack() as stack:
        with on_kernel("darwin"):
            stack.enter_context(second)
            within = selectors_ffi.DefaultSelector
        assert selectors_ffi.DefaultSelector is within
        within().close()
    assert selectors_ffi.DefaultSelector is before
    before().close()


def test_threads_enter_and_leave_blocks():
    """Whatever the order, this host's classes are exported in the end."""
    before = selectors_ffi.DefaultSelector, dir(selectors_ffi)

    def enter_and_leave(name):
        for _ in range(20):
            with on_kernel(name):
                pass
            with chaotic(3):
                pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            names = ("darwin", "illumos", "linux")
            threads = [threading.Thread(target=enter_and_leave, args=(name,)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (selectors_ffi.DefaultSelector, dir(selectors_ffi)) == before
    finally:
        sys.setswitchinterval(interval)


def test_a_block_keeps_what_a_program_has_chosen(monkeypatch):
    """Its own DefaultSelector is there again afterwards, whatever SELECTORS_FFI_BACKEND says by then."""
    monkeypatch.setattr(selectors_ffi, "DefaultSelector", backends.SelectSelector)
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "kqueue")
    with on_kernel("darwin"):
        assert selectors_ffi.DefaultSelector is backends.KqueueSelector
    assert selectors_ffi.DefaultSelector is backends.SelectSelector


def test_a_block_reaches_what_is_installed():
    """asyncio waits on the kernel of the block, also if ``install()`` came first, and not after it."""
    program = (
        "import asyncio, selectors, selectors_ffi\n"
        "from selectors import DefaultSelector\n"
        "from selectors_ffi.testing import on_kernel\n"
        "async def name(): return type(asyncio.get_running_loop()._selector).__name__\n"
        "def names():\n"
        "    held = DefaultSelector, selectors.DefaultSelector\n"
        "    return [*(cls.__name__ for cls in held), asyncio.run(name())]\n"
        "before = selectors.DefaultSelector\n"
        "with selectors_ffi.install() as installation:\n"
        "    usual = names()\n"
        "    with on_kernel('darwin'): print(*names())\n"
        "    assert names() == usual\n"
        "with on_kernel('darwin'):\n"
        "    installation = selectors_ffi.install()\n"
        "    print(*names())\n"
        "assert names() == usual\n"
        "with on_kernel('illumos'):\n"
        "    selectors_ffi.uninstall()\n"
        "assert DefaultSelector is selectors.DefaultSelector is before\n"
    )
    status, output, errors = python("-c", program)
    assert (status, errors) == (0, "")
    assert output == "KqueueSelector KqueueSelector KqueueSelector\n" * 2


def test_a_block_that_cannot_be_entered(monkeypatch):
    """A backend that the kernel does not have is refused, and nothing has changed."""
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "epoll")
    before = selectors_ffi.DefaultSelector
    with pytest.raises(ValueError, match="usable: kqueue, poll, select"), on_kernel("darwin"):
        pass
    assert selectors_ffi.DefaultSelector is before
    selectors_ffi.DefaultSelector().close()


POLLING = [name for name in KERNELS if name != "windows"]


@pytest.fixture(params=POLLING)
def table(request):
    """A maker of a PollSelector or a SelectSelector on each kernel."""
    return lambda name: getattr(backends, f"{name}Selector")(binding=kernel(request.param))


@pytest.mark.parametrize("name", ["Poll", "Select"])
def test_poll_and_select_of_every_kernel(table, name, many):
    """Both directions, a peer that hung up, a timeout, and descriptors in more than one word."""
    with table(name) as selector:
        spare = [os.dup(many[0][0].fileno()) for _ in range(40)]
        selector.register(spare[-1], EVENT_READ, "spare")
        assert selector.select(0.001) == []
        for number, (near, far) in enumerate(many[1:]):
            selector.register(near, EVENT_READ | (EVENT_WRITE * (number % 2)), number)
            if number % 3 == 0:
                far.send(b"x")
        many[0][1].send(b"x")
        many[2][1].close()
        found = {key.data: events for key, events in selector.select(1)}
        expected = {"spare": EVENT_READ, 1: EVENT_READ | EVENT_WRITE}
        for number in range(9):
            events = EVENT_READ * (number % 3 == 0) | EVENT_WRITE * (number % 2)
            if events:
                expected.setdefault(number, events)
        assert found == expected
        for fd in spare:
            os.close(fd)
        if name == "Select":
            with pytest.raises(OSError) as caught:
                selector.select(0)
            assert caught.value.errno == errno.EBADF
        else:
            assert ("spare", EVENT_READ) in [(key.data, events) for key, events in selector.select(0)]


@pytest.mark.parametrize("name", POLLING)
def test_a_hang_up_and_writing(name):
    """U6: a pipe that has hung up does not end a wait for writing; with Solaris's select(3C) it does."""
    reader, writer = os.pipe()
    os.close(writer)
    with backends.SelectSelector(binding=kernel(name)) as selector:
        key = selector.register(reader, EVENT_WRITE)
        assert selector.select(0.03) == ([(key, EVENT_WRITE)] if name in solaris.VARIANTS else [])
    os.close(reader)


@pytest.mark.parametrize("system", ["freebsd", "netbsd", "dragonfly", "openbsd", "darwin"])
def test_a_pipe_whose_other_end_is_gone(system):
    """K6: either end is refused for writing where the systems refuse it, and an option undoes it."""
    code = bsd.VARIANTS[system].pipe_without_reader
    assert bsd.VARIANTS[system].pipe_without_writer == code
    for index in (0, 1):
        ends = os.pipe()
        os.close(ends[1 - index])
        for options in ({}, {"pipe_without_reader": 0, "pipe_without_writer": 0}):
            with backends.KqueueSelector(binding=kernel(system, **options)) as selector:
                if code and not options:
                    with pytest.raises(OSError, match=os.strerror(code)):
                        selector.register(ends[index], EVENT_READ | EVENT_WRITE)
                    assert not selector.get_map()
                else:
                    key = selector.register(ends[index], EVENT_READ | EVENT_WRITE)
                    assert selector.select(1)[0][0] == key
        os.close(ends[index])


@pytest.mark.parametrize("name", [name for name in KERNELS if name in bsd.VARIANTS])
def test_evfilt_user(name):
    """K15: NOTE_TRIGGER makes it ready, EV_CLEAR makes it idle once reported; it is of no file."""
    binding = kernel(name)
    ffi, constant, call = binding.ffi, binding.constant, binding.call
    queue = call(binding.function("kqueue"))
    kevent = binding.function("kevent")

    def change(flags, fflags=0):
        changes = ffi.new("struct kevent[]", 1)
        changes[0].ident, changes[0].filter = 7, constant("EVFILT_USER")
        changes[0].flags, changes[0].fflags, changes[0].udata = flags, fflags, 42
        call(kevent, queue, changes, 1, ffi.NULL, 0, ffi.NULL)

    def events():
        room = ffi.new("struct kevent[]", 4)
        count = call(kevent, queue, ffi.NULL, 0, room, 4, ffi.new("struct timespec *"))
        return [(room[i].ident, room[i].filter, room[i].udata, room[i].fflags) for i in range(count)]

    change(constant("EV_ADD") | constant("EV_CLEAR"))
    assert events() == []
    change(0, constant("NOTE_TRIGGER"))
    assert binding.lib.kernel.watched(queue) == {}
    assert events() == [(7, constant("EVFILT_USER"), 42, 0)]
    assert events() == []
    change(constant("EV_ADD"), constant("NOTE_TRIGGER"))
    assert [len(events()), len(events())] == [1, 0]  # K17: it is still there, with EV_CLEAR
    change(constant("EV_DELETE"))
    change(constant("EV_ADD"), constant("NOTE_TRIGGER"))
    assert [len(events()), len(events())] == [1, 1]
    change(constant("EV_DELETE"))
    assert events() == []
    binding.close(queue)


def test_a_short_array_is_a_defect_of_the_caller():
    """A real kernel would write past its end; the simulated one says so."""
    binding = kernel("linux")
    events = binding.ffi.new("struct epoll_event[]", 1)
    epfd = binding.call(binding.function("epoll_create1"), 0)
    with pytest.raises(AssertionError, match=r"the kernel reads or writes .* bytes of an array of"):
        binding.function("epoll_wait")(epfd, events, 4, 0)
    binding.close(epfd)


def test_sockets_only_on_windows(pair):
    """select of Winsock refuses what is no socket, and waits for what is one."""
    near, _ = pair
    with backends.SelectSelector(binding=kernel("windows")) as selector:
        key = selector.register(near, EVENT_WRITE)
        assert selector.select(1) == [(key, EVENT_WRITE)]
        reader, writer = os.pipe()
        selector.register(reader, EVENT_READ)
        with pytest.raises(OSError, match="10038"):
            selector.select(0)
        os.close(reader)
        os.close(writer)
    assert isinstance(near, socket.socket)
