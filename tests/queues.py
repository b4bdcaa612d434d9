"""Queues of images with a clock of their own, for tests of what the scheduler decides."""

from __future__ import annotations

import numpy as np

from tessera.app.scheduling.queue import ImageQueue
from tessera.app.scheduling.ticket import Batch, Outcome, Ticket

VARIANTS = ("baseline", "optimised")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rows(images: int) -> np.ndarray:
    return np.zeros((images, 1), np.uint8)


def outcomes(batch: Batch, failing: frozenset[int] = frozenset()) -> list[Outcome]:
    return [
        Outcome(
            np.array([id(ticket), index]) if place not in failing else None,
            RuntimeError("no") if place in failing else None,
            0.0,
            0.1,
            len(batch),
        )
        for place, (ticket, index) in enumerate(batch.members)
    ]


def make_queue(
    seconds: dict[str, tuple[float, float]] | None = None,
    *,
    capacity: int = 200,
    max_batch: int = 16,
    parallel: int = 1,
    abreast: int = 1,
) -> tuple[ImageQueue, Clock]:
    """A queue whose variants take `fixed + each * images` seconds per batch."""
    clock = Clock()
    queue = ImageQueue(
        VARIANTS,
        capacity=capacity,
        max_batch=max_batch,
        clock=clock,
        parallel=lambda: parallel,
        abreast=lambda variant: abreast,
    )
    for variant, (fixed, each) in (seconds or {}).items():
        for size in (1, 2, 4, 8, 16):
            queue.table.seed(variant, size, fixed + each * size)
    return queue, clock


FLAT = {"baseline": (0.0, 0.04), "optimised": (0.0, 0.01)}  # batching gains nothing
STEEP = {"baseline": (0.16, 0.04), "optimised": (0.04, 0.01)}  # a batch of 16 costs as much as four of one


def put(queue: ImageQueue, variant: str, images: int, **options: object) -> Ticket:
    ticket = queue.admit(variant, images, **options)
    queue.enqueue(ticket, rows(images))
    return ticket


def run(queue: ImageQueue, clock: Clock) -> Batch | None:
    """Take a batch, let the time of the table pass, finish it."""
    batch = queue.take()
    if batch is not None:
        clock.now += queue.table.seconds(batch.variant, len(batch))
        queue.finish(batch, outcomes(batch))
    return batch


def members(batch: Batch | None) -> set[Ticket]:
    assert batch is not None
    return {ticket for ticket, _ in batch.members}
