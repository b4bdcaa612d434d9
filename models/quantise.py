"""Quantisation of a model folder from photos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tessera.engine.quantize.observation.ranges import Method
from tessera.engine.quantize.pipeline import Progress, calibrate
from tessera.engine.quantize.placement.floats import Fallback
from tessera.engine.quantize.report import Gate, Report
from tessera.models.cache import default_cache
from tessera.models.calibrations import CalibrationFiles
from tessera.models.formats.weights import file_sha256
from tessera.models.package import read_package
from tessera.models.preprocessing.image_size import Size
from tessera.models.preprocessing.photos import find_photos, read_photos
from tessera.models.source import float_model

# Biases are settled on 64 of them, the gate judges by the other 96. More cost time; 160 and 300 were not compared.
MOST_PHOTOS = 160


def quantise_model(
    model_path: str | os.PathLike[str],
    images_folder: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    into_folder: bool = False,
    accept: bool = False,
    size: Size | None = None,
    limit: int | None = None,
    method: Method = "auto",
    bias_correction: bool = True,
    gate: Gate | None = None,
    fallback: Fallback = "bf16",
    equalisation: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Report]:
    """Quantise a model folder on the photos of another folder; the next `open_model` builds its int8 variant.

    A calibration that fails its gate is kept aside, where no build uses it and `CalibrationFiles.accept` finds it.

    Args:
        model_path: the model folder.
        images_folder: photos like the ones the model will see; subfolders are searched too.
        cache: the cache folder; None for the default one.
        into_folder: write `calibration.json` beside the weights, to be shipped with them, instead of into the cache.
        accept: use the calibration even if it fails its gate.
        size: of the images; None for what the folder says.
        limit: most photos to use, spread evenly over the folder; never more than `MOST_PHOTOS`.
        method: as for `tessera.engine.quantize.quantize`, like all arguments that are not explained here.
        bias_correction: as for `quantize`.
        gate: as for `quantize`.
        fallback: as for `quantize`.
        equalisation: as for `quantize`.
        threads: threads of the calibration runs; None leaves the choice to ONNX Runtime.
        progress: called as `progress(stage, fraction)` with the fraction of the stage.

    Returns:
        The calibration file that was written, and the report.

    Raises:
        ModelError: model or photos cannot be read, or the result cannot be written.
    """
    package = read_package(Path(model_path)).at(*([] if size is None else [size]))
    photos = find_photos(Path(images_folder), min(limit or MOST_PHOTOS, MOST_PHOTOS))
    source_sha256 = file_sha256(package.source)
    files = CalibrationFiles.of(package, default_cache() if cache is None else Path(cache), source_sha256)
    files.check_writable(into_folder)
    calibration, report = calibrate(
        float_model(package),
        _counted(read_photos(photos, package.preprocessing), len(photos), progress),
        method=method,
        bias_correction=bias_correction,
        gate=gate,
        fallback=fallback,
        equalisation=equalisation,
        model_sha256=source_sha256,
        threads=threads,
        progress=progress,
    )
    return files.keep(calibration, into_folder=into_folder, accept=accept), report


def _counted(
    batches: Iterator[NDArray[np.float32]], total: int, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch)
        if progress is not None:
            progress("observing activations", seen / total)
