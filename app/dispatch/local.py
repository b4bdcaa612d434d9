"""Everything in this process: the sessions, and the scheduler with its engine thread."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import engine
from app.dispatch.dispatcher import ROW_SHAPES, Phase, Reservation, Status
from app.dispatch.experiment import ExperimentAccess, LocalExperiment, open_experiment
from app.dispatch.model import ServedModel
from app.errors import InternalError, NotReadyError, StartupError
from app.loading import LoadedModel, Progress, default_decode_threads, load
from app.observability.metrics import Metrics
from app.scheduling.scheduler import ENGINE_THREAD, Scheduler
from app.scheduling.snapshot import Snapshot
from app.scheduling.ticket import InputType, Outcome, Priority, Ticket
from app.settings import Settings

logger = logging.getLogger(__name__)

LOADING_THREAD = "tessera-load"


@dataclass(eq=False)
class LocalReservation:
    """Rows in this process's memory and their place in the queue."""

    variant: str
    rows: np.ndarray
    ticket: Ticket


class LocalDispatcher:
    """Loads the model and runs images on a `Scheduler` in this process.

    Args:
        settings: The settings.
        metrics: Where batches are counted.
        progress: Told about building and loading, from another thread: (stage, fraction of the stage).
    """

    def __init__(self, settings: Settings, metrics: Metrics, progress: Progress | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._progress = progress
        self._status = Status(Phase.LOADING, "starting")
        self._loaded: LoadedModel | None = None
        self._model: ServedModel | None = None
        self._scheduler: Scheduler | None = None
        self._experiment: LocalExperiment | None = None
        self._loading: asyncio.Task[None] | None = None
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}

    def start(self) -> None:
        """Begin loading in the background."""
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Let the running batch end and free everything."""
        if self._loading is not None:
            # A build cannot be interrupted half-way from here; its thread is left behind and leaves no
            # half-written file.
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.stop)
        if self._loaded is not None:
            self._loaded.close()

    def status(self) -> Status:
        """Where loading is."""
        return self._status

    def model(self) -> ServedModel:
        """The loaded model."""
        if self._model is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._model

    def check_alive(self) -> None:
        """Raise `InternalError` when the model could not be loaded, or the engine thread has died."""
        if self._status.phase is Phase.FAILED:
            raise InternalError("The model could not be loaded; the log says why.")
        if self._status.phase is Phase.READY and not self._running().alive:
            raise InternalError("The engine thread has stopped; the log says why. Restart the service.")

    @property
    def experiment(self) -> ExperimentAccess:
        """The experiment, which is in this process."""
        if self._experiment is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._experiment

    @property
    def decoders(self) -> int:
        """How many images are decoded at once."""
        return self._settings.decode_threads or default_decode_threads()

    def snapshot(self) -> Snapshot:
        """Depths, predictions, the measured table and the age of the oldest work."""
        return self._running().snapshot()

    def check_room(
        self, variant: str, images: int = 1, *, deadline: float | None = None, priority: Priority = Priority.NORMAL
    ) -> None:
        """Raise what `reserve` would raise now."""
        self._running().check_room(variant, deadline=deadline, priority=priority)

    def reserve(
        self,
        variant: str,
        images: int,
        *,
        dtype: InputType = "uint8",
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> LocalReservation:
        """Make room for `images`."""
        ticket = self._running().admit(variant, images, deadline=deadline, priority=priority, dtype=dtype)
        return LocalReservation(variant, np.empty((images, *ROW_SHAPES[dtype]), dtype), ticket)

    async def run(self, reservation: Reservation, core_seconds: float = 0.0) -> list[Outcome]:
        """Run the images; one outcome per image, in order."""
        assert isinstance(reservation, LocalReservation), "a reservation goes back to who made it"
        ticket, scheduler = reservation.ticket, self._running()
        if core_seconds > 0:
            for _ in range(ticket.images):
                scheduler.decoded(core_seconds / ticket.images)
        done = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            scheduler.submit(ticket, reservation.rows)
            await done
        finally:
            self._waiting.pop(ticket, None)
        if ticket.failure is not None:
            raise ticket.failure
        return [_present(outcome) for outcome in ticket.outcomes]

    def release(self, reservation: Reservation) -> None:
        """Drop what has not run yet."""
        assert isinstance(reservation, LocalReservation), "a reservation goes back to who made it"
        self._running().cancel(reservation.ticket)

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Encode the metrics of this process, which are all."""
        return self._metrics.render(accept)

    async def _load(self) -> None:
        try:
            loaded = await _in_daemon_thread(lambda: load(self._settings, self._report))
        except Exception as error:
            self._status = Status(Phase.FAILED, failure=error)
            logger.error("the model could not be loaded: %s", error, exc_info=not isinstance(error, StartupError))
            return
        self._loaded = loaded
        self._model = loaded.served()
        self._experiment = LocalExperiment(open_experiment(self._settings, loaded.variants, self._metrics))
        self._scheduler = self._schedule(loaded, self._model)
        self._status = Status(Phase.READY)

    def _schedule(self, loaded: LoadedModel, model: ServedModel) -> Scheduler:
        loop = asyncio.get_running_loop()
        scheduler = Scheduler(
            {name: variant.session for name, variant in loaded.variants.items()},
            max_batch=self._settings.max_batch,
            capacity=self._settings.max_queue_images,
            deliver=lambda tickets: _call_soon(loop, self._resolve, tickets),
            observer=self._metrics,
            decoders=min(self.decoders, engine.cpu_budget()),
        )
        self._metrics.describe_model(model)
        self._metrics.watch_queue(lambda: scheduler.depth)
        for name, variant in loaded.variants.items():
            for images, seconds in variant.batch_seconds.items():
                scheduler.measured(name, images, seconds)
        scheduler.start()
        return scheduler

    def _report(self, stage: str, fraction: float) -> None:
        self._status = Status(Phase.LOADING, stage, fraction)
        if self._progress is not None:
            self._progress(stage, fraction)

    def _running(self) -> Scheduler:
        if self._scheduler is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._scheduler

    def _resolve(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            done = self._waiting.get(ticket)
            if done is not None and not done.done():
                done.set_result(None)


def leave_working_threads(code: int) -> None:
    """End the process now when threads of the service are still inside native code; else do nothing.

    They cannot be interrupted, and an interpreter that shuts down under them aborts the process. It happens when the
    end comes while the model is being loaded, and at a second signal.
    """
    if any(thread.name in (ENGINE_THREAD, LOADING_THREAD) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _present(outcome: Outcome | None) -> Outcome:
    assert outcome is not None, "a delivered ticket has every outcome"
    return outcome


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        logger.debug("the event loop closed before a thread was done; nobody waits for it")


async def _in_daemon_thread(work: Callable[[], LoadedModel]) -> LoadedModel:
    """Run `work` in a thread that does not hold up the end of the process, as asyncio's own worker threads would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[LoadedModel] = loop.create_future()

    def settle(result: LoadedModel | None, error: Exception | None) -> None:
        if done.done():
            return
        if result is not None:
            done.set_result(result)
        else:
            done.set_exception(error or RuntimeError("nothing was loaded"))

    def run() -> None:
        try:
            outcome: tuple[LoadedModel | None, Exception | None] = (work(), None)
        except Exception as error:
            outcome = (None, error)
        _call_soon(loop, settle, *outcome)

    threading.Thread(target=run, name=LOADING_THREAD, daemon=True).start()
    return await done
