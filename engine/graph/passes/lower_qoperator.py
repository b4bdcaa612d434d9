from __future__ import annotations

import numpy as np

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter

_ORDER_KEEPING = ("Clip", "Flatten", "Identity", "MaxPool", "Reshape")


def lower_qoperator(graph: Graph) -> bool:
    """Makes, in place, operators that move or compare stored integers do so with the real numbers behind them.

    Quantisation keeps order, so the largest stored integer is the largest real number, stored. Written that way, with
    a DequantizeLinear before and a QuantizeLinear after, such a node fits between values that are stored quantised.
    A Clip of integers right after its QuantizeLinear, as PyTorch writes for narrower ranges, moves before it instead.
    """
    rewriter = Rewriter(graph)
    quantised = {
        node.output: node
        for node in graph.nodes
        # A value with `quant` is read as real numbers already.
        if node.op == "QuantizeLinear" and graph.values[node.output].quant is None
    }
    for node in list(graph.nodes):
        writer = quantised.get(node.inputs[0]) if node.op in _ORDER_KEEPING else None
        if writer is None or graph.constants[writer.inputs[1]].ndim or graph.constants[writer.inputs[2]].ndim:
            continue
        quantised[node.output] = _clip_before(rewriter, node, writer) or _between_real(rewriter, node, writer)
    return rewriter.commit()


def _real_value(graph: Graph, like: str) -> str:
    return graph.add_value(f"{like}.real", graph.values[like].shape, np.dtype(np.float32))


def _attributes(graph: Graph, node: Node, writer: Node) -> dict[str, object]:
    """The node's attributes for real numbers instead of those that `writer` stores."""
    if node.op != "Clip":
        return node.attrs
    scale, zero_point = (graph.constants[value] for value in writer.inputs[1:])
    low, high = ((bound - float(zero_point)) * float(scale) for bound in node.attrs["clip"])
    return {"clip": (low, high)}


def _clip_before(rewriter: Rewriter, node: Node, writer: Node) -> Node | None:
    """Clips what `writer` stores instead of what it stored; None where something else needs the latter."""
    if node.op != "Clip" or rewriter.only_reader(writer.output) is not node:
        return None
    graph = rewriter.graph
    clipped = _real_value(graph, node.output)
    clip = Node("Clip", node.name, [writer.inputs[0]], [clipped], _attributes(graph, node, writer))
    rewriter.insert_before(writer, clip)
    rewriter.set_input(writer, 0, clipped)
    rewriter.remove(node)
    rewriter.set_output(writer, node.output)
    return writer


def _between_real(rewriter: Rewriter, node: Node, writer: Node) -> Node:
    graph = rewriter.graph
    parameters, axis = writer.inputs[1:], {"axis": writer.attrs["axis"]}
    before, after = _real_value(graph, node.inputs[0]), _real_value(graph, node.output)
    read = Node("DequantizeLinear", f"{node.name}.real", [node.inputs[0], *parameters], [before], dict(axis))
    real = Node(node.op, node.name, [before], [after], _attributes(graph, node, writer))
    stored = Node("QuantizeLinear", f"{node.name}.stored", [after, *parameters], [node.output], dict(axis))
    rewriter.insert_before(node, read)
    rewriter.insert_before(node, real)
    rewriter.replace(node, stored)
    return stored
