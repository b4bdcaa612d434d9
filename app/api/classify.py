"""POST /v1/classify: images to ranked labels."""

from __future__ import annotations

import json
import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tessera.app.api.body import read_body
from tessera.app.api.context import DirectRoute, ServiceDependency
from tessera.app.api.openapi import CLASSIFY_OPENAPI, CLASSIFY_RESPONSES
from tessera.app.api.query import check_query
from tessera.app.api.waiting import answer_in_time
from tessera.app.errors import InvalidParameterError, UnexplainableError, UnsupportedEncodingError, quoted
from tessera.app.observability import tracing
from tessera.app.observability.recording import recorded
from tessera.app.observability.tracing import trace_images
from tessera.app.protocol.classify import Classified, build_answer, resolve_explain, resolve_size, resolve_top_k
from tessera.app.protocol.multipart import ImageFile, is_multipart, parse_multipart
from tessera.app.protocol.urgency import PRIORITY_HEADER, TIMEOUT_HEADER, parse_priority, parse_timeout
from tessera.app.routing.variants import HEADER
from tessera.app.scheduling.ticket import Priority
from tessera.app.served.model import ServedModel
from tessera.app.service import Service
from tessera.models.preprocessing.image_size import Size

router = APIRouter(tags=["classification"], route_class=DirectRoute)

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class _Answer(JSONResponse):
    """JSON by an encoder that is made once."""

    def render(self, content: object) -> bytes:
        return _encode(content).encode()


@router.post(
    "/v1/classify",
    operation_id="classify",
    summary="Classify one or many images",
    openapi_extra=CLASSIFY_OPENAPI,
    responses=CLASSIFY_RESPONSES,
    response_class=JSONResponse,
)
async def classify(request: Request, service: ServiceDependency) -> JSONResponse:
    """Classify the image in the body, or every image of a multipart form, with the variant that the header names."""
    try:
        with recorded(service.metrics, service.answered) as record:
            model = service.check_ready()
            record.decision = service.route(request.headers.getlist)
            variant = record.variant
            check_query(request)
            _check_encoding(request)
            top_k = resolve_top_k(_single(request, "top_k"), len(model.labels))
            explain = _resolve_explain(_single(request, "explain"), top_k, model, variant)
            size = resolve_size(_single(request, "size"), model.sizes)
            priority = parse_priority(request.headers.getlist(PRIORITY_HEADER))
            timeout_ms = parse_timeout(request.headers.getlist(TIMEOUT_HEADER), service.settings.request_timeout_ms)
            service.check_room(variant, deadline=record.started + timeout_ms / 1000, priority=priority, size=size)
            images = await _answer_in_time(
                request, service, variant, priority, record.started, timeout_ms, explain, size
            )
            postprocessing = time.perf_counter()
            trace_images(images, postprocessing)
            answer = build_answer(model.name, variant, images, model.labels, top_k)
            response = _Answer(answer, headers={HEADER: variant})
            answered = time.perf_counter()
            service.metrics.answer_built(variant, answered - postprocessing)
            tracing.stage("postprocess", postprocessing, answered)
            return response
    finally:
        request.state.log_fields = record.fields()


async def _answer_in_time(
    request: Request,
    service: Service,
    variant: str,
    priority: Priority,
    started: float,
    timeout_ms: int,
    explain: int,
    size: Size | None,
) -> list[Classified]:
    """Read, decode and run the request's images; give up when the time is over or the client leaves."""
    settings = service.settings
    deadline = started + timeout_ms / 1000
    body = await read_body(
        request,
        limit=settings.max_body_bytes,
        timeout=deadline - time.perf_counter(),
        patience=settings.client_timeout_seconds,
    )
    content_type = request.headers.get("content-type")
    if content_type is not None and is_multipart(content_type):
        uploads = parse_multipart(content_type, body, max_files=settings.max_images_per_request)
    else:
        uploads = [ImageFile(None, body)]
    work = service.classify(uploads, variant, deadline=deadline, priority=priority, explain=explain, size=size)
    return await answer_in_time(
        request, work, deadline=deadline, late=lambda: service.late(variant, timeout_ms / 1000, size)
    )


def _resolve_explain(sent: str | None, top_k: int, model: ServedModel, variant: str) -> int:
    """How many labels of each image are explained; see `resolve_explain`.

    Raises:
        InvalidParameterError: See there.
        UnexplainableError: The variant explains nothing.
    """
    explain = resolve_explain(sent, top_k)
    if explain and not model.variants[variant].explains:
        others = [name for name, other in sorted(model.variants.items()) if other.explains]
        hint = f"; {' and '.join(others)} can" if others else ""
        raise UnexplainableError(
            f"The variant {variant!r} cannot say where its scores come from, because that takes a network that ends in "
            f"global average pooling and one linear layer, on a CPU{hint}. Leave explain out."
        )
    return explain


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedEncodingError(
            f"Content-Encoding {quoted(encoding, 40)} is not supported here; send the image file as it is.",
            accept_encoding="identity",
        )


def _single(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InvalidParameterError(f"{name} is given {len(values)} times; give it once.")
    return values[0] if values else None
