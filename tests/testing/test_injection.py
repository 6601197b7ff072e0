"""Faults, delays and return values in strace's grammar."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import warnings
from contextlib import ExitStack
from selectors import EVENT_READ, EVENT_WRITE

import pytest

import selectors_ffi
from selectors_ffi import backends
from selectors_ffi.debug import Syscall, debugging
from selectors_ffi.testing import UnreachedWarning, chaos, inject, injecting, kernel
from selectors_ffi.testing.grammar import parse
from tests import apart, needs

KNOWN = ("close", "epoll_ctl", "epoll_wait", "kevent")
CONTROLS = {"epoll": "epoll_ctl", "kqueue": "kevent", "devpoll": "write", "eventport": "port_associate"}


def test_the_third_registration_fails(subject, below, many):
    """One call of ``control`` is refused with its errno; the ones before and after work."""
    if not subject.kernel_keeps_list:
        pytest.skip("select and poll register nothing in the kernel")
    binding = inject("control:error=ENOSPC:when=3", below)
    with subject.cls(binding=binding) as selector:
        for near, _ in many[:2]:
            selector.register(near, EVENT_WRITE)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
            selector.register(many[2][0], EVENT_WRITE)
        assert caught.value.errno == errno.ENOSPC
        assert len(selector.get_map()) == 2
        selector.register(many[2][0], EVENT_WRITE)
        assert len(selector.select(1)) == 3
    assert binding.lib.hook.hits == 1


def test_calls_that_undo_are_counted(subject, below, pair):
    """What undoes a refused registration is up to three calls, which ``when=`` can choose."""
    if not subject.kernel_keeps_list:
        pytest.skip("select and poll register nothing in the kernel")
    near, _ = pair
    binding = inject("control:error=ENOSPC:when=1", below)
    with subject.cls(binding=binding) as selector:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            selector.register(near, EVENT_READ | EVENT_WRITE)
        undoing = binding.lib.hook.calls - 1
    assert undoing == {"kqueue": 3, "devpoll": 1}.get(subject.mechanism, 0)


@pytest.mark.parametrize("timeout", [None, 1])
def test_a_storm_of_interruptions(subject, below, pair, timeout):
    """``wait`` is the mechanism's own function; EINTR fifty times over delays a wait."""
    near, _ = pair
    if subject.winsock:
        pytest.skip("Winsock's select is never interrupted")
    binding = inject("wait:error=EINTR:when=1..50", below)
    with subject.cls(binding=binding) as selector:
        key = selector.register(near, EVENT_WRITE)
        assert selector.select(timeout) == [(key, EVENT_WRITE)]
    assert binding.lib.hook.hits == 50


@needs.simulated_kernels
def test_an_errno_of_c_is_winsocks_on_windows(pair):
    """Winsock has numbers of its own for some errors of C; the exception has both."""
    near, _ = pair
    binding = inject("select:error=EINVAL", kernel("windows"))
    with backends.SelectSelector(binding=binding) as selector:
        selector.register(near, EVENT_WRITE)
        with pytest.raises(OSError) as caught:
            selector.select(1)
    assert (caught.value.errno, caught.value.winerror) == (errno.EINVAL, 10022)


def test_winsock_errors_are_where_winsock_has_them(pair):
    """On Windows the errno that is injected is what WSAGetLastError() says, and only then."""
    if os.name != "posix":
        pytest.skip("the simulated kernels need a Unix host")
    near, _ = pair
    binding = inject("select:error=10055:when=2", kernel("windows"))
    with backends.SelectSelector(binding=binding) as selector:
        key = selector.register(near, EVENT_WRITE)
        assert selector.select(1) == [(key, EVENT_WRITE)]
        with pytest.raises(OSError) as caught:
            selector.select(1)
        assert caught.value.errno == 10055
        assert selector.select(1) == [(key, EVENT_WRITE)]
        near.close()
        with pytest.raises(OSError) as caught:
            selector.select(1)
        assert caught.value.errno == 10038


@needs.simulated_kernels
def test_winsock_errors_have_names(pair):
    """They are injected by name, on every host, and a trace has the name and what it means."""
    near, _ = pair
    kept = []
    binding = inject("select:error=WSAEINVAL:when=1; select:error=wsaenotsock:when=2", kernel("windows"))
    with debugging("syscalls", kept.append), backends.SelectSelector(binding=binding) as selector:
        selector.register(near, EVENT_WRITE)
        for expected in (10022, 10038):
            with pytest.raises(OSError) as caught:
                selector.select(1)
            assert caught.value.winerror == expected
    lines = [str(record) for record in kept if isinstance(record, Syscall)]
    assert f"-1 WSAENOTSOCK ({os.strerror(errno.ENOTSOCK)})" in lines[-1]
    with pytest.raises(ValueError, match="did you mean WSAENOTSOCK"):
        inject("select:error=WSANOTSOCK", kernel("windows"))


