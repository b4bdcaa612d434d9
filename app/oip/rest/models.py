"""GET /v2/models/...: metadata, readiness, configuration and statistics of a model and its versions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from tessera.app.api.bodies import ErrorBody, answer
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES
from tessera.app.oip.models import ModelViews
from tessera.app.oip.rest.bodies import ConfigBody, MetadataBody, ModelReadyBody, StatisticsBody
from tessera.app.oip.wire.description import configure_model, describe_model

router = APIRouter(tags=["open inference protocol"])

_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "no such model, or no such version of it"},
    **ERROR_RESPONSES,
}


def _views(service: ServiceDependency) -> ModelViews:
    return ModelViews(service)


Views = Annotated[ModelViews, Depends(_views)]


Endpoint = Callable[[ModelViews, str, str], Coroutine[Any, Any, Any]]


def _get(suffix: str, operation: str, summary: str, endpoint: Endpoint, body: type[BaseModel]) -> None:
    """Register a route for a model and for a version of it."""
    for path, name, function in (
        ("/v2/models/{model}", operation, _without_version(endpoint)),
        ("/v2/models/{model}/versions/{version}", f"{operation}_version", endpoint),
    ):
        router.add_api_route(
            path + suffix,
            function,
            methods=["GET"],
            operation_id=f"oip_model_{name}",
            summary=summary,
            response_model=None,
            responses={**answer(body, summary), **_RESPONSES},
        )


def _without_version(endpoint: Endpoint) -> Callable[..., Any]:
    """The same for a path without a version; FastAPI would take a parameter that is not in the path from the query."""

    async def unversioned(views: Views, model: str) -> Any:
        return await endpoint(views, model, "")

    unversioned.__doc__ = endpoint.__doc__
    return unversioned


@router.get(
    "/v2/models/stats",
    operation_id="oip_statistics",
    summary="Statistics of every model and version",
    response_model=None,
    responses={**answer(StatisticsBody, "one entry per model and version"), **ERROR_RESPONSES},
)
async def all_statistics(views: Views) -> dict[str, object]:
    """Answer with one entry per model and version."""
    return {"model_stats": await views.statistics()}


async def metadata(views: Views, model: str, version: str) -> dict[str, object]:
    """Answer with versions, platform, inputs and outputs."""
    return describe_model(views.description(model, version))


async def config(views: Views, model: str, version: str) -> dict[str, object]:
    """Answer with the configuration, in the shape of Triton's ModelConfig."""
    return configure_model(views.description(model, version))


async def statistics(views: Views, model: str, version: str) -> dict[str, object]:
    """Answer with counts and times of every version, or of one."""
    return {"model_stats": await views.statistics(model, version)}


async def ready(views: Views, model: str, version: str) -> dict[str, object]:
    """Answer 200 when requests for the model are answered."""
    views.check_ready(model, version)
    return {"name": model, "ready": True}


_get("", "metadata", "Inputs, outputs and versions of a model", metadata, MetadataBody)
_get("/ready", "ready", "Does the model answer requests?", ready, ModelReadyBody)
_get("/config", "config", "Configuration of a model", config, ConfigBody)
_get("/stats", "statistics", "Statistics of a model", statistics, StatisticsBody)
