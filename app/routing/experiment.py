"""The live experiment: what was answered and compared, what the guard makes of it. One per service, not per process."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from tessera.app.routing import report
from tessera.app.routing.accumulators import Distribution
from tessera.app.routing.events import Answered, Compared, Event, Loaded
from tessera.app.routing.guard import Guard, GuardEvent, GuardState
from tessera.app.routing.router import Decision, Router
from tessera.app.routing.shadow import ShadowRecord

logger = logging.getLogger(__name__)


class ExperimentObserver(Protocol):
    """Who counts what happens; called under the experiment's lock, so it must not call back."""

    def answered(self, variant: str, reason: str) -> None:
        """A request was answered by `variant`, chosen for `reason`, one of `router.REASONS`."""

    def shadow_ended(self, outcome: str, images: int) -> None:
        """Shadow images ended as `outcome`, one of `shadow.OUTCOMES`."""

    def shadow_compared(self, *, distance: float, agreement: float, speed_up: float | None) -> None:
        """A shadow image was compared; with the agreement and the speed-up over all images so far."""

    def guard_changed(self, *, tripped: bool, event: str | None) -> None:
        """The guard's state, and the event that led to it; None at the start."""

    def split_changed(self, shares: dict[str, float]) -> None:
        """Share per variant of the requests that make no choice of their own."""


class Experiment:
    """State of the running experiment; thread-safe.

    Args:
        router: Who decides.
        variants: The variants that the model has.
        guard: The guard, or None for none.
        observer: Who counts.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        router: Router,
        variants: Collection[str],
        *,
        guard: Guard | None,
        observer: ExperimentObserver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._router = router
        self._variants = tuple(sorted(variants))
        self._guard = guard
        self._observer = observer
        self._lock = threading.Lock()
        self._since = clock()
        self._requests: Counter[Decision] = Counter()
        self._latency = {name: Distribution() for name in self._variants}
        self._shadow = ShadowRecord()
        self._tell(None)

    @property
    def tripped(self) -> bool:
        """Whether the guard keeps traffic on the baseline."""
        return self._guard is not None and self._guard.state is GuardState.TRIPPED

    def record(self, event: Event) -> None:
        """Count what happened; a comparison may change the guard's state, a loaded variant empties its window."""
        with self._lock:
            if isinstance(event, Answered):
                self._requests[event.decision] += 1
                self._latency[event.decision.variant].observe(event.seconds)
                self._observer.answered(event.decision.variant, event.decision.reason)
            elif isinstance(event, Compared):
                self._compared(event)
            elif isinstance(event, Loaded):
                if self._guard is not None:
                    self._guard.forget()
            else:
                self._shadow.outcomes[event.outcome] += event.images
                self._observer.shadow_ended(event.outcome, event.images)

    def reset_guard(self, why: str) -> bool:
        """Let traffic through again after a trip; returns whether there was a trip to end."""
        with self._lock:
            if self._guard is None or not self.tripped:
                return False
            self._tell(self._guard.reset(why))
            return True

    def snapshot(self) -> dict[str, object]:
        """Everything that `GET /v1/experiments` shows, as JSON."""
        with self._lock:
            return {
                "since": report.timestamp(self._since),
                "split": report.describe_split(self._router, self._variants, tripped=self.tripped),
                "variants": {
                    name: report.describe_variant(name, self._requests, latency)
                    for name, latency in self._latency.items()
                },
                "shadow": report.describe_shadow(self._router.plan.shadow_share, self._shadow),
                "guard": report.describe_guard(self._guard),
            }

    def _compared(self, event: Compared) -> None:
        shadow, comparison = self._shadow, event.comparison
        shadow.observe(comparison)
        self._observer.shadow_ended("compared", 1)
        self._observer.shadow_compared(
            distance=comparison.distance,
            agreement=shadow.agreeing / shadow.compared,
            speed_up=shadow.speed_up.value(),
        )
        change = self._guard.observe(comparison.agrees, event.image) if self._guard else None
        if change is not None:
            self._tell(change)

    def _tell(self, change: GuardEvent | None) -> None:
        if change is not None:
            level = logging.ERROR if self.tripped else logging.WARNING
            logger.log(level, "accuracy guard", extra={"fields": {"event": change.event, "why": change.why}})
        self._observer.guard_changed(tripped=self.tripped, event=change.event if change else None)
        self._observer.split_changed(self._router.live_split(self._variants, tripped=self.tripped))
