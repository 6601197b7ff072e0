"""Stacks: where other threads are, also where their frames must not be looked at."""

from __future__ import annotations

import asyncio.events
import faulthandler
import os
import sys
import threading
from types import SimpleNamespace

import pytest

from selectors_ffi.debug import stacks, turns
from selectors_ffi.debug.stacks import EXACT, Call, Code, Stacks, calls_in
from tests import apart
from tests.source import ROOT

TEXT = f"""\
Current thread 0x0000000A (most recent call first, approximate line numbers):
  File "/a "b", line 1.py", line 22 in look

Thread 0xFF (most recent call first, approximate line numbers):
  File "/program.py", line 3 in <lambda> [jitted]
  File "/program.py", line 3 in <lambda> [jit inlined]
  File "/program.py", line 7 in g [jitted]
  File "/program.py", line 7 in g
  File "/program.py", line 7 in g
  File "{asyncio.events.__file__}", line 9 in _run
  ...

Thread 0xB (most recent call first, approximate line numbers):

"""


def test_what_faulthandler_writes():
    """Threads, files, functions and the lines where these begin; modules that are asked for."""
    calls = dict(calls_in(TEXT))
    assert calls.keys() == {10, 255}
    assert calls[10] == Call(Code('/a "b", line 1.py', 22, "look"), 22, {"__name__": ""}, None)
    assert calls[255].f_code == ("/program.py", 3, "<lambda>")
    assert functions(calls[255]) == ["<lambda>", "g", "g", "_run"]
    outer = calls[255].f_back.f_back.f_back
    assert outer.f_globals == {"__name__": "asyncio.events"}
    assert outer.f_back is None
    assert dict(calls_in("")) == {}


def test_what_this_interpreter_writes(tmp_path):
    """The text is understood: this thread stands in this function, another one in its own."""
    begun, end = threading.Event(), threading.Event()

    def other():
        begun.set()
        end.wait()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with (tmp_path / "dump").open("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        calls = dict(calls_in((tmp_path / "dump").read_text()))
    end.set()
    thread.join()

    assert calls[threading.get_ident()].f_code.co_name == "test_what_this_interpreter_writes"
    assert calls[threading.get_ident()].f_code.co_filename == __file__
    assert "other" in functions(calls[thread.ident])


def functions(call):
    """Return the names of a call's function and of those that called it."""
    names = []
    while call is not None:
        names.append(call.f_code.co_name)
        call = call.f_back
    return names


def test_this_thread():
    """The stack of a thread is found under its number."""
    looks = Stacks()
    looks.open()
    for _ in range(2):
        assert "test_this_thread" in functions(looks.now()[threading.get_ident()])
    looks.close()


@pytest.mark.skipif(EXACT, reason="frames need no file")
def test_without_a_file_nothing_is_known():
    """Before it is opened, and when the program has closed it, there are no stacks."""
    looks = Stacks()
    assert looks.now() == {}
    looks.open()
    os.close(looks.fd)
    assert looks.now() == {}
    looks.close()


def test_no_temporary_file_can_be_made(monkeypatch, capsys):
    """One line says that blocked loops are not looked for; the next time nothing does."""

    def refuse(**options):
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(stacks, "EXACT", False)
    monkeypatch.setattr(stacks, "TemporaryFile", refuse, raising=False)
    for _ in range(2):
        looks = Stacks()
        looks.open()
        assert looks.now() == {}

    told = "selectors_ffi: no SEL010, PyPy has no temporary file for stacks: No usable"
    assert capsys.readouterr().err == f"{told} temporary directory\n"


def test_another_selector_has_waited_since():
    """Without frames only the selector that waited last in its thread can be blamed."""
    watchdog = turns._Watchdog()
    here, other = (SimpleNamespace(ident=1, turn=turn, wait=0) for turn in (5, 4))
    watchdog._watched = lambda: [(here, None), (other, None)]
    assert watchdog._waited_last(here, 5)
    assert not watchdog._waited_last(other, 4)
    other.turn, other.wait = 0, 6
    assert not watchdog._waited_last(here, 5)
    other.ident = 2
    assert watchdog._waited_last(here, 5)


COMPILED = """
import sys, time
import selectors_ffi
from selectors_ffi.debug import Lint, blocked_after, turns

turns._interval = lambda: 500_000
blocked_after(0.02)
told = []

def leaf(x):
    try:
        return x + 1
    finally:
        x

def middle(x, *rest, **named):
    return leaf(x) + len(rest)

def numbers(count):
    for one in range(count):
        yield middle(one, one, k=one)

def work(end):
    total = 0
    while time.time() < end:
        for one in numbers(1000):
            total += one
        total += sum(middle(one) for one in range(100))

def main():
    with selectors_ffi.SelectSelector() as selector:
        for turn in range(40):
            selector.select(0)
            work(time.time() + 0.05)

def keep(record):
    if isinstance(record, Lint):
        told.append(record)

with selectors_ffi.debugging("checks", keep):
    main()
assert not turns._watchdog.failed, turns._watchdog.failed
assert told
for lint in told:
    assert " in work" in lint.message, lint
"""


@pytest.mark.skipif(EXACT, reason="PyPy aborts when another thread's frames are looked at")
def test_compiled_code_goes_on():
    """Code that PyPy has compiled is not disturbed by looks at its stack, thousands in two seconds."""
    done = apart.python("-W", "ignore", "-c", COMPILED)
    assert done.returncode == 0, done.stderr


def test_no_frames_of_other_threads_on_pypy():
    """Nothing asks for them but what CPython alone uses."""
    text = "sys._current_" + "frames("
    found = [
        path.name for path in (ROOT / "selectors_ffi").rglob("*.py") if text in path.read_text("utf-8")
    ]
    assert found == ["process.py"]
    assert EXACT is (sys.implementation.name != "pypy")
    assert stacks.frames.__module__ == "selectors_ffi.backends.process"
