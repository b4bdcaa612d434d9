"""Weights and biases as integers: per-channel symmetric s8 weights, s32 biases at the accumulator's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127

# A bias may use half of the s32 accumulator; the sums of products that join it stay far below the other half.
_LARGEST_BIAS = 2.0**30

# Channels that training has switched off have weights near 1e-20; a scale that small only breeds denormal products.
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class QuantisedWeights:
    """Integer weights of one Conv or Gemm.

    Attributes:
        values: int8, shaped like the float weight, output channels first, in [-127, 127].
        scales: float32 [output channels].
        bias: int32 [output channels], at scale `input_scale * scales`.
        bias_scales: float32 [output channels].
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.int32]
    bias_scales: NDArray[np.float32]


def quantise_weights(weight: NDArray[Any], bias: NDArray[Any], input_scale: np.float32) -> QuantisedWeights:
    """Quantise the weight and bias of one layer.

    Args:
        weight: float64 [output channels, ...].
        bias: float64 [output channels].
        input_scale: scale of the layer's quantised input.

    Returns:
        The integers and their scales. A channel's scale is the one that its largest weight needs, or larger where its
        bias would not fit into 31 bits otherwise (a channel of almost zero weights).
    """
    rows = weight.reshape(len(weight), -1)
    peak = np.abs(rows).max(axis=1, initial=0.0)
    needed_by_bias = np.abs(bias) / (float(input_scale) * _LARGEST_BIAS)
    scales = np.maximum(np.maximum(peak / _LARGEST, needed_by_bias), _SMALLEST_SCALE).astype(np.float32)
    values = np.clip(np.rint(rows / scales[:, None].astype(np.float64)), -_LARGEST, _LARGEST).astype(np.int8)
    bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
    integers = np.rint(bias / bias_scales.astype(np.float64))
    return QuantisedWeights(
        values.reshape(weight.shape), scales, np.clip(integers, -(2**31), 2**31 - 1).astype(np.int32), bias_scales
    )
