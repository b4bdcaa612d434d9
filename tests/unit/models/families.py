"""Small classifiers of other families than ResNets, as `onnx.helper` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 16
CLASSES = 5

_PATCH = 4
_TOKENS = (SIZE // _PATCH) ** 2
_HEADS, _WIDTH = 2, 8

Array = np.ndarray


class Builder:
    """Appends nodes to a graph; names of values are numbered, weights random and always the same."""

    def __init__(self, opset: int = 17, classes: int = CLASSES) -> None:
        self._classes = classes
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._opset = opset

    def node(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        """Appends a node; returns its first output, from which others differ by ".1", ".2" and so on."""
        output = f"{op.lower()}{len(self._nodes)}"
        names = [output, *(f"{output}.{index}" for index in range(1, outputs))]
        self._nodes.append(helper.make_node(op, list(inputs), names, output, domain=domain, **attributes))
        return output

    def constant(self, array: Array) -> str:
        name = f"constant{len(self._constants)}"
        self._constants[name] = array
        return name

    def weights(self, *shape: int) -> str:
        """Normal numbers that keep the size of activations."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        return self.constant(self._random.normal(0, 1 / np.sqrt(fan_in), shape).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def conv(self, value: str, outputs: int, inputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> str:
        pad, weights = kernel // 2, self.weights(outputs, inputs // groups, kernel, kernel)
        return self.node(
            "Conv", value, weights, self.weights(outputs), pads=[pad] * 4, strides=[stride] * 2, group=groups
        )

    def model(
        self, output: str, *, batch: int | str = "N", sizes: Sequence[int | str] = (SIZE, SIZE)
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "family",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *sizes])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, self._classes])],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        domains = [helper.make_opsetid("", self._opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=8)

    def gated(self, value: str, channels: int, inner: int, gate: str) -> str:
        """Squeeze and excite: each channel by a gate of its own, from the means of all."""
        mean = self.node("GlobalAveragePool", value)
        squeezed = self.node("Relu", self.conv(mean, inner, channels, 1))
        return self.node("Mul", value, self.node(gate, self.conv(squeezed, channels, inner, 1)))

    def head(self, value: str, channels: int) -> str:
        """Mean, flatten, linear layer."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", value))
        return self.node("Gemm", flat, self.weights(self._classes, channels), self.weights(self._classes), transB=1)


def vision_transformer(*, batch: int | str = "N", gelu: str = "Erf", opset: int = 17) -> onnx.ModelProto:
    """One block: patches, attention, LayerNormalization, GELU. A fixed batch is spelled out in its Reshapes."""
    made = Builder(opset)
    first = batch if isinstance(batch, int) else 0
    patches = made.node(
        "Conv", "image", made.weights(_WIDTH, 3, _PATCH, _PATCH), strides=[_PATCH] * 2, kernel_shape=[_PATCH] * 2
    )
    flat = made.node("Reshape", patches, made.ints(first, _WIDTH, _TOKENS))
    tokens = made.node("Add", made.node("Transpose", flat, perm=[0, 2, 1]), made.weights(1, _TOKENS, _WIDTH))
    ones, zeros = made.constant(np.ones(_WIDTH, np.float32)), made.constant(np.zeros(_WIDTH, np.float32))
    normal = made.node("LayerNormalization", tokens, ones, zeros)
    parts = [_heads(made, made.node("MatMul", normal, made.weights(_WIDTH, _WIDTH)), first) for _ in range(3)]
    scores = made.node("MatMul", parts[0], made.node("Transpose", parts[1], perm=[0, 1, 3, 2]))
    mixed = made.node("MatMul", made.node("Softmax", scores, axis=-1), parts[2])
    joined = made.node("Reshape", made.node("Transpose", mixed, perm=[0, 2, 1, 3]), made.ints(first, _TOKENS, _WIDTH))
    residual = made.node("Add", tokens, joined)
    hidden = made.node("MatMul", residual, made.weights(_WIDTH, _WIDTH))
    if gelu == "Erf":
        half = made.constant(np.float32(0.5))
        error = made.node("Erf", made.node("Mul", hidden, made.constant(np.float32(2**-0.5))))
        sure = made.node("Mul", made.node("Add", error, made.constant(np.float32(1))), half)
        hidden = made.node("Mul", hidden, sure)
    else:
        hidden = made.node("Gelu", hidden, domain="com.microsoft")
    axes = {} if opset >= 18 else {"axes": [1]}
    mean = made.node("ReduceMean", hidden, *([] if axes else [made.ints(1)]), keepdims=0, **axes)
    logits = made.node("Gemm", mean, made.weights(CLASSES, _WIDTH), transB=1)
    return made.model(made.node("Softmax", logits), batch=batch)


def _heads(made: Builder, value: str, first: int) -> str:
    split = made.node("Reshape", value, made.ints(first, _TOKENS, _HEADS, _WIDTH // _HEADS))
    return made.node("Transpose", split, perm=[0, 2, 1, 3])


def shuffled(*, batch: int | str = "N") -> onnx.ModelProto:
    """Two outputs of one node, and channels that change places: as ShuffleNet has it."""
    made = Builder()
    stem = made.node("Relu", made.conv("image", 8, 3, 3, stride=2))
    left = made.node("Split", stem, outputs=2, axis=1)
    right = made.node("Relu", made.conv(f"{left}.1", 4, 4, 1))
    return made.model(made.head(made.node("Concat", left, right, axis=1), 8), batch=batch)


def batch_sharing() -> onnx.ModelProto:
    """Its eight bits have one scale for all images of a batch, as dynamic quantisation makes them."""
    made = Builder()
    stem = made.conv("image", 8, 3, 3, stride=2)
    levels = made.node("DynamicQuantizeLinear", stem, outputs=3)
    again = made.node("DequantizeLinear", levels, f"{levels}.1", f"{levels}.2")
    return made.model(made.head(made.node("Relu", again), 8))


def half_precision() -> onnx.ModelProto:
    """Stored and computed in fp16 between two casts."""
    made = Builder()
    small = made.node("Cast", "image", to=TensorProto.FLOAT16)
    weights = np.random.default_rng(1).normal(0, 0.2, (8, 3, 3, 3)).astype(np.float16)
    conv = made.node("Conv", small, made.constant(weights), pads=[1] * 4, strides=[2, 2])
    return made.model(made.head(made.node("Cast", conv, to=TensorProto.FLOAT), 8))


OPAQUE: Mapping[str, onnx.ModelProto] = {
    "a transformer": vision_transformer(),
    "a transformer, traced with one image": vision_transformer(batch=1),
    "a transformer, traced with two": vision_transformer(batch=2),
    "a transformer with a domain of ONNX Runtime's": vision_transformer(gelu="Gelu"),
    "two outputs of a node": shuffled(),
    "one scale for a batch": batch_sharing(),
    "fp16": half_precision(),
    "opset 23": vision_transformer(opset=23),
}


def squeeze_excited(sizes: Sequence[int | str] = (SIZE, SIZE)) -> onnx.ModelProto:
    """A residual block with gates in front of its addition: SE-ResNet, RegNetY, ResNet-RS."""
    made = Builder()
    stem = made.node("Relu", made.conv("image", 16, 3, 3, stride=2))
    inner = made.node("Relu", made.conv(stem, 16, 16, 3, groups=2))
    gated = made.gated(made.conv(inner, 16, 16, 1), 16, 8, "Sigmoid")
    return made.model(made.head(made.node("Relu", made.node("Add", gated, stem)), 16), sizes=sizes)


def mobile(*, activation: str = "HardSwish") -> onnx.ModelProto:
    """Depthwise convolutions of 3 and 5, hard activations, gates: MobileNetV3, and EfficientNet with Swish."""
    made = Builder()

    def active(value: str) -> str:
        return (
            made.node("Mul", value, made.node("Sigmoid", value))
            if activation == "Swish"
            else made.node(activation, value)
        )

    stem = active(made.conv("image", 16, 3, 3, stride=2))
    narrow = made.conv(active(made.conv(stem, 16, 16, 3, groups=16)), 8, 16, 1)
    wide = active(made.conv(narrow, 24, 8, 1))
    deep = made.gated(active(made.conv(wide, 24, 24, 5, stride=2, groups=24)), 24, 8, "HardSigmoid")
    return made.model(made.head(active(made.conv(deep, 32, 24, 1)), 32))


def dense() -> onnx.ModelProto:
    """Every layer reads what all before it wrote, side by side: DenseNet, and in branches Inception, SqueezeNet."""
    made = Builder()
    first = made.node("Relu", made.conv("image", 8, 3, 3, stride=2))
    second = made.node("Relu", made.conv(first, 8, 8, 3))
    third = made.node("Relu", made.conv(made.node("Concat", first, second, axis=1), 8, 16, 3))
    return made.model(made.head(made.node("Concat", first, second, third, axis=1), 24))


NATIVE: Mapping[str, onnx.ModelProto] = {
    "SE-ResNet": squeeze_excited(),
    "MobileNetV3": mobile(),
    "MobileNetV2": mobile(activation="Relu"),
    "EfficientNet": mobile(activation="Swish"),
}
