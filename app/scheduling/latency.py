"""How long a batch takes, measured: the table from which every prediction of the scheduler comes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from math import exp

# Weights of the newest batch in the running mean and deviation, and how many deviations above the mean count as the
# tail: Jacobson's estimator, as TCP uses it for its retransmission timeout (RFC 6298, section 2).
_MEAN_WEIGHT = 1 / 8
_DEVIATION_WEIGHT = 1 / 4
_TAIL_DEVIATIONS = 4
# How far the sizes that did not run follow the one that did. What slows one size down (other work on the cores, a lower
# clock) slows all. A size that is seldom chosen must not keep the estimate of a bad moment for ever.
_DRIFT_WEIGHT = 1 / 16
_MOST_DRIFT = 2.0  # a single hiccup says little about other sizes
# How fast predictions follow a machine that has become slower. What others take of a shared one changes within seconds,
# and only a few large batches end in that time. So seconds of running count here, not batches.
_SLOWNESS_SECONDS = 1.0
# A batch that is larger than it needs to be makes all images in it and behind it wait for nothing. The size that suits
# is the smallest whose time per image is within this factor of the best.
_EFFICIENT = 1.01
# While few images wait, those that come next matter more: then the size is the smallest within this factor.
_QUICK = 1.03
# While many wait, the least size that is worth running is the smallest within this factor. With smaller batches, late
# requests would make all after them late.
_FRUGAL = 1.1
# While many wait, half a batch is chosen unless it is slower by this factor: less is chance. It is tried so many times
# before its time counts against it, because a size that is never chosen is never measured again.
_WASTEFUL = 1.2
_TRIALS = 3
_SEED_DEVIATION = 0.05  # of the mean, until there are measurements to say


@dataclass
class _Size:
    mean: float
    deviation: float
    batches: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class BatchStatistics:
    """One row of the table.

    Attributes:
        batches: How many batches of this size have run; those of the warm-up do not count.
        seconds: Their run time, summed.
        mean: What a batch of this size is expected to take, in seconds.
        tail: What nearly every batch of this size stays under, in seconds.
    """

    batches: int
    seconds: float
    mean: float
    tail: float


class LatencyTable:
    """Seconds per batch by variant and batch size.

    Sizes that never ran are interpolated linearly between those that did, and extrapolated in proportion beyond them.
    No size counts as slower than a larger one. A variant without any measurement counts as the slowest known one, and
    as 0 s when there is none. All of it is stretched by how much slower the machine has been in the last second it ran.

    Args:
        variants: Names of the variants.
        limit: The largest batch.
    """

    def __init__(self, variants: Iterable[str], limit: int) -> None:
        self.limit = limit
        self._sizes: dict[str, dict[int, _Size]] = {variant: {} for variant in variants}
        self._means: dict[str, list[float]] = {}  # seconds for 0..limit images
        self._tails: dict[str, list[float]] = {}
        self._fastest: dict[str, float] = {}
        self._efficient: dict[str, int] = {}
        self._quick: dict[str, int] = {}
        self._frugal: dict[str, int] = {}
        self._shared: dict[str, int] = {}
        self._slowness = 1.0  # of the last second or so, compared with the means
        self._observed: list[tuple[str, int, float]] = []  # not yet in the table: the next reading enters them

    def seed(self, variant: str, images: int, seconds: float) -> None:
        """Enter a warm-up batch of `images` that took `seconds`."""
        self.learn()
        if seconds > 0:
            self._sizes[variant][images] = _Size(seconds, _SEED_DEVIATION * seconds)
            self._update(variant, seconds / images)

    def observe(self, variant: str, images: int, seconds: float) -> None:
        """Count one batch of `images` that took `seconds`.

        It enters the table when that is next read, or at `learn`, so the answer of the batch does not wait for it.
        """
        self._observed.append((variant, images, seconds))

    def learn(self) -> None:
        """Enter what was observed, now that there is time."""
        if self._observed:
            observed, self._observed = self._observed, []
            for batch in observed:
                self._enter(*batch)

    def seconds(self, variant: str, images: int) -> float:
        """Expected time of a batch of `images`; of more than `limit`, in batches of that and one of the rest."""
        return self._look_up(self._means, variant, images)

    def work(self, variant: str, images: int) -> float:
        """Expected time of `images` (any number) in the batches that suit; past the first one, the last counts whole.

        It may fill up before it leaves, and all images in it then wait for the whole batch.
        """
        size = self.efficient(variant)
        return self.seconds(variant, images) if images <= size else -(-images // size) * self.seconds(variant, size)

    def tail(self, variant: str, images: int) -> float:
        """Time under which nearly every batch of `images` (at most `limit`) stays."""
        return self._look_up(self._tails, variant, images)

    def fastest(self, variant: str) -> float:
        """The least that an image ever took: what no request can beat, however idle the engine."""
        self.learn()
        return self._fastest.get(variant, 0.0)

    def efficient(self, variant: str) -> int:
        """The smallest batch that loses little to the best one in images per second; `limit` until that has run."""
        self.learn()
        return self._efficient.get(variant, self.limit)

    def quick(self, variant: str) -> int:
        """The smallest batch within 3 % of the best one's images per second; `limit` until that has run."""
        self.learn()
        return self._quick.get(variant, self.limit)

    def frugal(self, variant: str) -> int:
        """The smallest batch that is not wasteful: within a tenth of the best one's images per second."""
        self.learn()
        return self._frugal.get(variant, 1)

    def shared(self, variant: str) -> int:
        """The largest batch up to half of `limit` that is not known as wasteful, or `quick` where that is larger."""
        self.learn()
        return max(self._shared.get(variant, 1), self.quick(variant))

    def rows(self, variant: str) -> dict[int, BatchStatistics]:
        """The sizes that ran, in order."""
        self.learn()
        return {
            images: BatchStatistics(size.batches, size.seconds, size.mean, _tail(size))
            for images, size in sorted(self._sizes[variant].items())
        }

    @property
    def _stretch(self) -> float:
        """What expected times are multiplied by: a quicker machine shows in the means soon enough."""
        return max(1.0, self._slowness)

    def _enter(self, variant: str, images: int, seconds: float) -> None:
        sizes = self._sizes[variant]
        expected = self.seconds(variant, images) / self._stretch
        size = sizes.get(images)
        if size is None:
            size = sizes[images] = _Size(expected or seconds, _SEED_DEVIATION * (expected or seconds))
        size.deviation += _DEVIATION_WEIGHT * (abs(seconds - size.mean) - size.deviation)
        size.mean += max(_MEAN_WEIGHT, 1 / (size.batches + 2)) * (seconds - size.mean)
        size.batches += 1
        size.seconds += seconds
        if expected > 0:
            ratio = min(max(seconds / expected, 1 / _MOST_DRIFT), _MOST_DRIFT)
            self._slowness += (1 - exp(-seconds / _SLOWNESS_SECONDS)) * (ratio - self._slowness)
            for other in sizes.values():
                if other is not size:
                    other.mean *= 1 + _DRIFT_WEIGHT * (ratio - 1)
        self._update(variant, seconds / images)

    def _look_up(self, table: dict[str, list[float]], variant: str, images: int) -> float:
        self.learn()
        known = table.get(variant)
        if known is None:
            return max((self._look_up(table, other, images) for other in table), default=0.0)
        full, rest = divmod(images, self.limit)
        return self._stretch * (full * known[self.limit] + known[rest])

    def _update(self, variant: str, seconds_per_image: float) -> None:
        sizes = sorted(self._sizes[variant].items())
        measured = [images for images, _ in sizes]
        self._means[variant] = _interpolate(measured, [size.mean for _, size in sizes], self.limit)
        self._tails[variant] = _interpolate(measured, [_tail(size) for _, size in sizes], self.limit)
        if self.limit in self._sizes[variant]:
            self._efficient[variant] = _smallest_within(_EFFICIENT, self._means[variant])
            self._quick[variant] = _smallest_within(_QUICK, self._means[variant])
        self._frugal[variant] = _smallest_within(_FRUGAL, self._means[variant])
        self._shared[variant] = self._largest_shared(variant, max(1, self.limit // 2))
        self._fastest[variant] = min(self._fastest.get(variant, seconds_per_image), seconds_per_image)

    def _largest_shared(self, variant: str, half: int) -> int:
        size = self._sizes[variant].get(half)
        if size is None or size.batches < _TRIALS:
            return half
        return max((images for images in _within(_WASTEFUL, self._means[variant]) if images <= half), default=1)


def _tail(size: _Size) -> float:
    return size.mean + _TAIL_DEVIATIONS * size.deviation


def _smallest_within(factor: float, table: list[float]) -> int:
    return next(iter(_within(factor, table)))


def _within(factor: float, table: list[float]) -> list[int]:
    """The sizes whose time per image is within a factor of the best, in order."""
    per_image = [seconds / images for images, seconds in enumerate(table[1:], start=1)]
    bound = min(per_image) * factor
    return [images for images, seconds in enumerate(per_image, start=1) if seconds <= bound]


def _interpolate(measured: list[int], seconds: list[float], limit: int) -> list[float]:
    table = [0.0]
    for images in range(1, limit + 1):
        right = bisect_left(measured, images)
        if right == len(measured):
            table.append(seconds[-1] * images / measured[-1])
        elif measured[right] == images or right == 0:
            table.append(seconds[right] * images / measured[right])
        else:
            low, high = measured[right - 1], measured[right]
            share = (images - low) / (high - low)
            table.append(seconds[right - 1] + share * (seconds[right] - seconds[right - 1]))
    for images in range(limit - 1, 0, -1):  # fewer images never take longer: what was measured was a slow moment
        table[images] = min(table[images], table[images + 1])
    return table
