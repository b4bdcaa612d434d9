"""What uint8 pixels go through before a graph that expects normalised floats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tessera.engine.errors import ModelError

MEAN_KEY = "tessera.mean"
STD_KEY = "tessera.std"
# What a quantised file wants its layers in floating point computed in: "bf16", else float32.
FLOAT_PRECISION_KEY = "tessera.float_precision"


@dataclass(frozen=True)
class Normalisation:
    """Per-channel (pixel / 255 - mean) / std, in 0..1 units.

    Attributes:
        mean: one value per channel.
        std: one positive value per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Normalisation | None:
        """Reads `tessera.mean` and `tessera.std` from a model's metadata; None when the model has neither.

        Raises:
            ModelError: one is missing, or they are not lists of numbers that make sense.
        """
        if MEAN_KEY not in metadata and STD_KEY not in metadata:
            return None
        try:
            mean, std = (tuple(float(x) for x in json.loads(metadata[key])) for key in (MEAN_KEY, STD_KEY))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"Metadata {MEAN_KEY} and {STD_KEY} must both be JSON lists of numbers.") from error
        if len(mean) != len(std) or not mean or not all(0 < s < float("inf") for s in std):
            raise ModelError(f"Metadata {MEAN_KEY}={list(mean)} and {STD_KEY}={list(std)} do not fit together.")
        return cls(mean, std)

    def table(self) -> npt.NDArray[np.float32]:
        """[channels, 256] float32: the normalised value of each pixel value."""
        pixels = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.asarray(self.mean, np.float32).reshape(-1, 1)
        std = np.asarray(self.std, np.float32).reshape(-1, 1)
        return ((pixels - mean) / std).astype(np.float32)

    def apply(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 [N, H, W, C] to normalised float32 [N, C, H, W], bit for bit as the CPU engine does."""
        table = self.table()
        planes = np.empty((images.shape[0], images.shape[3], *images.shape[1:3]), np.float32)
        for channel in range(images.shape[3]):
            np.take(table[channel], images[..., channel], out=planes[:, channel])
        return planes
