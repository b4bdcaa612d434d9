"""The float network as the quantiser sees it: constants resolved, BatchNormalization folded, weights in float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_IR_VERSION = 8

_Array = NDArray[Any]


@dataclass
class FloatGraph:
    """A float32 graph whose nodes are topologically sorted and whose constants are all in one place.

    Attributes:
        name: the graph's name.
        nodes: the operators, in an order in which they can run.
        constants: every weight and shape by name; folded weights are float64, so that quantising them rounds once.
        inputs: the true inputs (initialisers that are also listed as inputs are left out).
        outputs: the outputs.
        metadata: the model's key-value properties, kept in the quantised model.
        opset: version of the default operator set, at least 13.
    """

    name: str
    nodes: list[onnx.NodeProto]
    constants: dict[str, _Array]
    inputs: list[onnx.ValueInfoProto]
    outputs: list[onnx.ValueInfoProto]
    metadata: dict[str, str] = field(default_factory=dict)
    opset: int = 17

    def output_names(self) -> set[str]:
        """Names of the graph's outputs."""
        return {value.name for value in self.outputs}

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each value; graph inputs and constants have none."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each value; a node that reads it twice is listed once."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, or `wanted` with a number after it if the graph already uses that name."""
        taken = self._taken_names()
        name, number = wanted, 0
        while name in taken:
            number += 1
            name = f"{wanted}.{number}"
        return name

    def _taken_names(self) -> set[str]:
        taken = set(self.constants) | {value.name for value in self.inputs}
        taken.update(name for node in self.nodes for name in (*node.input, *node.output))
        return taken

    def to_model(self, outputs: Iterable[str] | None = None) -> onnx.ModelProto:
        """The graph as a float32 ONNX model.

        Args:
            outputs: values to expose instead of the graph's own outputs; nodes that none of them needs are left out.
        """
        nodes, declared = self.nodes, self.outputs
        if outputs is not None:
            wanted = list(dict.fromkeys(outputs))
            nodes = needed_nodes(self.nodes, wanted)
            declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted]
        return assemble_model(self, nodes, self.constants, declared)


def weight_names(graph: FloatGraph, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Names of the constant weight and bias of a Conv or Gemm that can be quantised, or None for every other node."""
    if node.op_type not in ("Conv", "Gemm") or len(node.input) != 3 or attributes(node).get("transA", 0):
        return None
    weight, bias = node.input[1], node.input[2]
    if node.input[0] in graph.constants or weight not in graph.constants or bias not in graph.constants:
        return None
    return weight, bias


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def assemble_model(
    graph: FloatGraph,
    nodes: Iterable[onnx.NodeProto],
    constants: dict[str, _Array],
    outputs: Iterable[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """A model made of `nodes`, with those of `constants` that they use, and the graph's inputs and metadata."""
    nodes = list(nodes)
    used = dict.fromkeys(name for node in nodes for name in node.input if name in constants)
    initialisers = [numpy_helper.from_array(_storable(constants[name]), name) for name in used]
    proto = helper.make_graph(nodes, graph.name, graph.inputs, list(outputs), initialisers)
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", graph.opset)], producer_name="tessera", ir_version=_IR_VERSION
    )
    for key, value in sorted(graph.metadata.items()):
        model.metadata_props.add(key=key, value=value)
    return model


def needed_nodes(nodes: Sequence[onnx.NodeProto], wanted: Iterable[str]) -> list[onnx.NodeProto]:
    """Those of `nodes`, topologically sorted, that the wanted values depend on."""
    needed = set(wanted)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def _storable(array: _Array) -> _Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array
