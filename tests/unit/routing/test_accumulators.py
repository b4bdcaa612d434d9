"""Means of ratios and quantiles of a stream against exact ones."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera.app.routing.accumulators import Distribution, RatioMean


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
