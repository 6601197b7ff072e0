"""No hot path grows: instructions per operation, against a committed baseline."""

from __future__ import annotations

import pytest

from tests import instructions


@pytest.mark.timeout(300)
def test_no_operation_takes_more_instructions():
    """Each operation takes at most 5 % more instructions than when the baseline was written.

    If more is worth it, ``python -m tests.instructions`` writes the baseline anew.
    """
    reason = instructions.why_not()
    if reason:
        pytest.skip(reason)
    baseline = instructions.read().get(instructions.interpreter())
    if baseline is None:
        pytest.skip(f"no baseline for {instructions.interpreter()}")
    counts = instructions.count()
    if not instructions.fits(baseline, counts):
        pytest.skip(f"the baseline is of another build of {instructions.interpreter()}")

    assert not instructions.grown(baseline, counts)


def test_growth_is_seen():
    """More than 5 % is growth, 5 % is not; another build's baseline is not used at all."""
    baseline = {"work": {"stdlib": 1000, "ours": 1000}}

    assert not instructions.grown(baseline, {"work": {"stdlib": 1000, "ours": 1050}})
    assert instructions.grown(baseline, {"work": {"stdlib": 1000, "ours": 1051}}) == [
        "work: 1000 -> 1051 instructions"
    ]
    assert instructions.fits(baseline, {"work": {"stdlib": 1019, "ours": 9}})
    assert not instructions.fits(baseline, {"work": {"stdlib": 1021, "ours": 9}})
    assert not instructions.fits(baseline, {"work": {"stdlib": 979, "ours": 9}})
