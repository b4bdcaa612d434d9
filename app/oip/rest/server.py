"""GET /v2, /v2/health/live, /v2/health/ready: the server as a whole."""

from __future__ import annotations

from fastapi import APIRouter

from tessera.app.api.bodies import ErrorBody, answer
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES
from tessera.app.oip.rest.bodies import LiveBody, ServerBody, ServerReadyBody
from tessera.app.oip.wire.description import describe_server
from tessera.app.version import service_version

router = APIRouter(tags=["open inference protocol"])


@router.get(
    "/v2",
    operation_id="oip_server_metadata",
    summary="Name, version and extensions of the server",
    response_model=None,
    responses=answer(ServerBody, "the server's metadata"),
)
async def metadata() -> dict[str, object]:
    """Answer with the server's metadata."""
    return describe_server(service_version())


@router.get(
    "/v2/health/live",
    operation_id="oip_server_live",
    summary="Is the process able to recover by itself?",
    response_model=None,
    responses={**answer(LiveBody, "it is"), 500: {"model": ErrorBody, "description": "restart it"}},
)
async def live(service: ServiceDependency) -> dict[str, bool]:
    """Answer 200 while the process works, loading included."""
    service.check_alive()
    return {"live": True}


@router.get(
    "/v2/health/ready",
    operation_id="oip_server_ready",
    summary="Should it get traffic?",
    response_model=None,
    responses={**answer(ServerReadyBody, "it should"), **ERROR_RESPONSES},
)
async def ready(service: ServiceDependency) -> dict[str, bool]:
    """Answer 200 when the model is loaded and warm."""
    service.check_receiving()
    return {"ready": True}
