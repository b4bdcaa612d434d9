"""Models of other origin, made into model folders: `tessera models add`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save

from tessera.engine.errors import ModelError
from tessera.engine.graph.reader import LARGEST_FILE, parse_model, read_file, read_metadata
from tessera.engine.graph.tensors import embed_external
from tessera.engine.normalisation import Normalisation
from tessera.engine.quantize.files import write_whole
from tessera.models.formats.checkpoint import read_checkpoint
from tessera.models.formats.foreign import MODEL_SUFFIXES, describe_foreign, model_name
from tessera.models.formats.state_dict import plain_keys
from tessera.models.formats.weights import read_weights
from tessera.models.importing.trial import try_model
from tessera.models.package import DESCRIPTION, LABELS, Package, is_package, read_labels, read_package
from tessera.models.preprocessing.image_size import Size
from tessera.models.preprocessing.transform import Interpolation, Preprocessing
from tessera.models.serving_form import to_serving_form
from tessera.models.staging import check_folder, place, staging_folder
from tessera.wording import counted

SUFFIXES = MODEL_SUFFIXES

_ANNOTATIONS = "tessera."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ImportOptions:
    """What a model file does not say of itself; None takes what it says, else the default.

    Attributes:
        name: the model's name; default: the file's.
        labels: file of class names, one per line; default: "class 0", "class 1" and so on.
        wnids: file of other names of the classes, which comes along; default: none.
        mean: per-channel mean of images, in 0..1 units; default: ImageNet's.
        std: per-channel standard deviation, likewise.
        size: height and width of the network's input in pixels, one number where they are equal; default: the graph's,
            else 224.
        resize: as in `Preprocessing`; default: 8/7 of the size's shorter side, which is 256 for 224.
        interpolation: filter that photos are scaled with; default: bilinear.
        description: one line for people.
    """

    name: str | None = None
    labels: Path | None = None
    wnids: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: Size | None = None
    resize: int | None = None
    interpolation: Interpolation | None = None
    description: str = ""


@dataclass(frozen=True)
class _Contents:
    """A model file, read: what goes into the folder, and what the file says of itself."""

    file: str
    payload: bytes
    classes: int
    size: Size | None = None
    says_size: bool = False
    labels: tuple[str, ...] = ()
    normalisation: Normalisation | None = None


def add_model(path: Path, into: Path, options: ImportOptions | None = None) -> Package:
    """Make a model folder of a model file. It appears whole and only if both variants of it have run, or not at all.

    Args:
        path: an ONNX graph of opset 9 to 22, or a ResNet's state dict as `.safetensors`, `.pth` or `.pt`.
        into: folder of model folders; created when missing.
        options: what the file does not say of itself.

    Returns:
        The new folder `into/name`, ready for `open_model`.

    Raises:
        ModelError: the file is damaged or of another kind, it does not fit labels or image size, one of its variants
            cannot be served, there is a model of that name, or the folder cannot be written.
    """
    options = options or ImportOptions()
    name = options.name or model_name(path.stem)
    target = check_place(into, name, options)
    contents = _read(path, options.size)
    with staging_folder(into, name, path) as folder:
        write_whole(folder / contents.file, contents.payload)
        labels = _labels(contents, options)
        write_whole(folder / LABELS, "".join(f"{label}\n" for label in labels).encode())
        write_whole(folder / DESCRIPTION, _description(name, contents, options).encode())
        if options.wnids is not None:
            write_whole(folder / "wnids.txt", options.wnids.read_bytes())
        try_model(folder)
        place(folder, target)
    return read_package(target)


def check_place(into: Path, name: str, options: ImportOptions) -> Path:
    """Find out whether a model folder can be made, before its file is fetched, exported or read.

    Returns:
        Where it will be, `into/name`.

    Raises:
        ModelError: the name, the folder or the labels cannot be used, or there is a model of that name.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"'{name}' cannot be a model's name: use 1 to 64 letters, digits, dots, dashes, underscores.")
    if is_package(into):
        raise ModelError(f"{into} is a model itself, not a folder of models. Name another folder with --into.")
    target = into / name
    if target.exists():
        raise ModelError(f"{target} exists. Choose another --name, or remove that folder first.")
    if options.labels is not None:
        read_labels(options.labels)
    check_folder(into)
    return target


