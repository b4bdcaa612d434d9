"""A model is run before it is accepted, as the service would: what cannot be served is refused when it comes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera import engine
from tessera.engine.errors import EngineError, ModelError
from tessera.models.registry import open_model
from tessera.models.variant import Variant

_BATCHES = (1, 2)
_SCRATCH = ".trial"


def try_model(folder: Path) -> None:
    """Build both variants of a model folder, and run each on one image and on two.

    Args:
        folder: the model folder. What is built goes into it and is gone again afterwards.

    Raises:
        ModelError: a variant cannot be built, loaded or run, or gives something else than a score for each class.
    """
    scratch = folder / _SCRATCH
    try:
        model = open_model(folder, cache=scratch)
        images = np.random.default_rng(0).integers(0, 256, (max(_BATCHES), *model.preprocessing.shape), np.uint8)
        for variant in model.variants.values():
            try:
                _run(variant, images, len(model.labels))
            except EngineError as error:
                told = str(error).replace(str(variant.path), model.name)
                raise ModelError(f"The {variant.name} variant cannot be served: {told}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(variant: Variant, images: NDArray[Any], classes: int) -> None:
    with engine.load(variant.path, backend=variant.backend) as session:
        for count in _BATCHES:
            scores = session.run(images[:count])
            if scores.shape != (count, classes):
                raise ModelError(f"{count} images give scores {list(scores.shape)}, not {[count, classes]}.")
            if not np.isfinite(scores).all():
                raise ModelError("Its scores are no finite numbers.")
