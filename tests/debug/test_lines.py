"""Lines: repeats folded, times in front, colour and width on a terminal."""

from __future__ import annotations

import io
import os
import re
import time

import pytest

from selectors_ffi.debug import Event, FileSink, Lint, Registration, Syscall, Wait, lines
from selectors_ffi.debug.lines import Folding, Lines, Look, look_of
from selectors_ffi.debug.records import Marks, Source, now
from tests import apart

SOURCE = Source(os.getpid(), Marks.main, "TestSelector-1")


def call(moment=1, name="poll", arguments=("[]", "0", "0"), duration=5000, errno=0):
    """A system call."""
    result = -1 if errno else 0
    return Syscall(moment, SOURCE, name, arguments, result, errno, "", duration)


def written(records, **options):
    """Return the lines that records become."""
    text = io.StringIO()
    sink = Lines(FileSink(text), **options)
    for record in records:
        sink(record)
    sink.finish()
    return text.getvalue().splitlines()


def folded(letters, step=1):
    """Return the lines for one-letter lines."""
    folding, shown = Folding(), []
    for number, letter in enumerate(letters):
        shown += folding.add(letter, f"{letter}{number}", number * step)
    return shown + folding.end()


def test_one_line_again_and_again():
    """A repeated line is shown twice, then counted."""
    assert folded("aaaaaaab") == ["a0", "a1", "... 5 times more", "b7"]
    assert folded("aaaa") == ["a0", "a1", "... 2 times more"]


def test_a_pattern_of_lines():
    """A repeated pattern is shown twice, then counted; what is left of it is shown."""
    assert folded("abcabcabcabcab") == [
        "a0", "b1", "c2", "a3", "b4", "c5", "... these 3 lines 2 times more", "a12", "b13",
    ]  # fmt: skip
    assert folded("xyabababz") == ["x0", "y1", "a2", "b3", "a4", "b5", "a6", "b7", "z8"]


def test_once_more_is_shown():
    """One repetition is shown, not counted: a count would not be shorter."""
    assert folded("aaa") == ["a0", "a1", "a2"]
    assert folded("ababab") == ["a0", "b1", "a2", "b3", "a4", "b5"]


def test_patterns_that_are_too_long():
    """A pattern of many lines is not looked for."""
    letters = "abcdefghijklmnopq" * 3
    assert len(folded(letters)) == len(letters)


def test_a_new_pattern_after_another():
    """After a pattern has ended, another one is found."""
    assert folded("aaaabbbb") == ["a0", "a1", "... 2 times more", "b4", "b5", "... 2 times more"]


