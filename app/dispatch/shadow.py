"""Shadow mode: another variant runs a sample of the images again, when nobody waits for the engine."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import numpy as np

from app.dispatch.dispatcher import BACKGROUND_PRIORITY, Dispatcher, Reservation, RowType
from app.errors import RequestError
from app.routing.experiment import Compared, Event, NotCompared
from app.routing.router import BASELINE, shadow_of
from app.routing.shadow import Run, compare, pixel_digest
from app.scheduling.ticket import Outcome

logger = logging.getLogger(__name__)

MOST_WAITING = 16  # images, 150 kB each
PATIENCE = 1.0  # seconds that an image waits for an idle engine


class Shadow:
    """Runs images a second time, off every request's path.

    A shadow image takes the way of every image, at the lowest priority and one at a time, so a request meets at most
    one that is already running. It is dropped rather than kept: when anything waits at the moment it is offered, when
    `MOST_WAITING` others wait, and after `PATIENCE`.

    Args:
        dispatcher: Where images run.
        share: Share of requests to take, 0 to 1.
        chance: Uniform numbers in [0, 1).
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        share: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._dispatcher = dispatcher
        self._share = share
        self._chance = chance
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, reservation: Reservation, outcomes: Sequence[Outcome]) -> None:
        """Perhaps run a request's images again. Copies what it takes and returns at once.

        Args:
            reservation: The request's, not yet released.
            outcomes: What came of its images.
        """
        if self._share == 0 or self._chance() >= self._share:
            return
        variant, rows = reservation.variant, reservation.rows
        other = shadow_of(variant, self._dispatcher.model().variants)
        if other is None:
            return
        room = 0 if self._dispatcher.depth > 0 else MOST_WAITING - self._waiting
        taken = min(room, len(rows))
        if taken < len(rows):
            self._dispatcher.experiment.record(NotCompared("dropped", len(rows) - taken))
        if taken > 0:
            self._waiting += taken
            work = self._run_all(variant, other, rows[:taken].copy(), outcomes[:taken])
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Drop whatever has not run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_all(self, variant: str, other: str, rows: np.ndarray, outcomes: Sequence[Outcome]) -> None:
        left = len(rows)
        try:
            for row, outcome in zip(rows, outcomes, strict=True):
                event = await self._run(variant, other, row, outcome)
                self._dispatcher.experiment.record(event)
                self._waiting -= 1
                left -= 1
        except Exception:
            logger.exception("a shadow run failed")
        finally:
            self._waiting -= left

    async def _run(self, variant: str, other: str, row: np.ndarray, outcome: Outcome) -> Event:
        if outcome.logits is None:
            return NotCompared("failed")
        try:
            second = await self._run_again(other, row)
        except (RequestError, TimeoutError, asyncio.TimeoutError):
            return NotCompared("dropped")
        if second.logits is None:
            return NotCompared("failed")
        runs = {
            variant: Run(outcome.logits, outcome.compute_seconds, outcome.batch_size),
            other: Run(second.logits, second.compute_seconds, second.batch_size),
        }
        reference = runs.pop(BASELINE)
        (candidate,) = runs.values()
        return Compared(compare(reference, candidate), pixel_digest(row))

    async def _run_again(self, other: str, row: np.ndarray) -> Outcome:
        rows: RowType = "float32" if row.dtype == np.float32 else "uint8"
        reservation = self._dispatcher.reserve(other, 1, rows=rows, priority=BACKGROUND_PRIORITY)
        try:
            np.copyto(reservation.rows[0], row)
            (outcome,) = await asyncio.wait_for(self._dispatcher.run(reservation), PATIENCE)
            return outcome
        finally:
            self._dispatcher.release(reservation)
