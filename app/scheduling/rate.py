"""How fast each variant runs, measured, and what that says about a backlog."""

from __future__ import annotations

import math
from collections.abc import Mapping

_WEIGHT = 0.2  # of the newest batch in the running mean: about the last ten batches count


class ServiceRate:
    """Running mean of the seconds one image costs, per variant."""

    def __init__(self) -> None:
        self._seconds_per_image: dict[str, float] = {}

    def observe(self, variant: str, images: int, seconds: float) -> None:
        """Count one batch of `images` that took `seconds`."""
        cost = seconds / images
        mean = self._seconds_per_image.get(variant, cost)
        self._seconds_per_image[variant] = mean + _WEIGHT * (cost - mean)

    def backlog_seconds(self, images: Mapping[str, int]) -> float:
        """Time to run `images` (count per variant); variants never measured count as the slowest known."""
        slowest = max(self._seconds_per_image.values(), default=0.0)
        return sum(count * self._seconds_per_image.get(variant, slowest) for variant, count in images.items())

    def retry_after(self, images: Mapping[str, int]) -> int:
        """Whole seconds, at least 1, until a backlog of `images` has been run."""
        return max(1, math.ceil(self.backlog_seconds(images)))
