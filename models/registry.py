"""The registry: model folders by path, their variants ready to load."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError
from models.build import Build, Progress, build_model, is_built
from models.cache import default_cache
from models.package import Package, is_package, read_package
from models.preprocessing import Preprocessing

BUNDLED = Path(__file__).resolve().parent / "resnet50-imagenette"
VARIANTS = ("baseline", "optimised")


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    Attributes:
        name: "baseline" or "optimised".
        path: the ONNX file to load.
        backend: the engine backend that this variant is meant for.
        precision: "fp32" or "int8".
        note: a sentence for people when the variant is not what they may expect; else empty.
    """

    name: str
    path: Path
    backend: str
    precision: str
    note: str = ""


@dataclass(frozen=True)
class Model:
    """A model that can be served.

    Attributes:
        name: the model's name.
        folder: the folder it comes from.
        labels: class names, in the order of the network's outputs.
        preprocessing: how photos are prepared.
        variants: by name, the baseline first.
        description: one line for people; may be empty.
    """

    name: str
    folder: Path
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    variants: dict[str, Variant]
    description: str = ""


@dataclass(frozen=True)
class ModelSummary:
    """A model folder as a listing shows it.

    Attributes:
        name: the model's name, or the folder's where it cannot be read.
        folder: where it lies.
        labels: number of classes.
        variants: names of the variants.
        built: whether the graphs are in the cache already.
        problem: why the model cannot be used; empty when it can.
    """

    name: str
    folder: Path
    labels: int
    variants: tuple[str, ...]
    built: bool
    problem: str = ""


def open_model(
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Open a model folder; its graphs are built on first use.

    Args:
        path: the folder; None for the bundled model.
        cache: where built graphs are kept; None for `$XDG_CACHE_HOME/tessera` or `~/.cache/tessera`.
        progress: called as `progress(stage, fraction)` while building, with fractions from 0 to 1.

    Raises:
        ModelError: the folder is not a model, its files are damaged, or the cache cannot be written.
    """
    package = read_package(BUNDLED if path is None else Path(path))
    build = build_model(package, default_cache() if cache is None else Path(cache), progress)
    return Model(
        name=package.name,
        folder=package.folder,
        labels=package.labels,
        preprocessing=package.preprocessing,
        variants={variant.name: variant for variant in _variants(package, build)},
        description=package.description,
    )


def list_models(
    root: str | os.PathLike[str] | None = None, *, cache: str | os.PathLike[str] | None = None
) -> list[ModelSummary]:
    """List the model folders in `root` (or `root` itself, if it is one); a broken one is listed with its problem.

    Args:
        root: the folder to look in; None for the models that come with Tessera.
        cache: as for `open_model`.

    Raises:
        ModelError: `root` is not a folder that can be read.
    """
    folder = BUNDLED.parent if root is None else Path(root)
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        raise ModelError(f"Cannot look for models in {folder}: {error.strerror or error}.") from error
    # A name with a dot in front is a folder that is being made, or what is left of one.
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    found = [folder] if is_package(folder) else [entry for entry in visible if is_package(entry)]
    return [_summary(entry, default_cache() if cache is None else Path(cache)) for entry in found]


def _variants(package: Package, build: Build) -> list[Variant]:
    baseline = Variant("baseline", build.baseline, "onnxruntime", "int8" if build.quantised else "fp32")
    if build.optimised is not None:
        return [baseline, Variant("optimised", build.optimised, "cpu", "int8")]
    if build.quantised:
        return [baseline, Variant("optimised", build.baseline, "cpu", "int8")]
    note = (
        "This model has no calibration, so its optimised variant runs in fp32. "
        f"For int8, run: tessera models quantise --model-path {package.folder} FOLDER_OF_PHOTOS"
    )
    return [baseline, Variant("optimised", build.baseline, "cpu", "fp32", note)]


def _summary(folder: Path, cache: Path) -> ModelSummary:
    try:
        package = read_package(folder)
        return ModelSummary(package.name, folder, len(package.labels), VARIANTS, is_built(package, cache))
    except ModelError as error:
        return ModelSummary(folder.name, folder, 0, (), False, str(error))
