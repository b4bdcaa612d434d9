"""Eight-bit rounding of float values, and measures of what it changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.quantize.calibration import ActivationRange

Array = NDArray[np.float32]

# Of feature maps this wide or wider, every so many rows and columns are looked at: neighbours are alike.
_STEPS = ((56, 8), (28, 4), (14, 2))


def thinned(images: Array, phase: int = 0) -> Array:
    """Some rows and columns of large feature maps.

    Args:
        images: float32 [n, C, H, W]; arrays of other ranks are returned as they are.
        phase: another number, other rows and columns.
    """
    if images.ndim != 4:
        return images
    step = next((step for width, step in _STEPS if min(images.shape[2:]) >= width), 1)
    return images[:, :, phase % step :: step, phase // step % step :: step]


def channel_means(images: Array) -> Array:
    """The mean of each channel in each image of float32 [n, C, ...], over what `thinned` takes: float32 [n, C]."""
    some = np.ascontiguousarray(thinned(images))
    return np.asarray(some.reshape(*some.shape[:2], -1).mean(axis=2), np.float32)


def per_channel(channels: NDArray[np.float64], images: Array) -> Array:
    """Numbers [C] as float32 in a shape that broadcasts over [n, C, ...]."""
    return channels.astype(np.float32).reshape(1, -1, *([1] * (images.ndim - 2)))


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


def relative_error(wanted: Array, got: Array) -> float:
    """Noise power over signal power, without the mean error of each channel, which biases will take away."""
    error = np.subtract(wanted, got)
    error -= per_channel(error.mean(axis=(0, *range(2, error.ndim))).astype(np.float64), error)
    return power(error) / max(power(wanted), 1e-30)


def power(values: Array) -> float:
    """Sum of squares."""
    flat = values.reshape(len(values), -1)
    return float(sum(float(np.dot(row, row)) for row in flat))
