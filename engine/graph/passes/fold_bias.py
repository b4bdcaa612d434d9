from __future__ import annotations

import numpy as np

from tessera.engine.graph.ir import NO_CLIP, Array, Graph, Node
from tessera.engine.graph.passes.fold_batchnorm import accepts_affine, channels_meet
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.shapes import same_shape


def fold_bias(graph: Graph) -> bool:
    """Folds, in place, every Add of a constant per channel that directly follows a Conv into the Conv's bias."""
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op == "Add" and node.attrs["clip"] == NO_CLIP:
            _fold(rewriter, node)
    return rewriter.commit()


def _fold(rewriter: Rewriter, node: Node) -> None:
    graph = rewriter.graph
    # Whichever operand is the constant, the other one is summed.
    place = 1 if node.inputs[0] in graph.constants else 0
    value = node.inputs[place]
    added = graph.constants.get(node.inputs[1 - place])
    conv = rewriter.fusable_writer(node, place)
    if added is None or conv is None or not accepts_affine(conv) or not channels_meet(graph, conv, value):
        return
    shape = graph.values[value].shape
    bias = graph.constants.get(conv.inputs[2]) if conv.inputs[2] else np.zeros(1)
    channels = _per_channel(added, len(shape), shape[1])
    if bias is None or channels is None or not same_shape(graph.values[node.output].shape[1:], shape[1:]):
        return
    total = (bias.astype(np.float64) + channels).astype(np.float32)
    rewriter.set_input(conv, 2, graph.add_constant(f"{conv.output}.bias", total))
    rewriter.absorb_into_writer(node, place)


def _per_channel(added: Array, rank: int, channels: int | None) -> Array | None:
    """`added` as float64 [channels], None when it differs along other dimensions."""
    if channels is None or added.ndim > rank:
        return None
    spread: Array = added.reshape([1] * (rank - added.ndim) + list(added.shape))
    if spread.size not in (1, channels) or spread.shape[1] != spread.size:
        return None
    return np.broadcast_to(spread.reshape(-1).astype(np.float64), (channels,))
