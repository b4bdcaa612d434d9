"""A model folder as it lies on disk: `model.toml`, or one ONNX file with its labels."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from tessera.engine.errors import ModelError
from tessera.models.formats.foreign import describe_foreign, model_name
from tessera.models.preprocessing.image_size import Size, sides, size_flag, size_text
from tessera.models.preprocessing.transform import INTERPOLATIONS, Preprocessing
from tessera.models.toml_table import TomlTable

DESCRIPTION = "model.toml"
CALIBRATION = "calibration.json"
LABELS = "labels.txt"
PRECISIONS_ON_ASCEND = ("fp16", "int8")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SOC = re.compile(r"Ascend[0-9A-Za-z_]{2,30}")
_ARCHITECTURES = ("resnet",)


@dataclass(frozen=True)
class OfflineModels:
    """The `.om` files of a model folder: both variants, converted by ATC for one Ascend chip.

    Attributes:
        soc: the chip as ATC names it, such as "Ascend310B1".
        baseline: file of the baseline variant, fp16.
        optimised: file of the optimised variant.
        optimised_precision: "fp16" or "int8": what its convolutions compute in.
    """

    soc: str
    baseline: Path
    optimised: Path
    optimised_precision: str = "fp16"


@dataclass(frozen=True)
class Package:
    """A model folder, read and checked, nothing built yet.

    Attributes:
        name: the model's name, safe as a file name.
        folder: where it lies.
        source: the file that holds the weights: safetensors for an architecture, else ONNX, possibly gzipped.
        architecture: which builder turns the weights into a graph; None when `source` is a graph already.
        labels: class names, in the order of the network's outputs.
        preprocessing: how photos are prepared.
        calibration: the folder's calibration file, which need not exist.
        description: one line for people.
        ascend: the `.om` files; None when the folder has none.
        others: how photos are prepared for further sizes that it serves.
        described: how photos are prepared by the folder, where that is for images of another size than was asked for.
    """

    name: str
    folder: Path
    source: Path
    architecture: str | None
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    calibration: Path
    description: str = ""
    ascend: OfflineModels | None = None
    others: tuple[Preprocessing, ...] = ()
    described: Preprocessing | None = None

    @property
    def words(self) -> str:
        """How a command names it: by its folder, and the size of images where that is not the folder's own."""
        asked = [] if self.described is None else ["--size", size_flag(self.preprocessing.size)]
        return shlex.join([str(self.folder), *asked])

    def at(self, *sizes: Size) -> Package:
        """The same model for images of other sizes, the usual one first; none: of its own.

        Raises:
            ModelError: it is converted for Ascend, which fixes the size.
        """
        if not sizes or sizes == (self.preprocessing.size, *(other.size for other in self.others)):
            return self
        if self.ascend is not None:
            raise ModelError(
                f"{self.folder} is converted for images of {size_text(self.preprocessing.size)} pixels, "
                f"not {', '.join(map(size_text, sizes))}. Give its model that size and convert it again."
            )
        first, *others = map(self.preprocessing.at, sizes)
        described = None if first.size == self.preprocessing.size else self.preprocessing
        return replace(self, preprocessing=first, others=tuple(others), described=described)


def is_package(folder: Path) -> bool:
    """Whether a folder looks like a model: it has a `model.toml`, or an ONNX file and labels."""
    return (folder / DESCRIPTION).is_file() or ((folder / LABELS).is_file() and bool(_onnx_files(folder)))


def read_package(folder: Path) -> Package:
    """Read and check a model folder.

    Raises:
        ModelError: the folder is not a model, or what describes it is wrong; the message names file and key.
    """
    if not folder.is_dir():
        raise ModelError(describe_foreign(folder))
    if (folder / DESCRIPTION).is_file():
        return _read_described(folder)
    return _read_bare(folder)


