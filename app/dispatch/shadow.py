"""Shadow mode: another variant runs a sample of the images again, while the engine is idle."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from tessera.app.dispatch.dispatcher import Dispatcher, Reservation
from tessera.app.errors import QueueFullError, RequestError
from tessera.app.routing.events import Compared, Event, NotCompared
from tessera.app.routing.router import BASELINE, shadow_of
from tessera.app.routing.shadow import Run, compare, pixel_digest
from tessera.app.scheduling.lanes import beside, variant_of
from tessera.app.scheduling.ticket import InputType, Outcome, Priority

logger = logging.getLogger(__name__)

MOST_WAITING = 16  # images, 150 kB each
PATIENCE = 1.0  # seconds per image that a request's images wait for an idle engine


class _Job(NamedTuple):
    """Images of one request."""

    variant: str
    other: str
    rows: np.ndarray
    outcomes: Sequence[Outcome]

    def parts(self) -> list[_Job]:
        """Each image as a job of its own."""
        images = range(len(self.rows))
        return [self._replace(rows=self.rows[n : n + 1], outcomes=self.outcomes[n : n + 1]) for n in images]


class Shadow:
    """Runs images a second time, off every request's path.

    A shadow image takes the way of every image, at the lowest priority. The images of a request go together. The queue
    batches no more of them than take the time of one image of the slowest variant: a request waits so long at most. A
    shadow image is dropped when anything waits at the moment it is offered, when `MOST_WAITING` others wait, and after
    `PATIENCE`.

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
        self._jobs: deque[_Job] = deque()
        self._worker: asyncio.Task[None] | None = None

    def offer(
        self, reservation: Reservation, outcomes: Sequence[Outcome], variants: Callable[[], Collection[str]]
    ) -> None:
        """Perhaps run a request's images again. Copies what it takes and returns at once.

        Args:
            reservation: The request's, not yet released.
            outcomes: What came of its images.
            variants: Tells which variants can run.
        """
        if self._share == 0 or self._chance() >= self._share:
            return
        variant, rows = variant_of(reservation.variant), reservation.rows
        name = shadow_of(variant, variants())
        if name is None:
            return
        other = beside(reservation.variant, name)
        waiting = sum(len(job.rows) for job in self._jobs)
        room = 0 if self._busy() else min(MOST_WAITING - waiting, len(rows))
        if room > 0:
            self._jobs.append(_Job(variant, other, rows[:room].copy(), outcomes[:room]))
        if room < len(rows):
            self._record(NotCompared("dropped", len(rows) - room))
        if self._jobs and (self._worker is None or self._worker.done()):
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Drop whatever has not run."""
        self._jobs.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def _busy(self) -> bool:
        """Whether a request's images wait or are being decoded, in any process."""
        depths = [variant.depth for variant in self._dispatcher.snapshot().variants.values()]
        return any(
            images for depth in depths for priority, images in depth.items() if priority is not Priority.BACKGROUND
        )

    async def _work(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                for event in await self._run(job):
                    self._record(event)
            except Exception:
                logger.exception("a shadow run failed")

    def _record(self, event: Event) -> None:
        self._dispatcher.experiment.record(event)

    async def _run(self, job: _Job) -> list[Event]:
        try:
            again = await self._run_again(job)
        except QueueFullError:
            if len(job.rows) == 1:
                return [NotCompared("dropped")]
            return [event for part in job.parts() for event in await self._run(part)]
        except (RequestError, TimeoutError, asyncio.TimeoutError):
            return [NotCompared("dropped", len(job.rows))]
        return [_compared(job, *runs) for runs in zip(job.rows, job.outcomes, again, strict=True)]

    async def _run_again(self, job: _Job) -> list[Outcome]:
        dtype: InputType = "float32" if job.rows.dtype == np.float32 else "uint8"
        images = len(job.rows)
        reservation = self._dispatcher.reserve(job.other, images, dtype=dtype, priority=Priority.BACKGROUND)
        try:
            np.copyto(reservation.rows, job.rows)
            self._dispatcher.submit(reservation)
            return await asyncio.wait_for(reservation.done, PATIENCE * images)
        finally:
            self._dispatcher.release(reservation)


def _compared(job: _Job, row: np.ndarray, first: Outcome, again: Outcome) -> Event:
    if first.logits is None or again.logits is None:
        return NotCompared("failed")
    answered = Run(first.logits, first.compute_seconds, first.batch_size)
    shadowed = Run(again.logits, again.compute_seconds, again.batch_size)
    reference, candidate = (answered, shadowed) if job.variant == BASELINE else (shadowed, answered)
    return Compared(compare(reference, candidate), pixel_digest(row))
