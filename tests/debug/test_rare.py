"""What happens rarely in the debug package: other systems, odd arguments, bad moments."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import sys
from types import SimpleNamespace

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, EVENT_WRITE, backends, debugging
from selectors_ffi._abi import load_ffi
from selectors_ffi.binding import load
from selectors_ffi.debug import (
    Debug,
    Event,
    Lint,
    PerfettoSink,
    Registration,
    RingSink,
    Stats,
    Syscall,
    Wait,
    flags,
    inspect,
    naming,
    watch,
)
from selectors_ffi.debug.decode import form, form_of, grammar
from selectors_ffi.debug.decode import select as decode_select
from selectors_ffi.debug.observer import Observer
from selectors_ffi.debug.records import Source

SOURCE = Source(1, 2, "TestSelector@0x1")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")


def keep_nothing(record):
    """A sink."""


# -- blocks and the environment


def test_blocks_may_end_in_any_order():
    """A block that ends before one that began later ends itself alone."""
    outer, inner = debugging("events", keep_nothing), debugging("checks", keep_nothing)
    before = list(flags._stack)
    outer.__enter__()
    inner.__enter__()

    outer.__exit__(None, None, None)
    assert flags.ambient().flags == Debug.CHECKS
    inner.__exit__(None, None, None)
    assert flags._stack == before


def test_an_instrumented_class_is_not_instrumented_again(backend):
    """Making one more of a traced selector's own class gives that class."""
    with backend(debug="events") as selector, type(selector)(debug=Debug.CHECKS) as other:
        assert type(other) is type(selector)
        assert other._observer.flags == Debug.EVENTS


def test_a_second_close_is_not_recorded(backend):
    """Closing a closed selector does nothing, and nothing is said of it."""
    kept = []
    with debugging("events", kept.append):
        selector = backend()
    selector.close()
    selector.close()
    assert [record.action for record in kept if isinstance(record, Registration)] == ["close"]


# -- names


def test_borrowing_without_a_type_that_says_nonblocking(monkeypatch, pairs):
    """Where sockets have no SOCK_NONBLOCK a borrowed one is made only if that changes no mode."""
    monkeypatch.delattr(socket, "SOCK_NONBLOCK", raising=False)
    fd = pairs[0][0].fileno()
    os.set_blocking(fd, False)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="cpython"))
    if hasattr(sys, "pypy_version_info"):
        pytest.skip("PyPy would change the mode")
    with naming.borrowed(fd) as borrowed:
        assert borrowed.fileno() != fd
        assert not os.get_blocking(fd)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    with pytest.raises(OSError, match="would change"):
        naming.borrowed(fd)


# -- decoders


def test_a_path_that_is_a_pointer():
    """open(2) shows its path as text, whether bytes, cdata or NULL."""
    ffi = load_ffi("sunos")
    opens = form_of(ffi, "open")
    path = ffi.new("char[]", b"/dev/poll")

    assert opens.enter((path, 0))[0] == '"/dev/poll"'
    assert opens.enter((b"/dev/poll\0", 0))[0] == '"/dev/poll"'
    assert opens.enter((ffi.NULL, 0))[0] == "NULL"


def test_an_ioctl_that_is_not_of_devpoll():
    """Another command's argument is an address, and brings no events."""
    ffi = load_ffi("sunos")
    ioctl = form_of(ffi, "ioctl")
    arguments = (4, 12345, ffi.NULL)
    texts = ioctl.enter(arguments)

    assert ioctl.leave(arguments, texts, 0) == "Timeout"
    assert texts == ["4", "0x3039", "NULL"]
    assert ioctl.ready(arguments, 1) == []