def test_a_pattern_that_does_not_end():
    """Of a pattern that goes on for long, something is told from time to time."""
    shown = folded("a" * 100, step=lines.SOON // 10)

    assert shown[:2] == ["a0", "a1"]
    assert len(shown) > 8
    counts = [int(re.search(r"\d+", line)[0]) for line in shown[2:] if line.startswith("...")]
    assert sum(counts) + sum(not line.startswith("...") for line in shown) == 100


def test_durations_do_not_count():
    """Lines that differ in their durations only are the same; lints are never folded."""
    lint = Lint(1, SOURCE, "SEL001", 7, "message", "place")
    shown = written([call(duration=n * 1000) for n in range(5)] + [lint] * 3)

    assert shown[2:] == ["... 3 times more", *[str(lint)] * 3]
    assert len(written([call()] * 5, fold=False)) == 5


def test_notes_come_after_what_is_folded():
    """A line that is no record ends a pattern."""
    text = io.StringIO()
    sink = Lines(FileSink(text))
    for _ in range(4):
        sink(call())
    sink.note("a note")
    assert text.getvalue().splitlines()[2:] == ["... 2 times more", "selectors_ffi: a note"]


def test_times():
    """-t, -tt, -ttt and -r put a time in front of each line."""
    moment = now()
    records = [call(moment), call(moment + 1_500_000)]

    assert all(re.match(r"\d\d:\d\d:\d\d poll", line) for line in written(records, stamp="t"))
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{6} poll", line) for line in written(records, stamp="tt"))
    seconds = float(written(records, stamp="ttt")[0].split()[0])
    assert abs(seconds - time.time()) < 60
    assert [line.split()[0] for line in written(records, stamp="r")] == ["0.000000", "0.001500"]


def test_times_never_go_back():
    """What began before the line in front of it, as a wait before its calls, has that line's time."""
    moment = now()
    wait = Wait(moment, SOURCE, 1, 2_000_000, 0, -1)
    records = [call(moment + 1_000_000), wait, call(moment + 1_500_000)]

    times = [line.split()[0] for line in written(records, stamp="r")]
    assert times == ["0.000000", "0.000000", "0.000500"]
    times = [line.split()[0] for line in written(records, stamp="tt")]
    assert times == sorted(times)


def test_a_long_turn_is_told():
    """With --slower, a wait after a long turn says how long it was."""
    wait = Wait(1, SOURCE, None, 5, 1, 20_000_000)
    assert written([wait], slower=10_000_000)[0].endswith("(the program took 0.020000 s before)")
    assert written([wait])[0].endswith(">")


def test_explanations_follow():
    """What a line shows for the first time is explained below it."""
    shown = written([call()], explain=lambda record: ["It polls."])
    assert shown[1] == "    It polls."


def test_width():
    """On a terminal results are aligned, and long lines keep their result and lose arguments."""
    short, long = call(), call(arguments=("[" + "{fd=5, events=POLLIN}, " * 9 + "]", "9", "0"))
    refused = Registration(1, SOURCE, "register", 7, "socket", 1, "<socket>", "OSError(" + "x" * 90)
    shown = written([short, long, refused], look=Look(width=80))

    assert shown[0] == "poll([], 0, 0)".ljust(40) + " = 0 <0.000005>"
    assert shown[1].endswith("...) = 0 <0.000005>")
    assert [len(line) for line in shown] == [55, 80, 80]
    assert written([long])[0].count("POLLIN") == 9, "a file has the whole line"

    (told,) = written([call()._replace(note="N" * 40)], look=Look(width=80))
    assert told.startswith("poll([], 0, 0)  ") and len(told) == 80, "a long result moves to the left"


@pytest.mark.parametrize(
    ("record", "colours"),
    [
        (call(), {lines._BOLD, lines._DIM}),
        (call(errno=9), {lines._BOLD, lines._RED, lines._DIM}),
        (Event(1, SOURCE, 7, "socket", "EPOLLIN", 1, "<socket>", ""), {lines._CYAN}),
        (Event(1, SOURCE, 7, "socket", "EPOLLIN", 0, "", "why"), {lines._CYAN, lines._RED}),
        (Registration(1, SOURCE, "register", 7, "socket", 1, "x", ""), {lines._GREEN}),
        (Registration(1, SOURCE, "register", 7, "socket", 1, "x", "E()"), {lines._GREEN, lines._RED}),
        (Registration(1, SOURCE, "close", -1, "", 0, "", ""), {lines._GREEN}),
        (Wait(1, SOURCE, None, 5, 1), {lines._BLUE, lines._DIM}),
        (Wait(1, SOURCE, None, 5, -1), {lines._BLUE, lines._RED, lines._DIM}),
        (Lint(1, SOURCE, "SEL001", 7, "message", "place"), {lines._YELLOW}),
    ],
)
def test_colours(record, colours):
    """Colours say what a line is and what failed; the text is the same."""
    shown = written([record], look=Look(colour=True))[0]

    found = set(re.findall(r"\x1b\[\d+m", shown))
    assert found == {*colours, lines._RESET}
    assert re.sub(r"\x1b\[\d+m", "", shown) == str(record)


def test_no_terminal(monkeypatch):
    """Where lines go to a file there is neither colour nor width, unless colour is asked for."""
    read, write = os.pipe()
    assert look_of(write) == look_of(-1) == look_of(write, "never") == (False, 0)
    assert look_of(write, "always") == (True, 0)
    os.close(read)
    os.close(write)


@pytest.mark.skipif(os.name != "posix", reason="Unix terminals")
@pytest.mark.parametrize(
    ("environment", "look"),
    [
        ({}, (True, 80)),
        ({"NO_COLOR": "1"}, (False, 80)),
        ({"NO_COLOR": ""}, (True, 80)),
        ({"TERM": "dumb"}, (False, 80)),
        ({"COLUMNS": "120"}, (True, 120)),
    ],
)
def test_a_terminal(environment, look, monkeypatch):
    """A terminal has colour, unless NO_COLOR is set, and a width: 80 where it does not say."""
    import pty

    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    try:
        assert look_of(slave) == look
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.skipif(os.name != "posix", reason="Unix terminals")
def test_on_a_terminal():
    """The command draws for the terminal that standard error is."""
    import pty

    code = "import selectors; selectors.PollSelector().select(0)"
    master, slave = pty.openpty()
    apart.trace("-c", code, stderr=slave, TERM="xterm", NO_COLOR="")
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)

    assert shown.startswith(f"{lines._BOLD}poll{lines._RESET}([{{fd=-1}}], 1, 0)" + " " * 19 + " = 0")
