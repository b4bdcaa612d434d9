"""Every request that runs images is counted once, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tessera.app.errors import RequestError
from tessera.app.observability.metrics import Metrics
from tessera.app.routing.router import Decision

UNRESOLVED = "none"  # the variant label of requests refused before a variant was chosen


@dataclass
class Record:
    """What is known of a request so far.

    Attributes:
        started: When it began, on `time.perf_counter`.
        decision: Who answers, once that is known.
        outcome: `ok` or an error code, once it has ended.
    """

    started: float
    decision: Decision | None = None
    outcome: str = "internal_error"

    @property
    def variant(self) -> str:
        """Who answers."""
        return UNRESOLVED if self.decision is None else self.decision.variant

    def fields(self) -> dict[str, object]:
        """For the request's line in the log."""
        return {"variant": self.variant, "outcome": self.outcome}


@contextmanager
def recorded(metrics: Metrics, answered: Callable[[Decision, float], None]) -> Iterator[Record]:
    """Count the request that the block answers, with the decision that the block sets.

    Args:
        metrics: Where every request is counted.
        answered: Told of requests that were answered with success, and the seconds that it took.
    """
    record = Record(time.perf_counter())
    try:
        yield record
        record.outcome = "ok"
        if record.decision is not None:
            answered(record.decision, time.perf_counter() - record.started)
    except RequestError as error:
        record.outcome = error.code
        if error.status < 500 or error.status == 503:
            metrics.rejected(error.code)
        raise
    finally:
        seconds = time.perf_counter() - record.started
        metrics.request_finished(variant=record.variant, outcome=record.outcome, seconds=seconds)
