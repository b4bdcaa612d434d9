"""Photos of a folder as network input, for calibration, prepared as the service prepares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tessera.engine.errors import ModelError
from tessera.models.preprocessing.centre_crop import CentreCrop, orientation_of
from tessera.models.preprocessing.transform import Preprocessing

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}


def find_photos(folder: Path, limit: int | None = None) -> list[Path]:
    """Photos in a folder and its subfolders, in the order of their paths.

    Args:
        folder: where to look.
        limit: most photos to return, spread evenly over all that were found; None for all.

    Raises:
        ModelError: there is no such folder, or there are no photos in it.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no folder of photos {folder}.")
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not photos:
        raise ModelError(f"There are no photos in {folder} ({', '.join(sorted(_SUFFIXES))}).")
    if limit is None or limit >= len(photos):
        return photos
    return [photos[index * len(photos) // limit] for index in range(limit)]


def read_photos(photos: Sequence[Path], preprocessing: Preprocessing, batch: int = 8) -> Iterator[NDArray[np.float32]]:
    """Decode, resize, crop and normalise photos.

    Yields:
        float32 [n, 3, height, width] with n up to `batch`.

    Raises:
        ModelError: a file cannot be decoded.
    """
    mean = np.array(preprocessing.mean, np.float32)
    std = np.array(preprocessing.std, np.float32)
    for start in range(0, len(photos), batch):
        pixels = np.stack([_pixels(path, preprocessing) for path in photos[start : start + batch]])
        normalised = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        yield np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def _pixels(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    pixels = np.empty(preprocessing.shape, np.uint8)
    try:
        with Image.open(path) as photo:
            photo.load()
            crop = CentreCrop(photo.size, preprocessing, orientation=orientation_of(photo))
            crop.take(photo)
            crop.write(pixels)
    except Exception as error:
        # Pillow's plugins raise anything at all on damaged files, and the file is the only input here.
        raise ModelError(f"Cannot decode the photo {path}: {error}.") from error
    return pixels
