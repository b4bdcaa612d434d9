"""Every operator that the engine reads, but for those that compute on integers, each in one small piece of network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.unit.graph.onnx_models import node, normal

# [C, H, W] of what the pieces read.
IMAGE = (4, 6, 6)


@dataclass(frozen=True)
class Example:
    """Nodes that turn "x" [N, *IMAGE] into "y" of so many dimensions."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    rank: int = 4


def _small(*shape: int, seed: int = 0) -> np.ndarray:
    return normal(*shape, seed=seed) * np.float32(0.3)


def _integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_CONSTANTS = {
    "filters": _small(4, 4, 3, 3),
    "offset": _small(4, 1, 1, seed=1),
    "matrix": _small(144, 5, seed=2),
    "rows": _small(5, 144, seed=3),
    "lo": np.array(0.1, np.float32),
    "hi": np.array(0.9, np.float32),
    "spatial": _integers(2, 3),
    "last": _integers(-1),
    "features": _integers(0, -1),
    "scale": np.abs(_small(4, seed=4)) + np.float32(0.5),
    "variance": np.abs(_small(4, seed=5)) + np.float32(0.5),
    "mean": _small(4, seed=6),
}


def _example(*nodes: onnx.NodeProto, rank: int = 4) -> Example:
    read = {name for made in nodes for name in made.input}
    return Example(list(nodes), {name: array for name, array in _CONSTANTS.items() if name in read}, rank)


_POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}

EXAMPLES: dict[str, list[Example]] = {
    "Add": [
        _example(node("Add", ["x", "offset"], "y")),
        _example(node("Conv", ["x", "filters"], "c", pads=[1, 1, 1, 1]), node("Add", ["x", "c"], "y")),
    ],
    "AveragePool": [
        _example(node("AveragePool", ["x"], "y", **_POOL)),
        _example(node("AveragePool", ["x"], "y", **_POOL, ceil_mode=1, count_include_pad=1)),
    ],
    "BatchNormalization": [
        _example(node("BatchNormalization", ["x", "scale", "mean", "mean", "variance"], "y", epsilon=0.01)),
    ],
    "Clip": [_example(node("Clip", ["x", *bounds], "y")) for bounds in (["lo", "hi"], ["lo"], ["", "hi"], [])],
    "Concat": [
        _example(node("Relu", ["x"], "r"), node("Concat", ["x", "r", "x"], "y", axis=1)),
        _example(node("Relu", ["x"], "r"), node("Concat", ["x", "r"], "y", axis=-1)),
    ],
    "Constant": [
        _example(node("Constant", [], "low", value_float=0.25), node("Clip", ["x", "low"], "y")),
    ],
    "Conv": [
        _example(node("Conv", ["x", "filters"], "y", auto_pad="SAME_LOWER", strides=[2, 2])),
        _example(node("Conv", ["x", "filters"], "y", dilations=[2, 2], pads=[2, 2, 2, 2])),
    ],
    "Flatten": [_example(node("Flatten", ["x"], "y"), rank=2)],
    "Gemm": [
        _example(node("Flatten", ["x"], "f"), node("Gemm", ["f", "matrix"], "y", alpha=0.5), rank=2),
        _example(node("Flatten", ["x"], "f"), node("Gemm", ["f", "rows"], "y", transB=1), rank=2),
    ],
    "GlobalAveragePool": [_example(node("GlobalAveragePool", ["x"], "y"))],
    "HardSigmoid": [
        _example(node("HardSigmoid", ["x"], "y")),
        _example(node("HardSigmoid", ["x"], "y", alpha=0.1, beta=0.3)),
    ],
    "HardSwish": [_example(node("HardSwish", ["x"], "y"))],
    "Identity": [_example(node("Identity", ["x"], "y"))],
    "MatMul": [_example(node("Flatten", ["x"], "f"), node("MatMul", ["f", "matrix"], "y"), rank=2)],
    "MaxPool": [
        _example(node("MaxPool", ["x"], "y", **_POOL)),
        _example(node("MaxPool", ["x"], "y", **_POOL, ceil_mode=1)),
        _example(node("MaxPool", ["x"], "y", kernel_shape=[2, 2], dilations=[2, 2])),
    ],
    "Mul": [
        _example(node("Mul", ["x", "offset"], "y")),
        _example(node("Conv", ["x", "filters"], "c", pads=[1, 1, 1, 1]), node("Mul", ["x", "c"], "y")),
        _example(node("GlobalAveragePool", ["x"], "p"), node("Mul", ["p", "x"], "y")),
    ],
    "ReduceMean": [
        _example(node("ReduceMean", ["x"], "y", axes=[2, 3])),
        _example(node("ReduceMean", ["x"], "y", axes=[-1, -2], keepdims=0), rank=2),
    ],
    "Relu": [_example(node("Relu", ["x"], "y"))],
    "Reshape": [_example(node("Reshape", ["x", "features"], "y"), rank=2)],
    "Sigmoid": [
        _example(node("Sigmoid", ["x"], "y")),
        _example(node("Sigmoid", ["x"], "s"), node("Mul", ["x", "s"], "y")),
    ],
    "Softmax": [_example(node("Softmax", ["x"], "y", axis=axis)) for axis in (1, -1)],
    "Squeeze": [
        _example(node("GlobalAveragePool", ["x"], "p"), node("Squeeze", ["p", "spatial"], "y"), rank=2),
        _example(node("GlobalAveragePool", ["x"], "p"), node("Squeeze", ["p", "last"], "y"), rank=3),
    ],
}

CASES = [example for examples in EXAMPLES.values() for example in examples]
NAMES = [f"{operator}-{number}" for operator, examples in EXAMPLES.items() for number in range(len(examples))]


def computes_on_integers(operator: str) -> bool:
    """Whether only quantised networks have the operator."""
    return any(part in operator for part in ("QuantizeLinear", "DequantizeLinear", "QLinear", "QGemm"))
