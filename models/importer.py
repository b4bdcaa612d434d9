"""Models of other origin, made into model folders: `tessera models add`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save

from engine.errors import ModelError
from engine.graph.ir import Graph
from engine.graph.reader import LARGEST_FILE, parse_model, read_model
from engine.graph.tensors import embed_external
from engine.normalisation import Normalisation
from engine.quantize.files import write_whole
from models.checkpoint import read_checkpoint
from models.package import DESCRIPTION, LABELS, Package, is_package, read_labels, read_package
from models.preprocessing import Interpolation, Preprocessing
from models.source import float_model
from models.staging import place, staging_folder
from models.state_dict import plain_keys
from models.weights import read_weights

SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt")

_ANNOTATIONS = "tessera."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ImportOptions:
    """What a model file does not say of itself; None takes what it says, else the default.

    Attributes:
        name: the model's name; default: the file's.
        labels: file of class names, one per line; default: "class 0", "class 1" and so on.
        mean: per-channel mean of images, in 0..1 units; default: ImageNet's.
        std: per-channel standard deviation, likewise.
        size: height and width of the network's input in pixels; default: the graph's, else 224.
        resize: length that a photo's shorter side is scaled to; default: 8/7 of the size, which is 256 for 224.
        interpolation: filter that photos are scaled with; default: bilinear.
        description: one line for people.
    """

    name: str | None = None
    labels: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None
    resize: int | None = None
    interpolation: Interpolation | None = None
    description: str = ""


@dataclass(frozen=True)
class _Contents:
    """A model file, read: what goes into the folder, and what the file says of itself."""

    file: str
    payload: bytes
    classes: int
    size: int | None = None
    labels: tuple[str, ...] = ()
    normalisation: Normalisation | None = None


def add_model(path: Path, into: Path, options: ImportOptions | None = None) -> Package:
    """Make a model folder of a model file. The folder appears whole or not at all.

    Args:
        path: an ONNX graph of opset 9 to 22, or a ResNet's state dict as `.safetensors`, `.pth` or `.pt`.
        into: folder of model folders; created when missing.
        options: what the file does not say of itself.

    Returns:
        The new folder `into/name`, ready for `open_model`.

    Raises:
        ModelError: the file is damaged or of another kind, it does not fit labels or image size, there is a model of
            that name, or the folder cannot be written.
    """
    options = options or ImportOptions()
    name = options.name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._")[:64] or "model"
    if not _NAME.fullmatch(name):
        raise ModelError(f"'{name}' cannot be a model's name: use 1 to 64 letters, digits, dots, dashes, underscores.")
    if is_package(into):
        raise ModelError(f"{into} is a model itself, not a folder of models. Name another folder with --into.")
    target = into / name
    if target.exists():
        raise ModelError(f"{target} exists. Choose another --name, or remove that folder first.")
    contents = _read(path)
    with staging_folder(into, name) as folder:
        write_whole(folder / contents.file, contents.payload)
        labels = _labels(contents, options)
        write_whole(folder / LABELS, "".join(f"{label}\n" for label in labels).encode())
        write_whole(folder / DESCRIPTION, _description(name, contents, options).encode())
        # Everything that opening it would complain about is complained about now.
        float_model(read_package(folder))
        place(folder, target)
    return read_package(target)


def _read(path: Path) -> _Contents:
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    match path.suffix.lower():
        case ".onnx":
            return _read_onnx(path)
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


def _read_onnx(path: Path) -> _Contents:
    graph = read_model(path)
    size, classes = _image_size(path, graph), _class_count(path, graph)
    payload = path.read_bytes()
    model = parse_model(payload)
    annotations = {entry.key for entry in model.metadata_props if entry.key.startswith(_ANNOTATIONS)}
    # A file that is complete in itself stays byte for byte what its publisher made.
    if embed_external(model, path.parent) or annotations:
        kept = [entry for entry in model.metadata_props if entry.key not in annotations]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        payload = _serialised(path, model)
    labels = tuple(graph.metadata.get("tessera.labels", "").split("\n"))
    return _Contents(
        "model.onnx",
        payload,
        classes,
        size,
        labels if len(labels) == classes and all(label.strip() for label in labels) else (),
        Normalisation.from_metadata(graph.metadata),
    )


def _serialised(path: Path, model: onnx.ModelProto) -> bytes:
    if model.ByteSize() > LARGEST_FILE:
        raise ModelError(f"{path} with its external data is larger than an ONNX file can be.")
    return model.SerializeToString(deterministic=True)


def _image_size(path: Path, graph: Graph) -> int | None:
    shape = graph.values[graph.inputs[0]].shape if len(graph.inputs) == 1 else None
    if shape is None or len(shape) != 4 or shape[1] not in (3, None):
        raise ModelError(f"{path} does not take one image [N, 3, height, width]; it is no image classifier.")
    if graph.values[graph.inputs[0]].dtype != np.float32:
        raise ModelError(f"{path} takes {graph.values[graph.inputs[0]].dtype} images; float32 was expected.")
    if shape[2] != shape[3]:
        raise ModelError(f"{path} takes images of {shape[2]} x {shape[3]} pixels; only square ones are supported.")
    return shape[2]


def _class_count(path: Path, graph: Graph) -> int:
    shape = graph.values[graph.outputs[0]].shape if len(graph.outputs) == 1 else None
    if shape is None or len(shape) != 2 or shape[1] is None:
        raise ModelError(f"{path} does not give one result [N, classes]; it is no image classifier.")
    return shape[1]


def _labels(contents: _Contents, options: ImportOptions) -> tuple[str, ...]:
    if options.labels is None:
        return contents.labels or tuple(f"class {index}" for index in range(contents.classes))
    labels = read_labels(options.labels)
    if len(labels) != contents.classes:
        raise ModelError(f"{options.labels} has {len(labels)} labels, but the network has {contents.classes} classes.")
    return labels


def _description(name: str, contents: _Contents, options: ImportOptions) -> str:
    """The text of model.toml. JSON texts, numbers and lists of numbers are TOML ones as well."""
    own, default = contents.normalisation, Preprocessing()
    size = options.size or contents.size or default.size
    source = "onnx" if contents.file.endswith(".onnx") else "weights"
    lines = [f"name = {json.dumps(name)}"]
    if options.description:
        lines.append(f"description = {json.dumps(options.description)}")
    if source == "weights":
        lines.append('architecture = "resnet"')
    lines += [
        f"{source} = {json.dumps(contents.file)}",
        "",
        "[preprocessing]",
        f"size = {size}",
        f"resize = {options.resize or max(size, round(size * default.resize / default.size))}",
        f"mean = {list(options.mean or (own.mean if own else default.mean))}",
        f"std = {list(options.std or (own.std if own else default.std))}",
        f"interpolation = {json.dumps(options.interpolation or default.interpolation)}",
    ]
    return "\n".join(lines) + "\n"
