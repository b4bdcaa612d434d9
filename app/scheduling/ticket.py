"""One request's place in the queue, and what its images became."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

import numpy as np


class State(Enum):
    """Life of a ticket: ADMITTED while its images are decoded, QUEUED until all have an outcome, then DONE."""

    ADMITTED = "admitted"
    QUEUED = "queued"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        logits: float32 [classes], or None when the engine failed on this image.
        failure: Why it failed, or None.
        queue_seconds: From joining the queue to the start of its batch.
        compute_seconds: Run time of its batch.
        batch_size: Images in its batch.
    """

    logits: np.ndarray | None
    failure: Exception | None
    queue_seconds: float
    compute_seconds: float
    batch_size: int


@dataclass(eq=False)
class Ticket:
    """A request's images in the queue. Made by `ImageQueue.admit`; callers only read it.

    Attributes:
        variant: The variant that answers.
        images: How many images the request has.
        pixels: uint8 [images, size, size, 3] once queued.
        queued_at: Clock reading when the images joined the queue.
        waiting: Indices of images not yet taken into a batch.
        outcomes: One per image, None until its batch has run.
        unfinished: How many images have no outcome yet.
    """

    variant: str
    images: int
    state: State = State.ADMITTED
    pixels: np.ndarray | None = None
    queued_at: float = 0.0
    waiting: deque[int] = field(default_factory=deque)
    outcomes: list[Outcome | None] = field(default_factory=list)
    unfinished: int = 0

    def __post_init__(self) -> None:
        self.waiting.extend(range(self.images))
        self.outcomes = [None] * self.images
        self.unfinished = self.images


@dataclass(frozen=True)
class Batch:
    """Images that run together, all of one variant.

    Attributes:
        variant: The variant that runs it.
        members: (ticket, image index) per row of the batch.
    """

    variant: str
    members: tuple[tuple[Ticket, int], ...]

    def __len__(self) -> int:
        return len(self.members)
