"""The float32 graph of a model folder, wherever it comes from: built from weights, or read from an ONNX file."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from engine.errors import ModelError
from models.package import Package
from models.resnet import build_resnet
from models.weights import read_weights

# A protobuf message cannot be larger; a gzip file that unpacks to more is damaged or meant to do harm.
_LARGEST_MODEL = 2**31 - 1
# Weights pack to a quarter at best, those of an int8 model kept as float32; a file of zeros packs to a thousandth.
_MOST_PACKED = 50
_SMALL = 64 * 1024 * 1024
_QUANTISED_OPERATORS = ("QuantizeLinear", "QLinear", "ConvInteger", "MatMulInteger")


def float_model(package: Package) -> onnx.ModelProto:
    """The stock float32 graph of a package, with normalisation and labels as metadata.

    Raises:
        ModelError: weights or graph are damaged, or do not fit the package's labels and image size.
    """
    if package.architecture is None:
        model = _read_onnx(package.source)
        _annotate(model, package)
    else:
        preprocessing = package.preprocessing
        model = build_resnet(
            read_weights(package.source),
            name=package.name,
            size=preprocessing.size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            labels=package.labels,
        )
    _check_fit(model, package)
    return model


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a graph computes in integers already, as QDQ or with quantised operators."""
    return any(node.op_type.startswith(_QUANTISED_OPERATORS) for node in model.graph.node)


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
    model = onnx.ModelProto()
    try:
        model.ParseFromString(payload)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is not an ONNX model, or it is damaged: {error}. Copy it again.") from error
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


def _check_fit(model: onnx.ModelProto, package: Package) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ModelError(f"{package.source} must have one input and one output; it is not an image classifier.")
    size = package.preprocessing.size
    image, logits = _fixed_shape(inputs[0]), _fixed_shape(model.graph.output[0])
    expected = (3, size, size)
    if len(image) != 4 or any(found not in (None, want) for found, want in zip(image[1:], expected, strict=True)):
        raise ModelError(f"{package.source} takes images of shape {image}, not [N, 3, {size}, {size}].")
    if len(logits) != 2 or logits[1] not in (None, len(package.labels)):
        raise ModelError(
            f"{package.source} gives results of shape {logits}, but there are {len(package.labels)} labels. "
            "The labels must match the network's classes."
        )


def _fixed_shape(value: onnx.ValueInfoProto) -> list[int | None]:
    dimensions = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else None for d in dimensions]
