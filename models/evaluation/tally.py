"""Counts that add up: what is kept of photos once their logits have been seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.engine.quantize.measures import SqnrAccumulator

TOP_K = 5


@dataclass
class Tally:
    """Counts of one variant over some photos, compared with the first variant on the same photos.

    Attributes:
        photos: how many.
        top1: photos whose class is named first.
        top5: photos whose class is among the first five (among all, where there are fewer).
        agreeing: photos for which both variants name the same class first.
        lost: photos that the first variant gets right and this one does not.
        gained: the other way round.
        signal: sum of the first variant's squared logits.
        noise: sum of squared differences from them.
    """

    photos: int = 0
    top1: int = 0
    top5: int = 0
    agreeing: int = 0
    lost: int = 0
    gained: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: NDArray[Any], logits: NDArray[Any], labels: NDArray[np.intp]) -> None:
        """Count a batch.

        Args:
            reference: the first variant's logits [N, classes].
            logits: this variant's, for the same photos.
            labels: the right class of each photo, [N].
        """
        before, ranks = label_ranks(reference, labels), label_ranks(logits, labels)
        right, was_right = ranks == 0, before == 0
        self.photos += len(labels)
        self.top1 += int(right.sum())
        self.top5 += int((ranks < min(TOP_K, logits.shape[1])).sum())
        self.agreeing += int((reference.argmax(axis=1) == logits.argmax(axis=1)).sum())
        self.lost += int((was_right & ~right).sum())
        self.gained += int((right & ~was_right).sum())
        measured = SqnrAccumulator(self.signal, self.noise)
        measured.add(reference, logits)
        self.signal, self.noise = measured.signal, measured.noise

    def merge(self, other: Tally) -> None:
        """Add the counts of other photos."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def decibels(self) -> float:
        """SQNR of the logits against the first variant's."""
        return SqnrAccumulator(self.signal, self.noise).decibels

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Tally:
        """What `asdict` gave.

        Raises:
            TypeError, ValueError: it is something else.
        """
        counts = {name: int(table[name]) for name in ("photos", "top1", "top5", "agreeing", "lost", "gained")}
        return cls(**counts, signal=float(table["signal"]), noise=float(table["noise"]))


def label_ranks(logits: NDArray[Any], labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Place of each photo's right class, 0 for the first; of equal logits the lower class goes first, as in argmax.

    Args:
        logits: [N, classes], finite.
        labels: [N], each from 0 to classes - 1.

    Returns:
        [N], each from 0 to classes - 1.
    """
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    ranks: NDArray[np.intp] = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return ranks
