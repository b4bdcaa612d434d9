"""The float32 graph of a model folder, wherever it comes from: built from weights, or read from an ONNX file."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import onnx

from tessera.engine.errors import ModelError
from tessera.engine.graph.reader import parse_model
from tessera.engine.sizes import open_sizes
from tessera.models.formats.weights import read_weights
from tessera.models.package import Package
from tessera.models.preprocessing.image_size import sides, size_text
from tessera.models.resnet import build_resnet
from tessera.models.serving_form import to_serving_form
from tessera.wording import counted

# A protobuf message cannot be larger; a gzip file that unpacks to more is damaged or meant to do harm.
_LARGEST_MODEL = 2**31 - 1
# Weights pack to a quarter at best, those of an int8 model kept as float32; a file of zeros packs to a thousandth.
_MOST_PACKED = 50
_SMALL = 64 * 1024 * 1024


def float_model(package: Package) -> onnx.ModelProto:
    """The stock float32 graph of a package in the form that is served, with normalisation and labels as metadata.

    Raises:
        ModelError: weights or graph are damaged, or do not fit the package's labels and image size.
    """
    preprocessing = package.preprocessing
    if package.architecture is not None:
        model = build_resnet(
            read_weights(package.source),
            name=package.name,
            size=preprocessing.size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            labels=package.labels,
        )
        _check_labels(package, model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
        leave_sizes_open(model, package)
        return model
    model = _read_onnx(package.source)
    for other in package.others:  # each by itself, because what fits one size need not fit another
        try:
            to_serving_form(_copy(model), other.size)
        except ModelError as error:
            raise ModelError(f"{package.source}, at {size_text(other.size)} pixels: {error}") from error
    try:
        form = to_serving_form(model, preprocessing.size)
    except ModelError as error:
        raise ModelError(f"{package.source}: {error}") from error
    _check_labels(package, form.classes)
    _annotate(model, package)
    leave_sizes_open(model, package)
    return model


def leave_sizes_open(model: onnx.ModelProto, package: Package) -> None:
    """Leave height and width of a graph open where its package serves several sizes, and name them, in place."""
    if package.others:
        open_sizes(model, [sides(each.size) for each in (package.preprocessing, *package.others)])


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _check_labels(package: Package, classes: int) -> None:
    if classes != len(package.labels):
        raise ModelError(
            f"{package.source} has {counted(classes, 'class', 'classes')} and {counted(len(package.labels), 'label')}. "
            "The labels must match the network's classes."
        )


def _read_onnx(path: Path) -> onnx.ModelProto:
    try:
        if path.name.endswith(".gz"):
            most = min(_LARGEST_MODEL, _SMALL + _MOST_PACKED * path.stat().st_size)
            with gzip.open(path) as file:
                payload = file.read(most + 1)
        else:
            most = _LARGEST_MODEL
            payload = path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"Cannot read the model {path}: {error}.") from error
    if len(payload) > most:
        raise ModelError(f"{path} unpacks to more than {most} bytes, which no model does; it is damaged or means harm.")
    try:
        model = parse_model(payload)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ModelError(f"{path} keeps its weights in other files. Save it as one ONNX file.")
    return model


def _annotate(model: onnx.ModelProto, package: Package) -> None:
    """Write down how images are normalised and what the classes are called, as our own files do."""
    preprocessing = package.preprocessing
    known = {entry.key for entry in model.metadata_props}
    for key, value in (
        ("tessera.mean", json.dumps(list(preprocessing.mean))),
        ("tessera.std", json.dumps(list(preprocessing.std))),
        ("tessera.labels", "\n".join(package.labels)),
    ):
        if key not in known:
            model.metadata_props.add(key=key, value=value)
