"""A histogram that grows with its data, and the clipping range that loses least when stored in eight bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS_PER_SIDE = 4096
_LEVELS = 255
_CANDIDATES = 128

# Below this, one over the bin width would overflow float32; such values are zero for every purpose.
_SMALLEST_EXPONENT = -90


class Histogram:
    """Counts of the values of one tensor, over images that arrive in any number of chunks.

    The bin width is always a power of two and bin edges are multiples of it, so growing merges pairs of bins exactly
    and the final counts do not depend on the order or the size of the chunks.
    """

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self._exponent: int | None = None
        self._counts = np.zeros(2 * _BINS_PER_SIDE, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values, of any shape; all of them must be finite."""
        if not values.size:
            return
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow_to(max(abs(low), abs(high)))
        if self._exponent is None:
            self._counts[_BINS_PER_SIDE] += flat.size  # nothing but zeros so far: their bin is the same at any width
            return
        # Shrinking could turn a tiny negative value into -0, whose bin is another: float64 has the range, float32 not.
        exact = flat.astype(np.float64) if self._exponent > 0 else flat
        scaled = np.floor(exact * exact.dtype.type(2.0**-self._exponent)).astype(np.intp)
        self._counts += np.bincount(scaled + _BINS_PER_SIDE, minlength=2 * _BINS_PER_SIDE)

    def merge(self, other: Histogram) -> None:
        """Count what another histogram has counted."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        if other._exponent is not None:
            self._grow_to(math.ldexp(1.0, other._exponent + int(math.log2(_BINS_PER_SIDE)) - 1))
        counts, exponent = other._counts, other._exponent
        while exponent is not None and self._exponent is not None and exponent < self._exponent:
            counts, exponent = _halved(counts), exponent + 1
        self._counts = self._counts + counts

    def widen(self, low: float, high: float) -> None:
        """Note that values from `low` to `high` occur, without counting any."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow_to(max(abs(low), abs(high)))

    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        width = math.ldexp(1.0, self._exponent or 0)
        edges = np.arange(-_BINS_PER_SIDE, _BINS_PER_SIDE, dtype=np.float64)
        return np.asarray((edges + 0.5) * width, np.float64)

    def counts(self) -> NDArray[np.int64]:
        """How many values fell into each bin."""
        return self._counts

    def observed_range(self) -> tuple[float, float]:
        """Smallest and largest value seen, widened to contain zero."""
        return min(self.low, 0.0), max(self.high, 0.0)

    def percentile_range(self, percentile: float) -> tuple[float, float]:
        """The range that leaves out (100 - percentile) per cent of the values at each end that has any."""
        low, high = self.observed_range()
        total = int(self._counts.sum())
        if not total:
            return low, high
        cumulative = np.cumsum(self._counts) / total
        share = percentile / 100
        above = self.centres()[min(int(np.searchsorted(cumulative, share)), len(cumulative) - 1)]
        below = self.centres()[min(int(np.searchsorted(cumulative, 1 - share)), len(cumulative) - 1)]
        return max(low, min(float(below), 0.0)), min(high, max(float(above), 0.0))

    def least_error_range(self) -> tuple[float, float]:
        """The range whose 8-bit grid has the least mean squared error on the values seen."""
        low, high = self.observed_range()
        occupied = np.flatnonzero(self._counts)
        if not occupied.size:
            return low, high
        centres, weights = self.centres()[occupied], self._counts[occupied].astype(np.float64)
        fractions = np.linspace(0.05, 1.0, _CANDIDATES)
        best = (low, high)
        for _ in range(3):  # each end in turn; a one-sided tensor settles in the first round
            best = min(((best[0], high * f) for f in fractions), key=lambda r: _error(centres, weights, *r))
            if low == 0.0:
                break
            best = min(((low * f, best[1]) for f in fractions), key=lambda r: _error(centres, weights, *r))
        return best

    def least_divergence_range(self) -> tuple[float, float]:
        """The range whose 8-bit grid keeps the distribution of the values best: least Kullback-Leibler divergence.

        The search that TensorRT made known, over ranges that shrink both ends alike: what is cut off counts where it
        saturates, and every level is spread evenly over the bins that it stands for.
        """
        low, high = self.observed_range()
        occupied = np.flatnonzero(self._counts)
        if not occupied.size or high <= low:
            return low, high
        centres, weights = self.centres()[occupied], self._counts[occupied].astype(np.float64)
        fractions = np.linspace(1.0, 0.1, _CANDIDATES // 2)
        best = min(fractions, key=lambda f: _divergence(centres, weights, low * f, high * f))
        return low * float(best), high * float(best)

    def _grow_to(self, magnitude: float) -> None:
        if magnitude == 0.0:
            return
        needed = max(math.frexp(magnitude)[1], _SMALLEST_EXPONENT) - int(math.log2(_BINS_PER_SIDE))
        if self._exponent is None:
            self._exponent = needed
        while self._exponent < needed:
            self._counts = _halved(self._counts)
            self._exponent += 1


def _halved(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    merged = counts.reshape(-1, 2).sum(axis=1)
    quarter = len(merged) // 2
    return np.concatenate([np.zeros(quarter, np.int64), merged, np.zeros(quarter, np.int64)])


def _error(centres: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float) -> float:
    if high <= low:
        return math.inf
    scale = (high - low) / _LEVELS
    zero_point = round(-low / scale)
    stored = np.clip(np.rint(centres / scale) + zero_point, 0, _LEVELS)
    difference: NDArray[Any] = (stored - zero_point) * scale - centres
    return float(np.dot(weights, difference * difference))


def _divergence(centres: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float) -> float:
    scale = (high - low) / _LEVELS
    inside = (centres >= low) & (centres <= high)
    if scale <= 0 or not inside.any():
        return math.inf
    levels = np.rint((np.clip(centres, low, high) - low) / scale).astype(np.intp)
    kept = weights[inside].copy()
    # What is cut off saturates in the outermost bins that are left.
    kept[0] += weights[centres < low].sum()
    kept[-1] += weights[centres > high].sum()
    level = levels[inside]
    sums = np.bincount(level, weights[inside], _LEVELS + 1)
    bins = np.bincount(level, minlength=_LEVELS + 1)
    spread = sums[level] / bins[level]
    p, q = kept / kept.sum(), spread / spread.sum()
    return float((p * np.log(p / q)).sum())
