"""Turns Conv nodes of the lowered graph into steps: integer where both sides are quantised, else floating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine import _native
from tessera.engine.backends.cpu.steps import ConvStep
from tessera.engine.backends.cpu.storage import quantised_clamp
from tessera.engine.backends.cpu.tensor import Tensor
from tessera.engine.graph.ir import Graph, Node

_INT32_MAX = 2**31 - 1
_UINT8_MAX = 255  # what eight bits less a zero point of theirs can reach


@dataclass
class Filters:
    """Weights of a convolution as stored in the graph.

    Attributes:
        values: OIHW, float32 or integer.
        scale: float32 [O], real value of one quantum; None for float32 values.
    """

    values: npt.NDArray[Any]
    scale: npt.NDArray[np.float32] | None

    @property
    def integer(self) -> bool:
        """True when integer kernels can run them."""
        if self.scale is None or not (self.scale > 0).all():
            return False
        return bool(self.values.min(initial=0) >= -_UINT8_MAX and self.values.max(initial=0) <= _UINT8_MAX)

    def real(self) -> npt.NDArray[np.float32]:
        """The weights as float32."""
        if self.scale is None:
            return np.ascontiguousarray(self.values, dtype=np.float32)
        return self.values.astype(np.float32) * self.scale.reshape(-1, 1, 1, 1)


def filters_of(graph: Graph, node: Node) -> Filters:
    """The weights of a Conv node, zero points subtracted."""
    name = node.inputs[1]
    values, quant = graph.constants[name], graph.values[name].quant
    if quant is None:
        return Filters(values, None)
    outputs = values.shape[0]
    zero = np.broadcast_to(quant.zero_point, outputs).reshape(-1, 1, 1, 1)
    # Most weights have no zero point: they are used where they lie, which at load is tens of megabytes less.
    wide = np.int16 if values.dtype.itemsize == 1 else np.int32
    shifted = values.astype(wide) - zero.astype(wide) if zero.any() else values
    return Filters(shifted, np.broadcast_to(quant.scale, outputs).astype(np.float32))


def bias_of(graph: Graph, node: Node, outputs: int) -> npt.NDArray[np.float32]:
    """The bias of a Conv node, zeros when it has none."""
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    return graph.constants[name].astype(np.float32) if name else np.zeros(outputs, np.float32)


def fill_parameters(
    step: ConvStep,
    filters: Filters,
    bias: npt.NDArray[np.float32],
    source: Tensor,
    target: Tensor,
    other: Tensor | None,
) -> None:
    """Sets weights, bias and scales of a step whose tensors and geometry are known.

    Integer steps compute q = round(acc * (s_x * s_w / s_y)) like ONNX Runtime, in float32 and in this order.
    """
    output_scale = np.float32(target.scale if target.dtype == _native.U8 else 1.0)
    if source.dtype == _native.U8:
        assert filters.scale is not None
        product = np.float32(source.scale) * filters.scale
        step.weights = filters.values
        step.bias = np.clip(np.rint(bias.astype(np.float64) / product), -_INT32_MAX, _INT32_MAX).astype(np.int32)
        step.scale = (product / output_scale).astype(np.float32)
    else:
        step.weights = filters.real()
        step.bias = bias.astype(np.float32)
    if other is not None:
        step.residual_scale = float(np.float32(other.scale) / output_scale)
    step.weights, step.groups = merge_groups(step.weights, step.groups)


def merge_groups(weights: npt.NDArray[Any], groups: int) -> tuple[npt.NDArray[Any], int]:
    """Joins neighbouring groups until each has a multiple of `_native.GROUP` channels on both sides.

    The joined weights are block-diagonal: zeros connect what was not connected, so the sums are the same. One group
    needs no particular number of channels, and neither do as many groups as there are channels on both sides.
    """
    if groups == 1 or weights.shape[:2] == (groups, 1):
        return weights, groups
    per_group_in, per_group_out = weights.shape[1], weights.shape[0] // groups
    joined = next(
        count
        for count in range(1, groups + 1)
        if groups % count == 0
        and (
            count == groups
            or (count * per_group_in % _native.GROUP == 0 and count * per_group_out % _native.GROUP == 0)
        )
    )
    if joined == 1:
        return weights, groups
    outputs, _, height, width = weights.shape
    wide = np.zeros((outputs, joined * per_group_in, height, width), weights.dtype)
    for group in range(groups):
        rows = slice(group * per_group_out, (group + 1) * per_group_out)
        start = group % joined * per_group_in
        wide[rows, start : start + per_group_in] = weights[rows]
    return wide, groups // joined


def conv_macs(filters: Filters, target: Tensor) -> int:
    """Multiply-accumulates of one image."""
    return int(filters.values[0].size) * target.elements


def clamp_of(node: Node, target: Tensor) -> tuple[float, float]:
    """The node's clip in the target's units."""
    return quantised_clamp(target, node.attrs.get("clip", (float("-inf"), float("inf"))))
