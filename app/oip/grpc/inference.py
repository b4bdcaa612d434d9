"""The calls of GRPCInferenceService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from google.protobuf import json_format

from tessera.app.errors import RequestError
from tessera.app.observability import tracing
from tessera.app.observability.recording import recorded
from tessera.app.oip.aside import run_aside
from tessera.app.oip.grpc.calls import Requests, check_admin, metadata_values
from tessera.app.oip.grpc.messages import fill_response, parse_infer, read_parameters
from tessera.app.oip.grpc.received import Received
from tessera.app.oip.grpc.schema import Schema
from tessera.app.oip.inference import Inference
from tessera.app.oip.models import ModelViews
from tessera.app.oip.repository import Repository, check_load_parameters
from tessera.app.oip.wire.description import configure_model, describe_model, describe_server
from tessera.app.oip.wire.request import InferRequest
from tessera.app.service import Service
from tessera.app.version import service_version

# What Triton says with every answer of a stream: that no other follows to its request. Ours has always one.
_FINAL = "triton_final_response"
_LARGE_CONTENTS = 64 * 1024  # bytes


class InferenceCalls:
    """Each method is the call of its name: message in, message out.

    Args:
        service: The service.
        schema: The messages.
        requests: What the requests of streams have around them; that of other calls is where they are handled.
    """

    def __init__(self, service: Service, schema: Schema, requests: Requests) -> None:
        self._service = service
        self._schema = schema
        self._requests = requests

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802, the protocol names it
        """Whether the process works, loading included."""
        return self._schema["ServerLiveResponse"](live=_holds(self._service.check_alive))

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether requests are answered."""
        return self._schema["ServerReadyResponse"](ready=self._service.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether requests for a model are answered."""
        ready = _holds(lambda: ModelViews(self._service).check_ready(request.name, request.version))
        return self._schema["ModelReadyResponse"](ready=ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name, version and extensions."""
        return self._from_json("ServerMetadataResponse", describe_server(service_version()))

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Versions, platform, inputs and outputs of a model."""
        description = ModelViews(self._service).description(request.name, request.version)
        return self._from_json("ModelMetadataResponse", describe_model(description))

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Configuration of a model."""
        description = ModelViews(self._service).description(request.name, request.version)
        return self._from_json("ModelConfigResponse", {"config": configure_model(description)})

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Counts and times, of one model or of all."""
        counted = await ModelViews(self._service).statistics(request.name, request.version)
        return self._from_json("ModelStatisticsResponse", {"model_stats": counted})

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run the images of a request."""
        with recorded(self._service.metrics, self._service.answered) as record:
            inference = Inference(
                self._service,
                record,
                request.model_name,
                request.model_version,
                lambda name: metadata_values(context, name.lower()),
            )
            parsed = await _parse(request, inference)
            timeout = inference.deadline(parsed) - time.perf_counter()
            try:
                outputs = await asyncio.wait_for(inference.run(parsed), timeout)
            except asyncio.TimeoutError:
                raise inference.late(parsed) from None
            building = time.perf_counter()
            response = self._schema["ModelInferResponse"]()
            fill_response(response, request.model_name, inference.version, parsed.id, outputs)
            response.parameters["variant"].string_param = inference.variant
            built = time.perf_counter()
            self._service.metrics.answer_built(inference.variant, built - building)
            tracing.stage("postprocess", building, built)
            return response

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Received], context: Any
    ) -> AsyncIterator[Any]:
        """Run one request of a stream after the other; an error ends its request, not the stream."""
        name = f"{self._schema.service}/ModelStreamInfer"
        async for received in requests:
            answer = self._schema["ModelStreamInferResponse"]()
            try:
                with self._requests.one(name, context, received.size):
                    with self._requests.admission():
                        request = received.read()
                    answer.infer_response.id = request.id
                    answer.infer_response.CopyFrom(await self.ModelInfer(request, context))
            except RequestError as error:
                answer.error_message = error.message
            answer.infer_response.parameters[_FINAL].bool_param = True
            yield answer

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every model and version, and its state."""
        entries = Repository(self._service).index(ready_only=request.ready)
        return self._from_json("RepositoryIndexResponse", {"models": list(entries)})

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Load a model again."""
        check_admin(self._service.admin, context)
        check_load_parameters(read_parameters(request.parameters, "The request"))
        await Repository(self._service).load(request.model_name)
        return self._schema["RepositoryModelLoadResponse"]()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Unload a model."""
        check_admin(self._service.admin, context)
        await Repository(self._service).unload(request.model_name)
        return self._schema["RepositoryModelUnloadResponse"]()

    def _from_json(self, name: str, document: dict[str, object]) -> Any:
        # The REST documents have the messages' own field names.
        return json_format.ParseDict(document, self._schema[name]())


async def _parse(request: Any, inference: Inference) -> InferRequest:
    """Read a request; where it has many numbers to go through one by one, on another thread."""
    if not any(entry.HasField("contents") for entry in request.inputs[:1]) or request.ByteSize() < _LARGE_CONTENTS:
        return parse_infer(request, inference.interface)
    work = run_aside(partial(parse_infer, request, inference.interface))
    try:
        return await asyncio.wait_for(work, inference.longest - time.perf_counter())
    except asyncio.TimeoutError:
        raise inference.late() from None


def _holds(check: Any) -> bool:
    try:
        check()
    except RequestError:
        return False
    return True
