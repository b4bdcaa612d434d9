"""The ONNX graphs that ATC gets: in an opset that old versions read, and with our own convolution where asked."""

from __future__ import annotations

import onnx

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.writer import to_onnx
from tessera.engine.quantize.network.layers import read_network, weight_names

OPSET = 11

OWN_DOMAIN = "tessera"
OWN_OPERATOR = "ConvBiasRelu"


def for_atc(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph as opset 11, which all versions of ATC and AMCT read, if its operators can be written so.

    Graphs that the engine does not read, or that opset 11 has no form for, are returned as they are; what ATC makes of
    them, ATC says.
    """
    if {entry.domain: entry.version for entry in model.opset_import}.get("", 0) <= OPSET:
        return model
    try:
        return to_onnx(convert_model(model), opset=OPSET)
    except ModelError:
        return model


def with_own_convolution(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with BatchNormalization folded and every 3x3 convolution with its ReLU as one operator of our own.

    It is opset 11 too. An ONNX `Conv` always becomes CANN's own Conv2D; only a node of another type reaches the
    operator package of `models/ascend/custom_conv`.

    Raises:
        ModelError: no convolution of the graph can be replaced, or opset 11 has no form for the rest of it.
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
    return to_onnx(graph, opset=OPSET)


def _is_replaceable(graph: Graph, node: Node) -> bool:
    if node.op != "Conv" or weight_names(graph, node) is None:
        return False
    shape = (node.attrs["kernel"], node.attrs["groups"], node.attrs["dilations"])
    return bool(shape == ((3, 3), 1, (1, 1)))