def test_a_result_without_a_call(pair):
    """``retval=`` is the result of a call that is not made."""
    near, _ = pair
    with selectors_ffi.SelectSelector(binding=inject("select:retval=0:when=1")) as selector:
        key = selector.register(near, EVENT_WRITE)
        assert selector.select(0) == []
        assert selector.select(1) == [(key, EVENT_WRITE)]


def test_a_call_that_is_made_and_fails(subject, below):
    """``made=1``: close(2) has closed and says EINTR, which is no error of a selector's close."""
    if not subject.kernel_keeps_list:
        pytest.skip("select and poll have no kernel object")
    binding = inject("close:error=EINTR:made=1", below)
    selector = subject.cls(binding=binding)
    number = selector.fileno()
    selector.close()
    assert binding.lib.hook.hits == 1
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(number)


@pytest.mark.parametrize("key", ["delay_enter", "delay_exit"])
def test_delays(pair, key):
    """A call begins or returns later, and its result is its own."""
    near, _ = pair
    with selectors_ffi.SelectSelector(binding=inject(f"select:{key}=20ms:when=2")) as selector:
        selected = selector.register(near, EVENT_WRITE)
        for least in (0, 0.02):
            begun = time.monotonic()
            assert selector.select(1) == [(selected, EVENT_WRITE)]
            assert time.monotonic() - begun >= least


