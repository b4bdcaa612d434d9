"""Weights and biases as integers: per-channel symmetric s8 weights, s32 biases at the accumulator's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 127

# A bias may use half of the s32 accumulator; the sums of products that join it stay far below the other half.
_LARGEST_BIAS = 2.0**30

# Channels that training has switched off have weights near 1e-20; a scale that small only breeds denormal products.
_SMALLEST_SCALE = 1e-12

# Where the largest weight of a channel may be put, as a share of the grid's end. The end itself comes first: it stays
# unless another one is clearly better.
_LEAST_END, _MOST_END = 0.5, 1.145
_CLEARLY = np.float32(0.98)

# Weights of a channel that candidates are compared on, spread evenly over it.
_COMPARED_WEIGHTS = 192


@dataclass(frozen=True)
class QuantisedWeights:
    """Integer weights of one Conv or Gemm.

    Attributes:
        values: int8, shaped like the float weight, output channels first, in [-largest, largest].
        scales: float32 [output channels].
        bias: int32 [output channels], at scale `input_scale * scales`.
        bias_scales: float32 [output channels].
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.int32]
    bias_scales: NDArray[np.float32]

    def real(self) -> NDArray[np.float32]:
        """The weights that the integers stand for, float32."""
        scales = self.scales.reshape(-1, *([1] * (self.values.ndim - 1)))
        return self.values.astype(np.float32) * scales


def quantise_weights(
    weight: NDArray[Any], bias: NDArray[Any], input_scale: np.float32, largest: int = LARGEST
) -> QuantisedWeights:
    """Quantise the weight and bias of one layer.

    Args:
        weight: float64 [output channels, ...].
        bias: float64 [output channels].
        input_scale: scale of the layer's quantised input.
        largest: magnitude that the integer weights end at, at most 127.

    Returns:
        The integers and their scales. A channel's scale is the one with the least squared error, or larger where its
        bias would not fit into 31 bits otherwise (a channel of almost zero weights).
    """
    rows = weight.reshape(len(weight), -1)
    needed_by_bias = np.abs(bias) / (float(input_scale) * _LARGEST_BIAS)
    exact_scales = np.maximum(least_error_scales(rows, largest), needed_by_bias)
    scales = np.maximum(exact_scales, _SMALLEST_SCALE).astype(np.float32)
    values = np.clip(np.rint(rows / scales[:, None].astype(np.float64)), -largest, largest).astype(np.int8)
    bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
    integers = np.rint(bias / bias_scales.astype(np.float64))
    return QuantisedWeights(
        values.reshape(weight.shape), scales, np.clip(integers, -(2**31), 2**31 - 1).astype(np.int32), bias_scales
    )


def least_error_scales(rows: NDArray[Any], largest: int = LARGEST) -> NDArray[np.float64]:
    """The scale of each row of weights that loses least when the row is stored as integers in [-largest, largest].

    Candidates put the row's largest weight on one of the integers around the end of the grid, below it (a finer fit of
    the rest) or past it (the largest weights saturate). Weights that have been through eight bits before find the grid
    that they come from among them, and lose nothing.

    Args:
        rows: float64 [channels, weights].
        largest: as for `quantise_weights`.

    Returns:
        float64 [channels]; 0 for rows of zeros.
    """
    peak = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    step = max(1, rows.shape[1] // _COMPARED_WEIGHTS)
    some = (rows[:, ::step] / np.where(peak > 0, peak, 1.0)[:, None]).astype(np.float32)
    least = np.full(len(rows), np.inf, np.float32)
    best = np.full(len(rows), float(largest))
    below, above = range(largest - 1, int(_LEAST_END * largest), -1), range(largest + 1, int(_MOST_END * largest), 2)
    for end in (largest, *below, *above):
        stored = np.rint(some * np.float32(end))
        np.clip(stored, -largest, largest, out=stored)
        error = stored * np.float32(1 / end) - some
        squared = np.einsum("rw,rw->r", error, error)
        better = squared < least * _CLEARLY
        least[better], best[better] = squared[better], end
    return np.asarray(peak / best, np.float64)
