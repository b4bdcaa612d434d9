"""The registry: model folders by path, their variants ready to load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tessera.engine.backends import BACKENDS
from tessera.engine.errors import ModelError
from tessera.models.build import Build, Progress, build_model, is_built
from tessera.models.cache import default_cache, library_folder
from tessera.models.package import Package, is_package, read_package
from tessera.models.preprocessing.image_size import Size
from tessera.models.preprocessing.transform import Preprocessing
from tessera.models.variant import VARIANTS, Variant

BUNDLED = Path(__file__).resolve().parent / "resnet50-imagenette"

Target = Literal["auto", "cpu", "ascend"]


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
        others: how photos are prepared for further sizes.
    """

    name: str
    folder: Path
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    variants: dict[str, Variant]
    description: str = ""
    others: tuple[Preprocessing, ...] = ()


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
        soc: the Ascend chip that it is converted for; empty when it is not.
    """

    name: str
    folder: Path
    labels: int
    variants: tuple[str, ...]
    built: bool
    problem: str = ""
    soc: str = ""


def open_model(
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    target: Target = "cpu",
    sizes: Sequence[Size] = (),
) -> Model:
    """Open a model folder; the graphs for the CPU are built on first use.

    Args:
        path: the folder; None for the bundled model.
        cache: where built graphs are kept; None for `$XDG_CACHE_HOME/tessera` or `~/.cache/tessera`.
        progress: called as `progress(stage, fraction)` while building, with fractions from 0 to 1.
        target: what the variants run on. "ascend" takes the folder's .om files, or those of the one conversion of
            this model in the cache's library; "auto" does so where the folder has them and this machine an NPU.
        sizes: of the images that are served, the usual one first; empty for what the folder says.

    Raises:
        ModelError: the folder is not a model, its files are damaged, it is not converted for Ascend and should be, it
            takes no images of these sizes, or the cache cannot be written.
    """
    package = read_package(BUNDLED if path is None else Path(path))
    kept = default_cache() if cache is None else Path(cache)
    if target == "ascend" or (target == "auto" and package.ascend is not None and BACKENDS["ascend"].available()):
        package = find_conversion(package, library_folder(kept)).at(*sizes)
        variants = _offline_variants(package)
    else:
        package = package.at(*sizes)
        variants = _variants(package, build_model(package, kept, progress))
    return Model(
        name=package.name,
        folder=package.folder,
        labels=package.labels,
        preprocessing=package.preprocessing,
        variants={variant.name: variant for variant in variants},
        description=package.description,
        others=package.others,
    )


def find_conversion(package: Package, library: Path) -> Package:
    """The folder that holds a model's .om files: its own, else the one in `library` that was converted from it.

    Raises:
        ModelError: there is none, or there are several for different chips; the message says what to do.
    """
    if package.ascend is not None:
        return package
    found = [entry for entry in find_packages(library) if entry.ascend is not None and entry.name == package.name]
    if len(found) == 1:
        return found[0]
    if found:
        chips = ", ".join(f"{entry.ascend.soc}: {entry.folder}" for entry in found if entry.ascend is not None)
        raise ModelError(f"{package.name} is converted for several chips; name one with --model-path ({chips}).")
    raise ModelError(
        f"{package.name} ({package.folder}) has no .om files for Ascend. Make them with: tessera models convert "
        f"--target Ascend310B1 --model-path {package.folder} ('Ascend' and the name that npu-smi shows is the target)."
    )


def find_packages(root: Path) -> list[Package]:
    """The model folders in `root` that can be read; none where there is no such folder."""
    found = []
    for folder in _model_folders(root) if root.is_dir() else []:
        try:
            found.append(read_package(folder))
        except ModelError:
            continue  # `tessera models list` tells what is wrong with it
    return found


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
    return [_summary(entry, default_cache() if cache is None else Path(cache)) for entry in _model_folders(folder)]


def _model_folders(root: Path) -> list[Path]:
    try:
        entries = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError as error:
        raise ModelError(f"Cannot look for models in {root}: {error.strerror or error}.") from error
    # A name with a dot in front is a folder that is being made, or what is left of one.
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    return [root] if is_package(root) else [entry for entry in visible if is_package(entry)]


def _variants(package: Package, build: Build) -> list[Variant]:
    baseline = Variant("baseline", build.baseline, "onnxruntime", "int8" if build.quantised else "fp32")
    backend, notes = "cpu", []
    if build.obstacle:
        backend = "onnxruntime"
        notes = [f"ONNX Runtime runs the optimised variant, because our engine cannot: {build.obstacle}."]
    if build.optimised is not None:
        gate = None if build.verdict is None else asdict(build.verdict)
        note = " ".join(filter(None, [*notes, build.remark]))
        return [baseline, Variant("optimised", build.optimised, backend, "int8", note, gate=gate)]
    if build.quantised:
        return [baseline, Variant("optimised", build.baseline, backend, "int8", " ".join(notes))]
    if build.remark:
        notes.append(f"{build.remark} Until then the optimised variant runs in fp32.")
    elif build.quantisable:
        notes.append(
            "This model has no calibration, so its optimised variant runs in fp32. "
            f"For int8, run: tessera models quantise --model-path {package.words} FOLDER_OF_PHOTOS"
        )
    return [baseline, Variant("optimised", build.baseline, backend, "fp32", " ".join(notes))]


def _offline_variants(package: Package) -> list[Variant]:
    offline = package.ascend
    assert offline is not None, "only called for converted packages"
    mean, std = package.preprocessing.mean, package.preprocessing.std
    files = {"baseline": (offline.baseline, "fp16"), "optimised": (offline.optimised, offline.optimised_precision)}
    for path, _ in files.values():
        if not path.is_file():
            raise ModelError(
                f"{package.folder} names {path.name} for Ascend, but there is no such file. Convert the model again."
            )
    return [
        Variant(name, path, "ascend", precision, graph=package.source, mean=mean, std=std)
        for name, (path, precision) in files.items()
    ]


def _summary(folder: Path, cache: Path) -> ModelSummary:
    try:
        package = read_package(folder)
        soc = package.ascend.soc if package.ascend is not None else ""
        built = is_built(package, cache)
        return ModelSummary(package.name, folder, len(package.labels), VARIANTS, built, soc=soc)
    except ModelError as error:
        return ModelSummary(folder.name, folder, 0, (), False, str(error))
