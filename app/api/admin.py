"""POST /v1/admin/...: load, reload and unload variants while the service answers. For holders of the token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer

from tessera.app.api.bodies import ErrorBody, StateBody, answer
from tessera.app.api.context import ServiceDependency, get_service
from tessera.app.api.openapi import ERROR_RESPONSES
from tessera.app.errors import ModelUnavailableError, NotFoundError
from tessera.app.service import Service

# Only for the OpenAPI document: the gate reads the header itself.
_Bearer = Annotated[object, Security(HTTPBearer(auto_error=False, scheme_name="adminToken"))]


async def check_admin(request: Request, _: _Bearer) -> None:
    """Raise unless the request may use admin verbs; see `AdminGate.check`."""
    server = request.scope.get("server")
    service = await get_service(request)
    service.admin.check(request.headers.get("authorization"), None if server is None else server[0])


AdminDependency = Annotated[None, Depends(check_admin)]

GATE_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "no bearer token, or a wrong one"},
    403: {"model": ErrorBody, "description": "admin verbs are off, or not answered on this address"},
    **ERROR_RESPONSES,
}
ADMIN_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "no such variant"},
    409: {"model": ErrorBody, "description": "it cannot be loaded; what answered before goes on"},
    **GATE_RESPONSES,
}

router = APIRouter(prefix="/v1/admin/variants/{variant}", tags=["admin"])

_ANSWERS: dict[str, Any] = {
    "response_model": None,
    "responses": {**answer(StateBody, "done"), **ADMIN_RESPONSES},
}


async def get_variant(service: ServiceDependency, variant: str, _: AdminDependency) -> str:
    """The variant that the path names, for clients that may use admin verbs; raises 404 when there is none."""
    known = service.check_ready().variants
    if variant not in known:
        raise NotFoundError(f"There is no variant {variant[:80]!r}; there are: {', '.join(sorted(known))}.")
    return variant


VariantDependency = Annotated[str, Depends(get_variant)]


@router.post("/load", operation_id="admin_load", summary="Load a variant from its files, or load it again", **_ANSWERS)
async def load(service: ServiceDependency, variant: VariantDependency) -> dict[str, object]:
    """Answer when the variant that was loaded beside the present one has taken its place."""
    await service.load_variant(variant)
    return _state(service, variant)


@router.post("/reload", operation_id="admin_reload", summary="Load a variant again that is loaded", **_ANSWERS)
async def reload(service: ServiceDependency, variant: VariantDependency) -> dict[str, object]:
    """As load, but 503 when the variant is unloaded, and then it stays so."""
    if variant in service.unloaded:
        raise ModelUnavailableError(f"The variant {variant!r} is unloaded; load it.")
    await service.load_variant(variant)
    return _state(service, variant)


@router.post("/unload", operation_id="admin_unload", summary="Unload a variant", **_ANSWERS)
async def unload(service: ServiceDependency, variant: VariantDependency) -> dict[str, object]:
    """Refuse further requests for the variant, wait for those in flight, free it, and answer."""
    await service.unload_variant(variant)
    return _state(service, variant)


def _state(service: Service, variant: str) -> dict[str, object]:
    return {"variant": variant, "loaded": variant not in service.unloaded}
