"""The ONNX graphs that ATC gets: in an opset that old versions read, and with our own convolution where asked."""

from __future__ import annotations

import onnx
from onnx import helper

from engine.errors import ModelError
from engine.quantize.float_graph import FloatGraph, attributes, weight_names
from engine.quantize.folding import read_float_graph

OPSET = 11
_IR_VERSION = 6

OWN_DOMAIN = "tessera"
OWN_OPERATOR = "ConvBiasRelu"

# Operators that mean the same in every opset from 11 to 22, and the attributes, new since, at which they would not.
_UNCHANGED: dict[str, frozenset[str]] = {
    "Add": frozenset(),
    "AveragePool": frozenset({"dilations"}),
    "BatchNormalization": frozenset({"training_mode"}),
    "Clip": frozenset(),
    "Constant": frozenset({"value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"}),
    "Conv": frozenset(),
    "Flatten": frozenset(),
    "Gemm": frozenset(),
    "GlobalAveragePool": frozenset(),
    "Identity": frozenset(),
    "MatMul": frozenset(),
    "MaxPool": frozenset(),
    "Relu": frozenset(),
    "Reshape": frozenset({"allowzero"}),
}


def for_atc(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph as opset 11, which all versions of ATC and AMCT read, if its operators mean the same there.

    Graphs with other operators are returned as they are; what ATC makes of them, ATC says.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) <= OPSET or not all(_is_unchanged(node) for node in model.graph.node):
        return model
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    lowered.ir_version = min(model.ir_version, _IR_VERSION)
    for entry in lowered.opset_import:
        if entry.domain == "":
            entry.version = OPSET
    return lowered


def _is_unchanged(node: onnx.NodeProto) -> bool:
    if node.domain == OWN_DOMAIN:
        return True
    new = _UNCHANGED.get(node.op_type) if node.domain == "" else None
    return new is not None and not any(attribute.name in new for attribute in node.attribute)


def with_own_convolution(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with BatchNormalization folded and every 3x3 convolution with its ReLU as one operator of our own.

    An ONNX `Conv` always becomes CANN's own Conv2D; only a node of another type reaches the operator package of
    `models/ascend/custom_conv`.

    Raises:
        ModelError: no convolution of the graph can be replaced.
    """
    graph = read_float_graph(model)
    replaced = 0
    readers, outputs = graph.consumers(), graph.output_names()
    merged: set[int] = set()
    for node in graph.nodes:
        following = readers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type != "Relu" or node.output[0] in outputs:
            continue
        if _is_replaceable(graph, node):
            _replace(node, following[0])
            merged.add(id(following[0]))
            replaced += 1
    if not replaced:
        raise ModelError("The graph has no 3x3 convolution with a ReLU behind it that the own operator could replace.")
    graph.nodes = [node for node in graph.nodes if id(node) not in merged]
    result = graph.to_model()
    result.opset_import.append(helper.make_opsetid(OWN_DOMAIN, 1))
    return result


def _is_replaceable(graph: FloatGraph, node: onnx.NodeProto) -> bool:
    names = weight_names(graph, node)
    if node.op_type != "Conv" or names is None:
        return False
    settings = attributes(node)
    return (
        graph.constants[names[0]].shape[2:] == (3, 3)
        and settings.get("group", 1) == 1
        and list(settings.get("dilations", [1, 1])) == [1, 1]
        and settings.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _replace(node: onnx.NodeProto, relu: onnx.NodeProto) -> None:
    settings = attributes(node)
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    strides = list(settings.get("strides", [1, 1]))
    node.op_type, node.domain = OWN_OPERATOR, OWN_DOMAIN
    node.output[0] = relu.output[0]
    del node.attribute[:]
    node.attribute.extend(
        [
            helper.make_attribute("strides", strides),
            # In the order of ONNX; the plugin of the operator package turns it into CANN's top, bottom, left, right.
            helper.make_attribute("pads", [top, left, bottom, right]),
        ]
    )
