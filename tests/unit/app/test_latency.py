from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.scheduling.latency import LatencyTable

seconds = st.floats(1e-4, 10)


def table(measured: dict[int, float], limit: int = 16) -> LatencyTable:
    made = LatencyTable(["a", "b"], limit)
    for images, taken in measured.items():
        made.seed("a", images, taken)
    return made


def test_sizes_between_measured_ones_are_interpolated() -> None:
    made = table({1: 0.1, 4: 0.2, 16: 0.8})
    assert [made.seconds("a", images) for images in (1, 2, 4, 10, 16)] == pytest.approx([0.1, 0.4 / 3, 0.2, 0.5, 0.8])
    assert made.seconds("a", 40) == pytest.approx(0.8 + 0.8 + 0.4)
    assert made.seconds("a", 0) == 0


def test_what_was_never_measured_counts_as_the_slowest_known() -> None:
    assert table({}).seconds("a", 5) == 0
    assert table({1: 0.1}).seconds("b", 5) == pytest.approx(0.5)


def test_the_mean_follows_and_a_steady_machine_has_a_short_tail() -> None:
    made = table({1: 0.1, 16: 1.6})
    for _ in range(100):
        made.observe("a", 1, 0.2)
    assert made.seconds("a", 1) == pytest.approx(0.2, rel=0.01)
    assert made.tail("a", 1) == pytest.approx(0.2, rel=0.05)
    assert made.seconds("a", 16) > 1.7, "what slows one size slows the others"
    assert made.rows("a")[1].batches == 100
    assert made.rows("a")[1].seconds == pytest.approx(20)
    assert made.rows("a")[16].batches == 0, "the warm-up does not count"


@pytest.mark.parametrize(("images", "seconds"), [(1, 0.02), (16, 0.3)])
def test_a_slower_machine_is_noticed_within_a_second_of_running(images: int, seconds: float) -> None:
    made = table({1: 0.02, 16: 0.3})
    for _ in range(50):
        made.observe("a", images, seconds)
    before = [made.seconds("a", size) for size in (1, 16)]
    for _ in range(round(1.0 / (1.8 * seconds)) + 1):
        made.observe("a", images, 1.8 * seconds)
    assert made.seconds("a", 1) > 1.4 * before[0]
    assert made.seconds("a", 16) > 1.4 * before[1]
    assert made.tail("a", 16) > 1.4 * before[1]


def test_an_unsteady_machine_has_a_long_tail() -> None:
    made = table({1: 0.1})
    for number in range(100):
        made.observe("a", 1, 0.1 if number % 10 else 0.3)
    assert made.tail("a", 1) > 0.15


@pytest.mark.parametrize(("fixed", "size"), [(0.0, 1), (0.0005, 4), (0.002, 9), (1.0, 16)])
def test_the_batch_that_suits_grows_with_the_fixed_cost(fixed: float, size: int) -> None:
    each = 0.01
    made = table({images: fixed + each * images for images in range(1, 17)})
    assert made.efficient("a") == pytest.approx(size, abs=1)
    assert made.frugal("a") <= made.efficient("a")


def test_half_a_batch_is_tried_whatever_the_warm_up_measured() -> None:
    """By chance it measures a size that is as good as the others as slow, which then would never run again."""
    made = table({1: 0.01, 2: 0.02, 4: 0.05, 8: 0.1, 16: 0.2})
    assert made.shared("a") == 8
    for _ in range(3):
        made.observe("a", 8, 0.08)
    assert made.shared("a") == 8


def test_half_a_batch_that_is_slow_each_time_is_given_up() -> None:
    made = table({1: 0.01, 2: 0.02, 4: 0.04, 8: 0.1, 16: 0.2})
    for _ in range(3):
        made.observe("a", 8, 0.1)
    assert 4 <= made.shared("a") < 8


@given(st.lists(st.tuples(st.integers(1, 16), seconds), min_size=1, max_size=40), st.integers(1, 100))
def test_predictions_are_positive_and_grow_with_the_backlog(measured: list[tuple[int, float]], images: int) -> None:
    made = LatencyTable(["a"], 16)
    for size, taken in measured:
        made.observe("a", size, taken)
    assert 1 <= made.frugal("a") <= 16
    assert 1 <= made.efficient("a") <= 16
    assert made.quick("a") <= made.shared("a") <= 16
    assert made.seconds("a", images) > 0
    assert made.tail("a", images) >= made.seconds("a", images)
    assert made.work("a", images + 1) >= made.work("a", images) * 0.999
    assert made.work("a", images + 16) > made.work("a", images) * 0.999
    assert made.fastest("a") <= min(taken / size for size, taken in measured)
