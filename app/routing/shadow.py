"""Shadow mode: what two variants made of the same pixels, side by side."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from tessera.app.routing.accumulators import Distribution, RatioMean
from tessera.models.evaluation.intervals import Interval, wilson_interval


class Run(NamedTuple):
    """One variant's run of one image.

    Attributes:
        logits: float32 [classes].
        seconds: Run time of its batch.
        batch_size: Images in its batch.
    """

    logits: np.ndarray
    seconds: float
    batch_size: int


class Comparison(NamedTuple):
    """What a pair of runs says.

    Attributes:
        agrees: Whether both give the same top label.
        distance: Relative distance of the logits, see `logit_distance`.
        speed_up: Time of the baseline over time of the other; None where their batches had different sizes, since
            then the times say more about batching than about the variants.
    """

    agrees: bool
    distance: float
    speed_up: float | None


def compare(reference: Run, candidate: Run) -> Comparison:
    """Compare the candidate's run of an image with that of the reference, the baseline."""
    agrees = int(reference.logits.argmax()) == int(candidate.logits.argmax())
    paired = reference.batch_size == candidate.batch_size and min(reference.seconds, candidate.seconds) > 0
    speed_up = reference.seconds / candidate.seconds if paired else None
    return Comparison(agrees, logit_distance(reference.logits, candidate.logits), speed_up)


def logit_distance(reference: np.ndarray, candidate: np.ndarray) -> float:
    """`|c - r| / |r|` in the Euclidean norm, both [classes] with their mean taken off first.

    Taking off the mean ignores what softmax ignores. 0 is equal; 1 is as wrong as answering all zeros.
    """
    r = reference.astype(np.float64) - float(reference.mean(dtype=np.float64))
    c = candidate.astype(np.float64) - float(candidate.mean(dtype=np.float64))
    difference, size = float(np.linalg.norm(c - r)), float(np.linalg.norm(r))
    return difference / max(size, 1e-9)


def pixel_digest(pixels: np.ndarray) -> bytes:
    """16 bytes that name the pixels (or the tensor) of an image, any shape and type."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


class ShadowRecord:
    """Sums of all comparisons since the start. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self.agreeing = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.distance = Distribution()
        self.speed_up = RatioMean()

    def observe(self, comparison: Comparison) -> None:
        """Count a comparison."""
        self.outcomes["compared"] += 1
        self.agreeing += comparison.agrees
        self.distance.observe(comparison.distance)
        if comparison.speed_up is not None:
            self.speed_up.observe(comparison.speed_up)

    @property
    def compared(self) -> int:
        """Images compared."""
        return self.outcomes["compared"]

    def agreement(self) -> Interval | None:
        """Share of images with the same top label, with Wilson's interval."""
        return wilson_interval(self.agreeing, self.compared)


# What became of an image that was chosen for the shadow: compared; dropped because there was work for clients;
# or the engine failed on it.
OUTCOMES = ("compared", "dropped", "failed")
