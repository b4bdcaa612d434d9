from __future__ import annotations

from tessera.engine.graph.ir import NO_CLIP, Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.shapes import same_shape


def fuse_residual(graph: Graph) -> bool:
    """Makes, in place, an Add of equal shapes the residual input of a Conv that is alone in feeding it.

    When both sides come from such a Conv, the later one takes the Add, so that the other side is ready when it runs.
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op == "Add":
            _fuse(rewriter, node)
    return rewriter.commit()


def _fuse(rewriter: Rewriter, node: Node) -> None:
    values = rewriter.graph.values
    if not same_shape(values[node.inputs[0]].shape, values[node.inputs[1]].shape):
        return
    chosen: Node | None = None
    for value in node.inputs:
        writer = rewriter.producer(value)
        if writer is None or not _takes_residual(writer) or values[value].quant is not None:
            continue
        if rewriter.only_reader(value) is node and (chosen is None or rewriter.is_later(writer, chosen)):
            chosen = writer
    if chosen is None:
        return
    residual = next(value for value in node.inputs if value != chosen.output)
    rewriter.move_to(chosen, node)
    rewriter.set_output(chosen, node.output)
    rewriter.set_input(chosen, 3, residual)
    chosen.attrs["clip"] = node.attrs["clip"]


def _takes_residual(node: Node) -> bool:
    return node.op == "Conv" and not node.inputs[3] and node.attrs["clip"] == NO_CLIP
