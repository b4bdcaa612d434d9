"""The service behind the HTTP routes: readiness, and the way of a request through decoding to the engine."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from tessera.app.dispatch.dispatcher import Dispatcher, Phase, Reservation
from tessera.app.dispatch.eventloop import call_soon
from tessera.app.dispatch.experiment import ExperimentAccess
from tessera.app.dispatch.shadow import Shadow
from tessera.app.errors import (
    DeadlineExceededError,
    DeadlineUnreachableError,
    InferenceError,
    InternalError,
    NotReadyError,
    QueueFullError,
    RequestError,
    ShuttingDownError,
)
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.imaging.decoder_pool import DecoderPool, Decoding
from tessera.app.limits.admin import AdminGate
from tessera.app.limits.clients import client
from tessera.app.observability.live import LiveFeed
from tessera.app.observability.logs import request_id
from tessera.app.observability.metrics import Metrics
from tessera.app.protocol.classify import Classified
from tessera.app.protocol.multipart import ImageFile
from tessera.app.routing.events import Answered, Loaded
from tessera.app.routing.router import BASELINE, Decision, Router
from tessera.app.routing.split import KEY_HEADER
from tessera.app.routing.variants import HEADER
from tessera.app.scheduling.demand import Demand
from tessera.app.scheduling.ticket import InputType, Outcome, Priority
from tessera.app.served.model import ServedModel
from tessera.app.served.plan import plan_from
from tessera.app.settings import Settings
from tessera.models.preprocessing.image_size import Size


class Service:
    """Everything behind the HTTP routes. One instance per application; all methods run on its event loop.

    A protocol has two ways in: `classify` for image files, `infer` for tensors that a client has prepared itself.

    Args:
        settings: The settings.
        metrics: Where it counts.
        dispatcher: Where images run.
        admin: Who may load and unload variants.

    Attributes:
        live: What it does now, for all who watch.
    """

    def __init__(self, settings: Settings, metrics: Metrics, dispatcher: Dispatcher, admin: AdminGate) -> None:
        self.settings = settings
        self.metrics = metrics
        self.dispatcher = dispatcher
        self.admin = admin
        self.leaving = False
        self.draining = False
        self.live = LiveFeed(self._metrics_text)
        self._decoders: DecoderPool | None = None
        self._further_decoders: dict[Size, ImageDecoder] = {}
        self._demand = Demand()
        metrics.watch_demand(self.demand_ratio)
        self._router = Router(plan_from(self.settings))
        self._shadow = Shadow(dispatcher, share=self.settings.effective_shadow_share)

    def start(self) -> None:
        """Begin loading in the background."""
        self.dispatcher.start()

    async def stop(self) -> None:
        """Stop the engine and free everything. Requests in flight should have been waited for before."""
        self.drain()
        if self._decoders is not None:
            self._decoders.stop()
        await self._shadow.stop()
        await self.dispatcher.stop()

    def leave(self) -> None:
        """Turn readiness off, so that no more traffic is sent here; what comes all the same is answered."""
        self.leaving = True

    def drain(self) -> None:
        """Refuse new requests too; those in flight go on."""
        self.leaving = self.draining = True

    @property
    def ready(self) -> bool:
        """Whether traffic should be sent here."""
        return not self.leaving and self.dispatcher.status().phase is Phase.READY

    @property
    def failure(self) -> Exception | None:
        """Why the service cannot become ready, or None."""
        return self.dispatcher.status().failure

    def check_alive(self) -> None:
        """Raise `InternalError` when the service cannot recover without a restart."""
        self.dispatcher.check_alive()
        if self.dispatcher.status().phase is not Phase.READY:
            return
        now = self.dispatcher.snapshot()
        allowed = self.settings.stuck_seconds
        if now.running_seconds > allowed:
            raise InternalError(f"A batch has been in the engine for {now.running_seconds:.0f} s. Restart the service.")
        if now.oldest_seconds > allowed + self.settings.request_timeout_ms / 1000:
            raise InternalError(
                f"A request has waited for {now.oldest_seconds:.0f} s, far beyond its timeout. Restart the service."
            )

    def check_receiving(self) -> ServedModel:
        """Return the loaded model when traffic should be sent here.

        Raises:
            NotReadyError, ShuttingDownError: As `check_ready`, but from the first sign of the end.
        """
        if self.leaving:
            raise ShuttingDownError("The service is shutting down.", retry_after=1)
        return self.check_ready()

    def check_ready(self) -> ServedModel:
        """Return the loaded model, or say why there is none yet.

        Raises:
            NotReadyError: Still loading, or loading failed, or the engine is being restarted.
            ShuttingDownError: The service is stopping.
        """
        if self.draining:
            raise ShuttingDownError("The service is shutting down.", retry_after=1)
        status = self.dispatcher.status()
        if status.phase is Phase.FAILED:
            raise NotReadyError("The model could not be loaded; the log says why.")
        if status.phase is Phase.RESTARTING:
            raise NotReadyError("The engine is being restarted.", retry_after=1)
        if status.phase is Phase.LOADING:
            raise NotReadyError(f"The model is not ready yet: {status.stage}, {status.fraction:.0%}.", retry_after=2)
        return self.dispatcher.model()

    @property
    def experiment(self) -> ExperimentAccess:
        """The experiment of the whole service; only once it is ready."""
        return self.dispatcher.experiment

    def route(self, header: Callable[[str], Sequence[str]]) -> Decision:
        """Decide which variant answers a request, the same for every protocol; see `Router.route`.

        The caller tells `answered` when the request has been answered with success.

        Args:
            header: Gives every value of a request header, in order.

        Raises:
            UnknownVariantError: The header names no variant of the model.
            InvalidParameterError: The request has several different keys.
            NotReadyError: See `check_ready`.
        """
        variants = self.check_ready().variants.keys()
        identity = request_id.get() or uuid.uuid4().hex
        tripped = self.experiment.tripped and BASELINE not in self.unloaded
        return self._router.route(header(HEADER), header(KEY_HEADER), identity, variants=variants, tripped=tripped)

    def answered(self, decision: Decision, seconds: float) -> None:
        """Count a request that was answered with success, `seconds` after its headers."""
        self.metrics.deferral.later(partial(self.experiment.record, Answered(decision, seconds)))

    def check_room(
        self,
        variant: str,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        size: Size | None = None,
    ) -> None:
        """Raise the error that a request of one image would get now, before its body is read."""
        lane = self.dispatcher.model().lane(variant, size)
        try:
            self.dispatcher.check_room(lane, deadline=deadline, priority=priority)
        except (QueueFullError, DeadlineUnreachableError):
            self._demand.count_unread(lane)
            raise

    def late(self, variant: str, allowed: float, size: Size | None = None) -> DeadlineExceededError:
        """The error of a request that had `allowed` seconds, which have passed; `Retry-After` is as in refusals."""
        now = self.dispatcher.snapshot().variants.get(self.dispatcher.model().lane(variant, size))
        return DeadlineExceededError(
            f"The answer was not ready within {allowed * 1000:.0f} ms.",
            retry_after=1 if now is None else now.retry_after(allowed),
        )

    async def classify(
        self,
        uploads: Sequence[ImageFile],
        variant: str,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        explain: int = 0,
        size: Size | None = None,
    ) -> list[Classified]:
        """Run the image files of one request. Cancelling the call drops whatever has not run yet.

        Args:
            uploads: The files, at least one.
            variant: One of the model's.
            deadline: When the answer is worth nothing any more, on `time.perf_counter`.
            priority: How urgent the request is.
            explain: Of how many of the highest scores to say where they come from; only of a variant that explains.
            size: One of the model's sizes, which the images are brought to; None: the usual one.

        Raises:
            LoadFailedError: The variant's files changed, so that it cannot explain any more.
            QueueFullError: No room for so many images.
            DeadlineUnreachableError: The answer could not be ready by the deadline, or the image not be decoded.
            DeadlineExceededError: It was not ready by the deadline.
            EngineLostError: The engine process died, and died again when the images were run once more.
            RequestError: An image cannot be decoded; the message names it when there are several.
            InferenceError, DeviceFailedError: The engine failed on one of the images.
        """
        if explain:
            await self.dispatcher.prepare_explaining(variant)
        lane = self.dispatcher.model().lane(variant, size)
        self._demand.count(lane, len(uploads))
        reservation = self.dispatcher.reserve(lane, len(uploads), deadline=deadline, priority=priority, explain=explain)
        decoding = self._decoder_pool().start(
            [upload.data for upload in uploads],
            reservation.rows,
            over=partial(self._run_decoded, reservation, uploads),
            client=client.get(),
            deadline=math.inf if deadline is None else deadline,
            decoder=self._decoder(size),
        )
        try:
            outcomes = await reservation.done
            self._shadow.offer(reservation, outcomes, self._available)
        finally:
            self._abandon(decoding, reservation)
        self.metrics.deferral.later(partial(self._demand.count_decoded, len(uploads), decoding.spent))
        self.metrics.request_ran(variant, outcomes, max(decoding.seconds))
        return [
            _classified(uploads, index, outcome, seconds)
            for index, (outcome, seconds) in enumerate(zip(outcomes, decoding.seconds, strict=True))
        ]

    async def infer(
        self,
        tensor: np.ndarray,
        variant: str,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> list[Outcome]:
        """Run the rows of one tensor. Cancelling the call drops whatever has not run yet.

        Args:
            tensor: uint8 [n, height, width, 3] pixels, or float32 [n, 3, height, width] normalised; n at least 1, of
                one of the model's sizes.
            variant: One of the model's.
            deadline: When the answer is worth nothing any more, on `time.perf_counter`.
            priority: How urgent the request is.

        Returns:
            One outcome per row, in order; `logits` is None where the engine failed on that row.

        Raises:
            RequestError: As `classify`, where it concerns rows.
            ValueError: The tensor has another type or shape; protocols check that before.
        """
        dtype: InputType = "float32" if tensor.dtype == np.float32 else "uint8"
        model = self.dispatcher.model()
        size = model.size_of(tensor)
        lane = model.lane(variant, size if size in model.sizes else None)
        self._demand.count(lane, len(tensor), files=False)
        reservation = self.dispatcher.reserve(lane, len(tensor), dtype=dtype, deadline=deadline, priority=priority)
        try:
            if tensor.dtype != reservation.rows.dtype or tensor.shape != reservation.rows.shape:
                raise ValueError(f"rows are {reservation.rows.dtype} {reservation.rows.shape}, not {tensor.shape}")
            started = time.perf_counter()
            np.copyto(reservation.rows, tensor)
            copied = time.perf_counter()
            self.dispatcher.submit(reservation)
            outcomes = await reservation.done
            self._shadow.offer(reservation, outcomes, self._available)
        finally:
            self.dispatcher.release(reservation)
        self.metrics.request_ran(variant, outcomes, copied - started)
        return outcomes

    @property
    def unloaded(self) -> set[str]:
        """The variants that do not answer until they are loaded again."""
        return {name for name, variant in self.dispatcher.model().variants.items() if not variant.loaded}

    async def load_variant(self, variant: str) -> None:
        """Load a variant from its files, in place of what answered before.

        Raises:
            LoadFailedError: It cannot be loaded; nothing has changed.
        """
        await self.dispatcher.load(variant)
        self.experiment.record(Loaded(variant))

    async def unload_variant(self, variant: str) -> None:
        """Refuse further requests for a variant and free it when those in flight are over."""
        await self.dispatcher.unload(variant)

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Encode the metrics of all processes for a scraper that accepts `accept`: body and Content-Type."""
        return await self.dispatcher.render_metrics(accept)

    def demand_ratio(self) -> float:
        """What the last minute's requests ask of the machine over what it has; see `Demand.ratio`."""
        if self.dispatcher.status().phase is not Phase.READY:
            return 0.0
        on_cpu = [v.threads for v in self.dispatcher.model().variants.values() if v.backend != "ascend"]
        return self._demand.ratio(self.dispatcher.snapshot(), max(on_cpu, default=None))

    async def _metrics_text(self) -> str:
        return (await self.render_metrics(""))[0].decode()

    def _available(self) -> Collection[str]:
        """The variants that answer requests."""
        return self.dispatcher.model().variants.keys() - self.unloaded

    def _run_decoded(self, reservation: Reservation, uploads: Sequence[ImageFile], decoding: Decoding) -> None:
        """Run a request whose images are decoded, or end it; called on the thread that decoded the last one."""
        try:
            if decoding.failures:
                first = min(decoding.failures)
                error = decoding.failures[first]
                raise _naming(error, uploads, first) if isinstance(error, RequestError) else error
            self.dispatcher.submit(reservation, decoding.core_seconds)
        except Exception as error:
            call_soon(reservation.done.get_loop(), _fail, reservation.done, error)
            return
        for seconds in decoding.seconds:
            self.metrics.stage("decode", seconds)

    def _abandon(self, decoding: Decoding, reservation: Reservation) -> None:
        """Give a reservation back as soon as no decoder writes into its rows, which will belong to another request."""
        release = partial(self.dispatcher.release, reservation)
        if decoding.abandon(partial(call_soon, reservation.done.get_loop(), release)):
            release()

    def _decoder_pool(self) -> DecoderPool:
        if self._decoders is None:  # a model never changes how its photos are prepared, see `reload_variant`
            model, settings = self.dispatcher.model(), self.settings
            usual, *further = [
                ImageDecoder(each, max_pixels=settings.max_pixels, decode_scale=settings.decode_scale)
                for each in (model.preprocessing, *model.others)
            ]
            self._further_decoders = dict(zip(model.sizes[1:], further, strict=True))
            self._decoders = DecoderPool(usual, self.dispatcher.decoders, self.dispatcher.decode_memory)
        return self._decoders

    def _decoder(self, size: Size | None) -> ImageDecoder | None:
        """What decodes images of a further size; None for the usual one."""
        return None if size is None else self._further_decoders.get(size)


def _fail(done: asyncio.Future[list[Outcome]], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _classified(uploads: Sequence[ImageFile], index: int, outcome: Outcome, decode_seconds: float) -> Classified:
    if outcome.logits is None:
        failure = outcome.failure or InferenceError("The engine failed on this image.")
        raise _naming(failure, uploads, index) from failure
    return Classified(
        uploads[index].filename,
        outcome.logits,
        decode_seconds,
        outcome.queue_seconds,
        outcome.compute_seconds,
        outcome.batch_size,
        outcome.heat_maps,
    )


def _naming(error: RequestError, uploads: Sequence[ImageFile], index: int) -> RequestError:
    """The same error, saying which of the request's images it is about."""
    if name := uploads[index].filename:
        return error.about(f"File {name[:80]!r}")
    return error.about(f"Image {index + 1} of {len(uploads)}") if len(uploads) > 1 else error
