"""Counts multiply-accumulates."""

from __future__ import annotations

from math import prod

from engine.graph.ir import Graph, Node


def count_macs(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of one image by node name, for convolutions and matrix products with known sizes."""
    return {node.name: _node_macs(graph, node) for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul")}


def _node_macs(graph: Graph, node: Node) -> int:
    weights = graph.values[node.inputs[1]].shape
    output = graph.values[node.output].shape
    sizes = [size for size in output[1:] if size is not None]
    if len(sizes) != len(output) - 1 or any(size is None for size in weights):
        return 0
    known = [size for size in weights if size is not None]
    per_output = prod(known[1:]) if node.op == "Conv" else prod(known) // max(1, sizes[-1])
    return prod(sizes) * per_output
