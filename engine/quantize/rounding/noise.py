"""How large the error of rounding is, against what it is an error of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def per_channel(channels: NDArray[np.float64], images: Array) -> Array:
    """Numbers [C] as float32 in a shape that broadcasts over [n, C, ...]."""
    return channels.astype(np.float32).reshape(1, -1, *([1] * (images.ndim - 2)))


def relative_error(wanted: Array, got: Array) -> float:
    """Noise power over signal power, without the mean error of each channel, which biases will take away."""
    error = np.subtract(wanted, got)
    error -= per_channel(error.mean(axis=(0, *range(2, error.ndim))).astype(np.float64), error)
    return power(error) / max(power(wanted), 1e-30)


def power(values: Array) -> float:
    """Sum of squares."""
    flat = values.reshape(len(values), -1)
    return float(sum(float(np.dot(row, row)) for row in flat))
