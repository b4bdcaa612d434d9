"""What a layer costs on paper: its class, multiply-accumulates and bytes. Backends add the measured time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tessera.engine.graph.ir import Graph, Node, ValueInfo


@dataclass(frozen=True)
class LayerCost:
    """One node of a graph, for one image.

    Attributes:
        layer_class: kernel and output size, such as "3x3 @28"; the operator's name where there is no kernel.
        macs: multiply-accumulates.
        activation_bytes: activations that must be read and written at least once.
        weight_bytes: weights and biases that must be read at least once, whatever the batch.
    """

    layer_class: str
    macs: int
    activation_bytes: int
    weight_bytes: int

    def bytes_moved(self, batch: int) -> int:
        """Least bytes that cross into the core for a batch: every activation once, the weights once."""
        return self.activation_bytes * batch + self.weight_bytes


def layer_costs(graph: Graph) -> dict[str, LayerCost]:
    """Costs by node name. Sizes that are only known at run time count as one."""
    return {node.name: _cost(graph, node) for node in graph.nodes}


def _cost(graph: Graph, node: Node) -> LayerCost:
    constants = [graph.values[name] for name in node.present_inputs() if name in graph.constants]
    activations = [graph.values[name] for name in node.present_inputs() if name not in graph.constants]
    return LayerCost(
        _layer_class(graph, node),
        _macs(graph, node),
        sum(_bytes_per_image(info) for info in (*activations, graph.values[node.output])),
        sum(prod(size or 1 for size in info.shape) * info.dtype.itemsize for info in constants),
    )


def _bytes_per_image(info: ValueInfo) -> int:
    return prod(size or 1 for size in info.shape[1:]) * info.dtype.itemsize


def _macs(graph: Graph, node: Node) -> int:
    if node.op not in ("Conv", "Gemm", "MatMul"):
        return 0
    outputs = [size or 1 for size in graph.values[node.output].shape[1:]]
    weights = [size or 1 for size in graph.values[node.inputs[1]].shape]
    per_output = prod(weights[1:]) if node.op == "Conv" else prod(weights) // outputs[-1]
    return prod(outputs) * per_output


def _layer_class(graph: Graph, node: Node) -> str:
    if node.op in ("Gemm", "MatMul"):
        return "fc"
    kernel = node.attrs.get("kernel")
    if kernel is None:
        return node.op
    shape = graph.values[node.output].shape
    size = shape[-1] if len(shape) == 4 else None
    if node.op == "Conv" and size == 1 and kernel == (1, 1):
        return "fc"
    name = f"{kernel[0]}x{kernel[1]} @{size if size is not None else '?'}"
    return name if node.op == "Conv" else f"{node.op} {name}"
