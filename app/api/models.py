"""GET /v1/models: what is loaded, and what each variant is made of."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.context import ServiceDependency
from app.api.openapi import ERROR_RESPONSES
from app.loading import LoadedVariant

router = APIRouter(tags=["models"])


@router.get("/v1/models", operation_id="models", summary="The loaded model and its variants", responses=ERROR_RESPONSES)
async def models(service: ServiceDependency) -> dict[str, object]:
    """Answer with the loaded model, its labels' count and, per variant, backend, precision and work per image."""
    loaded = service.check_ready()
    entry = {
        "name": loaded.model.name,
        "default_variant": service.settings.default_variant,
        "classes": len(loaded.model.labels),
        "variants": [_describe(name, variant) for name, variant in sorted(loaded.variants.items())],
    }
    return {"models": [entry]}


def _describe(name: str, variant: LoadedVariant) -> dict[str, object]:
    info = variant.info
    described: dict[str, object] = {
        "name": name,
        "backend": info.backend,
        "isa": info.isa,
        "precision": info.precision,
        "threads": info.threads,
        "macs_per_image": info.macs,
        "arena_bytes": info.arena_bytes,
    }
    if variant.note:
        described["note"] = variant.note
    return described
