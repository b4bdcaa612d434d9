"""One convolution: what each block of its weights is worth, and what the others become when some are zeros."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tessera.engine.graph.ir import Array
from tessera.engine.pruning.blocks import Block
from tessera.engine.pruning.moments import Moments

Flags = npt.NDArray[np.bool_]

# Added to the covariance, as a part of the mean variance: it is less certain than the photos make it look.
_DAMPING = 0.01


class PrunableLayer:
    """The least squares of a layer's outputs on photos.

    With the inverse H of the covariance of what an output reads, weights w lose w_B inv(H_BB) w_B of variance when
    those of B become zero and all others are moved to make up for it, by - w_B inv(H_BB) H_B (Hassibi and Stork,
    "Second order derivatives for network pruning: optimal brain surgeon", 1992). The bias makes up for the mean.

    Args:
        weights: float64 [outputs, inputs, height, width].
        bias: float64 [outputs].
        moments: of what it reads.
        block: output and input channels that become zero together.

    Attributes:
        costs: float64 [blocks of outputs, blocks of inputs, height, width]: what each block costs by itself, as a part
            of the variance of the layer's outputs.
        multiplications: that a block takes, for one image.
    """

    def __init__(self, weights: Array, bias: Array, moments: Moments, block: Block) -> None:
        self._shape = weights.shape
        self._rows = _as_rows(weights)
        self._bias = bias
        self._mean = moments.mean
        self._block = block
        covariance = moments.covariance
        power = float(np.sum((self._rows @ covariance) * self._rows))
        # Where fewer outputs were seen than numbers one reads, some of what they seem to share is chance.
        variances = np.diag(covariance).copy()
        covariance *= min(1.0, moments.seen / len(covariance))
        covariance[np.diag_indices_from(covariance)] = variances
        damping = max(_DAMPING * float(np.trace(covariance)) / len(covariance), 1e-12)
        covariance[np.diag_indices_from(covariance)] += damping
        inverse = np.asarray(np.linalg.inv(covariance), np.float64)
        self.costs = self._costs(inverse) / (power or 1.0)
        self.multiplications = moments.outputs * block[0] * block[1]
        self._inverse = inverse.astype(np.float32)  # half the memory; there is one for each layer

    def pruned(self, zero: Flags) -> tuple[Array, Array]:
        """The weights with some blocks at zero and the others moved to make up for it, and the bias.

        Args:
            zero: which, in the shape of `costs`.

        Returns:
            float64 [outputs, inputs, height, width] and [outputs].
        """
        rows = self._rows.copy()
        flags = np.repeat(zero.transpose(0, 2, 3, 1), self._block[1], axis=3)[..., : self._shape[1]]
        for flag, start in zip(flags.reshape(len(zero), -1), range(0, len(rows), self._block[0]), strict=True):
            gone = np.flatnonzero(flag)
            if len(gone):
                some = rows[start : start + self._block[0]]
                among = self._inverse[np.ix_(gone, gone)].astype(np.float64)
                some -= np.linalg.solve(among, some[:, gone].T).T @ self._inverse[gone]
                some[:, gone] = 0
        bias = self._bias + (self._rows - rows) @ self._mean
        outputs, inputs, height, width = self._shape
        return rows.reshape(outputs, height, width, inputs).transpose(0, 3, 1, 2), bias

    def _costs(self, inverse: npt.NDArray[np.float64]) -> Array:
        outputs, inputs, height, width = self._shape
        tall, wide = self._block
        starts = [tap + first for tap in range(0, inverse.shape[0], inputs) for first in range(0, inputs, wide)]
        found = np.empty((len(range(0, outputs, tall)), len(starts)))
        for index, start in enumerate(starts):
            of = slice(start, min(start + wide, start - start % inputs + inputs))
            some = self._rows[:, of]
            lost = np.sum(np.linalg.solve(inverse[of, of], some.T).T * some, axis=1)
            found[:, index] = np.add.reduceat(lost, np.arange(0, outputs, tall))
        return found.reshape(len(found), height, width, -1).transpose(0, 3, 1, 2)


def _as_rows(weights: Array) -> npt.NDArray[np.float64]:
    """[outputs, inputs, height, width] to float64 [outputs, taps * inputs]."""
    return np.ascontiguousarray(weights.transpose(0, 2, 3, 1), np.float64).reshape(len(weights), -1)
