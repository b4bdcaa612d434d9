from __future__ import annotations

from tessera.engine.graph.ir import Graph, Node, QuantParams
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.quantisation import node_params


def lower_quantisation(graph: Graph) -> bool:
    """Replaces, in place, QuantizeLinear -> DequantizeLinear pairs by values that are stored quantised.

    When every use of a value goes through the same pair, the value itself becomes quantised. When it is also used
    unquantised, or with other parameters, a QuantizeLinear stays: it reads the value and writes one that is stored
    quantised. Pairs with different parameters, and integers that a run takes or returns, stay as they are.
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op == "QuantizeLinear" and not rewriter.is_removed(node):
            _absorb(rewriter, node)
    return rewriter.commit()


def hoist_quantisation(graph: Graph) -> bool:
    """Stores, in place, a value quantised already before the Flatten, Reshape or MaxPool whose result is stored so.

    Quantising keeps order, so the largest of quantised numbers is the largest number, quantised.
    """
    rewriter, changed = Rewriter(graph), False
    for node in reversed(graph.nodes):
        if node.op not in ("Flatten", "MaxPool", "Reshape"):
            continue
        before, after = graph.values[node.inputs[0]], graph.values[node.output]
        movable = before.quant is None and after.quant is not None and after.quant.axis is None
        if movable and rewriter.only_reader(before.name) is node and rewriter.producer(before.name) is not None:
            _store(graph, before.name, after.quant)
            changed = True
    return changed


def _absorb(rewriter: Rewriter, first: Node) -> None:
    """Absorbs `first` together with every later QuantizeLinear of the same value and parameters."""
    graph, value = rewriter.graph, first.inputs[0]
    params = node_params(first, graph)
    readers = rewriter.readers(value)
    twins = [node for node in readers if _quantises_like(graph, node, params)]
    back = [node for twin in twins for node in rewriter.readers(twin.output)]
    returned = [node.output for node in back if node.output in graph.outputs]
    if not all(_is_read_back(rewriter, twin, params) for twin in twins) or len(returned) > 1:
        return
    stored = graph.values[value].quant
    only_use = stored is None and len(twins) == len(readers) and value not in graph.outputs
    absorbable = (only_use or params.matches(stored)) and all(rewriter.can_merge(value, name) for name in returned)
    for node in back:
        rewriter.remove(node)
    for node in twins if absorbable else twins[1:]:
        rewriter.remove(node)
    if not absorbable:
        value = (returned or [node.output for node in back])[0]
        rewriter.set_output(first, value)
    _store(graph, value, params)
    for node in back:
        if node.output != value:
            value = rewriter.merge(value, node.output)


def _store(graph: Graph, value: str, params: QuantParams | None) -> None:
    assert params is not None
    graph.values[value].quant, graph.values[value].dtype = params, params.dtype


def _quantises_like(graph: Graph, node: Node, params: QuantParams) -> bool:
    return node.op == "QuantizeLinear" and params.matches(node_params(node, graph))


def _is_read_back(rewriter: Rewriter, node: Node, params: QuantParams) -> bool:
    """True when all that happens to the integers `node` writes is to be dequantised with the same parameters."""
    graph = rewriter.graph
    readers = rewriter.readers(node.output)
    return (
        bool(readers)
        and node.output not in graph.outputs
        and all(reader.op == "DequantizeLinear" and params.matches(node_params(reader, graph)) for reader in readers)
    )
