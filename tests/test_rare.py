"""What happens rarely in the package and its commands: other systems, odd environments."""

from __future__ import annotations

import argparse
import builtins
import dataclasses
import io
import os
import socket
import sys
from types import SimpleNamespace

import pytest

import selectors_ffi
from selectors_ffi import EVENT_READ, EVENT_WRITE
from selectors_ffi._abi import load_ffi, target
from selectors_ffi.backends.base import _BaseSelectorImpl
from selectors_ffi.cli import bare, bench, demo, info, rows, trace
from selectors_ffi.selftest import SelfTestError

BOTH = EVENT_READ | EVENT_WRITE


def test_choice_by_the_environment(monkeypatch):
    """SELECTORS_FFI_BACKEND chooses among what can be used; another name is an error."""
    usable = {"poll": 1, "select": 2}
    monkeypatch.delenv("SELECTORS_FFI_BACKEND", raising=False)
    assert selectors_ffi._choose(usable) == 1
    assert selectors_ffi._choose({}) is None
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "select")
    assert selectors_ffi._choose(usable) == 2
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "kqueue")
    with pytest.raises(ValueError, match="'kqueue' cannot be used here; what can: poll, select"):
        selectors_ffi._choose(usable)


class Sparse(_BaseSelectorImpl):
    """A selector of somebody else's, built on the registry alone."""

    def select(self, timeout=None):
        """Nothing is ever ready."""
        return []


def test_a_selector_of_somebody_elses():
    """The registry alone keeps keys; what needs a kernel says so."""
    near, far = socket.socketpair()
    with near, far, Sparse() as selector:
        assert selector.modify(selector.register(near, EVENT_READ).fd, BOTH).events == BOTH
        with pytest.raises(NotImplementedError, match="Sparse has no native events"):
            selector.select_raw(0)
        assert selector.unregister(near.fileno()).events == BOTH
        assert selector.select() == []


def test_versioned_symbols_of_freebsd(monkeypatch):
    """A versioned symbol is looked up with dlvsym(3) on FreeBSD, and taken for absent elsewhere."""
    asked = []

    def dlvsym(handle, name, version):
        asked.append((name, version))
        return name == b"kevent"

    has = target.presence(lambda ffi: SimpleNamespace(dlvsym=dlvsym, kevent=1))
    monkeypatch.setattr(target.sys, "platform", "linux")
    assert not has("kevent@FBSD_1.0")
    monkeypatch.setattr(target.sys, "platform", "freebsd14")
    assert has("kevent@FBSD_1.0")
    assert not has("other@FBSD_1.0")
    assert has("kevent")
    assert not has("other")
    assert asked == [(b"kevent", b"FBSD_1.0"), (b"other", b"FBSD_1.0")]


# -- bench


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("backend", ["poll", "select"])
def test_bare_calls(backend, both):
    """A bare call asks for all of the descriptors, with the functions of the selector."""
    pairs = [socket.socketpair() for _ in range(3)]
    calls = bare.BareCalls(backend)
    call = calls.select([near.fileno() for near, _ in pairs], both)
    assert call() == {"poll": 3 * both, "select": None}[backend]
    calls.close()
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_row_that_cannot_be_measured(capsys, monkeypatch):
    """A row for which there are not enough descriptors is left out, and said so."""

    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(bench, "measure_row", refuse)
    assert bench.measure_rows([rows.ROWS[0]], turns=1) == []
    assert "left out" in capsys.readouterr().err


def test_warming_up(monkeypatch):
    """Each contestant runs for a while before it is measured."""
    monkeypatch.setattr(bench, "WARM", 0.5)
    calls = []

    def timed(n):
        calls.append(n)
        return 0.2

    bench.interleave({"one": timed}, turns=2)
    assert len(calls) == 1 + 3 + 2


def test_table_without_a_bare_call():
    """A row for which there is no bare call has no figure for it."""
    times = {"stdlib": [2.0, 4.0], "ours": [1.0, 2.0]}
    result = bench.compare(SimpleNamespace(name="row"), times)
    assert bench.table([result]).splitlines()[-1].rstrip().endswith("(2.00-2.00)")


def test_bench_of_one_row(capsys, monkeypatch):
    """Without --json the table is all there is."""
    monkeypatch.setattr(bench, "measure_rows", lambda chosen, turns: [])
    options = argparse.Namespace(only=None, quick=True, json=None)
    assert bench.run(options) == 0
    assert "microseconds per call" in capsys.readouterr().out


def test_a_selector_that_reports_nothing():
    """A selector that does not report what is ready is not measured."""
    row = next(row for row in rows.ROWS if row.work == "select" and row.ready and row.ready < 50)
    with rows.descriptors(row) as (watched, peers):
        with Sparse() as selector, pytest.raises(RuntimeError, match="does not report"):
            rows.work(row, selector, watched, peers)


