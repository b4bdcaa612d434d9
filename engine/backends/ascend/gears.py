"""Which batch sizes ("gears") a number of images runs in, by how long each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """A part of a batch: images [start, start + count), run as `gear` images, the missing ones being padding."""

    start: int
    count: int
    gear: int


class GearTable:
    """The gears of a model with their measured times.

    Args:
        seconds: time of one run, by gear.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        if not seconds or min(seconds) < 1 or min(seconds.values()) <= 0:
            raise ValueError(f"a gear table needs gears and times above 0, not {dict(seconds)}")
        self.seconds = dict(sorted(seconds.items()))
        # Best way for 0, 1, 2, ... images: total time, number of runs, and the gear of one of them.
        self._best: list[tuple[float, int, int]] = [(0.0, 0, 0)]

    def split(self, images: int) -> list[Chunk]:
        """Cover `images` with runs whose times add up to the least; padding up where that is faster than splitting.

        Only the last run is padded. Ties go to fewer runs, then to less padding.
        """
        if images < 1:
            raise ValueError(f"there is nothing to split in {images} images")
        while len(self._best) <= images:
            self._best.append(self._best_for(len(self._best)))
        gears, left = [], images
        while left > 0:
            gears.append(self._best[left][2])
            left -= gears[-1]
        chunks, start = [], 0
        for gear in sorted(gears, reverse=True):
            chunks.append(Chunk(start, min(gear, images - start), gear))
            start += chunks[-1].count
        return chunks

    def _best_for(self, images: int) -> tuple[float, int, int]:
        rest = {gear: self._best[max(0, images - gear)] for gear in self.seconds}
        return min((self.seconds[gear] + time, runs + 1, gear) for gear, (time, runs, _) in rest.items())
