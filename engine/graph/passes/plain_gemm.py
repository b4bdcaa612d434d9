from __future__ import annotations

from dataclasses import replace

import numpy as np

from tessera.engine.graph.ir import NO_CLIP, Array, Graph, Node, QuantParams
from tessera.engine.graph.passes.rewriter import Rewriter

_PLAIN = {"alpha": 1.0, "beta": 1.0, "trans_a": False, "trans_b": True}


def plain_gemm(graph: Graph) -> bool:
    """Turns, in place, matrix products with constant weights into one form: x @ weights.T + bias.

    The weights are [out, in], the bias is [out] or absent, and factors are multiplied in. A constant that is added to
    a MatMul is its bias.
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op in ("Gemm", "MatMul") and not is_plain(graph, node):
            _rewrite(rewriter, node)
    return rewriter.commit()


def is_plain(graph: Graph, node: Node) -> bool:
    """True for a Gemm of the form that `plain_gemm` makes."""
    if node.op != "Gemm" or node.attrs != _PLAIN or not graph.values[node.inputs[0]].batched:
        return False
    weights, bias = graph.constants.get(node.inputs[1]), graph.constants.get(node.inputs[2])
    if weights is None:
        return False
    return bias.shape == weights.shape[:1] if bias is not None else not node.inputs[2]


def _rewrite(rewriter: Rewriter, node: Node) -> None:
    graph = rewriter.graph
    weights = graph.constants.get(node.inputs[1])
    x = graph.values[node.inputs[0]]
    if weights is None or weights.ndim != 2 or len(x.shape) != 2 or not x.batched or node.attrs.get("trans_a"):
        return
    matrix = weights if node.attrs.get("trans_b") else weights.T
    quant = graph.values[node.inputs[1]].quant
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    addition, added = _addition(rewriter, node, len(matrix)) if node.op == "MatMul" else (None, node.inputs[2])
    bias = _per_channel(graph, added, len(matrix))
    if (added and bias is None) or (quant is not None and alpha <= 0.0):
        return
    if quant is not None:
        quant = _scaled(quant, alpha)
    elif alpha != 1.0:
        matrix = (matrix.astype(np.float64) * alpha).astype(matrix.dtype)
    inputs = [x.name, graph.add_constant(f"{node.inputs[1]}.rows", np.ascontiguousarray(matrix), quant), ""]
    if bias is not None:
        inputs[2] = graph.add_constant(f"{node.output}.bias", (bias.astype(np.float64) * beta).astype(bias.dtype))
    plain = Node("Gemm", node.name, inputs, [node.output], dict(_PLAIN))
    rewriter.replace(node, plain)
    if addition is not None:
        rewriter.absorb_into_writer(addition, addition.inputs.index(plain.output))


def _addition(rewriter: Rewriter, node: Node, channels: int) -> tuple[Node | None, str]:
    """The Add of a constant per channel that is alone in using a MatMul, and the constant; None and "" without one."""
    reader = rewriter.only_reader(node.output)
    stored = rewriter.graph.values[node.output].quant is not None
    if reader is None or stored or reader.op != "Add" or reader.attrs["clip"] != NO_CLIP:
        return None, ""
    other = reader.inputs[1 - reader.inputs.index(node.output)]
    return (None, "") if _per_channel(rewriter.graph, other, channels) is None else (reader, other)


def _per_channel(graph: Graph, value: str, channels: int) -> Array | None:
    """A constant as [channels], None where it is none or cannot be expressed so."""
    added = graph.constants.get(value)
    if added is None or added.ndim > 2 or added.size not in (1, channels):
        return None
    if added.ndim and added.shape[-1] != added.size:
        return None
    return np.broadcast_to(added.reshape(-1), (channels,))


def _scaled(quant: QuantParams, alpha: float) -> QuantParams:
    """`quant` for weights [out, in] times `alpha`: the output channels are dimension 0 there."""
    scale = quant.scale if alpha == 1.0 else (quant.scale.astype(np.float64) * alpha).astype(np.float32)
    return replace(quant, scale=scale, axis=None if quant.axis is None else 0)
