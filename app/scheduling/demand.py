"""How much clients ask for, admitted or refused, against what the engine can do: what a fleet is scaled by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tessera.app.scheduling.snapshot import Snapshot

WINDOW = 60  # seconds


class Demand:
    """Counts the images of all requests of the last minute. Used on one thread, or read while that writes.

    A queue that is full hides how much more there is, and so does a share of busy time, which ends at 1. Whoever is
    refused is counted each time that he asks again.

    Args:
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self._asked: deque[tuple[int, dict[str, int]]] = deque(maxlen=WINDOW + 1)  # (second, images by variant)
        self._requests = self._images = 0  # of known size, ever

    def count(self, variant: str, images: int) -> None:
        """Count a request that is admitted or refused now."""
        self._requests += 1
        self._images += images
        self._add(variant, images)

    def count_unread(self, variant: str) -> None:
        """Count a request that is refused before its body has told how many images it has: as many as others have."""
        self._add(variant, round(self._images / self._requests) if self._requests else 1)

    def ratio(self, engine: Snapshot) -> float:
        """Seconds of engine that a second's requests would take, over those that there are.

        An image costs what it takes in the best batch of its variant that was measured. Above 1 replicas are missing:
        at 2.5 one and a half as many as there are.

        Args:
            engine: What batches take, and how many run at once.
        """
        now = self._clock()
        seconds = min(WINDOW, max(1.0, now - self._since))
        first = int(now) - WINDOW
        asked = [images for second, images in list(self._asked) if second > first]
        return sum(_cost(engine, variant) * images for each in asked for variant, images in list(each.items())) / (
            seconds * max(1, engine.parallel)
        )

    def _add(self, variant: str, images: int) -> None:
        second = int(self._clock())
        if not self._asked or self._asked[-1][0] != second:
            self._asked.append((second, {}))
        of_second = self._asked[-1][1]
        of_second[variant] = of_second.get(variant, 0) + images


def _cost(engine: Snapshot, variant: str) -> float:
    """Seconds of an image in a variant's best batch; 0 where none was measured."""
    known = engine.variants.get(variant)
    return min((row.mean / size for size, row in known.batches.items()), default=0.0) if known else 0.0
