"""Small image classifiers as other tools write them: one convolution, a mean, a linear layer, and what comes after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 16
CLASSES = 5
CHANNELS = 8

Array = np.ndarray

FLATTEN = (helper.make_node("Flatten", ["mean"], ["flat"]),)
GEMM = (helper.make_node("Gemm", ["flat", "w2", "b2"], ["logits"], transB=1),)


def weights() -> dict[str, Array]:
    random = np.random.default_rng(0)
    shapes = {"w1": (CHANNELS, 3, 3, 3), "b1": (CHANNELS,), "w2": (CLASSES, CHANNELS), "b2": (CLASSES,)}
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def classifier(
    end: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[str] = ("logits",),
    *,
    head: Sequence[onnx.NodeProto] = (*FLATTEN, *GEMM),
    batch: int | str | None = "N",
    size: Sequence[int | str | None] = (SIZE, SIZE),
    constants: Mapping[str, Array] | None = None,
    output_type: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """A classifier.

    Args:
        end: nodes behind `head`, which ends in the value "logits".
        outputs: names of the results.
        head: nodes behind the mean "mean", [N, CHANNELS, 1, 1].
        batch: first dimension of input and results.
        size: height and width in the input's shape.
        constants: initialisers of `end` and `head` besides the weights "w2" and "b2".
        output_type: element type of each result.
        opset: version of the operators.
    """
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["conv"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        *head,
        *end,
    ]
    held = {**weights(), **(constants or {})}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info(name, output_type, [batch, CLASSES]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items() if name in used],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def right_logits(pixels: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """What every such classifier gives for uint8 pixels [N, SIZE, SIZE, 3], computed without any engine."""
    held = weights()
    images = ((pixels.astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    conv = np.einsum("nchwij,ocij->nohw", windows, held["w1"]) + held["b1"].reshape(-1, 1, 1)
    result: Array = np.maximum(conv, 0).mean(axis=(2, 3)) @ held["w2"].T + held["b2"]
    return result
