"""The running service: its life from loading to stop, and the way of a request through decode, queue and engine."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import numpy as np

import engine
from app.errors import InferenceError, InternalError, NotReadyError, RequestError, ShuttingDownError, StartupError
from app.imaging.decoder import SHAPE, ImageDecoder
from app.loading import LoadedModel, Progress, load
from app.observability.metrics import Metrics
from app.protocol.classify import Classified
from app.protocol.multipart import Upload
from app.scheduling.scheduler import Scheduler
from app.scheduling.ticket import Outcome, Ticket
from app.settings import Settings

logger = logging.getLogger(__name__)

LOADING_THREAD = "tessera-load"


class Phase(Enum):
    """Where the service is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


class Service:
    """Everything behind the HTTP routes. One instance per application; all methods run on its event loop.

    Args:
        settings: The settings.
        metrics: Where it counts.
        progress: Told about building and loading, from another thread: (stage, fraction of the stage).
    """

    def __init__(self, settings: Settings, metrics: Metrics, progress: Progress | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.phase = Phase.LOADING
        self.failure: Exception | None = None
        self._progress = progress
        self._stage = ("starting", 0.0)
        self._decoder = ImageDecoder(max_pixels=settings.max_pixels)
        workers = settings.decode_threads or max(2, engine.cpu_budget() // 2)
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="tessera-decode")
        self._loaded: LoadedModel | None = None
        self._scheduler: Scheduler | None = None
        self._loading: asyncio.Task[None] | None = None
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}

    def start(self) -> None:
        """Begin loading in the background; the phase becomes READY or FAILED."""
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Stop the engine and free everything. Requests in flight should have been waited for before."""
        self.drain()
        if self._loading is not None:
            # A build cannot be interrupted half-way from here; its thread is left behind and leaves no
            # half-written file.
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.stop)
        if self._loaded is not None:
            self._loaded.close()

    def drain(self) -> None:
        """Turn readiness off and refuse new requests; those in flight go on."""
        self.phase = Phase.DRAINING

    def check_alive(self) -> None:
        """Raise `InternalError` when the service cannot recover without a restart."""
        if self.phase is Phase.FAILED:
            raise InternalError("The model could not be loaded; the log says why.")
        if self.phase is Phase.READY and not self._running()[1].alive:
            raise InternalError("The engine thread has stopped; the log says why. Restart the service.")

    def check_ready(self) -> LoadedModel:
        """Return the loaded model, or say why there is none yet.

        Raises:
            NotReadyError: Still loading, or loading failed.
            ShuttingDownError: The service is stopping.
        """
        if self.phase is Phase.DRAINING:
            raise ShuttingDownError("The service is shutting down.", retry_after=1)
        if self.phase is Phase.FAILED:
            raise NotReadyError("The model could not be loaded; the log says why.")
        if self.phase is Phase.LOADING:
            stage, fraction = self._stage
            raise NotReadyError(f"The model is not ready yet: {stage}, {fraction:.0%}.", retry_after=2)
        return self._running()[0]

    def check_room(self) -> None:
        """Raise `QueueFullError` when no request would be admitted now."""
        self._running()[1].check_room()

    async def classify(self, uploads: Sequence[Upload], variant: str) -> list[Classified]:
        """Classify the images of one request. Cancelling the call drops whatever has not run yet.

        Raises:
            QueueFullError: No room for so many images.
            RequestError: An image cannot be decoded; the message names it when there are several.
            InferenceError: The engine failed on one of the images.
        """
        _, scheduler = self._running()
        ticket = scheduler.admit(variant, len(uploads))
        try:
            pixels, decode_seconds = await self._decode(uploads)
            done = self._waiting[ticket] = asyncio.get_running_loop().create_future()
            scheduler.submit(ticket, pixels)
            await done
        finally:
            self._waiting.pop(ticket, None)
            scheduler.cancel(ticket)
        return [
            self._classified(uploads, index, outcome, seconds)
            for index, (outcome, seconds) in enumerate(zip(ticket.outcomes, decode_seconds, strict=True))
        ]

    async def _load(self) -> None:
        try:
            loaded = await _in_daemon_thread(lambda: load(self.settings, self._report))
        except Exception as error:
            self.failure = error
            self.phase = Phase.FAILED
            logger.error("the model could not be loaded: %s", error, exc_info=not isinstance(error, StartupError))
            return
        self._loaded = loaded
        self._scheduler = self._schedule(loaded)
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def _schedule(self, loaded: LoadedModel) -> Scheduler:
        loop = asyncio.get_running_loop()
        scheduler = Scheduler(
            {name: variant.session for name, variant in loaded.variants.items()},
            max_batch=self.settings.max_batch,
            capacity=self.settings.max_queue_images,
            deliver=lambda tickets: _call_soon(loop, self._resolve, tickets),
            observer=self.metrics,
        )
        isa = next((variant.info.isa for variant in loaded.variants.values() if variant.info.backend == "cpu"), "")
        self.metrics.describe_build(version=service_version(), model=loaded.model.name, isa=isa)
        self.metrics.watch_queue(lambda: scheduler.depth)
        self.metrics.watch_devices(lambda: {name: one.session.devices() for name, one in loaded.variants.items()})
        for name, variant in loaded.variants.items():
            self.metrics.add_variant(name, macs=variant.info.macs, peak=variant.peak)
            scheduler.measured(name, self.settings.max_batch, variant.full_batch_seconds)
        scheduler.start()
        return scheduler

    def _report(self, stage: str, fraction: float) -> None:
        self._stage = (stage, fraction)
        if self._progress is not None:
            self._progress(stage, fraction)

    def _running(self) -> tuple[LoadedModel, Scheduler]:
        if self._loaded is None or self._scheduler is None:
            raise NotReadyError("The model is not ready yet.", retry_after=2)
        return self._loaded, self._scheduler

    async def _decode(self, uploads: Sequence[Upload]) -> tuple[np.ndarray, list[float]]:
        """Decode all images in parallel into uint8 [N, 224, 224, 3]; all or none."""
        loop = asyncio.get_running_loop()
        pixels = np.empty((len(uploads), *SHAPE), np.uint8)
        futures = [
            loop.run_in_executor(self._decoders, self._decode_one, upload.data, row)
            for upload, row in zip(uploads, pixels, strict=True)
        ]
        seconds = []
        try:
            for index, future in enumerate(futures):
                try:
                    seconds.append(await future)
                except RequestError as error:
                    raise _naming(error, uploads, index) from error
        finally:
            for future in futures:
                future.cancel()
                future.add_done_callback(_retrieve)
        return pixels, seconds

    def _decode_one(self, data: bytes, row: np.ndarray) -> float:
        started = time.perf_counter()
        self._decoder.decode(data, row)
        seconds = time.perf_counter() - started
        self.metrics.stage("decode", seconds)
        return seconds

    def _resolve(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            done = self._waiting.get(ticket)
            if done is not None and not done.done():
                done.set_result(None)

    def _classified(
        self, uploads: Sequence[Upload], index: int, outcome: Outcome | None, decode_seconds: float
    ) -> Classified:
        assert outcome is not None, "a delivered ticket has every outcome"
        if outcome.logits is None:
            raise _naming(InferenceError("The engine failed on this image."), uploads, index) from outcome.failure
        self.metrics.stage("queue", outcome.queue_seconds)
        return Classified(
            uploads[index].filename,
            outcome.logits,
            decode_seconds,
            outcome.queue_seconds,
            outcome.compute_seconds,
            outcome.batch_size,
        )


def _naming(error: RequestError, uploads: Sequence[Upload], index: int) -> RequestError:
    """The same error, saying which of the request's images it is about."""
    if name := uploads[index].filename:
        return error.about(f"File {name[:80]!r}")
    return error.about(f"Image {index + 1} of {len(uploads)}") if len(uploads) > 1 else error


def _retrieve(future: asyncio.Future[float]) -> None:
    # Looking at the error of a file after the first bad one keeps asyncio from logging it as forgotten.
    if not future.cancelled():
        future.exception()


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


def service_version() -> str:
    """The installed version of this package."""
    try:
        return importlib.metadata.version("tessera-inference")
    except importlib.metadata.PackageNotFoundError:
        return "unpackaged"
