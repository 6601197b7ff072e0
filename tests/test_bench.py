"""``benchmarks`` measures what it says; nothing here asserts a time."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import socket
import sys
from types import SimpleNamespace

import pytest

import selectors_ffi
from benchmarks import bare, bench, rows, tables
from benchmarks.__main__ import main
from selectors_ffi import EVENT_READ, EVENT_WRITE
from tests import needs


@pytest.fixture(autouse=True)
def no_warming(monkeypatch):
    """Do not wait for PyPy's compiler: no figure is looked at. Measure no other package."""
    monkeypatch.setattr(bench, "WARM", 0)
    monkeypatch.setattr("benchmarks.others.packages", dict)


def test_ratio_is_of_the_same_turn():
    """The ratio is the median over the turns, each compared with its own, not of the medians."""
    times = {"stdlib": [4.0, 6.0, 30.0], "ours": [1.0, 3.0, 10.0]}

    result = bench.compare(None, times)

    assert result.ratios["stdlib"].median == 3.0
    assert result.times["ours"].median == 3e9


def test_everybody_has_every_turn():
    """Each contestant is called for each turn, with as many calls as it needs for the time."""
    clock = {"fast": 0.001, "slow": 0.01}
    asked = {"fast": [], "slow": []}

    def contestant(name):
        def timed(n):
            asked[name].append(n)
            return n * clock[name]

        return timed

    times = bench.interleave({name: contestant(name) for name in clock}, turns=4, target=0.004)

    assert times == {name: [pytest.approx(clock[name])] * 4 for name in clock}
    assert asked["fast"][-4:] == [4] * 4
    assert asked["slow"][-4:] == [1] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="the rows of epoll")
def test_command_writes_what_it_measured(tmp_path, capsys):
    """``--json`` writes a row's times and ratios, and prints the same row."""
    path = tmp_path / "figures.json"

    assert main(["--quick", "--rows", "epoll, 0 ready", "--json", str(path)]) == 0

    (result,) = json.loads(path.read_text())["results"]
    assert result["row"]["name"] == "epoll, 0 ready of 1"
    assert set(result["times"]) == {"stdlib", "ours", "bare"}
    assert set(result["ratios"]) == {"stdlib", "bare"}
    for spread in (*result["times"].values(), *result["ratios"].values()):
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert "epoll, 0 ready of 1" in capsys.readouterr().out


@pytest.mark.parametrize("work", ["changing", "register", "modify", "coming", "timed", "make", "once"])
@pytest.mark.parametrize("backend", ["epoll", "poll"])
def test_work_can_be_repeated(backend, work):
    """A row's work leaves everything as it was, so it can be done any number of times."""
    row = rows.Row("any", backend, work, 4, 2 if work in ("changing", "timed") else 0)
    if not bench.available(row):
        pytest.skip(f"no {row.cls} here")

    result = bench.measure_row(row, 2, {})

    assert result.ratios["stdlib"].median > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child is forked")
@pytest.mark.parametrize("work", ["beside", "forked"])
def test_work_beside_a_thread(work):
    """Another thread waits in the selector meanwhile; the work leaves everything as it was."""
    row = rows.Row("any", "select", work, 4)
    with rows.descriptors(row) as (watched, peers), selectors_ffi.SelectSelector() as selector:
        timed = rows.work(row, selector, watched, peers)
        assert timed(3) > 0
        assert timed(3) > 0
        assert selector.select(0) == []


@needs.bitmaps
def test_a_chart_writes_the_tables(tmp_path):
    """``--chart`` draws, and writes the figures between the marks of the document beside."""
    figures = tmp_path / "figures" / "one.json"
    figures.parent.mkdir()
    rows_asked = "epoll, 0 ready" if sys.platform == "linux" else "select, 1 ready"
    assert main(["--quick", "--rows", rows_asked, "--json", str(figures)]) == 0
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")

    assert main(["--chart", str(figures)]) == 0

    text = document.read_text()
    assert rows_asked in (figures.parent / "ratios.svg").read_text()
    assert f"| {rows_asked}" in text
    assert "old" not in text
    assert text.startswith(f"before\n{tables.BEGIN}")
    assert text.endswith(f"{tables.END}\nafter\n")
    with pytest.raises(ValueError, match="no <!-- tables"):
        tables.replaced("no marks", [json.loads(figures.read_text())])


@pytest.mark.skipif(os.name != "posix", reason="descriptors are small numbers")
@pytest.mark.parametrize("work", ["coming", "modify"])
def test_a_row_of_a_high_number(work):
    """The first descriptor that such a row watches has the number that it asks for."""
    row = rows.Row("any", "select", work, 2, 2, highest=200)
    with rows.descriptors(row) as (watched, _):
        assert watched[0] == 200
        os.fstat(200)

    assert bench.measure_row(row, 2, {}).ratios["stdlib"].median > 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(200)


def test_row_that_does_not_exist(capsys):
    """A text that no row has is an error, not an empty table."""
    assert main(["--rows", "no such row"]) == 1
    assert "no row has 'no such row'" in capsys.readouterr().err


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


class Silent(selectors._BaseSelectorImpl):
    """A third-party selector that never reports anything."""

    def select(self, timeout=None):
        """Nothing is ever ready."""
        return []


def test_a_selector_that_reports_nothing():
    """A selector that does not report what is ready is not measured."""
    row = next(row for row in rows.ROWS if row.work == "select" and row.ready and row.ready < 50)
    with rows.descriptors(row) as (watched, peers):
        with Silent() as selector, pytest.raises(RuntimeError, match="does not report"):
            rows.work(row, selector, watched, peers)


def test_peers_of_sockets_send():
    """A row of sockets has as many readable ones as it says."""
    row = next(row for row in rows.ROWS if row.events == EVENT_READ | EVENT_WRITE)
    row = dataclasses.replace(row, registered=3, ready=2)
    with rows.descriptors(row) as (watched, _):
        assert [bool(select_one(end)) for end in watched] == [True, True, False]


def select_one(end):
    """Whether a socket is readable."""
    with selectors_ffi.PollSelector() as selector:
        selector.register(end, EVENT_READ)
        return selector.select(0)
