"""GET /v1/experiments: the live experiment."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.context import ServiceDependency
from app.api.openapi import ERROR_RESPONSES

router = APIRouter(tags=["experiments"])


@router.get(
    "/v1/experiments",
    operation_id="experiments",
    summary="The live split, each variant's latency, shadow comparisons and the accuracy guard",
    responses=ERROR_RESPONSES,
)
async def experiments(service: ServiceDependency) -> dict[str, object]:
    """Answer with what docs/experiments.md explains, for the whole service, since its start."""
    model = service.check_ready()
    return {"model": model.name, **await service.experiment.snapshot()}
