from __future__ import annotations

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter

_CLIPPING = ("Add", "Clip", "Conv")


def fuse_activation(graph: Graph) -> bool:
    """Makes, in place, every Relu a Clip, and every Clip the `clip` attribute of what it follows where it is alone."""
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op == "Relu":
            rewriter.turn_into(node, "Clip", {"clip": (0.0, float("inf"))})
        if node.op != "Clip":
            continue
        # Clipping each element commutes with the reshapes that may lie between.
        writer = rewriter.fusable_writer(node) or _writer_on_same_grid(rewriter, node)
        if writer is not None and writer.op in _CLIPPING:
            writer.attrs["clip"] = _compose(writer.attrs["clip"], node.attrs["clip"])
            rewriter.absorb_into_writer(node)
    return rewriter.commit()


def _writer_on_same_grid(rewriter: Rewriter, node: Node) -> Node | None:
    """The node whose stored result `node` is alone in clipping, to store it with the same parameters.

    Then clipping is choosing among stored integers, and a clamp of what is stored in the first place is the same.
    Quantisers with symmetric s8 activations write it so.
    """
    before, after = (rewriter.graph.values[value].quant for value in (node.inputs[0], node.output))
    if before is None or not before.matches(after) or rewriter.only_reader(node.inputs[0]) is not node:
        return None
    return rewriter.producer(node.inputs[0])


def _compose(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """The bounds that act like clipping to `first`, then to `second`."""
    low, high = (min(max(bound, second[0]), second[1]) for bound in first)
    return low, high
