"""``bench`` measures what it says; nothing here asserts a time."""

from __future__ import annotations

import json
import sys

import pytest

from selectors_ffi.cli import bench, main, rows


@pytest.fixture(autouse=True)
def no_warming(monkeypatch):
    """Do not wait for PyPy's compiler: no figure is looked at."""
    monkeypatch.setattr(bench, "WARM", 0)


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
    """``bench --json`` writes a row's times and ratios, and prints the same row."""
    path = tmp_path / "figures.json"

    assert main(["bench", "--quick", "--only", "epoll, 0 ready", "--json", str(path)]) == 0

    (result,) = json.loads(path.read_text())["results"]
    assert result["row"]["name"] == "epoll, 0 ready of 1"
    assert set(result["times"]) == {"stdlib", "ours", "bare"}
    assert set(result["ratios"]) == {"stdlib", "bare"}
    for spread in (*result["times"].values(), *result["ratios"].values()):
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert "epoll, 0 ready of 1" in capsys.readouterr().out


@pytest.mark.parametrize("work", ["changing", "register", "modify", "coming", "timed"])
@pytest.mark.parametrize("backend", ["epoll", "poll"])
def test_work_can_be_repeated(backend, work):
    """A row's work leaves everything as it was, so it can be done any number of times."""
    row = rows.Row("any", backend, work, 4, 2 if work in ("changing", "timed") else 0)
    if not bench.available(row):
        pytest.skip(f"no {row.cls} here")

    result = bench.measure_row(row, 2, {})

    assert result.ratios["stdlib"].median > 0


def test_row_that_does_not_exist(capsys):
    """A text that no row has is an error, not an empty table."""
    assert main(["bench", "--only", "no such row"]) == 1
    assert "no such row" in capsys.readouterr().err
