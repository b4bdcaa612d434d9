"""Pruning of a model folder by photos: another model folder, whose network has zeros in blocks of its weights."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tessera.engine.errors import ModelError
from tessera.engine.pruning.blocks import check_share
from tessera.engine.pruning.pipeline import GATE, prune_for_photos
from tessera.engine.pruning.report import PruningReport
from tessera.engine.quantize.pipeline import Progress
from tessera.engine.quantize.report import Gate
from tessera.models.fine_tuning import FineTuning, check_torch, fine_tune
from tessera.models.importing.importer import ImportOptions, add_model, check_place
from tessera.models.package import Package, read_package
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.source import float_model

# Weights are moved by 64 of them, the gate judges by the other 96.
MOST_PHOTOS = 160
_SETTLED = 64


def prune_model(
    model_path: Path,
    images_folder: Path,
    into: Path,
    *,
    name: str | None = None,
    share: float | None = None,
    gate: Gate = GATE,
    fine_tuning: FineTuning | None = None,
    limit: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Package | None, PruningReport]:
    """Prune the network of a model folder. What it makes appears whole and only if the gate holds, or not at all.

    Args:
        model_path: the model folder, which stays as it is.
        images_folder: photos like the ones the model will see; subfolders are searched too.
        into: folder of model folders; created when missing.
        name: the new model's; default: that of the model, and "-pruned".
        share: as for `tessera.engine.pruning.prune_for_photos`, like all arguments that are not explained here.
        gate: as for `prune_for_photos`.
        fine_tuning: how to train the pruned network before it is judged; needs a share. Photos that it is judged by
            are left out. None trains nothing.
        limit: most photos to use, spread evenly over the folder; never more than `MOST_PHOTOS`.
        threads: as for `prune_for_photos`.
        progress: called as `progress(stage, fraction)` with the fraction of the stage.

    Returns:
        The new model folder, None where the gate does not hold, and the report.

    Raises:
        ModelError: model or photos cannot be read, the network has nothing to prune, or there is a model of that name.
    """
    package = read_package(model_path)
    options = _options(package, name)
    check_place(into, options.name or "", options)
    if share is not None:
        check_share(share)
    photos = find_photos(images_folder, min(limit or MOST_PHOTOS, MOST_PHOTOS))
    if len(photos) < 2:
        raise ModelError(
            f"{images_folder} has one photo. Pruning needs some to weigh blocks by and others to judge by."
        )
    photos = [photos[index] for index in np.random.Generator(np.random.PCG64(0)).permutation(len(photos))]
    settled = min(_SETTLED, 2 * len(photos) // 3)
    model = float_model(package)
    tuner = None
    if fine_tuning is not None:
        check_torch()
        judging = {path.resolve() for path in photos[settled:]}
        left = [path for path in fine_tuning.photos if path.resolve() not in judging]
        if not left:
            raise ModelError("Every photo to train on is one that the result is judged by. Give more photos.")
        how = replace(fine_tuning, photos=left)

        def tuner(pruned: onnx.ModelProto) -> onnx.ModelProto:
            return fine_tune(pruned, model, how, package.preprocessing, progress)

    report = progress or (lambda stage, fraction: None)
    report("reading photos", 0.0)
    result, found = prune_for_photos(
        model,
        _read(photos[:settled], package.preprocessing),
        _read(photos[settled:], package.preprocessing),
        share=share,
        gate=gate,
        tuner=tuner,
        threads=threads,
        progress=progress,
    )
    if not found.kept.met:
        return None, found
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(result, path)
        return add_model(path, into, replace(options, description=_description(package, found))), found


def _options(package: Package, name: str | None) -> ImportOptions:
    """What the new folder says of itself: the same as the old one's."""
    photos = package.preprocessing
    wnids = package.folder / "wnids.txt"
    return ImportOptions(
        name=name or f"{package.name}-pruned",
        wnids=wnids if wnids.is_file() else None,
        mean=photos.mean,
        std=photos.std,
        size=photos.size,
        resize=photos.resize,
        interpolation=photos.interpolation,
    )


def _description(package: Package, found: PruningReport) -> str:
    return (
        f"{package.name}, pruned: {found.blocks:.0%} of its blocks of weights are zeros, with "
        f"{found.saved:.0%} of the multiplications in blocks"
    )


def _read(photos: list[Path], preprocessing: Preprocessing) -> NDArray[np.float32]:
    return np.concatenate(list(read_photos(photos, preprocessing)))
