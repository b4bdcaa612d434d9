from __future__ import annotations

from tessera.engine.graph.ir import Graph
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
        writer = rewriter.fusable_writer(node)
        if writer is not None and writer.op in _CLIPPING:
            writer.attrs["clip"] = _compose(writer.attrs["clip"], node.attrs["clip"])
            rewriter.absorb_into_writer(node)
    return rewriter.commit()


def _compose(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """The bounds that act like clipping to `first`, then to `second`."""
    low, high = (min(max(bound, second[0]), second[1]) for bound in first)
    return low, high
