"""Activations in eight bits: the range that they cover, and what is left of values after being stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ActivationRange:
    """The values of one tensor that eight bits represent; what lies outside saturates.

    Attributes:
        low: smallest represented value, at most 0.
        high: largest represented value, at least 0 and above `low`.
    """

    low: float
    high: float

    def scale_and_zero_point(self) -> tuple[np.float32, np.uint8]:
        """Scale and zero point of the u8 grid; zero is always represented exactly (padding depends on it)."""
        scale = np.float32((self.high - self.low) / 255)
        return scale, np.uint8(np.clip(round(-self.low / float(scale)), 0, 255))


def store(values: Array, stored_as: ActivationRange) -> NDArray[np.uint8]:
    """Float32 values [images, ...] in eight bits."""
    scale, zero = stored_as.scale_and_zero_point()
    result = np.empty(values.shape, np.uint8)
    for image, out in zip(values, result, strict=True):  # one at a time stays in the cache
        grid = np.divide(image, scale)
        np.rint(grid, out=grid)
        grid += np.float32(zero)
        np.clip(grid, 0, 255, out=grid)
        out[...] = grid
    return result


def restore(stored: NDArray[np.uint8], stored_as: ActivationRange) -> Array:
    """What `fake_quantise` leaves of the values that `store` was given."""
    scale, zero = stored_as.scale_and_zero_point()
    result = stored.astype(np.float32)
    result -= np.float32(zero)
    result *= scale
    return result


def fake_quantise(values: Array, stored_as: ActivationRange) -> Array:
    """What is left of float32 values [images, ...] after being stored in eight bits."""
    scale, zero = stored_as.scale_and_zero_point()
    low, high = np.float32(-int(zero)), np.float32(255 - int(zero))
    result = np.empty_like(values)
    for image, out in zip(values, result, strict=True):  # one at a time stays in the cache
        np.divide(image, scale, out=out)
        np.rint(out, out=out)
        np.clip(out, low, high, out=out)
        np.multiply(out, scale, out=out)
    return result
