from __future__ import annotations

from tessera.engine.graph.ir import NO_CLIP, Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.shapes import same_shape


def eliminate(graph: Graph, *, keep_names: bool = False) -> bool:
    """Removes, in place, nodes that only copy: Identity, unbounded Clip, reshapes to the same or an earlier shape.

    Nodes and constants that no output depends on go too. A copy that must stay, because it connects a graph input to a
    graph output, becomes an unbounded Clip. With `keep_names`, no value is renamed: copies to a graph output stay too.
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if keep_names and node.output in graph.outputs:
            continue
        original = _copied_value(rewriter, node)
        if original is not None and rewriter.can_merge(original, node.output):
            rewriter.remove(node)
            rewriter.merge(original, node.output)
        elif node.op == "Identity":
            rewriter.turn_into(node, "Clip", {"clip": NO_CLIP})
    return rewriter.commit()


def _copied_value(rewriter: Rewriter, node: Node) -> str | None:
    """The value that `node` writes out again unchanged, None when it does more than copy."""
    graph = rewriter.graph
    value = node.inputs[0] if node.inputs else ""
    if not value or not _same_storage(graph, value, node.output):
        return None
    if node.op == "Identity" or (node.op == "Clip" and node.attrs["clip"] == NO_CLIP):
        return value
    shape = graph.values[node.output].shape
    reader: Node | None = node
    while reader is not None and reader.op in ("Flatten", "Reshape") and _same_storage(graph, reader.inputs[0], value):
        value = reader.inputs[0]
        if same_shape(graph.values[value].shape, shape):
            return value
        reader = rewriter.producer(value)
    return None


def _same_storage(graph: Graph, first: str, second: str) -> bool:
    a, b = graph.values[first], graph.values[second]
    if a.quant is None or b.quant is None:
        return a.quant is b.quant and a.dtype == b.dtype
    return a.quant.matches(b.quant)
