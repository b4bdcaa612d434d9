"""The seam between requests and the engine: reserve rows, write pixels into them, run them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from tessera.app.dispatch.experiment import ExperimentAccess
from tessera.app.imaging.memory import DecodeMemory
from tessera.app.scheduling.snapshot import Snapshot
from tessera.app.scheduling.ticket import InputType, Outcome, Priority
from tessera.app.served.model import ServedModel


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
        variant: The lane that will run them.
        rows: Where the images go, writable and contiguous: uint8 [n, height, width, 3], or float32
            [n, 3, height, width], of the model's size. The engine reads them where they lie.
        done: One outcome per image, in order, or the error that the request ends with. The engine may refuse it after
            all while its images are still being decoded.
    """

    variant: str
    rows: np.ndarray
    done: asyncio.Future[list[Outcome]]


class Dispatcher(Protocol):
    """Runs images somewhere. All methods but `submit` are called on the event loop of the process; none blocks it.

    A request goes through `check_room` (before its body is read), `reserve` (before its images are decoded), `submit`
    and `release`. Every reservation must be released, whatever happened. Times are seconds on `time.perf_counter`,
    which is the same clock in every process of a machine.

    Attributes:
        decode_memory: What images that are decoded in this process take their memory from.
    """

    decode_memory: DecodeMemory

    def start(self) -> None:
        """Begin loading; `status` tells how it goes."""

    async def stop(self) -> None:
        """Let running batches end and free everything. Requests in flight should have been waited for before."""

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
    def decoders(self) -> int:
        """How many images this process should decode at once."""

    def snapshot(self) -> Snapshot:
        """Depths, predictions, the measured table and the age of the oldest work."""

    def check_room(
        self, variant: str, images: int = 1, *, deadline: float | None = None, priority: Priority = Priority.NORMAL
    ) -> None:
        """Raise what `reserve` would raise now; costs no round trip.

        Raises:
            QueueFullError: There is no room.
            DeadlineUnreachableError: The answer could not be ready by the deadline.
        """

    def reserve(
        self,
        variant: str,
        images: int,
        *,
        dtype: InputType = "uint8",
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        explain: int = 0,
    ) -> Reservation:
        """Make room for `images` (at least 1), before they are decoded.

        Args:
            variant: One of the model's lanes: a variant at a size.
            images: How many.
            dtype: What they are written as.
            deadline: When the answer is worth nothing any more; None for never.
            priority: How urgent the request is.
            explain: Of how many of its highest scores it is asked where they come from; after `prepare_explaining`.

        Raises:
            QueueFullError: There is no room.
            DeadlineUnreachableError: The answer could not be ready by the deadline.
        """

    def submit(self, reservation: Reservation, core_seconds: float = 0.0) -> None:
        """Run the images that have been written into `rows`; `done` tells what came of them. Callable on any thread.

        `done` may end with:
            QueueFullError, DeadlineUnreachableError: As `reserve`, when the engine decides so only later.
            DeadlineExceededError: The images were dropped because their deadline had come.
            EngineLostError: The engine process died while it ran these images, and again when it ran them alone.

        Args:
            reservation: As `reserve` returned it.
            core_seconds: What decoding its images took of a core, in all; predictions learn from it.
        """

    def release(self, reservation: Reservation) -> None:
        """Give the room back and drop what has not run yet; `rows` must not be touched any more."""

    async def load(self, variant: str) -> None:
        """Load a variant from its files again, beside the one that answers; then let it answer in its place.

        Args:
            variant: One of the model's, loaded or not.

        Raises:
            LoadFailedError: It cannot be loaded; whatever answered before goes on.
        """

    async def unload(self, variant: str) -> None:
        """Refuse further requests for a variant, wait for those admitted, and free it; harmless when it is unloaded."""

    async def prepare_explaining(self, variant: str) -> None:
        """Have made what a variant needs to say where its scores come from; quick when that is there.

        Raises:
            LoadFailedError: Its files are not what they were when it was loaded.
        """

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Encode the metrics of all processes for a scraper that accepts `accept`: body and Content-Type."""
