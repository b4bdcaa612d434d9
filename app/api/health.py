"""GET /healthz and /readyz: for supervisors that restart the service, and for load balancers."""

from __future__ import annotations

from fastapi import APIRouter

from tessera.app.api.bodies import ErrorBody, HealthBody, ReadyBody, answer
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="health",
    summary="Is the process able to recover by itself?",
    response_model=None,
    responses={**answer(HealthBody, "it works"), 500: {"model": ErrorBody, "description": "restart it"}},
)
async def health(service: ServiceDependency) -> dict[str, str]:
    """Answer 200 while the process works, loading included; 500 when only a restart helps."""
    service.check_alive()
    return {"status": "alive"}


@router.get(
    "/readyz",
    operation_id="ready",
    summary="Should it get traffic?",
    response_model=None,
    responses={**answer(ReadyBody, "it should"), **ERROR_RESPONSES},
)
async def ready(service: ServiceDependency) -> dict[str, object]:
    """Answer 200 when the model is loaded and warm; 503 before that, and as soon as shutdown begins."""
    model = service.check_receiving()
    loaded = sorted(name for name, variant in model.variants.items() if variant.loaded)
    return {"status": "ready", "model": model.name, "variants": loaded}
