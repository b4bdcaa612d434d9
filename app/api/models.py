"""GET /v1/models: what is loaded, and what each variant is made of."""

from __future__ import annotations

from fastapi import APIRouter

from tessera.app.api.bodies import ModelsBody, answer
from tessera.app.api.context import ServiceDependency
from tessera.app.api.openapi import ERROR_RESPONSES
from tessera.app.served.model import ServedVariant

router = APIRouter(tags=["models"])


@router.get(
    "/v1/models",
    operation_id="models",
    summary="The loaded model and its variants",
    response_model=None,
    responses={**answer(ModelsBody, "what is served"), **ERROR_RESPONSES},
)
async def models(service: ServiceDependency) -> dict[str, object]:
    """Answer with the loaded model, its labels' count and, per variant, backend, precision and work per image."""
    model = service.check_ready()
    entry: dict[str, object] = {
        "name": model.name,
        "default_variant": service.settings.default_variant,
        "classes": len(model.labels),
        "input": {"size": model.preprocessing.size, "resize": model.preprocessing.resize},
        "variants": [_describe(name, variant) for name, variant in sorted(model.variants.items())],
    }
    if model.others:
        entry["sizes"] = [{"size": each.size, "resize": each.resize} for each in (model.preprocessing, *model.others)]
    return {"models": [entry]}


def _describe(name: str, variant: ServedVariant) -> dict[str, object]:
    described: dict[str, object] = {
        "name": name,
        "loaded": variant.loaded,
        "backend": variant.backend,
        "isa": variant.isa,
        "precision": variant.precision,
        "threads": variant.threads,
        "macs_per_image": variant.macs,
        "arena_bytes": variant.all_arena_bytes,
        "explains": variant.explains,
    }
    if variant.gate is not None:
        described["gate"] = variant.gate
    if variant.note:
        described["note"] = variant.note
    return described
