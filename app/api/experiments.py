"""/v1/experiments: the live experiment, and the end of a trip of its guard."""

from __future__ import annotations

from fastapi import APIRouter

from tessera.app.api.admin import GATE_RESPONSES, AdminDependency
from tessera.app.api.bodies import ExperimentsBody, ResetBody, answer
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES

router = APIRouter(tags=["experiments"])


@router.get(
    "/v1/experiments",
    operation_id="experiments",
    summary="The live split, each variant's latency, shadow comparisons and the accuracy guard",
    response_model=None,
    responses={**answer(ExperimentsBody, "the experiment, see docs/experiments.md"), **ERROR_RESPONSES},
)
async def experiments(service: ServiceDependency) -> dict[str, object]:
    """Answer with what docs/experiments.md explains, for the whole service, since its start."""
    model = service.check_ready()
    return {"model": model.name, **await service.experiment.snapshot()}


@router.post(
    "/v1/experiments/guard/reset",
    operation_id="experiments_guard_reset",
    summary="End a trip of the accuracy guard",
    response_model=None,
    responses={**answer(ResetBody, "done"), **GATE_RESPONSES},
)
async def reset_guard(service: ServiceDependency, _: AdminDependency) -> dict[str, object]:
    """Let traffic through again, and start with no comparisons; answers whether there was a trip to end."""
    service.check_ready()
    return {"reset": await service.experiment.reset_guard("Reset by an administrator.")}
