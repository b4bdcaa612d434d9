"""Small changes to ONNX models as protobuf has them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, helper, numpy_helper

from tessera.engine.graph.ir import Array

_QUANTISED_OPERATORS = ("QuantizeLinear", "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


def computes_in_integers(model: ModelProto) -> bool:
    """Whether a graph is quantised, as QDQ or with quantised operators."""
    return any(node.op_type.startswith(_QUANTISED_OPERATORS) for node in model.graph.node)


def unused_name(model: ModelProto, wanted: str) -> str:
    """`wanted`, or a longer name where a value of the model is called that already."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    while wanted in taken:
        wanted += "_"
    return wanted


def insert_constants(model: ModelProto, arrays: Mapping[str, Array]) -> None:
    """Adds constants by name, in place, in front of all nodes.

    As nodes, because files before ONNX 1.5 (IR version 3) would have to list initialisers among their inputs as well.
    """
    made = [
        helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(array))
        for name, array in arrays.items()
    ]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*made, *nodes])
