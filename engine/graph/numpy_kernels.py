"""Each operator of the graph in plain numpy: float32 in and out, sums in float64, nothing clever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tessera.engine.graph.geometry import output_size
from tessera.engine.graph.ir import Array, Node

Inputs = Sequence[Array | None]


def clip(x: Array, bounds: tuple[float, float]) -> Array:
    """min(max(x, lo), hi), any shape and type; NaN stays NaN."""
    if x.dtype != np.float32:
        limits = np.iinfo(x.dtype)
        bounds = (max(bounds[0], limits.min), min(bounds[1], limits.max))
        bounds = (min(bounds[0], limits.max), max(bounds[1], limits.min))
    result: Array = np.minimum(np.maximum(x, x.dtype.type(bounds[0])), x.dtype.type(bounds[1]))
    return result


def windows(x: Array, node: Node, fill: Any) -> Array:
    """Views every window of `x` [N, C, H, W], padded with `fill`, as [N, C, OH, OW, KH, KW]."""
    top, left, bottom, right = node.attrs["pads"]
    (kh, kw), (sh, sw), (dh, dw) = (node.attrs[key] for key in ("kernel", "strides", "dilations"))
    n, c, height, width = x.shape
    rows = output_size(height, kh, sh, dh, top, bottom)
    columns = output_size(width, kw, sw, dw, left, right)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    sn, sc, sy, sx = padded.strides
    return np.lib.stride_tricks.as_strided(
        padded, (n, c, rows, columns, kh, kw), (sn, sc, sy * sh, sx * sw, sy * dh, sx * dw), writeable=False
    )


def _conv(node: Node, inputs: Inputs) -> Array:
    x, weights, bias, residual = (*inputs, None)[:4]
    assert x is not None
    assert weights is not None
    groups = node.attrs["groups"]
    out, per_group = weights.shape[:2]
    taps = windows(x.astype(np.float64), node, 0.0)
    n, _, rows, columns = taps.shape[:4]
    result = np.empty((n, out, rows * columns))
    for group in range(groups):
        chosen = slice(group * out // groups, (group + 1) * out // groups)
        part = taps[:, group * per_group : (group + 1) * per_group].transpose(0, 1, 4, 5, 2, 3)
        matrix = weights[chosen].astype(np.float64).reshape(out // groups, -1)
        result[:, chosen] = matrix @ part.reshape(n, -1, rows * columns)
    result = result.reshape(n, out, rows, columns)
    if bias is not None:
        result = result + bias.reshape(1, -1, 1, 1)
    if residual is not None:
        result = result + residual
    return clip(result.astype(np.float32), node.attrs["clip"])


def _max_pool(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    lowest = -np.inf if x.dtype == np.float32 else np.iinfo(x.dtype).min
    result: Array = windows(x, node, lowest).max(axis=(4, 5))
    return result


def _average_pool(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    if node.attrs["count_include_pad"]:
        # Declared padding counts; what ceil_mode added beyond it does not.
        top, left, bottom, right = node.attrs["pads"]
        below, beside = node.attrs["overhang"]
        inner = np.ones((1, 1, x.shape[2] + top + bottom - below, x.shape[3] + left + right - beside))
        unpadded = Node("AveragePool", node.name, [], [], {**node.attrs, "pads": (0, 0, below, beside)})
        divisor = windows(inner, unpadded, 0.0).sum(axis=(4, 5))
    else:
        divisor = windows(np.ones((1, 1, *x.shape[2:])), node, 0.0).sum(axis=(4, 5))
    mean: Array = windows(x.astype(np.float64), node, 0.0).sum(axis=(4, 5)) / divisor
    return mean.astype(np.float32)


def _global_average_pool(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    mean: Array = x.mean(axis=tuple(range(2, x.ndim)), dtype=np.float64, keepdims=True)
    return mean.astype(np.float32)


def _batch_normalization(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    scale, shift, mean, variance = (
        value.astype(np.float64).reshape(1, -1, *[1] * (x.ndim - 2)) for value in inputs[1:] if value is not None
    )
    result: Array = (x - mean) / np.sqrt(variance + node.attrs["epsilon"]) * scale + shift
    return result.astype(np.float32)


def _add(node: Node, inputs: Inputs) -> Array:
    a, b = inputs
    assert a is not None
    assert b is not None
    return clip(a + b, node.attrs["clip"])


def _mul(node: Node, inputs: Inputs) -> Array:
    a, b = inputs
    assert a is not None
    assert b is not None
    product: Array = a * b
    return product


def _sigmoid(node: Node, inputs: Inputs) -> Array:
    assert inputs[0] is not None
    result: Array = 1.0 / (1.0 + np.exp(-inputs[0].astype(np.float64)))
    return result.astype(np.float32)


def _hard_sigmoid(node: Node, inputs: Inputs) -> Array:
    assert inputs[0] is not None
    return clip(
        (inputs[0].astype(np.float64) * node.attrs["alpha"] + node.attrs["beta"]).astype(np.float32), (0.0, 1.0)
    )


def _hard_swish(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    slope, offset = node.attrs.get("alpha", 1 / 6), node.attrs.get("beta", 0.5)
    result: Array = x * clip((x.astype(np.float64) * slope + offset).astype(np.float32), (0.0, 1.0))
    return result


def _swish(node: Node, inputs: Inputs) -> Array:
    assert inputs[0] is not None
    return _mul(node, [inputs[0], _sigmoid(node, inputs)])


def _clip(node: Node, inputs: Inputs) -> Array:
    assert inputs[0] is not None
    return clip(inputs[0], node.attrs["clip"])


def _relu(node: Node, inputs: Inputs) -> Array:
    assert inputs[0] is not None
    return clip(inputs[0], (0.0, float("inf")))


def _concat(node: Node, inputs: Inputs) -> Array:
    return np.concatenate([part for part in inputs if part is not None], axis=node.attrs["axis"])


def _flatten(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    head = int(np.prod(x.shape[: node.attrs["axis"]]))
    return x.reshape(head, x.size // head)


def _reshape(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(node.attrs["shape"])])


def _gemm(node: Node, inputs: Inputs) -> Array:
    a, b, c = (*inputs, None)[:3]
    assert a is not None
    assert b is not None
    left, right = (a.T if node.attrs["trans_a"] else a), (b.T if node.attrs["trans_b"] else b)
    result: Array = left.astype(np.float64) @ right.astype(np.float64) * node.attrs["alpha"]
    if c is not None:
        result = result + c.astype(np.float64) * node.attrs["beta"]
    return result.astype(np.float32)


def _matmul(node: Node, inputs: Inputs) -> Array:
    a, b = inputs
    assert a is not None
    assert b is not None
    result: Array = a.astype(np.float64) @ b.astype(np.float64)
    return result.astype(np.float32)


def _softmax(node: Node, inputs: Inputs) -> Array:
    x = inputs[0]
    assert x is not None
    exponent = np.exp(x.astype(np.float64) - x.max(axis=node.attrs["axis"], keepdims=True))
    result: Array = exponent / exponent.sum(axis=node.attrs["axis"], keepdims=True)
    return result.astype(np.float32)


def _identity(node: Node, inputs: Inputs) -> Array:
    assert inputs[0] is not None
    return inputs[0]


# QuantizeLinear and DequantizeLinear are the reference executor's own: they depend on how values are stored.
KERNELS: dict[str, Callable[[Node, Inputs], Array]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Relu": _relu,
    "Reshape": _reshape,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Swish": _swish,
}