def test_delays_where_time_is_patched(monkeypatch):
    """A program's test may replace ``time.sleep``: a delay that is counted is one all the same."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with selectors_ffi.SelectSelector(binding=inject("select:delay_enter=20ms")) as selector:
        begun = time.monotonic()
        selector.select(0)
    assert time.monotonic() - begun >= 0.02


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_wait_that_is_always_interrupted_ends(subject, below, pair, timeout):
    """The deadline counts, and not what the last call said."""
    near, _ = pair
    if subject.winsock:
        pytest.skip("Winsock's select is never interrupted")
    binding = inject("wait:error=EINTR", below)
    with subject.cls(binding=binding) as selector:
        selector.register(near, EVENT_WRITE)
        begun = time.monotonic()
        assert selector.select(timeout) == []
        assert time.monotonic() - begun >= timeout


def test_a_refused_registration_makes_no_further_call(subject, below, many):
    """So ``when=`` counts what the program does: every second registration fails."""
    if subject.mechanism in ("poll", "select", "devpoll"):
        pytest.skip("the kernel hears of it with the next wait; a write(2) may fail half-way")
    binding = inject("control:error=ENOMEM:when=2+2", below)
    refused = []
    with subject.cls(binding=binding) as selector:
        for number, (near, _) in enumerate(many[:6], 1):
            try:
                selector.register(near, EVENT_WRITE)
            except OSError:
                refused.append(number)
        assert len(selector.get_map()) == len(selector.select(1)) == 3
    assert refused == [2, 4, 6]


def test_solaris_is_asked_again_but_not_for_ever(pair):
    """A write(2) to /dev/poll, and what poll(2) says of an event of a port, are asked for 100 times."""
    near, _ = pair
    binding = inject("write:error=EINTR", kernel("illumos"))
    with backends.DevpollSelector(binding=binding) as selector:
        with pytest.raises(InterruptedError):
            selector.register(near, EVENT_WRITE)
        assert not selector.get_map()
    binding = inject("poll:error=EINTR:when=1..100", kernel("illumos"))
    with backends.EventPortSelector(binding=binding) as selector:
        key = selector.register(near, EVENT_WRITE)
        with pytest.raises(InterruptedError):
            selector.select(1)
        assert selector.select(1) == [(key, EVENT_WRITE)]


@pytest.mark.parametrize("name", ["freebsd", "netbsd", "darwin"])
def test_a_change_that_was_interrupted_is_made(pair, name):
    """kqueue(2): "all changes in the changelist have been applied". So nothing is lost."""
    near, _ = pair
    binding = inject("control:error=EINTR", kernel(name))
    with backends.KqueueSelector(binding=binding) as selector:
        key = selector.register(near, EVENT_WRITE)
        assert selector.select(1) == [(key, EVENT_WRITE)]
        selector.unregister(near)
        assert selector.select(0) == []
    assert repr(binding.lib.hook) == "Injection('control:error=EINTR')"


def test_no_more_events_are_returned_than_there_is_room_for(subject, below, pair):
    """What the selector reads then is old, but it is memory of its own; the next wait is right."""
    near, _ = pair
    with subject.cls(binding=inject("wait:retval=100000:when=1", below)) as selector:
        key = selector.register(near, EVENT_WRITE)
        for _ in range(2):
            found = selector.select(1)
        assert found == [(key, EVENT_WRITE)]


def register_and_wait(selector, fileobj):
    """Some mechanisms hand the descriptor to the kernel now, some then."""
    selector.register(fileobj, EVENT_WRITE)
    selector.select(0)


def test_of_one_descriptor(subject, below, many):
    """``fd=`` leaves the calls about other descriptors alone, and does not count them."""
    (one, _), (two, _), *_ = many
    function = CONTROLS.get(subject.mechanism, subject.mechanism)
    error = "10055" if subject.winsock else "ENOMEM"
    binding = inject(f"{function}:error={error}:fd={two.fileno()}", below)
    with subject.cls(binding=binding) as selector:
        selector.register(one, EVENT_WRITE)
        assert len(selector.select(1)) == 1
        assert binding.lib.hook.calls == 0
        with pytest.raises(OSError, match="memory" if error == "ENOMEM" else "10055"):
            register_and_wait(selector, two)
        assert binding.lib.hook.hits >= 1


@pytest.mark.parametrize(
    ("when", "hit"),
    [
        ("3", [3]),
        ("3+", [3, 4, 5, 6, 7, 8, 9]),
        ("2+3", [2, 5, 8]),
        ("2..4", [2, 3, 4]),
        ("2..7+2", [2, 4, 6]),
        ("2..+2", None),
        ("0", None),
        ("4..3", None),
        ("2+0", None),
        ("-1", None),
    ],
)
def test_when(when, hit):
    """first[..last][+[step]], as in strace(1)."""
    text = f"close:error=EIO:when={when}"
    if hit is None:
        with pytest.raises(ValueError, match=r"when=.* at character 22 of"):
            parse(text, KNOWN)
    else:
        (rule,) = parse(text, KNOWN)
        assert [number for number in range(1, 10) if rule.applies(number)] == hit


def test_what_is_parsed():
    """Sets of functions, several expressions, delays in every unit, numbers for errnos."""
    one, two, three = parse(
        "close,kevent:error=eio:fd=3; wait:delay_enter=10:delay_exit=2s ;epoll_ctl:retval=7", KNOWN
    )
    assert (one.functions, one.error, one.fd) == (("close", "kevent"), errno.EIO, 3)
    assert parse("close:error=5", KNOWN)[0].error == 5
    assert (two.functions, two.delay_enter, two.delay_exit) == (("wait",), 1e-5, 2)
    assert (three.text, three.retval, three.error) == ("epoll_ctl:retval=7", 7, 0)
    units = [parse(f"wait:delay_exit=3{unit}", KNOWN)[0].delay_exit for unit in ("ns", "us", "ms")]
    assert units == pytest.approx([3e-9, 3e-6, 3e-3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epol_ctl:error=EIO", "unknown function 'epol_ctl' at character 1 of 'epol_ctl:error=EIO'; "
         "did you mean epoll_ctl?; known: close, epoll_ctl, epoll_wait, kevent, wait, control"),
        ("close,open:error=EIO", "unknown function 'open' at character 7 of"),
        ("close:eror=EIO", "unknown key 'eror' at character 7 of 'close:eror=EIO'; did you mean error?; "
         "known: error, retval, delay_enter, delay_exit, when, fd, made"),
        ("close:error", "error is without its =VALUE at character 7 of 'close:error'"),
        ("close:error=ENOSPACE", "unknown errno 'ENOSPACE' at character 13 of "),
        ("close:error=0", "unknown errno '0'"),
        ("close:error=errorcode", "unknown errno 'errorcode'"),
        ("close:error=4096", "unknown errno '4096' at character 13"),
        ("close:error=EIO:error=EINTR", "error= is given twice at character 17"),
        ("close:retval=2147483648", "a result is an int of C, at most 2147483647, not '2147483648'"),
        ("close", "nothing to inject at character 6 of 'close'; known: error, retval, delay_enter"),
        ("close:when=3", "nothing to inject at character 13"),
        ("close:error=EIO:retval=3", "error= and retval= exclude each other"),
        ("close:retval=-1", "a result is a number >= 0, not '-1' at character 14"),
        ("close:error=EIO:fd=x", "a descriptor is a number >= 0, not 'x' at character 20"),
        ("close:delay_exit=3x", "a delay is a number of microseconds, not '3x' at character 18"),
        ("close:delay_exit=1000001s", "a delay is at most 1000000 seconds, not '1000001s' at"),
        (f"close:delay_enter={'9' * 400}", "a delay is at most 1000000 seconds"),
        ("close:error=EIO:when=0", "when='0' is no call: they are counted from 1 at character 22"),
        ("close:error=EIO:when=3..2", "when='3..2' is no call at all"),
        ("close:error=EIO:made=2", "made='2' at character 22 of 'close:error=EIO:made=2'; known: 0, 1"),
        ("close:retval=3:made=1", "made=1 goes with error="),
        ("close:error=EIO; kevent:errr=EIO", "unknown key 'errr' at character 25 of "),
        (" ; ", "no injection in ' ; '"),
        (None, "an injection is a text, not None; write FUNCTION:error=ERRNO"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(text, said):
    """Where, and what is known."""
    with pytest.raises(ValueError) as caught:
        parse(text, KNOWN)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: inject("wait:error=EINTR", "freebsd"), lambda: chaos(1, "freebsd")]
)
def test_the_name_of_a_kernel_is_no_binding(make):
    """As to a selector: the message says what makes one."""
    with pytest.raises(TypeError, match=r"takes what kernel\(\) or inject\(\) returns, not 'freebsd'"):
        make()


def test_the_functions_are_those_of_the_kernel(below, subject):
    """What another kernel has is unknown here, and the message lists what this one has."""
    unknown = {"epoll": "kevent", "kqueue": "epoll_ctl"}.get(subject.mechanism, "kqueuex")
    with pytest.raises(ValueError, match=f"unknown function '{unknown}'") as caught:
        inject(f"{unknown}:error=EIO", below)
    known = str(caught.value).partition("known: ")[2].split(", ")
    assert {"select", "wait", "control"} <= set(known)
    assert all(below.has(name) for name in known[:-2])


def test_a_block_is_checked_before_it_is_entered():
    """A wrong expression is an error of the line that has it."""
    with pytest.raises(ValueError, match="unknown function"):
        injecting("nothing:error=EIO")


def test_the_block_reaches_every_selector(pair):
    """The calls of all selectors that are made in the block are counted together."""
    near, _ = pair
    outside = selectors_ffi.SelectSelector()
    failed = 0
    with injecting("select:error=ENOMEM:when=3") as injection:
        inside = [selectors_ffi.SelectSelector() for _ in range(2)]
        for selector in (outside, *inside, outside, *inside):
            if near not in selector.get_map():
                selector.register(near, EVENT_WRITE)
            try:
                selector.select(1)
            except OSError:
                failed += 1
    for selector in (outside, *inside):
        selector.close()
    assert (failed, injection.hits, injection.calls) == (1, 1, 4)
    assert injection.unreached() == []


def test_what_was_not_reached_is_told(pair):
    """At the end of the block, unless an exception ends it; with the number of calls there were."""
    with pytest.warns(UnreachedWarning) as told, injecting("select:error=EIO:when=5"):
        with selectors_ffi.SelectSelector() as selector:
            selector.register(pair[0], EVENT_WRITE)  # Windows makes no call without a socket
            selector.select(0)
    (warning,) = told
    text = "select:error=EIO:when=5: not reached, calls of select: 1"
    assert str(warning.message) == text
    assert warning.filename == __file__
    with pytest.warns(UnreachedWarning) as told, ExitStack() as stack:
        line = sys._getframe().f_lineno + 1
        stack.enter_context(injecting("select:error=EIO:when=5"))
    assert (told[0].filename, told[0].lineno) == (__file__, line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError), injecting("select:error=EIO:when=5"):
            raise ZeroDivisionError


def test_calls_of_threads_are_counted_once(pair):
    """Of a hundred calls in five threads exactly every tenth fails."""
    near, _ = pair
    failures = []
    binding = inject("select:error=ENOMEM:when=10+10")

    def work():
        with selectors_ffi.SelectSelector(binding=binding) as selector:
            selector.register(near, EVENT_WRITE)
            for _ in range(20):
                try:
                    selector.select(0)
                except OSError:
                    failures.append(None)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == binding.lib.hook.hits == 10


def test_the_mark_in_a_trace(subject, below, pair):
    """An injected call is marked, a delayed one, too; the others are not."""
    near, _ = pair
    if subject.winsock:
        pytest.skip("tracing Winsock's errors is another matter")
    kept = []
    binding = inject("wait:error=EINTR:when=1; wait:delay_exit=1us:when=2", below)
    with debugging("syscalls", kept.append), subject.cls(binding=binding) as selector:
        selector.register(near, EVENT_WRITE)
        for _ in range(2):
            assert selector.select(1)
    notes = [record.note for record in kept if isinstance(record, Syscall)]
    marks = [note.rpartition("; ")[2] for note in notes]
    assert marks.count("INJECTED") == marks.count("DELAYED") == 1
    line = next(str(record) for record in kept if record.note == "INJECTED")
    assert f"-1 EINTR ({os.strerror(errno.EINTR)}) (INJECTED) <" in line


UNREACHED = (
    "poll:error=EIO: not reached, calls of poll: 0;"
    " a wait calls poll if it has no timeout or one of whole milliseconds, else ppoll,"
    " and 'wait' stands for both"
)


@needs.poll
def test_the_variable_reaches_the_whole_program():
    """SELECTORS_FFI_INJECT injects, and what was not reached is told on standard error."""
    program = (
        "import selectors_ffi as s\n"
        "with s.SelectSelector() as one:\n"
        "    one.select(0)\n"
        "    try: one.select(0)\n"
        "    except OSError as error: print(error.errno)\n"
    )
    text = "select:error=ENOMEM:when=2;poll:error=EIO"
    done = apart.python("-c", program, SELECTORS_FFI_INJECT=text)
    assert (done.returncode, done.stdout) == (0, f"{errno.ENOMEM}\n")
    assert done.stderr == f"SELECTORS_FFI_INJECT: {UNREACHED}\n"


PROGRAM = """
import selectors
with selectors.SelectSelector() as selector:
    selector.select(0)
    try:
        selector.select(0)
    except OSError as error:
        print(error.errno)
