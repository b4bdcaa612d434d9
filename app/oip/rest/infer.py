"""POST /v2/models/.../infer: tensors or image files to scores."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tessera.app.api.body import read_body
from tessera.app.api.context import DirectRoute, ServiceDependency
from tessera.app.api.query import check_query
from tessera.app.api.waiting import answer_in_time
from tessera.app.errors import InvalidInferenceRequestError
from tessera.app.limits.uploads import Upload
from tessera.app.observability import tracing
from tessera.app.observability.recording import recorded
from tessera.app.oip.aside import run_aside
from tessera.app.oip.inference import Inference
from tessera.app.oip.rest.openapi import INFER_OPENAPI, INFER_RESPONSES
from tessera.app.oip.wire.compression import choose_encoding, compress, is_packed, unpacked
from tessera.app.oip.wire.datatypes import Proceed
from tessera.app.oip.wire.interface import Interface
from tessera.app.oip.wire.request import InferRequest, parse_raw_request, parse_request
from tessera.app.oip.wire.response import HEADER_LENGTH, build_response
from tessera.app.routing.variants import HEADER
from tessera.app.service import Service

router = APIRouter(tags=["open inference protocol"], route_class=DirectRoute)

# Above it, parsing takes milliseconds, which other requests should not have to wait for.
_LARGE_JSON = 64 * 1024


async def infer(request: Request, service: ServiceDependency, model: str) -> Response:
    """Run the images of an Open Inference Protocol request, with the variant that the path or a header names."""
    return await _answer(request, service, model, "")


async def infer_version(request: Request, service: ServiceDependency, model: str, version: str) -> Response:
    """Run the images of an Open Inference Protocol request, with the variant that the path names."""
    return await _answer(request, service, model, version)


async def _answer(request: Request, service: Service, model: str, version: str) -> Response:
    try:
        with recorded(service.metrics, service.answered) as record:
            check_query(request)
            inference = Inference(service, record, model, version, request.headers.getlist)
            settings = service.settings
            timeout = inference.longest - time.perf_counter()
            patience = settings.client_timeout_seconds
            # No name for the body: once it has been parsed, its memory is free.
            parsed = await _parse(
                request,
                await read_body(request, limit=settings.max_body_bytes, timeout=timeout, patience=patience),
                settings.max_body_bytes,
                inference,
            )
            deadline = inference.deadline(parsed)
            outputs = await answer_in_time(
                request, inference.run(parsed), deadline=deadline, late=lambda: inference.late(parsed)
            )
            building = time.perf_counter()
            headers, answer = build_response(model, inference.version, parsed.id, outputs)
            response = _compressed(request, headers, answer)
            response.headers[HEADER] = inference.variant
            built = time.perf_counter()
            service.metrics.answer_built(inference.variant, built - building)
            tracing.stage("postprocess", building, built)
            return response
    finally:
        request.state.log_fields = record.fields()


# A version that is not in the path has no parameter: FastAPI would take it from the query.
for path, endpoint in (("/v2/models/{model}", infer), ("/v2/models/{model}/versions/{version}", infer_version)):
    router.add_api_route(
        f"{path}/infer",
        endpoint,
        methods=["POST"],
        operation_id=f"oip_{endpoint.__name__}",
        summary="Run tensors or image files",
        openapi_extra=INFER_OPENAPI,
        responses=INFER_RESPONSES,
        response_class=Response,
    )


async def _parse(request: Request, body: bytes, limit: int, inference: Inference) -> InferRequest:
    """Undo the body's compression and parse it; what takes long on other threads, until the request is given up."""
    length = _header_length(request.headers.get(HEADER_LENGTH))
    encoding = request.headers.get("content-encoding")
    if not is_packed(encoding) and (len(body) if length is None else length) < _LARGE_JSON:
        return _parse_plain(body, length, inference.interface)

    async def parse_aside() -> InferRequest:
        plain = body if encoding is None or not is_packed(encoding) else await _unpack(request, body, encoding, limit)
        return await run_aside(partial(_parse_plain, plain, length, inference.interface))

    return await answer_in_time(request, parse_aside(), deadline=inference.longest, late=inference.late)


def _parse_plain(
    body: bytes, length: int | None, interface: Interface, proceed: Proceed = lambda: None
) -> InferRequest:
    if length == 0:
        return parse_raw_request(body, interface)
    return parse_request(body, length, interface, proceed)


async def _unpack(request: Request, body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a body's compression; what it unpacks to is held in the budget of uploads as it grows."""
    share: Upload = request.state.upload
    pieces = unpacked(body, encoding, limit=limit)
    plain = bytearray()
    while piece := await asyncio.to_thread(next, pieces, b""):
        share.grow(len(body) + len(plain) + len(piece))
        plain += piece
    return bytes(plain)


def _header_length(sent: str | None) -> int | None:
    if sent is None:
        return None
    if not (sent.isascii() and sent.isdigit() and len(sent) < 12):
        raise InvalidInferenceRequestError(f"{HEADER_LENGTH} must be a whole number of bytes.")
    return int(sent)


def _compressed(request: Request, headers: dict[str, str], body: bytes) -> Response:
    """The response, compressed where the client asks for it and it is worth while."""
    encoding = choose_encoding(request.headers.get("accept-encoding"), len(body))
    if encoding is not None:
        body = compress(body, encoding)
        headers = {**headers, "Content-Encoding": encoding, "Vary": "Accept-Encoding"}
    return Response(body, headers=headers)
