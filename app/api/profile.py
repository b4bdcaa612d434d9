"""GET /v1/profile: the layers of both variants on this machine, as the service measured them once while it was idle."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from tessera.app.api.bodies import ErrorBody, answer
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES
from tessera.app.errors import NotFoundError
from tessera.app.figures.documents import ProfileDocument

router = APIRouter(tags=["models"])


@router.get(
    "/v1/profile",
    operation_id="profile",
    summary="Times of all layers",
    responses={
        **answer(ProfileDocument, "what `tessera profile --json` writes"),
        404: {"model": ErrorBody, "description": "there is none yet"},
        **ERROR_RESPONSES,
    },
)
async def profile(service: ServiceDependency) -> Response:
    """Answer with what `tessera profile --json` writes, schema in docs/schemas; 404 while there is none.

    It is taken once by the service itself, never because somebody asks.
    """
    path = service.check_ready().profile
    document = None if path is None else await asyncio.to_thread(_read, path)
    if document is None:
        raise NotFoundError("There is no profile yet: it is taken once nobody has asked for anything for some seconds.")
    return Response(document, media_type="application/json", headers={"Cache-Control": "no-cache"})


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
