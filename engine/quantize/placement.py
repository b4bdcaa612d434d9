"""Which values of a network are stored in eight bits, and which share one scale."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import onnx

from engine.quantize.float_graph import FloatGraph, attributes, weight_names

# Operators that only move or pick values: their output is exact at the scale of their input.
_VALUE_PRESERVING = frozenset({"MaxPool", "Flatten", "Reshape"})

# Operators that are worth running on eight-bit values only when something after them wants eight bits too.
_CARRIERS = _VALUE_PRESERVING | {"AveragePool", "GlobalAveragePool", "Relu", "Clip", "Identity"}

_ACTIVATIONS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Placement:
    """Where QuantizeLinear and DequantizeLinear pairs go.

    Attributes:
        roots: for each quantised value, the value whose range it uses: itself, except behind a pooling or a reshape.
        non_negative: the roots that cannot be negative whatever the image: their zero point is 0.
    """

    roots: dict[str, str]
    non_negative: frozenset[str]

    def ranges_needed(self) -> list[str]:
        """The values whose range has to be known, in the order of the network."""
        return list(dict.fromkeys(self.roots.values()))


def place(graph: FloatGraph, floats: Collection[str] = ()) -> Placement:
    """Decide which values of `graph` are quantised.

    The rule is what integer kernels need: the input of every Conv and Gemm with constant weights, and every operand of
    a residual Add, except the one Conv whose result is added inside its own epilogue, in float.

    Args:
        graph: the float network.
        floats: roots that are to stay in floating point all the same; the layers that read them compute in it too.
    """
    complete = _place_all(graph)
    roots = {name: root for name, root in complete.roots.items() if root not in floats}
    return Placement(roots, complete.non_negative - set(floats))


def _place_all(graph: FloatGraph) -> Placement:
    wanted = _wanted_values(graph)
    fused = _fused_values(graph, wanted)
    producers = graph.producers()
    roots: dict[str, str] = {}
    for name in [value.name for value in graph.inputs] + [name for node in graph.nodes for name in node.output]:
        producer = producers.get(name)
        if producer is not None and producer.op_type in _VALUE_PRESERVING and producer.input[0] in roots:
            if name in graph.output_names() and name not in wanted:
                continue
            roots[name] = roots[producer.input[0]]
        elif name in wanted and name not in fused:
            roots[name] = name
    non_negative = _non_negative_values(graph)
    return Placement(roots, frozenset(root for root in roots.values() if root in non_negative))


def residual_operands(graph: FloatGraph, node: onnx.NodeProto) -> tuple[str, str] | None:
    """The two operands of an Add of two activations, or None for every other node (an Add of a constant included)."""
    if node.op_type != "Add" or any(name in graph.constants for name in node.input):
        return None
    return node.input[0], node.input[1]


def _wanted_values(graph: FloatGraph) -> set[str]:
    """Values that at least one reader would like to receive in eight bits, decided from the end of the network."""
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        if weight_names(graph, node) is not None:
            wanted.add(node.input[0])
        elif node.output[0] in wanted:
            if node.op_type in _CARRIERS:
                wanted.add(node.input[0])
            elif residual_operands(graph, node) is not None:
                wanted.update(node.input)
    return wanted


def _fused_values(graph: FloatGraph, wanted: set[str]) -> set[str]:
    """Wanted values that stay in the accumulator of the Conv or Add that makes them and so are never stored."""
    producers, readers, outputs = graph.producers(), graph.consumers(), graph.output_names()
    depth = _convolution_depth(graph)
    fused: set[str] = set()
    for name in wanted:
        producer = producers.get(name)
        if producer is None or name in outputs or len(readers[name]) != 1:
            continue
        makes_sums = weight_names(graph, producer) is not None or residual_operands(graph, producer) is not None
        if makes_sums and readers[name][0].op_type in _ACTIVATIONS:
            fused.add(name)
    order = {node.output[0]: position for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        operands = residual_operands(graph, node)
        if operands is None or operands[0] == operands[1]:
            continue
        candidates = [name for name in operands if _is_private_convolution(graph, name, producers, readers, outputs)]
        if candidates:
            fused.add(max(candidates, key=lambda name: (depth[name], order[name])))
    return fused


def _is_private_convolution(
    graph: FloatGraph,
    name: str,
    producers: dict[str, onnx.NodeProto],
    readers: dict[str, list[onnx.NodeProto]],
    outputs: set[str],
) -> bool:
    producer = producers.get(name)
    if producer is None or producer.op_type != "Conv" or weight_names(graph, producer) is None:
        return False
    return len(readers[name]) == 1 and name not in outputs


def _convolution_depth(graph: FloatGraph) -> dict[str, int]:
    """Number of convolutions on the longest path from the input to each value."""
    depth: dict[str, int] = {value.name: 0 for value in graph.inputs}
    for node in graph.nodes:
        below = max((depth.get(name, 0) for name in node.input), default=0)
        depth.update(dict.fromkeys(node.output, below + (node.op_type == "Conv")))
    return depth


def _non_negative_values(graph: FloatGraph) -> set[str]:
    """Values that the structure of the network keeps at zero or above."""
    known: set[str] = set()
    for node in graph.nodes:
        if _makes_non_negative(graph, node, lambda names: all(name in known for name in names)):
            known.update(node.output)
    return known


def _makes_non_negative(graph: FloatGraph, node: onnx.NodeProto, hold: Callable[[Iterable[str]], bool]) -> bool:
    if node.op_type in ("Relu", "Softmax"):
        return True
    if node.op_type == "Clip":
        return _clip_minimum(graph, node) >= 0 or hold(node.input[:1])
    if node.op_type == "Add":
        return hold(node.input)
    return node.op_type in _CARRIERS and hold(node.input[:1])


def _clip_minimum(graph: FloatGraph, node: onnx.NodeProto) -> float:
    if "min" in attributes(node):
        return float(attributes(node)["min"])
    if len(node.input) > 1 and node.input[1] in graph.constants:
        return float(graph.constants[node.input[1]])
    return float("-inf")
