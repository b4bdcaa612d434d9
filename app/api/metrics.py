"""GET /metrics: for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tessera.app.api.context import ServiceDependency

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Every metric, in the Prometheus text format",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, service: ServiceDependency) -> Response:
    """Answer with every metric of docs/metrics.md."""
    body, content_type = await service.render_metrics(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
