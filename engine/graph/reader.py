"""ONNX files to graphs: everything wrong with a file is found here and said in a ModelError."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto

from tessera.engine.errors import ModelError, UnsupportedModelError, UnsupportedOperatorError
from tessera.engine.graph import shapes
from tessera.engine.graph.ir import Array, Graph, Shape, ValueInfo
from tessera.engine.graph.operators import normalise, require_supported
from tessera.engine.graph.source import Source
from tessera.engine.graph.tensors import embed_external, read_tensor, type_of
from tessera.engine.sizes import HeightWidth, sizes_of
from tessera.wording import counted

OLDEST_OPSET, NEWEST_OPSET = 9, 22
# Protobuf itself ends at 2 GiB; larger models keep their weights in external files.
LARGEST_FILE = 2**31 - 1
# A QDQ ResNet-152 has about 1,500; the bound limits the time that a hostile file can take.
MOST_NODES = 20_000


def read_model(path: str | Path, size: HeightWidth | None = None) -> Graph:
    """Reads an ONNX file.

    Args:
        path: the .onnx file. External data is read from its folder only.
        size: height and width of its images where it leaves them open; None for the first of those that it names.

    Returns:
        The graph as the file has it, with attributes normalised and shapes inferred; dimension 0 of every input is
        taken as the batch (None), also when the file fixes it.

    Raises:
        ModelError: the file is missing, truncated, corrupt, too large or contradicts ONNX. The message names the place.
        UnsupportedModelError: it may be right, and is outside what the engine runs.
        UnsupportedOperatorError: a node uses an operator, or a form of one, that the engine does not run.
    """
    path = Path(path)
    data = read_file(path)
    try:
        return convert_model(parse_model(data), path.parent, data, size)
    except ModelError as error:
        if isinstance(error, UnsupportedOperatorError):
            raise
        kind = UnsupportedModelError if isinstance(error, UnsupportedModelError) else ModelError
        raise kind(f"{path}: {error}") from error


def read_file(path: Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        ModelError: it cannot be read, or is larger than such a file can be.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ModelError(f"{path} has {size} bytes; an ONNX file cannot exceed {LARGEST_FILE}. Use external data.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse_model(data: bytes) -> ModelProto:
    """Parses the bytes of an ONNX file.

    Raises:
        ModelError: they are not an ONNX model.
    """
    if data[:2] == b"\x1f\x8b":
        raise ModelError("The model file is gzip-compressed. Decompress it first (gunzip).")
    try:
        model = ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError("The file is not an ONNX model, or it is truncated. Download or export it again.") from error
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError("The file holds no network: it is empty, truncated, or not an ONNX model. Export it again.")
    if not all(isinstance(name, str) for name in _names(model)):
        # Text that is not UTF-8 comes out of protobuf as bytes.
        raise ModelError("A name in the model is not UTF-8 text; the file is damaged. Export it again.")
    return model


def _names(model: ModelProto) -> Iterator[str]:
    graph = model.graph
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def convert_model(
    model: ModelProto, folder: Path | None = None, data: bytes | None = None, size: HeightWidth | None = None
) -> Graph:
    """Turns a parsed ONNX model into a graph.

    Args:
        model: the model; external data is moved into it.
        folder: where its external data lies, None when it may have none.
        data: the bytes it was parsed from, when at hand: they spare packing it again to check it.
        size: see `read_model`.

    Raises:
        ModelError: see `read_model`.
        UnsupportedOperatorError: see `read_model`.
    """
    opset = _opset(model)
    if len(model.graph.node) > MOST_NODES:
        nodes = counted(len(model.graph.node), "node")
        raise UnsupportedModelError(f"The model has {nodes}; at most {MOST_NODES} are supported.")
    for index, node in enumerate(model.graph.node):
        require_supported(_node_name(node, index), _operator(node))
    if model.graph.sparse_initializer:
        raise UnsupportedModelError("The model has sparse weights, which are not supported. Export it with dense ones.")
    embedded = embed_external(model, folder)
    check_model(model if embedded or data is None else data)
    constants = read_constants(model)
    inputs = [value for value in model.graph.input if value.name not in constants]
    metadata = read_metadata(model)
    graph = Graph(model.graph.name or "model", [], [], [], {}, {}, metadata, opset)
    for name, array in constants.items():
        graph.add_constant(name, array)
    for value in inputs:
        _add_input(graph, value, size or next(iter(sizes_of(metadata)), None))
    for index, node in enumerate(model.graph.node):
        _add_node(graph, node, index)
    graph.outputs = [value.name for value in model.graph.output]
    _free_batch(graph)
    graph.validate()
    return graph


def read_metadata(model: ModelProto) -> dict[str, str]:
    """The model's metadata_props by key.

    Raises:
        ModelError: they are not UTF-8 text.
    """
    entries = {entry.key: entry.value for entry in model.metadata_props}
    # Text that is not UTF-8 comes out of protobuf as bytes.
    if not all(isinstance(text, str) for entry in entries.items() for text in entry):
        raise ModelError("The model's metadata is not UTF-8 text; the file is damaged. Export it again.")
    return entries


def _opset(model: ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError("The file does not say which ONNX opset it uses; it is damaged or not an ONNX model.")
    if not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        raise UnsupportedModelError(
            f"The model uses ONNX opset {versions[0]}; {OLDEST_OPSET} to {NEWEST_OPSET} are supported. "
            "Convert it with onnx.version_converter or export it again."
        )
    return versions[0]


def check_model(model: ModelProto | bytes) -> None:
    """Checks that a model, or the bytes of one, keeps to the ONNX standard.

    Raises:
        ModelError: it does not; the message names the first place.
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or ["no details"]
        raise ModelError(f"The model contradicts the ONNX standard: {lines[0]}") from error


