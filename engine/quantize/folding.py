"""Reading a float ONNX model into a `FloatGraph`: constants inlined, BatchNormalization folded, classifiers as Gemm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError, UnsupportedOperatorError
from engine.quantize.float_graph import FloatGraph, attributes, weight_names

SUPPORTED_OPERATORS = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Constant",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "MatMul",
        "MaxPool",
        "Relu",
        "Reshape",
        "Softmax",
    }
)

# Per-axis DequantizeLinear exists since opset 13; older files are converted to the opset that our own files use.
_OLDEST_OPSET = 13
_TARGET_OPSET = 17

_Array = NDArray[Any]


def read_float_graph(model: str | os.PathLike[str] | onnx.ModelProto) -> FloatGraph:
    """Read a float ONNX model and fold everything that is constant into the weights.

    Args:
        model: a file, or a model in memory.

    Raises:
        ModelError: the file cannot be read, is not a float32 image network, or is already quantised.
        UnsupportedOperatorError: a node's operator is not one of `SUPPORTED_OPERATORS`.
    """
    proto = model if isinstance(model, onnx.ModelProto) else _load(Path(model))
    _refuse_unsupported(proto)
    graph = _collect(_at_supported_opset(proto))
    _inline_constants(graph)
    _drop_identities(graph)
    _matmul_to_gemm(graph)
    _normalise_weights(graph)
    _fold_batchnorms(graph)
    return graph


def _load(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(os.fspath(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"Cannot read the model {path}: {error.strerror or error}.") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX model, or it is damaged: {error}. Export or copy it again.") from error
    if not proto.graph.node:
        raise ModelError(f"{path} holds no ONNX graph. Export or copy it again.")
    return proto


def _refuse_unsupported(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        label = node.name or (node.output[0] if node.output else "?")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise ModelError(f"The model is quantised already ({node.op_type} node '{label}'). Give its float form.")
        if node.op_type not in SUPPORTED_OPERATORS or node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperatorError(label, node.op_type, "it cannot be quantised.")
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(f"Weight '{tensor.name}' lies outside the model file. Save the model as one file first.")


def _at_supported_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError("The model does not say which operator set it uses. Export it again.")
    if versions[0] >= _OLDEST_OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, _TARGET_OPSET)
    except Exception as error:  # the converter is C++ and raises bare RuntimeErrors of several kinds
        raise ModelError(
            f"The model uses operator set {versions[0]}, which could not be converted to {_TARGET_OPSET}: {error}. "
            f"Export it with operator set {_TARGET_OPSET}."
        ) from error


def _collect(proto: onnx.ModelProto) -> FloatGraph:
    source = proto.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.initializer}
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    graph = FloatGraph(
        name=source.name or "graph",
        nodes=[_copy(node) for node in source.node],
        constants=constants,
        inputs=[value for value in source.input if value.name not in constants],
        outputs=list(source.output),
        metadata={entry.key: entry.value for entry in proto.metadata_props},
        opset=opset,
    )
    for value in (*graph.inputs, *graph.outputs):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise ModelError(f"'{value.name}' is not float32. Only float32 networks can be quantised.")
    if len(graph.inputs) != 1:
        raise ModelError(f"The model has {len(graph.inputs)} inputs. Only networks with one input can be quantised.")
    return graph


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    if not twin.name:
        twin.name = twin.output[0]
    return twin


def _inline_constants(graph: FloatGraph) -> None:
    for node in graph.nodes:
        if node.op_type == "Constant":
            name, value = next(iter(attributes(node).items()), ("", None))
            if isinstance(value, TensorProto):
                graph.constants[node.output[0]] = numpy_helper.to_array(value)
            elif name in ("value_float", "value_floats"):
                graph.constants[node.output[0]] = np.array(value, np.float32)
            elif name in ("value_int", "value_ints"):
                graph.constants[node.output[0]] = np.array(value, np.int64)
            else:
                raise ModelError(f"Constant '{node.name}' holds no number that can be read. Export the model again.")
    graph.nodes = [node for node in graph.nodes if node.op_type != "Constant"]


def _drop_identities(graph: FloatGraph) -> None:
    kept: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    outputs = graph.output_names()
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    graph.nodes = kept


def _matmul_to_gemm(graph: FloatGraph) -> None:
    """Write `x @ W + b` with a two-dimensional x as Gemm, so that a classifier has one form from here on."""
    ranks = _ranks(graph)
    readers = graph.consumers()
    absorbed: set[int] = set()
    for node in graph.nodes:
        if node.op_type != "MatMul" or ranks.get(node.input[0]) != 2:
            continue
        weight = graph.constants.get(node.input[1])
        if weight is None or weight.ndim != 2:
            continue
        bias_name = graph.fresh_name(f"{node.name}.bias")
        graph.constants[bias_name] = np.zeros(weight.shape[1], np.float32)
        node.op_type = "Gemm"
        node.input.append(bias_name)
        following = readers.get(node.output[0], [])
        if len(following) == 1 and following[0].op_type == "Add" and node.output[0] not in graph.output_names():
            add = following[0]
            other = next((name for name in add.input if name != node.output[0]), "")
            bias = graph.constants.get(other)
            if bias is not None and bias.size in (1, weight.shape[1]) and bias.ndim <= 2 and bias.shape[-1:] != (0,):
                graph.constants[bias_name] = np.broadcast_to(bias.reshape(-1), weight.shape[1]).copy()
                node.output[0] = add.output[0]
                absorbed.add(id(add))
    graph.nodes = [node for node in graph.nodes if id(node) not in absorbed]


def _ranks(graph: FloatGraph) -> dict[str, int]:
    try:
        inferred = onnx.shape_inference.infer_shapes(graph.to_model()).graph
    except Exception as error:  # the checker is C++ and raises several unrelated types
        raise ModelError(f"The shapes of the model do not fit together: {error}.") from error
    known = (*inferred.value_info, *inferred.input, *inferred.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in known if v.type.tensor_type.HasField("shape")}


def _normalise_weights(graph: FloatGraph) -> None:
    """Give every Conv and Gemm its own float64 weight (output channels first) and its own bias."""
    for node in graph.nodes:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in graph.constants:
            continue
        options = attributes(node)
        if node.op_type == "Gemm" and options.get("transA", 0):
            continue
        weight = graph.constants[node.input[1]].astype(np.float64)
        alpha, beta = 1.0, 1.0
        if node.op_type == "Gemm":
            alpha, beta = float(options.get("alpha", 1.0)), float(options.get("beta", 1.0))
            weight = alpha * (weight if options.get("transB", 0) else weight.T)
        channels = weight.shape[0]
        bias_name = node.input[2] if len(node.input) > 2 else ""
        bias = np.zeros(channels) if not bias_name else graph.constants.get(bias_name)
        if bias is None or bias.size not in (1, channels):
            continue
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ModelError(f"The weights of '{node.name}' hold values that are not finite. The model is damaged.")
        if node.op_type == "Gemm":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("transB", 1))
        bias = np.broadcast_to(beta * bias.astype(np.float64).reshape(-1), channels).copy()
        _own_constants(graph, node, weight, bias)


def _own_constants(graph: FloatGraph, node: onnx.NodeProto, weight: _Array, bias: _Array) -> None:
    names = [graph.fresh_name(f"{node.name}.folded.{part}") for part in ("weight", "bias")]
    graph.constants.update(zip(names, (weight, bias), strict=True))
    data = node.input[0]
    del node.input[:]
    node.input.extend([data, *names])


def _fold_batchnorms(graph: FloatGraph) -> None:
    producers, readers, outputs = graph.producers(), graph.consumers(), graph.output_names()
    folded: set[int] = set()
    for node in graph.nodes:
        if node.op_type != "BatchNormalization":
            continue
        conv = producers.get(node.input[0])
        names = weight_names(graph, conv) if conv is not None and conv.op_type == "Conv" else None
        if conv is None or names is None or len(readers[node.input[0]]) > 1 or node.input[0] in outputs:
            continue
        parameters = [graph.constants.get(name) for name in node.input[1:5]]
        if any(value is None for value in parameters):
            continue
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in parameters)
        if not (variance >= 0).all():
            raise ModelError(f"BatchNormalization '{node.name}' has a negative or undefined variance: damaged weights.")
        factor = gamma / np.sqrt(variance + float(attributes(node).get("epsilon", 1e-5)))
        weight, bias = graph.constants[names[0]], graph.constants[names[1]]
        graph.constants[names[0]] = weight * factor.reshape(-1, *([1] * (weight.ndim - 1)))
        graph.constants[names[1]] = (bias - mean) * factor + beta
        conv.output[0] = node.output[0]
        folded.add(id(node))
    graph.nodes = [node for node in graph.nodes if id(node) not in folded]
