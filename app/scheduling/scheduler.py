"""The engine thread: takes batches from the queue, runs them, hands back the outcomes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from app.errors import InferenceError
from app.scheduling.queue import ImageQueue
from app.scheduling.ticket import Batch, Outcome, Ticket

logger = logging.getLogger(__name__)

ENGINE_THREAD = "tessera-engine"


class Runner(Protocol):
    """What the scheduler needs of an `engine.Session`."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """Run uint8 [N, size, size, 3]; returns float32 logits [N, classes]."""


class Observer(Protocol):
    """Who is told about each batch; called on the engine thread."""

    def batch_finished(self, variant: str, images: int, seconds: float) -> None:
        """A batch of `images` of `variant` ran for `seconds`."""


class Scheduler:
    """Owns the queue and the single thread that runs batches.

    One thread, because a session uses every core of the budget by itself: two batches at once would only share them.
    The thread forms a batch the moment it is free, so batches grow with load and a lone request never waits.

    Args:
        runners: The session of each variant.
        max_batch: Most images in one batch.
        capacity: Most images admitted and not yet in a batch.
        deliver: Called on the engine thread, once per batch, with the requests that this batch completed.
        observer: Told about each batch.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        runners: Mapping[str, Runner],
        *,
        max_batch: int,
        capacity: int,
        deliver: Callable[[list[Ticket]], None],
        observer: Observer,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runners = dict(runners)
        self._deliver = deliver
        self._observer = observer
        self._clock = clock
        self._queue = ImageQueue(self._runners, capacity=capacity, max_batch=max_batch, clock=clock)
        self._work = threading.Condition()
        self._stopping = False
        self._max_batch = max_batch
        self._rows: np.ndarray | None = None
        self._thread = threading.Thread(target=self._loop, name=ENGINE_THREAD, daemon=True)

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the running batch end, then stop; returns when the thread has ended. Queued requests are not run."""
        with self._work:
            self._stopping = True
            self._work.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the engine thread runs."""
        return self._thread.is_alive()

    @property
    def depth(self) -> int:
        """Images admitted and not yet in a batch."""
        with self._work:
            return self._queue.depth

    def check_room(self) -> None:
        """Raise `QueueFullError` when not even one image would be admitted."""
        with self._work:
            self._queue.check_room()

    def admit(self, variant: str, images: int) -> Ticket:
        """Reserve room for `images`; every ticket must end in `submit` or `cancel`.

        Raises:
            QueueFullError: There is no room.
        """
        with self._work:
            return self._queue.admit(variant, images)

    def submit(self, ticket: Ticket, pixels: np.ndarray) -> None:
        """Queue an admitted request.

        Args:
            ticket: As returned by `admit`.
            pixels: uint8 [images, size, size, 3]; must not change until the ticket is delivered.
        """
        with self._work:
            self._queue.enqueue(ticket, pixels)
            self._work.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Drop a request that nobody waits for; harmless when it is over, or when it is being delivered right now."""
        with self._work:
            self._queue.cancel(ticket)

    def measured(self, variant: str, images: int, seconds: float) -> None:
        """Count a batch in the measured rate; warm-up batches too, so that the first estimates are true."""
        with self._work:
            self._queue.rate.observe(variant, images, seconds)

    def _loop(self) -> None:
        while True:
            with self._work:
                batch = self._queue.take()
                while batch is None and not self._stopping:
                    self._work.wait()
                    batch = self._queue.take()
                if batch is None or self._stopping:
                    return
            outcomes = self._run(batch)
            with self._work:
                finished = self._queue.finish(batch, outcomes)
            if finished:
                self._deliver(finished)

    def _run(self, batch: Batch) -> list[Outcome]:
        """Run a batch; when it fails, run its images one by one, so that only the guilty ones fail."""
        pixels = self._gather(batch)
        started = self._clock()
        try:
            logits = self._infer(batch.variant, pixels)
        except Exception as error:
            if len(batch) == 1:
                logger.error("the engine failed on an image: %s", error, exc_info=error)
                return self._outcomes(batch, [None], [_failure(error)], started)
            logger.warning("a batch of %d failed, its images are run one by one: %s", len(batch), error)
            return [self._run(Batch(batch.variant, (member,)))[0] for member in batch.members]
        outcomes = self._outcomes(batch, list(logits), [None] * len(batch), started)
        self.measured(batch.variant, len(batch), outcomes[0].compute_seconds)
        self._observer.batch_finished(batch.variant, len(batch), outcomes[0].compute_seconds)
        return outcomes

    def _infer(self, variant: str, pixels: np.ndarray) -> np.ndarray:
        logits = self._runners[variant].run(pixels)
        if logits.ndim != 2 or len(logits) != len(pixels):
            raise InferenceError(f"the engine returned shape {logits.shape} for {len(pixels)} images")
        if not np.isfinite(logits).all():
            raise InferenceError("the engine returned values that are not finite")
        return logits

    def _outcomes(
        self, batch: Batch, logits: list[np.ndarray | None], failures: list[Exception | None], started: float
    ) -> list[Outcome]:
        seconds = self._clock() - started
        return [
            Outcome(row, failure, started - ticket.queued_at, seconds, len(batch))
            for (ticket, _), row, failure in zip(batch.members, logits, failures, strict=True)
        ]

    def _gather(self, batch: Batch) -> np.ndarray:
        """The batch's pixels, uint8 [N, size, size, 3]: in place where they lie side by side, else copied together.

        A request's images are decoded into one array, so a request alone in its batch is never copied. Mixed batches
        cost one copy of 150 kB per image, a few thousandths of its run time.
        """
        first, start = batch.members[0]
        if all(ticket is first and index == start + row for row, (ticket, index) in enumerate(batch.members)):
            return _pixels(first)[start : start + len(batch)]
        if self._rows is None:  # the first request shows how large the model's images are
            self._rows = np.empty((self._max_batch, *_pixels(first).shape[1:]), np.uint8)
        rows = self._rows[: len(batch)]
        for row, (ticket, index) in zip(rows, batch.members, strict=True):
            np.copyto(row, _pixels(ticket)[index])
        return rows


def _pixels(ticket: Ticket) -> np.ndarray:
    assert ticket.pixels is not None, "only queued tickets are taken into batches"
    return ticket.pixels


def _failure(error: Exception) -> InferenceError:
    failure = InferenceError("The engine failed on this image.")
    failure.__cause__ = error
    return failure
