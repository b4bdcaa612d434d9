"""Streams of numbers in constant memory: the mean of ratios with its interval, and quantiles."""

from __future__ import annotations

import math
from collections import Counter

from tessera.models.evaluation.intervals import CONFIDENCE, Interval, student_quantile


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