def _read_bare(folder: Path) -> Package:
    files = _onnx_files(folder)
    if len(files) != 1 or not (folder / LABELS).exists():
        raise ModelError(describe_foreign(folder))
    return Package(
        name=model_name(folder.resolve().name),
        folder=folder,
        source=files[0],
        architecture=None,
        labels=read_labels(folder / LABELS),
        preprocessing=Preprocessing(),
        calibration=folder / CALIBRATION,
    )


def _onnx_files(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ModelError(f"Cannot look into the model folder {folder}: {error.strerror or error}.") from error
    return [entry for entry in entries if entry.name.endswith((".onnx", ".onnx.gz")) and entry.is_file()]


def _read_described(folder: Path) -> Package:
    table = TomlTable.read(folder / DESCRIPTION)
    name = table.text("name")
    if not _NAME.fullmatch(name):
        raise table.complaint(
            "name", "must be 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
        )
    architecture = table.text("architecture", "") or None
    if architecture is not None and architecture not in _ARCHITECTURES:
        raise table.complaint("architecture", f"must be one of {', '.join(_ARCHITECTURES)}")
    preprocessing, others = _read_preprocessing(table.table("preprocessing"))
    package = Package(
        name=name,
        folder=folder,
        source=table.file("weights" if architecture else "onnx"),
        architecture=architecture,
        labels=read_labels(table.file("labels", LABELS)),
        preprocessing=preprocessing,
        others=others,
        calibration=table.file("calibration", CALIBRATION),
        description=table.text("description", ""),
        ascend=_read_offline(table.table("ascend")),
    )
    table.refuse_leftovers()
    if package.ascend is not None and package.others:
        raise table.complaint("preprocessing.sizes", "has several sizes; .om files are for one")
    if package.ascend is not None and package.source.suffix != ".onnx":
        raise table.complaint("onnx", "must name the .onnx file that the .om files of [ascend] were converted from")
    return package


def _read_offline(table: TomlTable) -> OfflineModels | None:
    if not table:
        return None
    offline = OfflineModels(
        soc=table.text("soc"),
        baseline=table.file("baseline"),
        optimised=table.file("optimised"),
        optimised_precision=table.text("optimised_precision", "fp16"),
    )
    if not _SOC.fullmatch(offline.soc):
        raise table.complaint("soc", "must be a chip as ATC names it, such as Ascend310B1")
    if offline.optimised_precision not in PRECISIONS_ON_ASCEND:
        raise table.complaint("optimised_precision", f"must be one of {', '.join(PRECISIONS_ON_ASCEND)}")
    table.refuse_leftovers()
    return offline


def _read_preprocessing(table: TomlTable) -> tuple[Preprocessing, tuple[Preprocessing, ...]]:
    """How photos are prepared for the usual size, and for further ones."""
    default = Preprocessing()
    size, *others = table.sizes(default.size)
    resize = table.pixels("resize", default.resize)
    if resize < min(sides(size)):
        shorter = "" if isinstance(size, int) else "shorter side of the "
        raise table.complaint("resize", f"must be at least the {shorter}size, {min(sides(size))}")
    mean, std = table.triple("mean", default.mean), table.triple("std", default.std)
    if min(std) <= 0:
        raise table.complaint("std", "must be above zero in every channel")
    named = table.text("interpolation", default.interpolation)
    interpolation = next((known for known in INTERPOLATIONS if known == named), None)
    if interpolation is None:
        raise table.complaint("interpolation", f"must be one of {', '.join(INTERPOLATIONS)}")
    table.refuse_leftovers()
    first = Preprocessing(size, resize, mean, std, interpolation)
    return first, tuple(map(first.at, others))


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one per line.

    Raises:
        ModelError: the file cannot be read, is empty, or has an empty line.
    """
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except OSError as error:
        raise ModelError(f"Cannot read the labels {path}: {error}.") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"Cannot read the labels {path}: {error}. Save it as UTF-8.") from error
    if not labels or not all(labels):
        raise ModelError(f"{path} must hold one label per line and no empty lines.")
    return labels