"""


@needs.poll
@pytest.mark.parametrize("command", ["trace", "run"])
def test_the_options_of_the_command_line(command):
    """--inject may be repeated and goes with --chaos; the program is the standard library's user."""
    words = ("--inject", "poll:error=EIO", "--inject", "select:error=ENOMEM:when=2", "--chaos", "3")
    done = apart.python("-m", "selectors_ffi", command, *words, "-c", PROGRAM)
    assert (done.returncode, done.stdout) == (0, f"{errno.ENOMEM}\n")
    lines = done.stderr.splitlines()
    assert f"--inject: {UNREACHED}" in lines
    marked = [line for line in lines if "(INJECTED)" in line]
    assert len(marked) == (command == "trace")


def test_chaos_alone_on_the_command_line():
    """--chaos needs no --inject."""
    words = (
        "run",
        "--chaos",
        "3:spurious",
        "-c",
        "import selectors; selectors.SelectSelector().select(0)",
    )
    done = apart.python("-m", "selectors_ffi", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["trace", "run"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--inject", "pol:error=EIO"), "--inject: unknown function 'pol' at character 1 of"),
        (("--chaos", "x"), "--chaos: a seed is an integer, not 'x'"),
    ],
)
def test_wrong_options(command, words, said):
    """One line, status 2, and the program does not begin."""
    done = apart.python("-m", "selectors_ffi", command, *words, "-c", "print('begun')")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{command}: {said}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_child_does_not_tell(capsys):
    """What was not reached is told by the process that asked, not by those that it forked."""
    from selectors_ffi.testing.ambient import _tell_unreached

    hook = inject("select:error=EIO").lib.hook
    _tell_unreached(hook, "HERE", os.getpid() + 1)
    assert capsys.readouterr().err == ""
    _tell_unreached(hook, "HERE", os.getpid())
    assert capsys.readouterr().err == "HERE: select:error=EIO: not reached, calls of select: 0\n"


def test_errno_of_a_handler_is_not_the_injected_one(subject, below, pair):
    """A failed call keeps the injected errno, whatever the caller's errno was before."""
    near, _ = pair
    if not subject.kernel_keeps_list:
        pytest.skip("select and poll register nothing in the kernel")
    binding = inject("control:error=ENOMEM:when=1", below)
    with subject.cls(binding=binding) as selector:
        binding.ffi.errno = errno.EXDEV
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            selector.register(near, EVENT_READ)
        binding.ffi.errno = errno.EXDEV
        selector.register(near, EVENT_READ)
        assert binding.ffi.errno == errno.EXDEV
