"""Accuracy of a model's variants over labelled photos, as a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tessera import engine
from tessera.app.errors import RequestError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.settings import Settings
from tessera.models.evaluation.photos import ClassNames, PhotoSet, find_labelled, read_wnids
from tessera.models.evaluation.report import Result, result
from tessera.models.evaluation.runner import Decode, Watcher, evaluate
from tessera.models.package import Package
from tessera.models.registry import Model


def class_names(package: Package, wnids: Path | None = None) -> ClassNames:
    """What names of folders mean: by the given file, else by the model's own."""
    own = package.folder / "wnids.txt"
    path = wnids or (own if own.is_file() else None)
    return ClassNames(package.labels, () if path is None else read_wnids(path, len(package.labels)))


def decode_with(decoder: ImageDecoder) -> Decode:
    """How an evaluation reads photos with the service's decoder."""

    def decode(path: Path, row: np.ndarray) -> str | None:
        try:
            decoder.decode(path.read_bytes(), row)
        except OSError as error:
            return error.strerror or str(error)
        except RequestError as error:
            return str(error)
        return None

    return decode


def describe_accuracy(
    model: str, infos: Mapping[str, engine.SessionInfo], photos: PhotoSet, found: Result
) -> dict[str, Any]:
    """What `tessera models evaluate --json` writes."""
    variants = {
        name: {"engine": infos[name].backend, "precision": infos[name].precision, **counted}
        for name, counted in found["variants"].items()
    }
    head = {"model": model, "folder": str(photos.folder), "labelled_photos": photos.count, "confidence": 0.95}
    return {**head, **found, "variants": variants}


def count_accuracy(
    model: Model,
    package: Package,
    sessions: Mapping[str, engine.Session],
    folder: Path,
    settings: Settings,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """Run every variant on all labelled photos of a folder.

    Raises:
        ModelError: There are none, or their classes are not known.
    """
    photos = find_labelled(folder, class_names(package))
    decoder = ImageDecoder(model.preprocessing, max_pixels=settings.max_pixels, decode_scale=settings.decode_scale)
    block = evaluate(
        photos,
        sessions,
        decode_with(decoder),
        decoder.shape,
        workers=settings.decode_threads or max(2, engine.cpu_budget() // 2),
        watcher=Watcher(lambda done, _: progress("evaluating", done / photos.count), lambda path, reason: None),
    )
    infos = {name: session.describe() for name, session in sessions.items()}
    return describe_accuracy(model.name, infos, photos, result(block))
