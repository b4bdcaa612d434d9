"""How much clients ask for, admitted or refused, against what the machine can do: what a fleet is scaled by."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tessera.app.scheduling.snapshot import Snapshot

WINDOW = 60  # seconds


@dataclass
class _Second:
    """What was asked for in one second, and what was decoded in it."""

    number: int
    images: Counter[str] = field(default_factory=Counter)  # by variant
    files: int = 0  # of these, those that have to be decoded
    decoded: int = 0
    decode_seconds: float = 0.0  # of a core


class Demand:
    """Counts the images of all requests of the last minute.

    A queue that is full hides how much more there is, and so does a share of busy time, which ends at 1. Whoever is
    refused is counted each time that he asks again.

    Args:
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self._seconds: deque[_Second] = deque(maxlen=WINDOW + 1)
        self._requests = self._images = 0  # of known size, ever
        self._lock = threading.Lock()

    def count(self, variant: str, images: int, *, files: bool = True) -> None:
        """Count a request that is admitted or refused now; `files`: its images have to be decoded."""
        with self._lock:
            self._requests += 1
            self._images += images
            self._add(variant, images, files=files)

    def count_unread(self, variant: str) -> None:
        """Count a request that is refused before its body has told how many images it has: as many as others have."""
        with self._lock:
            self._add(variant, round(self._images / self._requests) if self._requests else 1, files=True)

    def count_decoded(self, images: int, core_seconds: float) -> None:
        """Learn what decoding took of a core."""
        with self._lock:
            now = self._now()
            now.decoded += images
            now.decode_seconds += core_seconds

    def ratio(self, engine: Snapshot, cores: int | None = None) -> float:
        """Seconds that a second's requests would take, over those that there are.

        An image costs what it takes in the best batch of its variant that was measured, and its decoding what that
        takes of the cores. Above 1 replicas are missing: at 2.5 one and a half as many as there are.

        Args:
            engine: What batches take, and how many run at once.
            cores: That the engine shares with the decoders; None where it has a device of its own.
        """
        with self._lock:
            now = self._clock()
            recent = [second for second in self._seconds if second.number > int(now) - WINDOW]
        asked = sum((second.images for second in recent), Counter[str]())
        taken = sum(_cost(engine, variant) * images for variant, images in asked.items()) / max(1, engine.parallel)
        if cores is not None and (decoded := sum(second.decoded for second in recent)):
            each = sum(second.decode_seconds for second in recent) / decoded
            taken += sum(second.files for second in recent) * each / cores
        return taken / min(WINDOW, max(1.0, now - self._since))

    def _add(self, variant: str, images: int, *, files: bool) -> None:
        now = self._now()
        now.images[variant] += images
        now.files += images if files else 0

    def _now(self) -> _Second:
        number = int(self._clock())
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        return self._seconds[-1]


def _cost(engine: Snapshot, variant: str) -> float:
    """Seconds of an image in a variant's best batch; 0 where none was measured."""
    known = engine.variants.get(variant)
    return min((row.mean / size for size, row in known.batches.items()), default=0.0) if known else 0.0
