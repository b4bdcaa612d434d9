"""The way of an infer request through the service; the same for HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.dispatch.dispatcher import DEFAULT_PRIORITY
from app.errors import InferenceError
from app.observability.recording import Record
from app.oip.models import ModelViews
from app.oip.repository import Repository
from app.oip.routing import choose
from app.oip.tensors import Interface, build_outputs, images_of, outputs_of
from app.protocol.oip.request import InferRequest
from app.protocol.oip.response import OutputTensor
from app.service import Service


class Inference:
    """One infer request, from the model that it addresses to its outputs.

    Made before the body is read: what cannot be answered is refused first.

    Args:
        service: The service.
        record: Where the request is counted; gets the variant.
        model: The model's name, as addressed.
        version: Its version, "" for none.
        variant_values: Every `X-Model-Variant` value of the request.

    Attributes:
        interface: The model's input and output.
        variant: Who answers.
        version: The version that answers.
        longest: When the configured timeout ends, on `time.perf_counter`.

    Raises:
        NotReadyError: There is no model yet, or the variant is not loaded.
        UnknownModelError: There is no such model or version.
        UnknownVariantError: The header names no variant, or contradicts the model's name.
        QueueFullError: There is no room.
    """

    def __init__(
        self, service: Service, record: Record, model: str, version: str, variant_values: Sequence[str]
    ) -> None:
        views = ModelViews(service)
        self._service = service
        self._started = record.started
        self.interface: Interface = views.interface
        self.variant = choose(service, views.catalogue.address(model, version), variant_values)
        self.version = views.catalogue.version_of(self.variant)
        self.longest = record.started + service.settings.request_timeout_ms / 1000
        record.variant = self.variant
        Repository(service).check_available(self.variant, model)
        service.check_room(self.variant, deadline=self.longest)

    def deadline(self, request: InferRequest) -> float:
        """When the answer is worth nothing any more; the `timeout` parameter can only shorten the configured one."""
        if request.timeout_seconds is None:
            return self.longest
        return min(self.longest, self._started + request.timeout_seconds)

    async def run(self, request: InferRequest) -> list[tuple[OutputTensor, bool]]:
        """Check the tensors, run them and make the outputs.

        Returns:
            Each output and whether it travels as binary data.

        Raises:
            InvalidInferenceRequestError: The model has other inputs or outputs.
            RequestError: As `Service.classify` and `Service.infer` raise it.
        """
        wanted = outputs_of(request, self.interface)
        images = images_of(request, self.interface)
        deadline = self.deadline(request)
        if isinstance(images, list):
            classified = await self._service.classify(
                images, self.variant, deadline=deadline, priority=DEFAULT_PRIORITY
            )
            logits = [image.logits for image in classified]
        else:
            logits = await self._run_tensor(images, deadline)
        return build_outputs(wanted, np.stack(logits), self.interface.labels)

    async def _run_tensor(self, tensor: np.ndarray, deadline: float) -> list[np.ndarray]:
        outcomes = await self._service.infer(tensor, self.variant, deadline=deadline, priority=DEFAULT_PRIORITY)
        logits = []
        for index, outcome in enumerate(outcomes):
            if outcome.logits is None:
                raise InferenceError(f"The engine failed on image {index + 1} of {len(outcomes)}.") from outcome.failure
            logits.append(outcome.logits)
        return logits
