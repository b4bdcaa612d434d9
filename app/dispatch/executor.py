"""What executes batches in this process: the sessions and their scheduler, from loading to the end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from tessera import engine
from tessera.app.dispatch.dispatcher import Phase, Status
from tessera.app.dispatch.eventloop import call_soon
from tessera.app.dispatch.lifecycle import ModelLifecycle
from tessera.app.errors import InternalError, NotReadyError, StartupError
from tessera.app.figures.background import IdleProfile
from tessera.app.heap import freeze_heap
from tessera.app.observability.metrics import Metrics
from tessera.app.scheduling.lanes import variant_of
from tessera.app.scheduling.scheduler import ENGINE_THREAD, Around, Runner, Scheduler
from tessera.app.scheduling.ticket import Ticket
from tessera.app.served.loading import LoadedModel, Progress, default_decode_threads, load
from tessera.app.served.model import ServedModel, ServedVariant
from tessera.app.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOADING_THREAD = "tessera-load"


class ModelExecutor:
    """Loads the model and runs the scheduler; lives on an event loop.

    Args:
        settings: The settings.
        metrics: Where batches are counted.
        deliver: Called on the event loop with requests that are over.
        progress: Told about building and loading, from another thread: (stage, fraction of the stage).
        known: What an earlier process has measured of the same model, which is then not measured again.
        watch: Wraps each session before it is used.
        around: Entered around each run of a batch, see `Scheduler`.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        deliver: Callable[[list[Ticket]], None],
        progress: Progress | None = None,
        known: ServedModel | None = None,
        watch: Callable[[engine.Session, ServedVariant], Runner] = lambda session, _: session,
        around: Around = nullcontext,
    ) -> None:
        self.status = Status(Phase.LOADING, "starting")
        self._settings = settings
        self._metrics = metrics
        self._deliver = deliver
        self._progress = progress
        self._known = known
        self._watch = watch
        self._around = around
        self._lifecycle: ModelLifecycle | None = None
        self._scheduler: Scheduler | None = None
        self._loading: asyncio.Task[None] | None = None
        self._profiling: asyncio.Task[None] | None = None
        self._preparing: dict[str, asyncio.Future[None]] = {}

    def start(self) -> asyncio.Task[None]:
        """Begin loading in the background; when the task is done, `status` says how it went."""
        self._loading = asyncio.create_task(self._load())
        return self._loading

    async def stop(self) -> None:
        """Let running batches end and free everything."""
        if self._loading is not None:
            # A build cannot be interrupted half-way from here; its thread is left behind and leaves no
            # half-written file.
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._profiling is not None:
            self._profiling.cancel()
            await asyncio.gather(self._profiling, return_exceptions=True)
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.stop)
        if self._lifecycle is not None:
            self._lifecycle.close()

    @property
    def model(self) -> ServedModel:
        """The loaded model.

        Raises:
            NotReadyError: There is none yet.
        """
        return self._owner.served

    @property
    def scheduler(self) -> Scheduler:
        """The running scheduler.

        Raises:
            NotReadyError: There is none yet.
        """
        if self._scheduler is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._scheduler

    @property
    def decoders(self) -> int:
        """How many images the service decodes at once."""
        return self._settings.decode_threads or default_decode_threads()

    def check_alive(self) -> None:
        """Raise `InternalError` when the model could not be loaded, or an engine thread has died."""
        if self.status.phase is Phase.FAILED:
            raise InternalError("The model could not be loaded; the log says why.")
        if self.status.phase is Phase.READY and not self.scheduler.alive:
            raise InternalError("An engine thread has stopped; the log says why. Restart the service.")

    async def load(self, variant: str) -> None:
        """Load a variant beside the one that answers, then let it answer in its place.

        Raises:
            LoadFailedError: It cannot be loaded; nothing has changed.
        """
        lifecycle = self._owner
        await _in_daemon_thread(lambda: lifecycle.load(variant))

    async def unload(self, variant: str) -> None:
        """Refuse further requests for a variant, wait for those admitted, and free it."""
        lifecycle = self._owner
        await _in_daemon_thread(lambda: lifecycle.unload(variant))

    async def prepare_explaining(self, variant: str) -> None:
        """Make what a variant needs to say where its scores come from, once for all who ask meanwhile.

        Raises:
            LoadFailedError: Its files are not what they were when it was loaded.
        """
        lifecycle = self._owner
        preparing = self._preparing.get(variant)
        if preparing is None or preparing.done():
            work = _in_daemon_thread(lambda: lifecycle.prepare_explaining(variant))
            preparing = self._preparing[variant] = asyncio.ensure_future(work)
        await asyncio.shield(preparing)  # a request that gives up leaves it to the next

    @property
    def _owner(self) -> ModelLifecycle:
        if self._lifecycle is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._lifecycle

    async def _load(self) -> None:
        try:
            loaded = await _in_daemon_thread(lambda: load(self._settings, self._report, self._known))
        except Exception as error:
            self.status = Status(Phase.FAILED, failure=error)
            logger.error("the model could not be loaded: %s", error, exc_info=not isinstance(error, StartupError))
            return
        self._scheduler = scheduler = self._schedule(loaded)
        self._lifecycle = ModelLifecycle(self._settings, loaded, self._scheduler, self._watch_again)
        self._metrics.watch_devices(self._lifecycle.devices)
        freeze_heap()
        self.status = Status(Phase.READY)
        target = loaded.served.profile
        # Without a page nobody looks at it, and a device has no part to spare for another process.
        if target is not None and self._settings.page and not any(self._lifecycle.devices().values()):
            profile = IdleProfile(self._settings, target, lambda: scheduler.begun)
            self._profiling = asyncio.create_task(profile.take())

    def _schedule(self, loaded: LoadedModel) -> Scheduler:
        model = loaded.served
        loop = asyncio.get_running_loop()
        scheduler = Scheduler(
            {
                lane: self._watch(session, model.variants[variant_of(lane)].at(lane))
                for lane, session in loaded.sessions.items()
            },
            size=model.preprocessing.size,
            max_batch=self._settings.max_batch,
            capacity=self._settings.max_queue_images,
            deliver=lambda tickets: call_soon(loop, self._deliver, tickets),
            observer=self._metrics,
            decoders=min(self.decoders, engine.cpu_budget()),
            around=self._around,
            retired=model.lanes.keys() - loaded.sessions.keys(),
            further={lane: preprocessing.size for lane, preprocessing in model.lanes.items()},
        )
        self._metrics.describe_model(model)
        self._metrics.watch_queue(lambda: scheduler.depth)
        for variant in model.variants.values():
            for lane in (variant.name, *variant.further):
                for images, seconds in variant.at(lane).batch_seconds.items():
                    scheduler.measured(lane, images, seconds)
        scheduler.start()
        return scheduler

    def _watch_again(self, session: engine.Session, variant: ServedVariant) -> Runner:
        """Watch a variant that was loaded later, which something else may run by now."""
        self._metrics.describe_variant(variant)
        return self._watch(session, variant)

    def _report(self, stage: str, fraction: float) -> None:
        self.status = Status(Phase.LOADING, stage, fraction)
        if self._progress is not None:
            self._progress(stage, fraction)


def leave_working_threads(code: int) -> None:
    """End the process now when threads of the engine are still inside native code; else do nothing.

    They cannot be interrupted, and an interpreter that shuts down under them aborts the process. It happens when the
    end comes while the model is being loaded, and at a second signal.
    """
    if any(thread.name in (ENGINE_THREAD, LOADING_THREAD) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that does not hold up the end of the process, as asyncio's own worker threads would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: list[T], error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result[0])
        else:
            done.set_exception(error)

    def run() -> None:
        try:
            outcome: tuple[list[T], Exception | None] = ([work()], None)
        except Exception as error:
            outcome = ([], error)
        call_soon(loop, settle, *outcome)

    threading.Thread(target=run, name=LOADING_THREAD, daemon=True).start()
    return await done
