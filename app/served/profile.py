"""Where the profile of a served model is kept: in the cache folder, for all processes and later starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tessera.app.served.model import ServedVariant
from tessera.app.version import service_version
from tessera.models.cache import profile_file
from tessera.models.preprocessing.transform import Preprocessing


def kept_profile(
    cache: Path, name: str, variants: Mapping[str, ServedVariant], preprocessing: Preprocessing, machine: str
) -> Path:
    """The file; another machine, version, build or number of threads has another.

    Args:
        cache: The cache folder.
        name: The model's.
        variants: What is served of it.
        preprocessing: How photos become its input.
        machine: What the engine runs on.
    """
    state = {
        "version": service_version(),
        "machine": machine,
        "variants": [
            [variant.name, str(variant.path), variant.backend, variant.precision, variant.isa, variant.threads]
            for variant in variants.values()
        ],
        "preprocessing": asdict(preprocessing),
    }
    fingerprint = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    return profile_file(cache, name, fingerprint)