def read_constants(model: ModelProto) -> dict[str, Array]:
    """Every array that does not depend on an input: initialisers, Constant nodes, and Identity copies of these.

    Raises:
        ModelError: one cannot be read, or its name is taken.
    """
    constants = {tensor.name: read_tensor(tensor, None) for tensor in model.graph.initializer}
    taken = {*constants, *(value.name for value in model.graph.input)}
    if len(constants) != len(model.graph.initializer):
        raise ModelError("Two weights of the model have the same name; the file is damaged. Export it again.")
    for index, node in enumerate(model.graph.node):
        if not _is_constant(node, constants):
            continue
        if node.output[0] in taken:
            raise ModelError(
                f"{node.op_type} node '{_node_name(node, index)}' writes '{node.output[0]}', "
                "which is already a weight or an input. The file is damaged; export it again."
            )
        taken.add(node.output[0])
        constants[node.output[0]] = (
            _constant_value(node, index) if node.op_type == "Constant" else constants[node.input[0]]
        )
    return constants


def _is_constant(node: NodeProto, constants: dict[str, Array]) -> bool:
    return node.op_type == "Constant" or (node.op_type == "Identity" and node.input[0] in constants)


def _constant_value(node: NodeProto, index: int) -> Array:
    attributes = _attributes(node, index)
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for key, value in attributes.items():
        if key == "value":
            return read_tensor(value, None)
        if key in kinds:
            return np.asarray(value, kinds[key])
    form = ", ".join(attributes) or "nothing"
    name = _node_name(node, index)
    raise UnsupportedModelError(f"Constant node '{name}' holds {form}; a dense numeric array is expected.")


def _add_input(graph: Graph, value: ValueInfoProto, size: HeightWidth | None) -> None:
    what = f"Graph input '{value.name}'"
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise ModelError(f"{what} does not declare a tensor shape.")
    tensor = value.type.tensor_type
    shape: Shape = tuple(int(size.dim_value) if size.dim_value > 0 else None for size in tensor.shape.dim)
    if not shape:
        raise ModelError(f"{what} is a scalar; its first dimension must be the batch.")
    if size is not None and len(shape) == 4:
        if any(fixed not in (None, asked) for fixed, asked in zip(shape[2:], size, strict=True)):
            raise ModelError(f"{what} has height and width {list(shape[2:])} in the file, not {list(size)}.")
        shape = (*shape[:2], *size)
    graph.inputs.append(value.name)
    graph.values[value.name] = ValueInfo(value.name, shape, type_of(tensor.elem_type, what))


def _add_node(graph: Graph, node: NodeProto, index: int) -> None:
    if _is_constant(node, graph.constants):
        return
    for value in node.input:
        if value and value not in graph.values:
            raise ModelError(
                f"{node.op_type} node '{_node_name(node, index)}' reads '{value}', which nothing before it writes."
            )
    source = Source(
        _operator(node), _node_name(node, index), tuple(node.input), tuple(node.output), _attributes(node, index)
    )
    for made in normalise(source, graph):
        graph.values[made.output] = shapes.infer(made, graph)
        graph.nodes.append(made)


def _operator(node: NodeProto) -> str:
    """The operator's name, with its domain unless it is ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _node_name(node: NodeProto, index: int) -> str:
    return node.name or (node.output[0] if node.output else "") or f"{node.op_type}_{index}"


def _attributes(node: NodeProto, index: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        # Text that is not UTF-8 comes out of protobuf as bytes.
        named = isinstance(attribute.name, str)
        if not named or attribute.ref_attr_name or attribute.type == AttributeProto.UNDEFINED:
            raise ModelError(
                f"{node.op_type} node '{_node_name(node, index)}': attribute '{attribute.name}' has no value."
            )
        attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
    return attributes


def _free_batch(graph: Graph) -> None:
    """Makes dimension 0 of every input the batch, also in files exported for one fixed batch size.

    A Reshape that spells out the fixed batch size then means "the batch", which is what it meant in the file.
    """
    for node in graph.nodes:
        if node.op == "Reshape" and node.inputs[0] not in graph.constants:
            target, shape = node.attrs["shape"], graph.values[node.inputs[0]].shape
            if target and shape and target[0] is not None and target[0] == shape[0]:
                node.attrs["shape"] = (0, *target[1:])
    for name in graph.inputs:
        info = graph.values[name]
        info.shape = (None, *info.shape[1:])
    shapes.infer_all(graph)
