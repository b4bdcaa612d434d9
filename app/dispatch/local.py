"""Everything in this process: the sessions, the scheduler with its engine threads, and rows in plain memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tessera.app.dispatch.dispatcher import Phase, Reservation, Status
from tessera.app.dispatch.executor import ModelExecutor
from tessera.app.dispatch.experiment import ExperimentAccess, LocalExperiment, open_experiment
from tessera.app.errors import NotReadyError
from tessera.app.imaging.memory import DecodeMemory, LocalMemory
from tessera.app.observability.metrics import Metrics
from tessera.app.scheduling.rows import row_shapes
from tessera.app.scheduling.scheduler import Scheduler
from tessera.app.scheduling.snapshot import Snapshot
from tessera.app.scheduling.ticket import InputType, Outcome, Priority, Ticket
from tessera.app.served.loading import Progress
from tessera.app.served.model import ServedModel
from tessera.app.settings import Settings


@dataclass(eq=False)
class LocalReservation:
    """Rows in this process's memory and their place in the queue."""

    variant: str
    rows: np.ndarray
    done: asyncio.Future[list[Outcome]]
    ticket: Ticket


class LocalDispatcher:
    """Runs images on a `Scheduler` in this process.

    Args:
        settings: The settings.
        metrics: Where batches are counted.
        progress: Told about building and loading, from another thread: (stage, fraction of the stage).
    """

    def __init__(self, settings: Settings, metrics: Metrics, progress: Progress | None = None) -> None:
        self._metrics = metrics
        self._executor = ModelExecutor(settings, metrics, deliver=self._resolve, progress=progress)
        self._settings = settings
        self._experiment: LocalExperiment | None = None
        self.decode_memory: DecodeMemory = LocalMemory()
        self._waiting: dict[Ticket, asyncio.Future[list[Outcome]]] = {}

    def start(self) -> None:
        """Begin loading in the background."""
        self._executor.start().add_done_callback(lambda _: self._open_experiment())

    async def stop(self) -> None:
        """Let running batches end and free everything."""
        await self._executor.stop()

    def status(self) -> Status:
        """Where loading is."""
        return self._executor.status

    def model(self) -> ServedModel:
        """The loaded model."""
        return self._executor.model

    def check_alive(self) -> None:
        """Raise `InternalError` when the model could not be loaded, or an engine thread has died."""
        self._executor.check_alive()

    @property
    def experiment(self) -> ExperimentAccess:
        """The experiment, which is in this process."""
        if self._experiment is None:  # ready since a moment ago
            self._open_experiment()
        if self._experiment is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._experiment

    @property
    def decoders(self) -> int:
        """How many images are decoded at once."""
        return self._executor.decoders

    def snapshot(self) -> Snapshot:
        """Depths, predictions, the measured table and the age of the oldest work."""
        return self._executor.scheduler.snapshot()

    def check_room(
        self, variant: str, images: int = 1, *, deadline: float | None = None, priority: Priority = Priority.NORMAL
    ) -> None:
        """Raise what `reserve` would raise now."""
        self._executor.scheduler.check_room(variant, deadline=deadline, priority=priority)

    def reserve(
        self,
        variant: str,
        images: int,
        *,
        dtype: InputType = "uint8",
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        explain: int = 0,
    ) -> LocalReservation:
        """Make room for `images`."""
        shape = row_shapes(self._executor.model.lanes[variant].size)[dtype]
        rows = np.empty((images, *shape), dtype)  # before there is a place in the queue to lose
        ticket = self._executor.scheduler.admit(
            variant, images, deadline=deadline, priority=priority, dtype=dtype, explain=explain
        )
        done = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        return LocalReservation(variant, rows, done, ticket)

    def submit(self, reservation: Reservation, core_seconds: float = 0.0) -> None:
        """Run the images, straight from the thread that decoded the last one."""
        assert isinstance(reservation, LocalReservation), "a reservation goes back to who made it"
        ticket, scheduler = reservation.ticket, self._executor.scheduler
        scheduler.submit(ticket, reservation.rows)
        if core_seconds > 0:
            self._metrics.deferral.later(partial(_count_decoding, scheduler, ticket.images, core_seconds))

    def release(self, reservation: Reservation) -> None:
        """Drop what has not run yet."""
        assert isinstance(reservation, LocalReservation), "a reservation goes back to who made it"
        self._waiting.pop(reservation.ticket, None)
        self._executor.scheduler.cancel(reservation.ticket)

    async def load(self, variant: str) -> None:
        """Load a variant beside the one that answers, then let it answer in its place."""
        await self._executor.load(variant)

    async def unload(self, variant: str) -> None:
        """Refuse further requests for a variant, wait for those admitted, and free it."""
        await self._executor.unload(variant)

    async def prepare_explaining(self, variant: str) -> None:
        """Make what a variant needs to say where its scores come from."""
        await self._executor.prepare_explaining(variant)

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Encode the metrics of this process, which are all."""
        return self._metrics.render(accept)

    def _open_experiment(self) -> None:
        if self._experiment is None and self.status().phase is Phase.READY:
            variants = self.model().variants
            self._experiment = LocalExperiment(open_experiment(self._settings, variants, self._metrics))

    def _resolve(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            done = self._waiting.get(ticket)
            if done is None or done.done():
                continue
            if ticket.failure is not None:
                done.set_exception(ticket.failure)
            else:
                done.set_result([_present(outcome) for outcome in ticket.outcomes])
        self._metrics.deferral.later(self._executor.scheduler.learn)


def _present(outcome: Outcome | None) -> Outcome:
    assert outcome is not None, "a delivered ticket has every outcome"
    return outcome


def _count_decoding(scheduler: Scheduler, images: int, core_seconds: float) -> None:
    for _ in range(images):
        scheduler.decoded(core_seconds / images)
