"""GET /v1/live: what the service does now, as server-sent events, one a second."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from tessera.app.api.context import HEAD, ServiceDependency
from tessera.app.service import Service

router = APIRouter(include_in_schema=False)  # generated clients would wait for its end


@router.get("/v1/live")
async def live(request: Request, service: ServiceDependency) -> Response:
    """Answer with events until the client leaves, or the service does.

    Each event's data is JSON: `time` (seconds since 1970), `queue` (images), `busy` (0 to 1), and by variant
    `images_per_second`, `p50_ms`, `p99_ms`, `batch_size` and `peak_share`, over the last five seconds; null where
    nothing ran.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.scope.get(HEAD):
        return Response(media_type="text/event-stream", headers=headers)
    return StreamingResponse(_events(service), media_type="text/event-stream", headers=headers)


async def _events(service: Service) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    async for snapshot in service.live.watch():
        yield b"data: " + json.dumps(snapshot, separators=(",", ":")).encode() + b"\n\n"
        if service.leaving:
            return