def test_peers_of_sockets_send():
    """A row of sockets has as many readable ones as it says."""
    row = next(row for row in rows.ROWS if row.events == BOTH)
    row = dataclasses.replace(row, registered=3, ready=2)
    with rows.descriptors(row) as (watched, _):
        assert [bool(select_one(end)) for end in watched] == [True, True, False]


def select_one(end):
    """Whether a socket is readable."""
    with selectors_ffi.PollSelector() as selector:
        selector.register(end, EVENT_READ)
        return selector.select(0)


# -- info


def test_choice_is_shown(monkeypatch):
    """What the environment has chosen is among the facts."""
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "select")
    assert info.facts()["chosen by SELECTORS_FFI_BACKEND"] == "select"


def test_structs_that_are_only_named(monkeypatch):
    """A struct of which only the name is known has no size, and is not listed."""
    ffi = load_ffi("linux")
    assert info.struct_size(ffi, "struct nowhere_declared") == 0
    assert info.struct_size(ffi, "struct pollfd") == 8
    monkeypatch.setattr(info, "struct_size", lambda ffi, name: 0)
    assert info.interface()["structs"] == {}


def test_a_failed_self_test_is_shown(monkeypatch):
    """What a self-test found is shown with the numbers; one that cannot be made is left out."""

    def check(binding, mechanism):
        if mechanism == "poll":
            raise SelfTestError(
                SimpleNamespace(mechanism="poll", target="t", struct="s", sizeof=1, problems=("wrong",))
            )
        raise OSError

    monkeypatch.setattr("selectors_ffi.selftest.check", check)
    found = info.self_test(None)
    assert list(found) == ["poll"]
    assert found["poll"].startswith("failed: poll does not fit")
    assert "wrong" in found["poll"]


def test_limits_elsewhere(monkeypatch):
    """Without /proc, without the resource module, without a limit: what is known is shown."""
    resource = pytest.importorskip("resource")
    unlimited = resource.RLIM_INFINITY
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))
        patch.setattr(builtins, "open", lambda *_, **__: io.StringIO("no number"))
        assert info.limits() == {"descriptors": None, "descriptors, hard": None}
    monkeypatch.setitem(sys.modules, "resource", None)
    assert info.limits() == {}


# -- demo and trace


def test_an_end_closes_once():
    """Closing one end of a connection a second time, or wanting what it wants, does nothing."""
    near, far = socket.socketpair()

    class Quiet(demo.End):
        def act(self, events):
            """Nothing."""

    with far, selectors_ffi.PollSelector() as selector:
        end = Quiet(SimpleNamespace(selector=selector), near, "end", EVENT_READ)
        key = selector.get_key(near)
        end.want(EVENT_READ)
        assert selector.get_key(near) is key
        end.want(BOTH)
        assert selector.get_key(near).events == BOTH
        end.close()
        end.close()
        assert not selector.get_map()


def options(**changed):
    """The options of ``trace``, with failures that raise."""

    def fail(message):
        raise SystemExit(message)

    fields = {"flags": None, "format": "text", "output": None, "summary": False, "fail": fail,
              "program": ["x.py"], "module": False, **changed}  # fmt: skip
    return argparse.Namespace(**fields)


def test_flags_by_format():
    """The flags are as given, else what the format shows best."""
    assert trace._flags(options(flags="all")) == "all"
    assert trace._flags(options(format="perfetto")) == "syscalls,events"
    assert trace._flags(options(summary=True)) == ""
    assert trace._flags(options()) == "syscalls"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"program": []}, "no program"),
        ({"format": "perfetto"}, "needs -o"),
        ({"flags": "nonsense"}, "unknown debug flag"),
        ({"output": "/nowhere/at/all"}, "No such file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_trace_refuses(changed, message):
    """What cannot be traced, or not as asked, is told before anything is run."""
    with pytest.raises(SystemExit, match=message):
        trace.run(options(**changed))


def test_no_room_for_a_high_number(monkeypatch):
    """Where no high number is to be had any other does."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    reader, writer = os.pipe()
    fd = trace._high(writer)
    os.write(fd, b"x")
    assert os.read(reader, 1) == b"x"
    for one in (reader, writer, fd):
        os.close(one)


def test_ends_in_the_process_that_began(capsys):
    """The summary comes from the process that was traced, once; a forked child ends without."""
    written, closed = [], []
    output = SimpleNamespace(write=written.append, close=lambda: closed.append(1))
    for pid in (-5, os.getpid()):
        trace._close(output, pid)
        trace._print_summary("table", output, options(), pid)
        trace._print_summary("table", output, options(format="json"), pid)

    assert written == ["table\n"]
    assert len(closed) == 3
    assert capsys.readouterr().err == "table\n"
