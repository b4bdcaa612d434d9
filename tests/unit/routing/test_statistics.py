"""Intervals and tails against sums done by hand and tables."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing.statistics import (
    Distribution,
    RatioMean,
    binomial_at_least,
    binomial_at_most,
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


def test_wilson_interval() -> None:
    assert wilson_interval(0, 0) is None
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.30798, 0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=1e-4)


@given(st.integers(1, 10_000), st.data())
def test_wilson_interval_holds_its_estimate(trials: int, data: st.DataObject) -> None:
    interval = wilson_interval(data.draw(st.integers(0, trials)), trials)
    assert interval is not None
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_the_ratio_interval_covers_the_truth_as_often_as_it_says() -> None:
    chance, covered = random.Random(5), 0
    for _ in range(1000):
        mean = RatioMean()
        for _ in range(12):
            mean.observe(3.5 * math.exp(chance.gauss(0, 0.4)))
        interval = mean.interval()
        assert interval is not None
        covered += interval.low <= 3.5 <= interval.high
    assert 925 <= covered <= 975


def test_ratios_need_two() -> None:
    mean = RatioMean()
    assert mean.interval() is None
    mean.observe(2.0)
    assert mean.interval() is None
    mean.observe(2.0)
    assert mean.interval() == pytest.approx((2.0, 2.0, 2.0))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_right_to_a_percent(values: list[float], share: float) -> None:
    distribution = Distribution()
    for value in values:
        distribution.observe(value)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert distribution.quantile(share) == pytest.approx(exact, rel=0.0101, abs=1e-9)
    assert distribution.mean() == pytest.approx(sum(values) / len(values))


def test_nothing_seen_is_nothing_told() -> None:
    assert Distribution().mean() is None
    assert Distribution().quantile(0.5) is None
