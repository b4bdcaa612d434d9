"""Requests and their times by variant since the start, for the statistics of the Open Inference Protocol."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence

from app.protocol.oip.description import VariantStatistics
from app.scheduling.ticket import Outcome


class Statistics:
    """Counts per variant; thread-safe.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._variants: dict[str, VariantStatistics] = {}

    def ran(self, variant: str, outcomes: Sequence[Outcome], input_seconds: float) -> None:
        """Count the images of one request.

        Args:
            variant: Who ran them.
            outcomes: One per image.
            input_seconds: Decoding, or copying a tensor.
        """
        waited = min(outcome.queue_seconds for outcome in outcomes)
        ended = max(outcome.queue_seconds + outcome.compute_seconds for outcome in outcomes)
        with self._lock:
            counted = self._of(variant)
            counted.last_inference = round(self._clock() * 1000)
            counted.inference_count += sum(outcome.logits is not None for outcome in outcomes)
            counted.queue.add(waited)
            counted.compute_input.add(input_seconds)
            counted.compute_infer.add(ended - waited)

    def answer_built(self, variant: str, seconds: float) -> None:
        """Count the building of one answer."""
        with self._lock:
            self._of(variant).compute_output.add(seconds)

    def request_finished(self, variant: str, *, success: bool, seconds: float) -> None:
        """Count a request that `variant` answered, or should have answered, `seconds` after its headers."""
        with self._lock:
            counted = self._of(variant)
            (counted.success if success else counted.fail).add(seconds)

    def snapshot(self) -> dict[str, VariantStatistics]:
        """A copy of everything, by variant; the scheduler knows the batches."""
        with self._lock:
            return copy.deepcopy(self._variants)

    def _of(self, variant: str) -> VariantStatistics:
        return self._variants.setdefault(variant, VariantStatistics())
