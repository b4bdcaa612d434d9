"""The scheduler's state at a moment, for metrics, liveness and the statistics of the Open Inference Protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tessera.app.scheduling.latency import BatchStatistics
from tessera.app.scheduling.ticket import Priority


def seconds_to_wait(seconds: float) -> int:
    """The `Retry-After` of a wait: whole seconds, at least 1."""
    return max(1, math.ceil(seconds))


@dataclass(frozen=True)
class VariantSnapshot:
    """One variant.

    Attributes:
        depth: Images admitted and not yet in a batch, by priority.
        predicted_seconds: What one more image of NORMAL priority would take from now to its answer.
        batches: The measured table: statistics by batch size.
    """

    depth: dict[Priority, int]
    predicted_seconds: float
    batches: dict[int, BatchStatistics]

    def retry_after(self, allowed: float) -> int:
        """In how many whole seconds a request that allows `allowed` seconds should be answered in time; at least 1."""
        return seconds_to_wait(self.predicted_seconds - allowed)


@dataclass(frozen=True)
class Snapshot:
    """All variants and the engine.

    Attributes:
        variants: By name.
        running_seconds: Age of the oldest batch in the engine; 0 when it is idle.
        oldest_seconds: Age of the oldest request that has no answer yet, from its admission; 0 when there is none.
        parallel: How many batches may run at once.
    """

    variants: dict[str, VariantSnapshot]
    running_seconds: float
    oldest_seconds: float
    parallel: int = 1
