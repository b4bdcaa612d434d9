"""Quantised models as other people's tools write them, from one small residual network."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tests.unit.graph.onnx_models import build, node, normal

SHAPE = (3, 20, 20)


class _Batches(CalibrationDataReader):
    def __init__(self, model: onnx.ModelProto, count: int) -> None:
        image = model.graph.input[0]
        sizes = [size.dim_value for size in image.type.tensor_type.shape.dim[1:]]
        self._left = iter([{image.name: normal(4, *sizes, seed=seed)} for seed in range(count)])

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._left, None)


def residual_network(widths: tuple[int, int] = (16, 32), seed: int = 0, activation: str = "Relu") -> onnx.ModelProto:
    """Stem, max pool, a block with a projection, a block without, mean, linear layer."""
    constants: dict[str, np.ndarray] = {"low": np.float32(0), "high": np.float32(6)}
    nodes: list[onnx.NodeProto] = []

    def conv(value: str, output: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        spread = np.float32((2 / (inputs * kernel**2)) ** 0.5)
        constants[f"{output}_w"] = normal(outputs, inputs, kernel, kernel, seed=seed + len(nodes)) * spread
        constants[f"{output}_b"] = normal(outputs, seed=seed + len(nodes)) * np.float32(0.3)
        attributes = {"pads": [kernel // 2] * 4, "strides": [stride] * 2}
        nodes.append(node("Conv", [value, f"{output}_w", f"{output}_b"], output, **attributes))
        return output

    def active(value: str) -> str:
        bounds = ["low", "high"] if activation == "Clip" else []
        nodes.append(node(activation, [value, *bounds], f"{value}_r"))
        return f"{value}_r"

    def add(first: str, second: str, output: str) -> str:
        nodes.append(node("Add", [first, second], output))
        return active(output)

    narrow, wide = widths
    value = active(conv("x", "stem", 3, narrow, 3, 2))
    nodes.append(node("MaxPool", [value], "pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]))
    inner = active(conv("pool", "a", narrow, narrow, 3))
    value = add(conv(inner, "b", narrow, wide, 1), conv("pool", "short", narrow, wide, 1), "sum1")
    value = add(conv(value, "c", wide, wide, 3), value, "sum2")
    nodes.append(node("GlobalAveragePool", [value], "mean"))
    nodes.append(node("Flatten", ["mean"], "flat"))
    constants["m"], constants["mb"] = normal(10, wide, seed=seed) * np.float32(0.3), normal(10, seed=seed)
    nodes.append(node("Gemm", ["flat", "m", "mb"], "y", transB=1))
    used = {name for made in nodes for name in made.input}
    return build(nodes, ["N", *SHAPE], {name: array for name, array in constants.items() if name in used}, rank=2)


def quantised_by_onnxruntime(
    model: onnx.ModelProto,
    folder: Path,
    form: QuantFormat,
    activations: QuantType,
    weights: QuantType,
    per_channel: bool,
    symmetric: bool,
    symmetric_weights: bool | None = None,
) -> Path:
    """Writes `model` through ONNX Runtime's static quantiser; its own default where weights are not said to be so."""
    options: dict[str, object] = {"ActivationSymmetric": symmetric}
    if symmetric_weights is not None:
        options["WeightSymmetric"] = symmetric_weights
    onnx.save(model, folder / "float.onnx")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends its preprocessing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(
                folder / "float.onnx",
                folder / "quantised.onnx",
                _Batches(model, 2),
                quant_format=form,
                activation_type=activations,
                weight_type=weights,
                per_channel=per_channel,
                extra_options=options,
            )
    finally:
        logger.setLevel(level)
    return folder / "quantised.onnx"


def quantised_like_pytorch(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` the way PyTorch exports it: s8 weights per channel, activations limited to seven bits by a Clip."""
    exported = onnx.ModelProto()
    exported.CopyFrom(model)
    graph = exported.graph
    weights = {made.input[1] for made in graph.node if made.op_type == "Conv"}
    nodes: list[onnx.NodeProto] = []
    extra = {"s": np.float32(0.05), "z": np.uint8(64), "least": np.uint8(0), "most": np.uint8(127)}
    for tensor in list(graph.initializer):
        if tensor.name in weights:
            array = onnx.numpy_helper.to_array(tensor)
            scale = (np.abs(array).max(axis=(1, 2, 3)) / 127).astype(np.float32)
            extra[f"{tensor.name}_i"] = np.rint(array / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
            extra[f"{tensor.name}_s"], extra[f"{tensor.name}_z"] = scale, np.zeros(scale.shape, np.int8)
            parts = [f"{tensor.name}_{part}" for part in "isz"]
            nodes.append(node("DequantizeLinear", parts, f"{tensor.name}_d", axis=0))
    for made in graph.node:
        if made.op_type == "Conv":
            source = made.input[0]
            if not any(other.output[0] == f"{source}_d" for other in nodes):
                nodes.append(node("QuantizeLinear", [source, "s", "z"], f"{source}_q"))
                nodes.append(node("Clip", [f"{source}_q", "least", "most"], f"{source}_c"))
                nodes.append(node("DequantizeLinear", [f"{source}_c", "s", "z"], f"{source}_d"))
            made.input[0], made.input[1] = f"{source}_d", f"{made.input[1]}_d"
        nodes.append(made)
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    kept += [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in extra.items()]
    nodes = [onnx.NodeProto.FromString(made.SerializeToString()) for made in nodes]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return exported
