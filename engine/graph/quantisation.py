"""ONNX's affine quantisation, exactly: float32 division, round half to even, saturate."""

from __future__ import annotations

import numpy as np

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Array, Graph, Node, QuantParams


def quantise(real: Array, params: QuantParams) -> Array:
    """Stores float32 `real` (any shape) as integers of `params.dtype`, same shape. NaN becomes the lowest integer."""
    limits = np.iinfo(params.dtype)
    scale, zero_point = _broadcastable(params, real.ndim)
    with np.errstate(all="ignore"):
        steps = np.rint(real / scale) + zero_point.astype(np.float32)
    saturated: Array = np.fmin(np.fmax(steps, np.float32(limits.min)), np.float32(limits.max))
    return saturated.astype(params.dtype)


def dequantise(stored: Array, params: QuantParams) -> Array:
    """Reads integers `stored` (any shape) back as float32, same shape."""
    scale, zero_point = _broadcastable(params, stored.ndim)
    with np.errstate(all="ignore"):
        return (stored.astype(np.int64) - zero_point).astype(np.float32) * scale


def node_params(node: Node, graph: Graph) -> QuantParams:
    """The parameters of a QuantizeLinear or DequantizeLinear node.

    Raises:
        ModelError: scale and zero point are not constants.
    """
    scale = graph.constants.get(node.inputs[1])
    zero_point = graph.constants.get(node.inputs[2])
    if scale is None or zero_point is None:
        raise ModelError(f"{node.describe()}: its scale and zero point must be constants.")
    axis = None if scale.ndim == 0 else int(node.attrs["axis"])
    return QuantParams(scale, zero_point.astype(np.int32), zero_point.dtype, axis)


def _broadcastable(params: QuantParams, rank: int) -> tuple[Array, Array]:
    if params.axis is None:
        return params.scale, params.zero_point
    shape = [1] * rank
    shape[params.axis] = -1
    return params.scale.reshape(shape), params.zero_point.reshape(shape)
