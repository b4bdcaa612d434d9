from __future__ import annotations

import numpy as np

from tessera.engine.graph.ir import NO_CLIP, Graph, Node
from tessera.engine.graph.passes.plain_gemm import is_plain
from tessera.engine.graph.passes.rewriter import Rewriter


def lower_gemm(graph: Graph) -> bool:
    """Turns, in place, matrix products as `plain_gemm` writes them into convolutions followed by a Flatten.

    A product over a flattened image [N, C, H, W] becomes a Conv whose kernel covers the whole image, reading it before
    the Flatten; over any other [N, K] it becomes a 1x1 Conv on [N, K, 1, 1].
    """
    rewriter = Rewriter(graph)
    for node in list(graph.nodes):
        if is_plain(graph, node):
            _lower(rewriter, node)
    return rewriter.commit()


def _lower(rewriter: Rewriter, node: Node) -> None:
    graph = rewriter.graph
    weights, quant, bias = graph.constants[node.inputs[1]], graph.values[node.inputs[1]].quant, node.inputs[2]
    out, features = weights.shape
    image, kernel = _image(rewriter, node, features)
    # Flattening [C, H, W] runs in the order in which [out, C, H, W] is laid out.
    filters = weights.reshape(out, -1, *kernel)
    inputs = [image, graph.add_constant(f"{node.inputs[1]}.oihw", filters, quant), bias, ""]
    result = graph.add_value(f"{node.output}.image", (None, out, 1, 1), np.dtype(np.float32))
    window = {"kernel": kernel, "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    rewriter.insert_before(node, Node("Conv", node.name, inputs, [result], {**window, "groups": 1, "clip": NO_CLIP}))
    rewriter.replace(node, Node("Flatten", f"{node.name}.flatten", [result], [node.output], {"axis": 1}))


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
