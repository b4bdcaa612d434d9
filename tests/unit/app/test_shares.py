"""Time that is shared out among batches adds up to the time in which any of them ran."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.scheduling.shares import EngineShares


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=12))
def test_shares_add_up_to_the_time_in_which_anything_ran(spans: list[tuple[int, int]]) -> None:
    shares = EngineShares()
    edges = sorted([(start, 1) for start, _ in spans] + [(start + length, 0) for start, length in spans])
    total = 0.0
    for time, begins in edges:
        if begins:
            shares.started(time)
        else:
            total += shares.ended(time)
    covered = {moment for start, length in spans for moment in range(start, start + length)}
    assert total == pytest.approx(len(covered))


def test_a_batch_that_runs_alone_is_charged_its_own_time() -> None:
    shares = EngineShares()
    for start in (1.0, 5.0):
        shares.started(start)
        assert shares.ended(start + 2.5) == 2.5
