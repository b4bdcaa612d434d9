from __future__ import annotations

import numpy as np

from tessera.engine.graph.ir import NO_CLIP, Array, Graph, Node, QuantParams
from tessera.engine.graph.passes.rewriter import Rewriter


def fold_batchnorm(graph: Graph) -> bool:
    """Folds, in place, every BatchNormalization that directly follows a Conv into its weights and bias.

    The arithmetic is float64, rounded once to the type of the weights. Quantised weights keep their integers up to
    sign; their scales take the factor. What does not directly follow a Conv, or cannot be expressed exactly that way,
    stays.
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op == "BatchNormalization":
            _fold(rewriter, node)
    return rewriter.commit()


def channels_meet(graph: Graph, conv: Node, value: str) -> bool:
    """Whether dimension 1 of `value`, the output of `conv` or a reshaped form of it, is the output's channels."""
    shape, original = graph.values[value].shape, graph.values[conv.output].shape
    return shape in (original, original[:2]) and (shape == original or original[2:] == (1, 1))


def accepts_affine(conv: Node | None) -> bool:
    """Whether scaling and shifting the output of `conv` equals changing its weights and bias."""
    return conv is not None and conv.op == "Conv" and not conv.inputs[3] and conv.attrs["clip"] == NO_CLIP


def _fold(rewriter: Rewriter, node: Node) -> None:
    graph = rewriter.graph
    conv = rewriter.fusable_writer(node)
    if conv is None or not accepts_affine(conv) or not channels_meet(graph, conv, node.inputs[0]):
        return
    weights = graph.constants.get(conv.inputs[1])
    parameters = [graph.constants.get(value) for value in node.inputs[1:]]
    bias = graph.constants.get(conv.inputs[2]) if conv.inputs[2] else np.zeros(1)
    if weights is None or bias is None:
        return
    scale, shift, mean, variance = (p.astype(np.float64) for p in parameters if p is not None)
    quant = graph.values[conv.inputs[1]].quant
    dtype = np.dtype(np.float32) if quant is not None else weights.dtype
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + node.attrs["epsilon"])
        new_bias = ((bias.astype(np.float64) - mean) * factor + shift).astype(dtype)
    folded = _scale_weights(weights, factor) if quant is None else _scale_quantised(weights, quant, factor)
    if folded is None or not _fits(new_bias):
        return
    rewriter.set_input(conv, 1, graph.add_constant(f"{conv.inputs[1]}.folded", *folded))
    rewriter.set_input(conv, 2, graph.add_constant(f"{conv.output}.bias", new_bias))
    rewriter.absorb_into_writer(node)


def _scale_weights(weights: Array, factor: Array) -> tuple[Array, None] | None:
    """OIHW float weights times one factor per output channel, None when a result is not finite."""
    with np.errstate(all="ignore"):
        scaled = (weights.astype(np.float64) * factor.reshape(-1, 1, 1, 1)).astype(weights.dtype)
    return (scaled, None) if _fits(scaled) else None


def _fits(array: Array) -> bool:
    """Whether all numbers stay finite in float32, the type that they end in."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def _scale_quantised(weights: Array, quant: QuantParams, factor: Array) -> tuple[Array, QuantParams] | None:
    """The same for quantised weights, None when the integers cannot express it: scales must stay positive."""
    zero_point = np.broadcast_to(quant.zero_point, factor.shape)
    zero = zero_point.astype(np.int64).reshape(-1, 1, 1, 1)
    integers = (weights - zero) * np.sign(factor).astype(np.int64).reshape(-1, 1, 1, 1) + zero
    with np.errstate(all="ignore"):
        scale = (quant.scale.astype(np.float64) * np.where(factor == 0.0, 1.0, np.abs(factor))).astype(np.float32)
    limits = np.iinfo(quant.dtype)
    if integers.min() < limits.min or integers.max() > limits.max or not np.all(np.isfinite(scale) & (scale > 0)):
        return None
    return integers.astype(quant.dtype), QuantParams(scale, zero_point.astype(np.int32), quant.dtype, 0)
