"""How far two variants' answers are apart, measured on their logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[Any]

# Chance at which a network that just reaches the demanded agreement may be taken for one that does not.
SIGNIFICANCE = 0.05


class SqnrAccumulator:
    """Signal-to-quantisation-noise ratio of logits that arrive batch by batch.

    SQNR = 10 log10(sum ref^2 / sum (ref - other)^2) in dB, both sums over all images and all classes: the plain power
    of the reference logits, mean included, over the power of the error. A ratio of sums, not a mean of ratios.

    Attributes:
        signal: sum ref^2 so far.
        noise: sum (ref - other)^2 so far.
    """

    def __init__(self, signal: float = 0.0, noise: float = 0.0) -> None:
        self.signal = signal
        self.noise = noise

    def add(self, reference: Logits, other: Logits) -> None:
        """Count a batch.

        Args:
            reference: logits [N, classes].
            other: logits of the same shape for the same images.

        Raises:
            ValueError: the shapes differ.
        """
        if reference.shape != other.shape:
            raise ValueError(f"Logits of shapes {reference.shape} and {other.shape} cannot be compared.")
        wanted = reference.astype(np.float64)
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(wanted - other).sum())

    @property
    def decibels(self) -> float:
        """The ratio in dB; infinite while there is no noise."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf


def sqnr(reference: Logits, other: Logits) -> float:
    """SQNR in dB of `other` against `reference`, both [N, classes]; the formula is `SqnrAccumulator`'s.

    Raises:
        ValueError: the shapes differ.
    """
    accumulator = SqnrAccumulator()
    accumulator.add(reference, other)
    return accumulator.decibels


def agreement(reference: Logits, other: Logits) -> float:
    """Share (0 to 1) of the N >= 1 images for which both [N, classes] name the same class first.

    Raises:
        ValueError: the shapes differ, or there is no image.
    """
    if reference.shape != other.shape or len(reference) == 0:
        raise ValueError(f"Logits of shapes {reference.shape} and {other.shape} cannot be compared.")
    return float((reference.argmax(axis=1) == other.argmax(axis=1)).mean())


def is_below(agreeing: int, images: int, demanded: float) -> bool:
    """Whether so few agreeing images prove that the true agreement is below what is demanded.

    The exact one-sided binomial test: were the true agreement the one demanded, as few or fewer would agree with a
    probability below `SIGNIFICANCE`. So 94 of 96 are no proof against 98 %, which a network of 99 % misses by chance
    in a quarter of all draws.

    Args:
        agreeing: images with the same first class.
        images: all of them.
        demanded: 0 to 1.
    """
    missing = 1 - demanded
    as_few = sum(
        math.comb(images, count) * demanded**count * missing ** (images - count) for count in range(agreeing + 1)
    )
    return agreeing < images and as_few < SIGNIFICANCE
