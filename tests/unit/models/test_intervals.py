"""Intervals and tails against sums done by hand and tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.models.evaluation.intervals import (
    binomial_at_least,
    binomial_at_most,
    median_interval,
    sign_test,
    student_quantile,
    wilson_interval,
)


@given(st.integers(1, 200), st.floats(0.01, 0.99), st.data())
def test_binomial_tails_are_the_sums(trials: int, probability: float, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    terms = [math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(trials + 1)]
    low, high = math.fsum(terms[: successes + 1]), math.fsum(terms[successes:])
    assert binomial_at_most(successes, trials, probability) == pytest.approx(low, rel=1e-8, abs=1e-14)
    assert binomial_at_least(successes, trials, probability) == pytest.approx(high, rel=1e-8, abs=1e-14)


def test_a_tail_of_many_trials() -> None:
    # scipy.stats.binom.cdf(9700, 10000, 0.98) and binom.sf(9849, 10000, 0.98)
    assert binomial_at_most(9700, 10_000, 0.98) == pytest.approx(TAIL_LOW, rel=1e-6)
    assert binomial_at_least(9850, 10_000, 0.98) == pytest.approx(TAIL_HIGH, rel=1e-6)


TAIL_LOW, TAIL_HIGH = 1.6178783967269596e-11, 0.00011488577334116837


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [(0.975, 1, 12.7062), (0.975, 4, 2.77645), (0.975, 30, 2.04227), (0.95, 9, 1.83311)],
)
def test_student_quantiles_are_those_of_the_tables(probability: float, degrees: int, expected: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    share = successes / trials
    assert wilson_interval(successes, trials) == pytest.approx((share, low, high), abs=5e-5)
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - share, 1 - high, 1 - low), abs=5e-5)


def test_nothing_tried_has_no_interval() -> None:
    assert wilson_interval(0, 0) is None


@given(st.integers(1, 10_000), st.data())
def test_wilson_interval_holds_its_estimate(trials: int, data: st.DataObject) -> None:
    interval = wilson_interval(data.draw(st.integers(0, trials)), trials)
    assert interval is not None
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_sign_test_is_exact(lost: int, gained: int) -> None:
    count = lost + gained
    tail = sum(math.comb(count, k) for k in range(min(lost, gained) + 1))
    assert sign_test(lost, gained) == pytest.approx(min(1.0, 2 * tail / 2**count))


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (9, 2), (15, 4), (20, 6)])
def test_the_interval_of_a_median_is_of_the_ranks_in_tables(count: int, rank: int) -> None:
    """Ranks of at least 95 %, as tables of the sign test have them, e.g. Conover 1999, A3."""
    found = median_interval([float(value) for value in range(count, 0, -1)])
    assert (found.value, found.low, found.high) == ((count + 1) / 2, rank, count + 1 - rank)


def test_of_few_values_nothing_is_known_but_the_extremes() -> None:
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval([5.0, 1.0, 2.0]) == (2.0, 1.0, 5.0)
