"""The ONNX graphs that ATC gets: in an opset that old versions read, and with our own convolution where asked."""

from __future__ import annotations

import onnx

from engine.errors import ModelError
from engine.graph.ir import Graph, Node
from engine.graph.passes.rewriter import Rewriter
from engine.graph.writer import to_onnx
from engine.quantize.network.layers import read_network, weight_names

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
    graph = read_network(model)
    rewriter, replaced = Rewriter(graph), False
    for node in list(graph.nodes):
        relu = rewriter.only_reader(node.output)
        if relu is not None and relu.op == "Relu" and _is_replaceable(graph, node):
            # Padding in the order of ONNX; the operator package's plugin turns it into CANN's top, bottom, left, right.
            attrs = {name: list(node.attrs[name]) for name in ("strides", "pads")}
            rewriter.remove(relu)
            own = Node(f"{OWN_DOMAIN}.{OWN_OPERATOR}", node.name, node.inputs[:3], [relu.output], attrs)
            rewriter.replace(node, own)
            replaced = True
    if not replaced:
        raise ModelError("The graph has no 3x3 convolution with a ReLU behind it that the own operator could replace.")
    rewriter.commit()
    return to_onnx(graph)


def _is_replaceable(graph: Graph, node: Node) -> bool:
    if node.op != "Conv" or weight_names(graph, node) is None:
        return False
    shape = (node.attrs["kernel"], node.attrs["groups"], node.attrs["dilations"])
    return bool(shape == ((3, 3), 1, (1, 1)))
