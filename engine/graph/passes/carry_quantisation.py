from __future__ import annotations

from tessera.engine.graph.ir import Graph

_SELECTING = ("Flatten", "MaxPool", "Reshape")


def carry_quantisation(graph: Graph) -> bool:
    """Stores, in place, what a MaxPool, Flatten or Reshape picks from a quantised value quantised the same way.

    Nothing is rounded by that: the result consists of numbers that were stored so. Quantisers such as NNCF place one
    pair before a pool and none behind, and mean the convolutions behind it to run in integers.
    """
    changed = False
    for node in graph.nodes:
        if node.op in _SELECTING:
            before, after = graph.values[node.inputs[0]], graph.values[node.output]
            if before.quant is not None and before.quant.axis is None and after.quant is None:
                after.quant, after.dtype = before.quant, before.quant.dtype
                changed = True
    return changed
