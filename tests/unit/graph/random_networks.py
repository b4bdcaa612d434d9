"""Small networks of every supported shape of operator, drawn by Hypothesis, float or with QDQ pairs."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.unit.graph.onnx_models import build, node, normal

Shape = tuple[int, int, int]


class Network:
    """Nodes and constants as they are drawn; `images` remembers every [C, H, W] value for later additions."""

    def __init__(self, draw: st.DrawFn, shape: Shape, quantised: bool) -> None:
        self.draw = draw
        self.quantised = quantised
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.images: dict[str, Shape] = {"x": shape}
        self.image = "x"
        if quantised:
            self.image = self.pair("x", (-4.0, 4.0))
            self.images = {self.image: shape}

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def random(self, *shape: int, spread: float = 1.0) -> np.ndarray:
        return normal(*shape, seed=self.draw(st.integers(0, 999))) * np.float32(spread)

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(node(op, inputs, output, **attributes))
        return output

    def pair(self, value: str, limits: tuple[float, float]) -> str:
        """A QuantizeLinear and DequantizeLinear of `value`."""
        low, high = limits
        scale = self.constant(np.float32((high - low) / 255))
        zero = self.constant(np.uint8(round(-low / (high - low) * 255)))
        quantised = self.add("QuantizeLinear", [value, scale, zero])
        return self.add("DequantizeLinear", [quantised, scale, zero])

    def weight(self, array: np.ndarray) -> str:
        """Weights as float32, or per-channel or per-tensor int8 behind a DequantizeLinear."""
        if not self.quantised:
            return self.constant(array)
        axis = tuple(range(1, array.ndim)) if self.draw(st.booleans()) else None
        scale = (np.abs(array).max(axis=axis) / 127).astype(np.float32)
        spread = scale.reshape(-1, *[1] * (array.ndim - 1)) if axis else scale
        stored = self.constant(np.rint(array / spread).astype(np.int8))
        inputs = [stored, self.constant(scale), self.constant(np.zeros(scale.shape, np.int8))]
        return self.add("DequantizeLinear", inputs, axis=0)

    def keep(self, value: str, shape: Shape) -> None:
        if self.quantised and self.draw(st.booleans()):
            value = self.pair(value, self.draw(st.sampled_from([(0.0, 6.0), (-3.0, 3.0), (-1.0, 5.0)])))
        self.images[value] = shape
        self.image = value


def _conv(net: Network) -> None:
    channels, height, width = net.images[net.image]
    kernel = net.draw(st.sampled_from([1, 3]))
    out = net.draw(st.sampled_from([channels, channels, 2, 4]))
    stride = net.draw(st.sampled_from([1, 1, 1, 2]))
    groups = 2 if channels % 2 == 0 and out % 2 == 0 and net.draw(st.booleans()) else 1
    per_group = channels // groups
    inputs = [net.image, net.weight(net.random(out, per_group, kernel, kernel, spread=(per_group * kernel**2) ** -0.5))]
    if net.draw(st.booleans()):
        inputs.append(net.constant(net.random(out)))
    pad = kernel // 2
    value = net.add("Conv", inputs, pads=[pad] * 4, strides=[stride] * 2, group=groups)
    net.keep(value, (out, (height - 1) // stride + 1, (width - 1) // stride + 1))


def _norm(net: Network) -> None:
    shape = net.images[net.image]
    parameters = [net.random(shape[0]), net.random(shape[0]), net.random(shape[0]), np.abs(net.random(shape[0])) + 0.5]
    net.keep(net.add("BatchNormalization", [net.image, *map(net.constant, parameters)]), shape)


def _relu(net: Network) -> None:
    net.keep(net.add("Relu", [net.image]), net.images[net.image])


def _clip(net: Network) -> None:
    low, high = net.draw(st.sampled_from([(0.0, 6.0), (-1.0, 1.0)]))
    inputs = [net.image, net.constant(np.float32(low)), net.constant(np.float32(high))]
    net.keep(net.add("Clip", inputs), net.images[net.image])


def _add(net: Network) -> None:
    shape = net.images[net.image]
    others = [name for name, other in net.images.items() if other == shape]
    net.keep(net.add("Add", [net.image, net.draw(st.sampled_from(others))]), shape)


def _bias(net: Network) -> None:
    shape = net.images[net.image]
    net.keep(net.add("Add", [net.image, net.constant(net.random(shape[0], 1, 1))]), shape)


def _curve(net: Network) -> None:
    op = net.draw(st.sampled_from(["Sigmoid", "HardSigmoid", "HardSwish"]))
    net.keep(net.add(op, [net.image]), net.images[net.image])


def _gate(net: Network) -> None:
    shape = net.images[net.image]
    squeezed = net.add("GlobalAveragePool", [net.image]) if net.draw(st.booleans()) else net.image
    operands = [net.image, net.add("Sigmoid", [squeezed])]
    net.keep(net.add("Mul", net.draw(st.permutations(operands))), shape)


def _pool(net: Network) -> None:
    shape = net.images[net.image]
    op = net.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    net.keep(net.add(op, [net.image], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), shape)


def _copy(net: Network) -> None:
    net.keep(net.add("Identity", [net.image]), net.images[net.image])


def _head(net: Network) -> None:
    channels, height, width = net.images[net.image]
    value = net.image
    if net.draw(st.booleans()):
        value, height, width = net.add("GlobalAveragePool", [value]), 1, 1
        if net.quantised:
            value = net.pair(value, (-3.0, 3.0))
    value = net.add("Flatten", [value])
    features = channels * height * width
    matrix = net.random(6, features, spread=features**-0.5)
    value = net.add("Gemm", [value, net.weight(matrix), net.constant(net.random(6))], transB=1)
    if net.draw(st.booleans()):
        value = net.add("Relu", [value])
    if net.quantised:
        value = net.pair(value, (-4.0, 4.0))
    second = net.random(6, 3, spread=0.4)
    net.add("MatMul", [value, net.constant(second)])


@st.composite
def networks(draw: st.DrawFn, *, quantised: bool = False) -> tuple[onnx.ModelProto, np.ndarray]:
    """A model and a batch for it."""
    shape = (draw(st.sampled_from([2, 3, 4])), draw(st.integers(3, 7)), draw(st.integers(3, 7)))
    net = Network(draw, shape, quantised)
    layers = [_conv, _conv, _norm, _relu, _clip, _add, _bias, _curve, _gate, _pool, _copy]
    for layer in draw(st.lists(st.sampled_from(layers), min_size=1, max_size=8)):
        layer(net)
    rank = 4
    if draw(st.booleans()):
        _head(net)
        rank = 2
    net.nodes[-1].output[0] = "y"
    model = build(net.nodes, ["N", *shape], net.constants, rank=rank)
    return model, normal(draw(st.integers(1, 2)), *shape, seed=draw(st.integers(0, 999)))
