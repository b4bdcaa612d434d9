"""What is looked at of a feature map: some of its positions, and the means of its channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
