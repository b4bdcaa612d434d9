from __future__ import annotations

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter

_FUSED = {"Sigmoid": "Swish", "HardSigmoid": "HardSwish"}


def fuse_swish(graph: Graph) -> bool:
    """Makes one node, in place, of a value times its own Sigmoid or HardSigmoid that nothing else reads."""
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op == "Mul":
            _fuse(rewriter, node)
    return rewriter.commit()


def _fuse(rewriter: Rewriter, node: Node) -> None:
    for value, factor in (node.inputs, reversed(node.inputs)):
        writer = rewriter.producer(factor)
        is_own = writer is not None and writer.op in _FUSED and writer.inputs[0] == value
        # What is stored in eight bits in between is another number.
        if is_own and rewriter.graph.values[factor].quant is None and rewriter.only_reader(factor) is node:
            assert writer is not None
            rewriter.replace(node, Node(_FUSED[writer.op], node.name, [value], [node.output], dict(writer.attrs)))
            return
