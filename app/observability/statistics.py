"""What each variant has done since the start, as the Open Inference Protocol's statistics tell it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from app.protocol.oip.description import Duration, VariantStatistics
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

    def batch_finished(self, variant: str, images: int, seconds: float) -> None:
        """Count a batch of `images` that ran for `seconds`."""
        with self._lock:
            counted = self._of(variant)
            counted.execution_count += 1
            counted.batches.setdefault(images, Duration()).add(seconds)

    def answered(
        self, variant: str, outcomes: Sequence[Outcome], *, seconds: float, input_seconds: float, output_seconds: float
    ) -> None:
        """Count an answered request.

        Args:
            variant: Who answered.
            outcomes: One per image.
            seconds: From its headers to its answer.
            input_seconds: Decoding, or copying a tensor.
            output_seconds: Building the answer.
        """
        waited = min(outcome.queue_seconds for outcome in outcomes)
        ended = max(outcome.queue_seconds + outcome.compute_seconds for outcome in outcomes)
        with self._lock:
            counted = self._of(variant)
            counted.last_inference = round(self._clock() * 1000)
            counted.inference_count += len(outcomes)
            counted.success.add(seconds)
            counted.queue.add(waited)
            counted.compute_input.add(input_seconds)
            counted.compute_infer.add(ended - waited)
            counted.compute_output.add(output_seconds)

    def failed(self, variant: str, seconds: float) -> None:
        """Count a request that reached a variant and was not answered after `seconds`."""
        with self._lock:
            self._of(variant).fail.add(seconds)

    def of(self, variant: str) -> VariantStatistics:
        """A variant's statistics; read them at once, they go on counting."""
        with self._lock:
            return self._of(variant)

    def _of(self, variant: str) -> VariantStatistics:
        return self._variants.setdefault(variant, VariantStatistics())
