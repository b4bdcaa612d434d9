from __future__ import annotations

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.quantisation import dequantise, node_params
from tessera.engine.graph.reference import run_node


def fold_constants(graph: Graph) -> bool:
    """Computes, in place, every node whose inputs are all constants.

    A DequantizeLinear of int8 or uint8 becomes a constant that stays quantised (its ValueInfo.quant says how) where
    its reader multiplies by it; everywhere else, and for int32 biases, it becomes float32.
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if all(value in graph.constants for value in node.present_inputs()):
            _fold(graph, node)
            rewriter.remove(node)
    for name in [name for name in graph.constants if graph.values[name].quant is not None]:
        _dequantise_for_others(rewriter, name)
    return rewriter.commit()


def _fold(graph: Graph, node: Node) -> None:
    info = graph.values[node.output]
    stored = graph.constants[node.inputs[0]]
    if node.op == "DequantizeLinear" and stored.dtype.name in ("int8", "uint8"):
        info.quant, info.dtype = node_params(node, graph), stored.dtype
        graph.constants[node.output] = stored
        return
    result = run_node(graph, node, graph.constants)
    graph.constants[node.output] = result
    info.shape = tuple(result.shape)


def _dequantise_for_others(rewriter: Rewriter, name: str) -> None:
    """Gives a float32 form of the quantised constant `name` to the readers that cannot take it as it is."""
    graph = rewriter.graph
    quant = graph.values[name].quant
    assert quant is not None
    if name in graph.outputs:
        graph.constants[name] = dequantise(graph.constants[name], quant)
        graph.values[name].quant, graph.values[name].dtype = None, graph.constants[name].dtype
        return
    others = [
        (node, index)
        for node in set(rewriter.readers(name))
        for index, value in enumerate(node.inputs)
        if value == name and not _takes_quantised(graph, node, index)
    ]
    if others:
        real = graph.add_constant(f"{name}.real", dequantise(graph.constants[name], quant))
        for node, index in others:
            rewriter.set_input(node, index, real)


def _takes_quantised(graph: Graph, node: Node, index: int) -> bool:
    quant = graph.values[node.inputs[index]].quant
    assert quant is not None
    if node.op == "Conv":
        return index == 1 and quant.axis in (None, 0)
    if node.op == "Gemm":
        return index == 1 and quant.axis in (None, 0 if node.attrs["trans_b"] else 1)
    return (
        node.op == "MatMul" and index == 1 and quant.axis in (None, 1) and len(graph.values[node.inputs[1]].shape) == 2
    )
