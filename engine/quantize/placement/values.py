"""Which values of a network are stored in eight bits, and which share one scale."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.network.layers import weight_names

# Operators that only move or pick values: their output is exact at the scale of their input.
_VALUE_PRESERVING = frozenset({"MaxPool", "Flatten", "Reshape"})

# Operators that are worth running on eight-bit values only when something after them wants eight bits too.
_CARRIERS = _VALUE_PRESERVING | {"AveragePool", "GlobalAveragePool", "Relu", "Clip", "Identity"}

_ACTIVATIONS = frozenset({"Relu", "Clip"})

# Operators whose output has a range of its own, and which take eight bits where their output is wanted in eight bits.
_CURVES = frozenset({"HardSigmoid", "HardSwish", "Sigmoid"})


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


def place(graph: Graph, floats: Collection[str] = ()) -> Placement:
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


def _place_all(graph: Graph) -> Placement:
    wanted = _wanted_values(graph)
    fused = _fused_values(graph, wanted)
    producers = graph.writers()
    roots: dict[str, str] = {}
    for name in [*graph.inputs, *(node.output for node in graph.nodes)]:
        producer = producers.get(name)
        if producer is not None and producer.op in _VALUE_PRESERVING and producer.inputs[0] in roots:
            if name in graph.outputs and name not in wanted:
                continue
            roots[name] = roots[producer.inputs[0]]
        elif name in wanted and name not in fused:
            roots[name] = name
    non_negative = _non_negative_values(graph)
    return Placement(roots, frozenset(root for root in roots.values() if root in non_negative))


def residual_operands(graph: Graph, node: Node) -> tuple[str, str] | None:
    """The two operands of an Add of two activations, or None for every other node (an Add of a constant included)."""
    if node.op != "Add" or any(name in graph.constants for name in node.inputs):
        return None
    return node.inputs[0], node.inputs[1]


def _wanted_values(graph: Graph) -> set[str]:
    """Values that at least one reader would like to receive in eight bits, decided from the end of the network."""
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        if weight_names(graph, node) is not None:
            wanted.add(node.inputs[0])
        elif node.output in wanted:
            if node.op in _CARRIERS or node.op in _CURVES:
                wanted.add(node.inputs[0])
            elif residual_operands(graph, node) is not None:
                wanted.update(node.inputs)
            elif node.op == "Mul":
                wanted.update(name for name in node.inputs if name not in graph.constants and not _is_gate(graph, name))
    return wanted


def _is_gate(graph: Graph, name: str) -> bool:
    """Whether a value is one number a channel: so few that eight bits save nothing, while all pixels would suffer."""
    shape = graph.values[name].shape
    return len(shape) == 2 or shape[2:] == (1, 1)


def _fused_values(graph: Graph, wanted: set[str]) -> set[str]:
    """Wanted values that stay in the accumulator of the Conv or Add that makes them and so are never stored."""
    producers, readers, outputs = graph.writers(), graph.readers(), graph.outputs
    depth = _convolution_depth(graph)
    fused: set[str] = set()
    for name in wanted:
        producer = producers.get(name)
        if producer is None or name in outputs or len(readers[name]) != 1:
            continue
        makes_sums = weight_names(graph, producer) is not None or residual_operands(graph, producer) is not None
        if makes_sums and readers[name][0].op in _ACTIVATIONS:
            fused.add(name)
    order = {node.output: position for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        operands = residual_operands(graph, node)
        if operands is None or operands[0] == operands[1]:
            continue
        candidates = [name for name in operands if _is_private_convolution(graph, name, producers, readers, outputs)]
        if candidates:
            fused.add(max(candidates, key=lambda name: (depth[name], order[name])))
    return fused


def _is_private_convolution(
    graph: Graph,
    name: str,
    producers: dict[str, Node],
    readers: dict[str, list[Node]],
    outputs: list[str],
) -> bool:
    producer = producers.get(name)
    if producer is None or producer.op != "Conv" or weight_names(graph, producer) is None:
        return False
    return len(readers[name]) == 1 and name not in outputs


def _convolution_depth(graph: Graph) -> dict[str, int]:
    """Number of convolutions on the longest path from the input to each value."""
    depth: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    for node in graph.nodes:
        below = max((depth.get(name, 0) for name in node.present_inputs()), default=0)
        depth[node.output] = below + (node.op == "Conv")
    return depth


def _non_negative_values(graph: Graph) -> set[str]:
    """Values that the structure of the network keeps at zero or above."""
    known: set[str] = set()
    for node in graph.nodes:
        if _makes_non_negative(node, lambda names: all(name in known for name in names)):
            known.add(node.output)
    return known


def _makes_non_negative(node: Node, hold: Callable[[Iterable[str]], bool]) -> bool:
    if node.op in ("Relu", "Softmax", "Sigmoid", "HardSigmoid"):
        return True
    if node.op == "Clip":
        return node.attrs["clip"][0] >= 0 or hold(node.inputs[:1])
    if node.op in ("Add", "Mul"):
        return hold(node.inputs)
    return node.op in _CARRIERS and hold(node.inputs[:1])
