"""Every request that runs images is counted once, however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.errors import RequestError
from app.observability.metrics import Metrics

UNRESOLVED = "none"  # the variant label of requests refused before a variant was chosen


@dataclass
class Record:
    """What is known of a request so far.

    Attributes:
        started: When it began, on `time.perf_counter`.
        variant: Who answers, once that is known.
        outcome: `ok` or an error code, once it has ended.
    """

    started: float
    variant: str = UNRESOLVED
    outcome: str = "internal_error"

    def fields(self) -> dict[str, object]:
        """For the request's line in the log."""
        return {"variant": self.variant, "outcome": self.outcome}


@contextmanager
def recorded(metrics: Metrics) -> Iterator[Record]:
    """Count the request that the block answers, with the variant that the block sets."""
    record = Record(time.perf_counter())
    try:
        yield record
        record.outcome = "ok"
    except RequestError as error:
        record.outcome = error.code
        if error.status < 500 or error.status == 503:
            metrics.rejected(error.code)
        raise
    finally:
        seconds = time.perf_counter() - record.started
        metrics.request_finished(variant=record.variant, outcome=record.outcome, seconds=seconds)
