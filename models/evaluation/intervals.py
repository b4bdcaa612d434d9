"""What counts prove: intervals of proportions and medians, exact binomial tails, quantiles of Student's t."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, median
from typing import NamedTuple

CONFIDENCE = 0.95  # of every interval that is shown


class Interval(NamedTuple):
    """An estimate between two bounds."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Wilson's score interval of a proportion (Wilson 1927); None without trials.

    Unlike the normal interval it stays inside 0 to 1 and is right near the ends, where agreement lives.
    """
    if trials == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    proportion = successes / trials
    spread = 1 + z * z / trials
    centre = (proportion + z * z / (2 * trials)) / spread
    half = z / spread * math.sqrt(proportion * (1 - proportion) / trials + z * z / (4 * trials * trials))
    return Interval(proportion, max(0.0, min(proportion, centre - half)), min(1.0, max(proportion, centre + half)))


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median, between two of the values: those of equal rank from both ends that leave out least by chance.

    Distribution-free: the true median is below the k-th smallest of n values with P(X < k), X ~ Bin(n, 1/2). With less
    than six values nothing of 95 % is known, and the bounds are the extremes.

    Args:
        values: Independent measurements, at least one.
        confidence: Of the interval, at least.
    """
    ordered = sorted(values)
    count, rank = len(ordered), 0
    while rank + 1 < (count + 1) // 2 and 2 * binomial_at_most(rank + 1, count, 0.5) <= 1 - confidence:
        rank += 1
    return Interval(median(ordered), ordered[rank], ordered[count - 1 - rank])


def binomial_at_most(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes) of a binomial X, exactly: the p-value of "fewer successes than `probability` would give"."""
    if successes >= trials:
        return 1.0
    if successes < 0:
        return 0.0
    return _regularised_beta(trials - successes, successes + 1, 1 - probability)


def binomial_at_least(successes: int, trials: int, probability: float) -> float:
    """P(X >= successes) of a binomial X, exactly: the p-value of "more successes than `probability` would give"."""
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    return _regularised_beta(successes, trials - successes + 1, probability)


def sign_test(lost: int, gained: int) -> float:
    """Two-sided p-value of the exact sign test, which is McNemar's exact test for two classifiers on the same photos.

    Of photos that exactly one of the two gets right, each is a fair coin while they are equally good:
    p = 2 P(X <= min(lost, gained)) with X ~ Bin(lost + gained, 1/2), at most 1.

    Args:
        lost: Photos that only the first gets right.
        gained: Photos that only the second gets right.
    """
    return min(1.0, 2 * binomial_at_most(min(lost, gained), lost + gained, 0.5))


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for a probability in [0.5, 1)."""

    def below(t: float) -> float:
        return 1 - _regularised_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2

    high = 1.0
    while below(high) < probability:
        high *= 2
    return _bisect(lambda t: below(t) < probability, 0.0, high)


def _bisect(too_small: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return (low + high) / 2


def _regularised_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for a, b > 0 (DLMF 8.17, continued fraction 8.17.22)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image does not
        return 1 - _regularised_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    return front * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Value of the continued fraction, by Lentz's method as Thompson and Barnett changed it."""
    tiny = 1e-300
    numerator = 1.0
    denominator = 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    value = denominator
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / _away_from_zero(1 + term * denominator, tiny)
            numerator = _away_from_zero(1 + term / numerator, tiny)
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-14:
            break
    return value


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