def test_numbers_and_addresses():
    """Integers in any form are numbers; what is none is an address, or its type."""
    ffi = load().ffi
    pointer = ffi.new("int *", 5)
    assert form.integer(ffi, ffi.cast("long", 7)) == "7"
    assert grammar.address(ffi, pointer) == hex(int(ffi.cast("uintptr_t", pointer)))
    assert grammar.address(ffi, 0) == "NULL"
    assert grammar.address(ffi, 255) == "0xff"
    assert grammar.address(ffi, "text") == "/* str */"
    assert grammar.address(ffi, ffi.new("struct timeval *")[0]) == "?"
    assert form.records(ffi, ffi.cast("int *", 255), "int", -1, str) == "0xff"


def test_a_time_struct_by_value():
    """A time struct is shown alike, whether pointed to, in an array, or itself."""
    ffi = load().ffi
    clock = ffi.new("struct timeval *", {"tv_sec": 1, "tv_usec": 2})
    assert grammar.timeval(ffi, clock) == "{tv_sec=1, tv_usec=2}" == grammar.timeval(ffi, clock[0])


def test_bitmaps_of_big_endian(monkeypatch):
    """In a big-endian bitmap bit 0 is in the first word's last byte."""
    ffi = load_ffi("linux")
    monkeypatch.setattr(decode_select.sys, "byteorder", "big")
    width = ffi.sizeof("fd_mask")
    words = bytearray(2 * width)
    for fd in (0, 9, 8 * width + 3):
        word, bit = divmod(fd, 8 * width)
        words[word * width + width - 1 - bit // 8] |= 1 << bit % 8

    assert decode_select.members(ffi, ffi.from_buffer(words), 16 * width) == [0, 9, 8 * width + 3]


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
    assert watch._enter(broken, (1,)) == ["/* undecoded: LookupError */"]
    assert watch._leave(broken, (1,), ["1"], 0) == "undecoded: LookupError"
    assert watch._keep(broken, (1,)) == (1,)
    assert watch._kept(broken, (1,), (2,), 0) == (1,)
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
    tapped = watch.tapped(whole, Observer(selector, flags, kept.append))

    assert repr(tapped.lib).startswith("Tap(namespace(")
    assert tapped.lib.__version__ == "1"
    with pytest.raises(KeyboardInterrupt):
        tapped.lib.poll(ffi.NULL, 0, 0)
    expected = [("KeyboardInterrupt", None)] if flags == Debug.SYSCALLS else []
    assert [(one.note, one.result) for one in kept] == expected


def test_what_no_flag_needs_is_not_tapped():
    """Checks of poll(2) need none of its calls, and get the function itself."""
    library = SimpleNamespace(poll=len)
    whole = type(load())(load().target, load().ffi, library)
    selector = Selector()
    assert watch.tapped(whole, Observer(selector, Debug.CHECKS, keep_nothing)).lib.poll is len


# -- describing


def test_description_of_nothing(backend):
    """Without registrations there is a title and what the kernel says, and no table."""
    with backend() as selector:
        lines = str(selector.describe()).splitlines()
        assert len(lines) == 2
        assert repr(selector.describe()) == f"<Description of {lines[0]}>"


@linux
def test_description_without_procfs(monkeypatch):
    """Without /proc nothing is said of the kernel's own list."""
    module = sys.modules["selectors_ffi.debug.inspect"]
    monkeypatch.setattr(module, "watched", lambda epfd: None)
    with backends.EpollSelector() as selector:
        assert selector.describe().differences is None
        assert "no list of its own" in str(selector.describe())


@pytest.mark.parametrize(
    "lines", ["tfd: x events: 1 data: 2", "tfd: 5 data: 2", "tfd: 5 events: zz data: 2"]
)
def test_a_kernel_list_of_another_form(monkeypatch, lines):
    """Lines that are not as expected are no list, rather than a wrong one."""
    monkeypatch.setattr(inspect, "open", lambda *_, **__: io.StringIO(lines), raising=False)
    assert inspect.watched(5) is None


def test_no_kernel_list():
    """A descriptor that is not there, or a system without inspect, has no list."""
    assert inspect.watched(10**6) is None


@linux
def test_kinds_that_have_no_name(tmp_path, monkeypatch):
    """What fstat(2) knows no word for is unknown; a pipe without inspect is a fifo."""
    if not hasattr(os, "O_PATH"):
        pytest.skip("PyPy does not name the flag")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    fd = os.open(link, os.O_PATH | os.O_NOFOLLOW)
    assert naming.kind_of(fd) == "unknown"
    os.close(fd)
    reader, writer = os.pipe()

    def refuse(path):
        raise OSError

    monkeypatch.setattr(os, "readlink", refuse)
    assert naming.kind_of(reader) == "fifo"
    os.close(reader)
    os.close(writer)


# -- records and sinks


def test_why_an_event_was_dropped(backend, pairs):
    """Not registered, of an earlier file, or of a direction that was not asked for."""
    with backend(debug="events") as selector:
        key = selector.register(pairs[0][0], EVENT_READ)
        observer = selector._observer
        native = SimpleNamespace(fd=key.fd, token=None)
        assert observer._reason(SimpleNamespace(fd=10**6, token=None)) == "not registered"
        assert observer._reason(native) == "only EVENT_READ was asked for"
        native.token = 2**40
        assert observer._reason(native) == "of an earlier registration of this number"


def test_records_of_all_that_can_fail(tmp_path):
    """A trace shows a failed call's errno, and a wait that raised."""
    path = tmp_path / "trace.json"
    sink = PerfettoSink(path)
    sink(Syscall(1, SOURCE, "epoll_ctl", ("5",), -1, errno.EPERM, "", 3))
    sink(Registration(2, SOURCE, "register", 7, "socket", 1, "<socket>", "PermissionError()"))
    sink(Event(3, SOURCE, 7, "socket", "EPOLLIN", 1, "<socket>", ""))
    sink(Wait(4, SOURCE, None, 5, -1))
    sink.close()
    document = json.loads(path.read_text())["traceEvents"]
    shown = [event for event in document if event["ph"] != "M"]

    shown = [event for event in shown if event["cat"] != "descriptor"]
    assert [event["ph"] for event in shown] == ["X", "i", "X"]
    assert shown[0]["args"]["errno"] == "EPERM"


def test_a_sink_that_fails_without_a_standard_error(monkeypatch, backend):
    """Where a failing sink cannot even be complained of, nothing happens."""

    def fail(record):
        raise ZeroDivisionError

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with backend(debug="all") as before:
        pass
    with debugging("events", fail):
        with backend() as selector:
            assert selector.select(0) == []
        assert selector._observer.emit.failed
    assert before.get_map() is None


def test_a_recorder_that_is_read_while_it_is_written():
    """A record that comes while the records are copied makes the copying begin again."""
    ring = RingSink()

    class Growing:
        tries = 0

        def __iter__(self):
            Growing.tries += 1
            if Growing.tries == 1:
                raise RuntimeError("deque mutated during iteration")
            return iter([1, 2])

    ring._records = Growing()
    assert ring.records() == [1, 2]


def test_a_recorder_dumps_into_any_sink():
    """The records that were kept go to a callable as they are."""
    dumped = []
    ring = RingSink(2, dump=dumped.append)
    for n in range(3):
        ring(n)
    ring.dump()
    assert dumped == [1, 2]
    assert ring.records() == []


def test_statistics_of_nothing():
    """Before anything has happened every figure is 0, and the table says so."""
    figures = Stats()
    assert figures.waits.median == 0
    assert "select()" not in str(figures)


def test_a_lint_has_a_record_of_its_own():
    """The text of a lint names its id and its place."""
    lint = Lint(1, SOURCE, "SEL001", 7, "message", "file.py:1 in f")
    assert str(lint).endswith("SEL001 at file.py:1 in f: message")


def test_module_attributes_on_demand():
    """The package imports the debug names when they are first asked for, and no others."""
    assert selectors_ffi.Debug is Debug
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = selectors_ffi.nothing
    assert EVENT_WRITE == 2
