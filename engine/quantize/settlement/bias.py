"""The bias of a layer whose result goes through a ReLU, found from what the ReLU lets through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Newton's method for the bias in front of a ReLU: few channels need more; those that are almost never above zero are
# not moved far for the little that their mean says.
_NEWTON_STEPS = 4
_LEAST_ACTIVE = 0.1
_LARGEST_SHIFT = 0.5


def shift_before_relu(sums: NDArray[np.float32], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to add to each channel so that its mean behind a ReLU becomes a given one.

    That mean grows with the bias by the share of positions that are above zero: Newton's method.

    Args:
        sums: what goes into the ReLU, float32 [C, positions].
        target: the wanted means [C].

    Returns:
        float64 [C].
    """
    limit = _LARGEST_SHIFT * sums.std(axis=1).astype(np.float64)
    shift = np.zeros(len(target))
    for _ in range(_NEWTON_STEPS):
        moved = sums + shift.astype(np.float32)[:, None]
        np.maximum(moved, 0, out=moved)
        positive = np.array([np.count_nonzero(row) for row in moved > 0])
        active = np.maximum(positive / sums.shape[1], _LEAST_ACTIVE)
        shift = np.clip(shift + (target - moved.mean(axis=1)) / active, -limit, limit)
    return np.asarray(shift, np.float64)
