from __future__ import annotations

import math

from tessera.engine.graph.ir import Graph, Node

_SELECTING = ("Flatten", "MaxPool", "Reshape")


def carry_quantisation(graph: Graph) -> bool:
    """Stores, in place, what a MaxPool, Flatten, Reshape or ReLU picks from a quantised value quantised the same way.

    Nothing is rounded by that: the result consists of numbers that were stored so. Quantisers such as NNCF place one
    pair before a pool and none behind, and mean the convolutions behind it to run in integers.
    """
    changed = False
    for node in graph.nodes:
        before, after = graph.values[node.inputs[0]], graph.values[node.output]
        if before.quant is None or before.quant.axis is not None or after.quant is not None:
            continue
        if node.op in _SELECTING or _clips_to_stored(node):
            after.quant, after.dtype = before.quant, before.quant.dtype
            changed = True
    return changed


def _clips_to_stored(node: Node) -> bool:
    """True for a Clip whose bounds are zero, which every grid holds, or none."""
    if node.op == "Relu":
        return True
    return node.op == "Clip" and all(bound == 0 or math.isinf(bound) for bound in node.attrs["clip"])
