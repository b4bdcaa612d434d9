"""The seam between requests and the engine: reserve rows, write pixels into them, run them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

import numpy as np

from app.dispatch.experiment import ExperimentAccess
from app.dispatch.model import ServedModel
from app.imaging.decoder import SHAPE
from app.scheduling.ticket import Outcome

RowType = Literal["uint8", "float32"]

# Shape of one row: pixels as the decoder writes them, or the tensor that the network's own input takes.
ROW_SHAPES: dict[RowType, tuple[int, ...]] = {"uint8": SHAPE, "float32": (SHAPE[2], SHAPE[0], SHAPE[1])}

DEFAULT_PRIORITY = 0
BACKGROUND_PRIORITY = -1


class Phase(Enum):
    """Where the engine is in its life."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


@dataclass(frozen=True)
class Status:
    """Whether images can be run, and if not, why.

    Attributes:
        phase: Where the engine is.
        stage: What is being done while it is not ready.
        fraction: How much of that stage is done, 0 to 1.
        failure: Why it could not become ready, or None.
    """

    phase: Phase
    stage: str = ""
    fraction: float = 0.0
    failure: Exception | None = None


class Reservation(Protocol):
    """Room for the images of one request.

    Attributes:
        variant: The variant that will run them.
        rows: Where the images go, writable and contiguous: uint8 [n, 224, 224, 3], or float32 [n, 3, 224, 224]. The
            engine reads them where they lie.
    """

    variant: str
    rows: np.ndarray


class Dispatcher(Protocol):
    """Runs images somewhere. All methods are called on the event loop of the process; none blocks it.

    A request goes through `check_room` (before its body is read), `reserve` (before its images are decoded), `run`, and
    `release`, which every reservation must come to, whatever happened. Times are seconds on `time.perf_counter`, which
    is the same clock in every process of a machine.
    """

    def start(self) -> None:
        """Begin loading; `status` tells how it goes."""

    async def stop(self) -> None:
        """Let the running batch end and free everything. Requests in flight should have been waited for before."""

    def status(self) -> Status:
        """Where the engine is."""

    def model(self) -> ServedModel:
        """The loaded model; only after `status` has said READY once."""

    def check_alive(self) -> None:
        """Raise `InternalError` when only a restart of the whole service helps."""

    @property
    def experiment(self) -> ExperimentAccess:
        """The experiment of the whole service; only after `status` has said READY once."""

    @property
    def depth(self) -> int:
        """Images admitted and not yet in a batch."""

    def check_room(
        self, variant: str, images: int = 1, *, deadline: float | None = None, priority: int = DEFAULT_PRIORITY
    ) -> None:
        """Raise what `reserve` would raise now; costs no round trip.

        Raises:
            QueueFullError: There is no room; carries when to try again.
        """

    def reserve(
        self,
        variant: str,
        images: int,
        *,
        rows: RowType = "uint8",
        deadline: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Reservation:
        """Make room for `images` (at least 1), before they are decoded.

        Args:
            variant: One of the model's.
            images: How many.
            rows: What they are written as.
            deadline: When the answer is worth nothing any more; None for never.
            priority: As the scheduler defines it.

        Raises:
            QueueFullError: There is no room.
        """

    async def run(self, reservation: Reservation) -> list[Outcome]:
        """Run the images that have been written into `rows`; one outcome per image, in order.

        Cancelling the call drops whatever has not run yet.
        """

    def release(self, reservation: Reservation) -> None:
        """Give the room back; `rows` must not be touched any more."""

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Encode the metrics of all processes for a scraper that accepts `accept`: body and Content-Type."""
