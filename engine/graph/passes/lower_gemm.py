from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.graph.ir import NO_CLIP, Array, Graph, Node, QuantParams
from engine.graph.passes.rewriter import Rewriter


def lower_gemm(graph: Graph) -> None:
    """Turns, in place, matrix products with constant weights into convolutions followed by a Flatten.

    A product over a flattened image [N, C, H, W] becomes a Conv whose kernel covers the whole image, reading it before
    the Flatten; over any other [N, K] it becomes a 1x1 Conv on [N, K, 1, 1].
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if node.op in ("Gemm", "MatMul"):
            _lower(rewriter, node)
    rewriter.commit()


def _lower(rewriter: Rewriter, node: Node) -> None:
    graph = rewriter.graph
    weights = graph.constants.get(node.inputs[1])
    x = graph.values[node.inputs[0]]
    if weights is None or weights.ndim != 2 or len(x.shape) != 2 or not x.batched or node.attrs.get("trans_a"):
        return
    # [out, in]
    matrix = weights if node.attrs.get("trans_b") else weights.T
    quant = graph.values[node.inputs[1]].quant
    alpha = node.attrs.get("alpha", 1.0)
    bias = _bias(graph, node, matrix.shape[0])
    if bias is None or (quant is not None and alpha <= 0.0):
        return
    image, kernel = _image(rewriter, node, matrix.shape[1])
    # Flattening [C, H, W] runs in the order in which [out, C, H, W] is laid out.
    matrix = np.ascontiguousarray(matrix).reshape(matrix.shape[0], -1, *kernel)
    if quant is not None:
        quant = _scaled(quant, alpha)
    elif alpha != 1.0:
        matrix = (matrix.astype(np.float64) * alpha).astype(np.float32)
    inputs = [image, graph.add_constant(f"{node.inputs[1]}.oihw", matrix, quant), "", ""]
    if bias.size:
        inputs[2] = graph.add_constant(f"{node.output}.bias", bias)
    result = graph.add_value(f"{node.output}.image", (None, matrix.shape[0], 1, 1), np.dtype(np.float32))
    window = {"kernel": kernel, "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    rewriter.insert_before(node, Node("Conv", node.name, inputs, [result], {**window, "groups": 1, "clip": NO_CLIP}))
    rewriter.replace(node, Node("Flatten", f"{node.name}.flatten", [result], [node.output], {"axis": 1}))


def _bias(graph: Graph, node: Node, channels: int) -> Array | None:
    """The product's bias as float32 [channels], empty when it has none, None when no Conv bias can express it."""
    if node.op == "MatMul" or not node.inputs[2]:
        return np.zeros(0, np.float32)
    added = graph.constants.get(node.inputs[2])
    if added is None or added.size not in (1, channels) or (added.size > 1 and added.shape[-1] != channels):
        return None
    scaled = added.astype(np.float64).reshape(-1) * node.attrs["beta"]
    return np.broadcast_to(scaled, (channels,)).astype(np.float32)


def _scaled(quant: QuantParams, alpha: float) -> QuantParams:
    """`quant` for the transposed weights times `alpha`: the output channels are dimension 0 there."""
    scale = quant.scale if alpha == 1.0 else (quant.scale.astype(np.float64) * alpha).astype(np.float32)
    return replace(quant, scale=scale, axis=None if quant.axis is None else 0)


def _image(rewriter: Rewriter, node: Node, features: int) -> tuple[str, tuple[int, int]]:
    """The product's left side as [N, C, H, W], and (H, W)."""
    graph = rewriter.graph
    x = graph.values[node.inputs[0]]
    writer = rewriter.producer(x.name)
    if writer is not None and writer.op in ("Flatten", "Reshape"):
        source = graph.values[writer.inputs[0]]
        height, width = source.shape[2:] if len(source.shape) == 4 else (None, None)
        same_storage = x.quant is None if source.quant is None else source.quant.matches(x.quant)
        if height is not None and width is not None and source.shape[1] is not None and same_storage:
            return source.name, (height, width)
    image = graph.add_value(f"{x.name}.image", (None, features, 1, 1), x.dtype, x.quant)
    reshape = Node("Reshape", f"{node.name}.reshape", [x.name], [image], {"shape": (0, features, 1, 1)})
    rewriter.insert_before(node, reshape)
    return image, (1, 1)