def _read(path: Path, size: Size | None) -> _Contents:
    if path.is_dir():
        known = f"{path} is a model folder already." if is_package(path) else describe_foreign(path)
        raise ModelError(known)
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    match path.suffix.lower():
        case ".onnx":
            return _read_onnx(path, size)
        case ".safetensors":
            return _state_dict(path, read_weights(path))
        case ".pth" | ".pt":
            return _state_dict(path, read_checkpoint(path))
        case _:
            raise ModelError(f"{path} is of no kind that can be imported: {', '.join(SUFFIXES)}.")


def _state_dict(path: Path, state: Mapping[str, NDArray[Any]]) -> _Contents:
    tensors = {key: np.ascontiguousarray(tensor) for key, tensor in plain_keys(state).items()}
    bias = tensors.get("fc.bias")
    if bias is None or bias.ndim != 1:
        raise ModelError(f"{path} has no classifier 'fc.weight' and 'fc.bias': it is not a ResNet that can be served.")
    return _Contents("weights.safetensors", save(tensors), len(bias))


def _read_onnx(path: Path, size: Size | None) -> _Contents:
    payload = read_file(path)
    try:
        model = parse_model(payload)
        metadata = read_metadata(model)
        annotations = {key for key in metadata if key.startswith(_ANNOTATIONS)}
        # A file that is complete in itself stays byte for byte what its publisher made.
        if embed_external(model, path.parent) or annotations:
            kept = [entry for entry in model.metadata_props if entry.key not in annotations]
            del model.metadata_props[:]
            model.metadata_props.extend(kept)
            payload = _serialised(model)
        says_size = any(length.dim_value > 0 for length in _image_lengths(model))
        form = to_serving_form(model, size)
        normalisation = Normalisation.from_metadata(metadata)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    labels = tuple(metadata.get("tessera.labels", "").split("\n"))
    return _Contents(
        "model.onnx",
        payload,
        form.classes,
        form.size,
        says_size,
        labels if len(labels) == form.classes and all(label.strip() for label in labels) else (),
        normalisation,
    )


def _image_lengths(model: onnx.ModelProto) -> Iterable[onnx.TensorShapeProto.Dimension]:
    """Height and width in the shape of the first input that is no constant."""
    constants = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in constants]
    return images[0].type.tensor_type.shape.dim[2:] if images else ()


def _serialised(model: onnx.ModelProto) -> bytes:
    if model.ByteSize() > LARGEST_FILE:
        raise ModelError("With its external data it is larger than an ONNX file can be.")
    return model.SerializeToString(deterministic=True)


def _labels(contents: _Contents, options: ImportOptions) -> tuple[str, ...]:
    if options.labels is None:
        return contents.labels or tuple(f"class {index}" for index in range(contents.classes))
    labels = read_labels(options.labels)
    if len(labels) != contents.classes:
        raise ModelError(
            f"{options.labels} has {counted(len(labels), 'label')}, but the network has "
            f"{counted(contents.classes, 'class', 'classes')}."
        )
    return labels


def _description(name: str, contents: _Contents, options: ImportOptions) -> str:
    """The text of model.toml. JSON texts, numbers and lists of numbers are TOML ones as well."""
    own, default = contents.normalisation, Preprocessing()
    size = options.size or contents.size or default.size
    source = "onnx" if contents.file.endswith(".onnx") else "weights"
    description = options.description or _origins(contents, options)
    lines = [f"name = {json.dumps(name)}", f"description = {json.dumps(description)}"]
    if source == "weights":
        lines.append('architecture = "resnet"')
    lines += [
        f"{source} = {json.dumps(contents.file)}",
        "",
        "[preprocessing]",
        f"size = {json.dumps(size)}",
        f"resize = {options.resize or default.at(size).resize}",
        f"mean = {list(options.mean or (own.mean if own else default.mean))}",
        f"std = {list(options.std or (own.std if own else default.std))}",
        f"interpolation = {json.dumps(options.interpolation or default.interpolation)}",
    ]
    return "\n".join(lines) + "\n"


def _origins(contents: _Contents, options: ImportOptions) -> str:
    """Who says how photos are prepared: the caller, the file, or nobody, which means ImageNet's standard."""

    def origin(asked: object, said: bool) -> str:
        return "as given" if asked else "as the file says" if said else "ImageNet's standard"

    said = contents.normalisation is not None
    values = {
        "size": origin(options.size, contents.says_size),
        "resize": origin(options.resize, False),
        "interpolation": origin(options.interpolation, False),
        "mean": origin(options.mean, said),
        "std": origin(options.std, said),
    }
    grouped: dict[str, list[str]] = {}
    for name, whose in values.items():
        grouped.setdefault(whose, []).append(name)
    return "; ".join(f"{', '.join(names)}: {whose}" for whose, names in grouped.items())
