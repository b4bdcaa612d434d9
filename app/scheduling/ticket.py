"""One request's place in the queue, and what its images became."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.app.errors import RequestError

InputType = Literal["uint8", "float32"]  # uint8 [N, H, W, 3] pixels, or float32 [N, 3, H, W] normalised tensors
Rows = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]  # one array with a row per image, or a list of row views


class Priority(Enum):
    """How urgent a request is, in the words of the `X-Priority` header.

    HIGH goes before every NORMAL request that has waited for less than `admission.PATIENCE` seconds. BACKGROUND (shadow
    traffic, re-runs) runs when nothing else waits; "low" would promise it a share, and it has none to speak of.
    """

    HIGH = "high"
    NORMAL = "normal"
    BACKGROUND = "background"


class State(Enum):
    """Life of a ticket: ADMITTED while its images are decoded, QUEUED until all have an outcome, then DONE.

    EXPIRED when its deadline passed, or came so near that it could not be met, before all its images had run.
    """

    ADMITTED = "admitted"
    QUEUED = "queued"
    DONE = "done"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class HeatMaps(NamedTuple):
    """Where an image's highest scores come from: the score of a class is its bias plus the mean of its map.

    Attributes:
        classes: int64 [k], the highest score first.
        bias: float32 [k].
        values: float32 [k, height, width], from the top left corner of what the network sees.
    """

    classes: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        logits: float32 [classes], or None when the engine failed on this image.
        failure: What the client is told where it failed, with the reason as its cause; None where it did not.
        queue_seconds: From joining the queue to the start of its batch.
        compute_seconds: Run time of its batch.
        batch_size: Images in its batch.
        heat_maps: Where the scores come from, if that was asked.
    """

    logits: np.ndarray | None
    failure: RequestError | None
    queue_seconds: float
    compute_seconds: float
    batch_size: int
    heat_maps: HeatMaps | None = None


@dataclass(eq=False)
class Ticket:
    """A request's images in the queue. Made by `ImageQueue.admit`; callers only read it.

    Attributes:
        variant: The variant that answers.
        images: How many images the request has.
        priority: How urgent it is.
        dtype: Type and layout of its rows.
        deadline: Clock reading after which the answer is worthless; infinity for none.
        alone: Whether its images run one at a time, with no others: an engine process died while it ran them.
        explain: Of how many of the highest scores it is asked where they come from.
        admitted_at: Clock reading at admission.
        due: Clock reading that orders requests: the request that is due first runs first.
        rows: The images' rows, once queued.
        queued_at: Clock reading when the images joined the queue.
        waiting: Indices of images not yet taken into a batch.
        turn: How many more images it may give before others have their turn.
        outcomes: One per image, None until its batch has run.
        unfinished: How many images have no outcome yet.
        failure: Why the whole request was dropped, when it was: set before it is delivered with state EXPIRED.
    """

    variant: str
    images: int
    priority: Priority = Priority.NORMAL
    dtype: InputType = "uint8"
    deadline: float = math.inf
    alone: bool = False
    explain: int = 0
    admitted_at: float = 0.0
    due: float = math.inf
    state: State = State.ADMITTED
    rows: Rows | None = None
    queued_at: float = 0.0
    waiting: deque[int] = field(default_factory=deque)
    turn: int = 0
    outcomes: list[Outcome | None] = field(default_factory=list)
    unfinished: int = 0
    failure: RequestError | None = None

    def __post_init__(self) -> None:
        self.waiting.extend(range(self.images))
        self.outcomes = [None] * self.images
        self.unfinished = self.images


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that run together, all of one variant and one kind of input.

    Attributes:
        variant: The variant that runs it.
        dtype: Type and layout of its rows.
        members: (ticket, image index) per row of the batch.
    """

    variant: str
    dtype: InputType
    members: tuple[tuple[Ticket, int], ...]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def explain(self) -> list[int]:
        """`Ticket.explain` of every member; empty when nobody asks."""
        asked = [ticket.explain for ticket, _ in self.members]
        return asked if any(asked) else []
