"""Which gears a number of images runs in."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.backends.ascend.gears import GearTable

tables = st.dictionaries(st.integers(1, 20), st.floats(1e-4, 1.0), min_size=1, max_size=5)


@given(tables, st.integers(1, 70))
def test_every_image_runs_once_in_a_gear_that_holds_it(seconds: dict[int, float], images: int) -> None:
    chunks = GearTable(seconds).split(images)
    assert [chunk.start for chunk in chunks] == [sum(c.count for c in chunks[:i]) for i in range(len(chunks))]
    assert sum(chunk.count for chunk in chunks) == images
    assert all(1 <= chunk.count <= chunk.gear and chunk.gear in seconds for chunk in chunks)


@given(tables, st.integers(1, 12))
def test_no_other_way_is_faster(seconds: dict[int, float], images: int) -> None:
    taken = sum(seconds[chunk.gear] for chunk in GearTable(seconds).split(images))
    ways = (way for count in range(1, images + 1) for way in combinations_with_replacement(sorted(seconds), count))
    best = min(sum(seconds[gear] for gear in way) for way in ways if sum(way) >= images)
    assert taken == pytest.approx(best)


def test_padding_up_and_splitting_follow_the_measurement() -> None:
    flat = GearTable({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0})
    assert [(chunk.count, chunk.gear) for chunk in flat.split(5)] == [(5, 8)]
    steep = GearTable({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.5, 16: 17.0})
    assert [(chunk.count, chunk.gear) for chunk in steep.split(5)] == [(4, 4), (1, 1)]
    real = GearTable({1: 1.5, 2: 1.9, 4: 2.8, 8: 4.6, 16: 8.2})
    assert [(chunk.count, chunk.gear) for chunk in real.split(40)] == [(16, 16), (16, 16), (8, 8)]


@pytest.mark.parametrize("seconds", [{}, {0: 1.0}, {1: 0.0}])
def test_tables_that_make_no_sense_are_refused(seconds: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="gear table"):
        GearTable(seconds)
