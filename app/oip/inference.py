"""The way of an infer request through the service; the same for HTTP and gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from tessera.app.errors import DeadlineExceededError, InferenceError
from tessera.app.observability.recording import Record
from tessera.app.observability.tracing import trace_images, trace_runs
from tessera.app.oip.models import ModelViews
from tessera.app.oip.repository import Repository
from tessera.app.oip.routing import choose
from tessera.app.oip.tensors import build_outputs, images_of
from tessera.app.oip.wire.interface import Interface
from tessera.app.oip.wire.request import InferRequest, RequestedOutput
from tessera.app.oip.wire.response import OutputTensor
from tessera.app.protocol.urgency import PRIORITY_HEADER, TIMEOUT_HEADER, parse_priority, parse_timeout
from tessera.app.scheduling.ticket import Priority
from tessera.app.service import Service

# The protocol's priorities count downwards from 1; 0 is whatever the header says.
_LEVELS = {1: Priority.HIGH, 2: Priority.NORMAL}


class Inference:
    """One infer request, from the model that it addresses to its outputs.

    Made before the body is read: what cannot be answered is refused first.

    Args:
        service: The service.
        record: Where the request is counted; gets the variant.
        model: The model's name, as addressed.
        version: Its version, "" for none.
        header: Gives every value of a request header (gRPC: of a metadata key).

    Attributes:
        interface: The model's input and output.
        variant: Who answers.
        version: The version that answers.
        longest: The deadline by settings and headers, on `time.perf_counter`.

    Raises:
        NotReadyError: There is no model yet, or the variant is not loaded.
        UnknownModelError: There is no such model or version.
        UnknownVariantError: The header names no variant, or contradicts the model's name.
        InvalidParameterError: A header's value is not valid.
        QueueFullError: There is no room.
        DeadlineUnreachableError: The answer could not be ready by the deadline.
    """

    def __init__(
        self, service: Service, record: Record, model: str, version: str, header: Callable[[str], Sequence[str]]
    ) -> None:
        views = ModelViews(service)
        self._service = service
        self._started = record.started
        self.interface: Interface = views.interface
        decision = choose(service, views.catalogue.address(model, version), header)
        self.variant = decision.variant
        self.version = views.catalogue.version_of(self.variant)
        record.decision = decision
        timeout_ms = parse_timeout(header(TIMEOUT_HEADER), service.settings.request_timeout_ms)
        self.longest = record.started + timeout_ms / 1000
        self._priority = parse_priority(header(PRIORITY_HEADER))
        Repository(service).check_available(self.variant, model)
        service.check_room(self.variant, deadline=self.longest, priority=self._priority)

    def deadline(self, request: InferRequest) -> float:
        """When the answer is worth nothing any more; the `timeout` parameter can only shorten the time."""
        if request.timeout_seconds is None:
            return self.longest
        return min(self.longest, self._started + request.timeout_seconds)

    def late(self, request: InferRequest | None = None) -> DeadlineExceededError:
        """The error of a request whose deadline has passed; None while it is not known what it says of that."""
        deadline = self.longest if request is None else self.deadline(request)
        return self._service.late(self.variant, deadline - self._started)

    async def run(self, request: InferRequest) -> list[tuple[OutputTensor, bool]]:
        """Check the tensors, run them and make the outputs.

        Returns:
            Each output and whether it travels as binary data.

        Raises:
            InvalidInferenceRequestError: The tensor has values out of range.
            RequestError: As `Service.classify` and `Service.infer` raise it.
        """
        wanted = request.outputs or (RequestedOutput(self.interface.output_name, request.binary_outputs),)
        images = images_of(request.input)
        deadline = self.deadline(request)
        priority = _LEVELS.get(request.priority, Priority.BACKGROUND) if request.priority else self._priority
        if isinstance(images, list):
            classified = await self._service.classify(images, self.variant, deadline=deadline, priority=priority)
            trace_images(classified, time.perf_counter())
            logits = [image.logits for image in classified]
        else:
            logits = await self._run_tensor(images, deadline, priority)
        return build_outputs(wanted, np.stack(logits), self.interface.labels)

    async def _run_tensor(self, tensor: np.ndarray, deadline: float, priority: Priority) -> list[np.ndarray]:
        outcomes = await self._service.infer(tensor, self.variant, deadline=deadline, priority=priority)
        trace_runs(outcomes, time.perf_counter())
        logits = []
        for index, outcome in enumerate(outcomes):
            if outcome.logits is None:
                failure = outcome.failure or InferenceError("The engine failed on this image.")
                raise failure.about(f"Image {index + 1} of {len(outcomes)}") from failure
            logits.append(outcome.logits)
        return logits
