"""Explanations: each call, flag and errno has a sentence, told where it first appears."""

from __future__ import annotations

import errno
import io
import re

import pytest

from selectors_ffi._abi.target import SYMBOLS
from selectors_ffi.debug import FileSink
from selectors_ffi.debug.decode import vocabulary
from selectors_ffi.debug.explain import CALLS, ERRNOS, FLAGS, RECORDS, Explainer
from selectors_ffi.debug.lines import Lines
from selectors_ffi.debug.records import Event, Lint, Registration, Syscall, Wait, here, now
from tests import apart

NAMES = {
    name
    for family in (
        vocabulary.EPOLL_CREATE,
        vocabulary.EPOLL_OPERATIONS,
        vocabulary.EPOLL_EVENTS,
        vocabulary.POLL_EVENTS,
        vocabulary.KEVENT_FILTERS,
        vocabulary.KEVENT_FLAGS,
        *vocabulary.KEVENT_NOTES.values(),
        vocabulary.KQUEUEX_FLAGS,
        vocabulary.DEVPOLL_COMMANDS,
        vocabulary.PORT_SOURCES,
        vocabulary.OPEN_FLAGS,
    )
    for name in family
}


def call(name, *arguments, result=0, errno=0, note=""):
    """Return the record of a call."""
    return Syscall(now(), here("EpollSelector-1"), name, arguments, result, errno, note, 1000)


def test_every_flag_has_a_sentence():
    """What the tracer can name, it can explain."""
    assert not NAMES - set(FLAGS)


def test_every_call_has_a_sentence():
    """Each C function that is called under a link symbol of its own is in the table."""
    assert {name for links in SYMBOLS.values() for name in links} <= set(CALLS)


def test_every_flag_has_a_page():
    """Each explanation of a flag ends with its manual page."""
    for name in FLAGS:
        (sentence,) = list(Explainer()._flags(name))

        assert re.fullmatch(rf"{name}: .+\. \[\w+\(\d\w?\)\]", sentence), sentence


@pytest.mark.parametrize("text", [*CALLS.values(), *FLAGS.values(), *ERRNOS.values(), *RECORDS.values()])
def test_sentences(text):
    """A sentence is short and ends with a full stop."""
    assert text.endswith((".", ")."))
    assert len(text.split()) <= 26


def test_errnos_exist():
    """Each errno of the table is one, and a call's own meaning is of a call of the table."""
    for key in ERRNOS:
        name, _, number = key.rpartition(" ")
        assert hasattr(errno, number)
        assert not name or name in CALLS


def test_first_time_only():
    """A call, its flags and its errno are explained once; what is new later is explained then."""
    explain = Explainer()
    event = "{events=EPOLLIN, data=0x4}"
    first = explain(call("epoll_ctl", "3", "EPOLL_CTL_ADD", "4", event))
    again = explain(call("epoll_ctl", "3", "EPOLL_CTL_ADD", "5", event))
    new = explain(call("epoll_ctl", "3", "EPOLL_CTL_DEL", "4", "NULL", result=-1, errno=errno.ENOENT))

    assert [sentence.split()[0] for sentence in first] == [
        "a",
        "epoll_ctl",
        "EPOLL_CTL_ADD:",
        "EPOLLIN:",
    ]
    assert again == []
    assert [sentence.split()[0] for sentence in new] == ["EPOLL_CTL_DEL:", "ENOENT:"]
    assert "unregister()" in new[1]
    assert new[1].endswith("[epoll_ctl(2)]")


def test_an_errno_of_any_call():
    """An errno that means the same for all calls refers to the page of errnos."""
    (*_, sentence) = Explainer()(call("poll", "[]", "0", "-1", result=-1, errno=errno.EINTR))

    assert sentence.startswith("EINTR: a signal came")
    assert sentence.endswith("[errno(3)]")


def test_events_and_registrations():
    """Lines that are no calls say what they are; flags and errnos in an event are explained."""
    explain = Explainer()
    source = here("KqueueSelector-1")
    flags = "filter=EVFILT_READ, flags=EV_EOF, fflags=ECONNRESET, data=0"
    event = Event(now(), source, 4, "socket", flags, 1, "", "")
    registration = Registration(now(), source, "register", 4, "socket", 1, "", "")
    sentences = [*explain(registration), *explain(event), *explain(Wait(now(), source, None, 1, 1))]

    assert [sentence.split()[0].strip(",:") for sentence in sentences] == [
        "register",
        "event(...)",
        "EVFILT_READ",
        "EV_EOF",
        "ECONNRESET",
        "wait(timeout)",
    ]


def test_lints_name_their_page():
    """A lint is followed by where its cause and cure are, once; an unknown one by nothing."""
    explain = Explainer()
    lint = Lint(now(), here("EpollSelector-1"), "SEL001", 4, "message", "place")

    assert explain(lint) == ["SEL001 ClosedWhileRegistered: docs/lints.md has its cause and cure."]
    assert explain(lint) == []
    assert explain(lint._replace(id="SEL999")) == []


def test_unknown_names():
    """What is in no table is passed over in silence."""
    assert (
        Explainer()(call("sysctl", "EPOLLFUTURE|0x40", "EXPERIMENT", result=-1, errno=99999))[1:] == []
    )


def test_lines():
    """The sentences follow the line that they explain, indented."""
    file = io.StringIO()
    sink = Lines(FileSink(file), fold=False, explain=Explainer())
    for _ in range(2):
        sink(call("close", "3"))
    lines = file.getvalue().splitlines()

    assert lines[0].startswith("close(3) = 0")
    assert lines[1].startswith("    a call is written")
    assert lines[2].startswith("    close gives a descriptor back;")
    assert lines[3].startswith("close(3) = 0")
    assert len(lines) == 4


PROGRAM = """
import selectors, socket
server = socket.create_server(("127.0.0.1", 0))  # Windows' select() takes no empty sets
with selectors.SelectSelector() as selector, server:
    selector.register(server, selectors.EVENT_READ)
    selector.select(0)
"""


def trace(tmp_path, *arguments):
    """Run ``trace`` on a small program."""
    (tmp_path / "app.py").write_text(PROGRAM)
    return apart.trace(*arguments, "app.py", cwd=tmp_path)


def test_the_option(tmp_path):
    """``trace --explain`` explains what it shows, also beside a summary."""
    lines = trace(tmp_path, "--explain").stderr.splitlines()
    beside = trace(tmp_path, "--explain", "--summary", "-e", "syscalls").stderr.splitlines()

    assert lines[0].startswith("select(")
    assert lines[2].startswith("    select waits for three sets of descriptors")
    assert lines[2].endswith("[select(2)]")
    assert lines[2] in beside
    assert any(line.endswith("total") for line in beside)


def test_only_text_is_explained(tmp_path):
    """Other formats have no room for sentences: that is told, and nothing is run."""
    done = trace(tmp_path, "--explain", "--format", "json", "-o", "out.json")

    assert done.returncode == 2
    assert "--explain is for --format text" in done.stderr
    assert not (tmp_path / "out.json").exists()
