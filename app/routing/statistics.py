"""The statistics of comparisons: intervals of proportions and of ratios, exact tails, quantiles of a stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from statistics import NormalDist
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


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for a probability in [0.5, 1)."""

    def below(t: float) -> float:
        return 1 - _regularised_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2

    high = 1.0
    while below(high) < probability:
        high *= 2
    return _bisect(lambda t: below(t) < probability, 0.0, high)


class RatioMean:
    """Geometric mean of a stream of positive ratios, with Student's t interval of the mean logarithm."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations, after Welford

    def observe(self, ratio: float) -> None:
        """Count one ratio, above 0."""
        logarithm = math.log(ratio)
        self.count += 1
        step = logarithm - self._mean
        self._mean += step / self.count
        self._squares += step * (logarithm - self._mean)

    def value(self) -> float | None:
        """The mean; None before the first ratio."""
        return math.exp(self._mean) if self.count else None

    def interval(self, confidence: float = CONFIDENCE) -> Interval | None:
        """The mean and its interval; None before the second ratio."""
        if self.count < 2:
            return None
        error = math.sqrt(self._squares / (self.count - 1) / self.count)
        half = student_quantile(0.5 + confidence / 2, self.count - 1) * error
        return Interval(math.exp(self._mean), math.exp(self._mean - half), math.exp(self._mean + half))


class Distribution:
    """Count, mean and quantiles of a stream of non-negative values, in constant memory.

    Buckets grow by 2 %, so a quantile is right to 1 % of its value (the bucketing of DDSketch, Masson et al. 2019).
    Values under 1e-9 count as 0, values over 1e9 as 1e9.
    """

    _GROWTH = 1.01 / 0.99
    _SMALLEST, _LARGEST = 1e-9, 1e9

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0.0
        self._zeros = 0
        self._buckets: Counter[int] = Counter()

    def observe(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        value = min(value, self._LARGEST)
        self._sum += value
        if value < self._SMALLEST:
            self._zeros += 1
        else:
            self._buckets[math.ceil(math.log(value) / math.log(self._GROWTH))] += 1

    def mean(self) -> float | None:
        """The mean; None before the first value."""
        return self._sum / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least `share` of all values do not exceed, to 1 %; None before the first value."""
        if self.count == 0:
            return None
        rank = max(1, math.ceil(share * self.count))
        seen = self._zeros
        if seen >= rank:
            return 0.0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                break
        return 2 * self._GROWTH**bucket / (self._GROWTH + 1)


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
