"""Images to measure with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tessera.app.errors import RequestError, StartupError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.evaluation.photos import is_photo
from tessera.models.preprocessing.image_size import sides
from tessera.models.preprocessing.transform import Preprocessing


def find_images(folder: Path | None) -> list[Path]:
    """The photos in a folder, in order; none without a folder.

    Raises:
        StartupError: The folder does not exist or holds no photos.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise StartupError(f"There is no folder of photos {folder}.")
    files = sorted(file for file in folder.rglob("*") if is_photo(file.name) and file.is_file())
    if not files:
        raise StartupError(f"There are no photos in {folder}.")
    return files


def load_images(photos: Sequence[Path], count: int, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """`count` images, uint8 [count, height, width, 3]: of the photos, in turn, or generated and all different.

    Raises:
        StartupError: A photo cannot be read.
    """
    height, width = sides(preprocessing.size)
    if not photos:
        # Smooth noise: random, but with neighbouring pixels alike, as in photos.
        cells = (-(-height // 16), -(-width // 16))
        coarse = np.random.default_rng(0).integers(0, 256, (count, *cells, 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width])
    pixels = np.empty((count, *preprocessing.shape), np.uint8)
    decoder = ImageDecoder(preprocessing, max_pixels=64 * 1024 * 1024)
    for row in range(count):
        file = photos[row % len(photos)]
        try:
            decoder.decode(file.read_bytes(), pixels[row])
        except (OSError, RequestError) as error:
            raise StartupError(f"The photo {file} cannot be read: {error}") from error
    return pixels
