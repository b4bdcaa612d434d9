"""What results depend on, for files that are gone on with: all of it must be the same next time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tessera import engine
from tessera.app.settings import Settings
from tessera.app.version import service_version
from tessera.models.formats.weights import file_sha256
from tessera.models.registry import Model


def identify(model: Model, infos: Mapping[str, engine.SessionInfo], settings: Settings) -> dict[str, Any]:
    """Program, model, preparation and engines, in the words of the message when one of them has changed.

    Args:
        model: The model.
        infos: The sessions that run, by variant.
        settings: How photos are decoded.
    """
    return {
        "version": service_version(),
        "model": model.name,
        "variants": {
            name: [file_sha256(model.variants[name].path), info.backend, info.isa, info.precision]
            for name, info in infos.items()
        },
        "preprocessing": json.loads(json.dumps(asdict(model.preprocessing))),
        "max_pixels": settings.max_pixels,
        "decode_scale": settings.decode_scale,
    }
