"""Chains of residual sums: values that are added one after another, each to the one before."""

from __future__ import annotations

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.placement.values import Placement, residual_operands


def residual_chains(graph: Graph, placement: Placement) -> list[list[str]]:
    """Values that could share one scale, so that kernels add a residual without multiplying it.

    Only values that are never negative: what may be negative shares no zero point with them, and would leave half of
    a common grid unused.

    Args:
        graph: the float network.
        placement: where it is quantised.

    Returns:
        Chains of two values and more, each in the order of the network.
    """
    chains: dict[str, list[str]] = {}
    readers = graph.readers()
    for node in graph.nodes:
        operands = residual_operands(graph, node)
        total = _stored(node, placement, readers) if operands else None
        if operands is None or total not in placement.non_negative:
            continue
        residuals = [placement.roots[name] for name in operands if name in placement.roots]
        if len(residuals) == 1 and residuals[0] in placement.non_negative and residuals[0] != total:
            chain = chains.setdefault(residuals[0], [residuals[0]])
            chain.append(total)
            chains[total] = chain
    return list({id(chain): chain for chain in chains.values()}.values())


def _stored(node: Node, placement: Placement, readers: dict[str, list[Node]]) -> str | None:
    """The root of the first stored value from a sum on: its own, or that of the activation behind it."""
    name = node.output
    if name not in placement.roots and len(readers.get(name, [])) == 1:
        name = readers[name][0].output
    return placement.roots.get(name)
