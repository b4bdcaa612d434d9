"""Calibration of a model folder, and its command: `python -m models.calibrate MODEL_FOLDER FOLDER_OF_PHOTOS`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.quantize.pipeline import Method, Progress, calibrate
from models.cache import calibration_file, default_cache, make_folder
from models.package import read_package
from models.photos import find_photos, read_photos
from models.source import float_model
from models.weights import file_sha256


def calibrate_model(
    model_path: str | os.PathLike[str],
    images_folder: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    into_folder: bool = False,
    limit: int | None = None,
    method: Method = "mse",
    bias_correction: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Calibrate a model folder on the photos of another folder; the next `open_model` builds its int8 variant.

    Args:
        model_path: the model folder.
        images_folder: photos like the ones the model will see; subfolders are searched too.
        cache: the cache folder; None for the default one.
        into_folder: write `calibration.json` beside the weights, to be shipped with them, instead of into the cache.
        limit: most photos to use, spread evenly over the folder; None for all.
        method: how activation ranges are chosen, see `engine.quantize.quantize`.
        bias_correction: spend a few minutes on correcting biases, which brings the int8 results closer to fp32.
        threads: threads of the calibration runs; None leaves the choice to ONNX Runtime.
        progress: called as `progress(stage, fraction)` with the fraction of the stage.

    Returns:
        The calibration file that was written.

    Raises:
        ModelError: model or photos cannot be read, or the result cannot be written.
    """
    package = read_package(Path(model_path))
    photos = find_photos(Path(images_folder), limit)
    source_sha256 = file_sha256(package.source)
    calibration = calibrate(
        float_model(package),
        _counted(read_photos(photos, package.preprocessing), len(photos), progress),
        method=method,
        bias_correction=bias_correction,
        model_sha256=source_sha256,
        threads=threads,
        progress=progress,
    )
    target = package.calibration
    if not into_folder:
        target = calibration_file(default_cache() if cache is None else Path(cache), source_sha256)
        make_folder(target.parent)
    calibration.save(target)
    return target


def _counted(
    batches: Iterator[NDArray[np.float32]], total: int, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch)
        if progress is not None:
            progress("observing activations", seen / total)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m models.calibrate",
        description="Find the activation ranges of a model from photos, so that its int8 variant can be built.",
    )
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("photos", type=Path, help="folder of photos; subfolders are searched too")
    parser.add_argument("--to-cache", action="store_true", help="write into the cache, not into the model folder")
    parser.add_argument("--cache", type=Path, help="cache folder (default: the service's default)")
    parser.add_argument("--limit", type=int, help="use at most this many photos, spread evenly over the folder")
    parser.add_argument("--method", choices=("mse", "percentile", "max"), default="mse", help="default: mse")
    parser.add_argument("--no-bias-correction", action="store_true", help="skip the slow second half")
    parser.add_argument("--threads", type=int, help="threads of the calibration runs")
    options = parser.parse_args(arguments)
    for name in ("limit", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    display = _Display()
    try:
        path = calibrate_model(
            options.model,
            options.photos,
            cache=options.cache,
            into_folder=not options.to_cache,
            limit=options.limit,
            method=options.method,
            bias_correction=not options.no_bias_correction,
            threads=options.threads,
            progress=display.show,
        )
    except EngineError as error:
        display.end()
        print(error, file=sys.stderr)
        return 1
    display.end()
    print(f"wrote {path}")
    return 0


class _Display:
    """One line that is rewritten on a terminal; one line per stage anywhere else."""

    def __init__(self) -> None:
        self._stage = ""

    def show(self, stage: str, fraction: float) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{stage} {fraction:4.0%}", end="", file=sys.stderr, flush=True)
        elif stage != self._stage:
            print(stage, file=sys.stderr, flush=True)
        self._stage = stage

    def end(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
