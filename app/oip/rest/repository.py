"""POST /v2/repository/...: what can be loaded, and loading and unloading it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tessera.app.api.admin import ADMIN_RESPONSES, AdminDependency
from tessera.app.api.bodies import answer
from tessera.app.api.body import read_body
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES
from tessera.app.oip.repository import Repository, check_load_parameters
from tessera.app.oip.rest.bodies import IndexEntryBody
from tessera.app.oip.wire.repository import parse_index_request, parse_repository_parameters
from tessera.app.service import Service

router = APIRouter(tags=["open inference protocol"])

_MAX_BODY = 64 * 1024


@router.post(
    "/v2/repository/index",
    operation_id="oip_repository_index",
    summary="Every model and version, and its state",
    response_class=JSONResponse,
    responses={**answer(list[IndexEntryBody], "every version of every model"), **ERROR_RESPONSES},
)
async def index(request: Request, service: ServiceDependency) -> JSONResponse:
    """Answer with name, version, state and reason of each; the body may ask for ready ones only."""
    ready_only = parse_index_request(await _body(request, service))
    return JSONResponse(Repository(service).index(ready_only=ready_only))


@router.post(
    "/v2/repository/models/{model}/load",
    operation_id="oip_repository_load",
    summary="Load a model again",
    response_class=Response,
    responses=ADMIN_RESPONSES,
)
async def load(request: Request, service: ServiceDependency, model: str, _: AdminDependency) -> Response:
    """Load every variant that the name stands for."""
    check_load_parameters(parse_repository_parameters(await _body(request, service)))
    await Repository(service).load(model)
    return Response()


@router.post(
    "/v2/repository/models/{model}/unload",
    operation_id="oip_repository_unload",
    summary="Unload a model",
    response_class=Response,
    responses=ADMIN_RESPONSES,
)
async def unload(request: Request, service: ServiceDependency, model: str, _: AdminDependency) -> Response:
    """Refuse further requests for every variant that the name stands for, finish those in flight, and free it."""
    parse_repository_parameters(await _body(request, service))
    await Repository(service).unload(model)
    return Response()


async def _body(request: Request, service: Service) -> bytes:
    timeout, patience = service.settings.request_timeout_ms / 1000, service.settings.client_timeout_seconds
    return await read_body(request, limit=_MAX_BODY, timeout=timeout, patience=patience, may_be_empty=True)
