"""JPEGs by the libjpeg-turbo that Pillow has brought along: what a crop needs of them, and nothing else.

Pillow asks libjpeg for whole pictures. Asked directly, it transforms the columns of the crop alone and only unpacks the
rows outside of it, and its rows go on to the resize a few at a time, so no picture is ever held. On the same crop the
pixels are Pillow's, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, _imaging

from tessera.models.preprocessing import _pictures
from tessera.models.preprocessing.centre_crop import CentreCrop


def read_jpeg(data: bytes, scale: int, crop: CentreCrop, wanted: Callable[[], bool] | None = None) -> bool:
    """Decode a JPEG's first picture into a crop.

    Args:
        data: The file.
        scale: 1, 2, 4 or 8: by what its sides are divided.
        crop: For a picture of that size as it is stored; good for nothing else if this returns False.
        wanted: Asked every few milliseconds.

    Returns:
        Whether all of the file was right and plain (grey, or colours that libjpeg makes RGB of). If not, or where
        Pillow uses another libjpeg, Pillow decides what it is.

    Raises:
        OSError: `wanted` said no.
    """
    library = _libjpeg()
    if library is None:
        return False
    if crop.as_stored:
        return library.read(data, scale, crop.size, crop.box, crop.resize, wanted)
    left, top, right, bottom = crop.box
    pixels = np.empty((bottom - top, right - left, 4), np.uint8)
    if not library.read(data, scale, crop.size, crop.box, pixels, wanted):
        return False
    size = (right - left, bottom - top)
    crop.take(Image.frombuffer("RGB", size, pixels, "raw", "RGBX", 0, 1), at=(left, top))
    return True


def libjpeg_fits() -> bool:
    """Whether Pillow has a libjpeg that can be asked; without, `read_jpeg` returns False for every file."""
    return _libjpeg() is not None


@cache
def _libjpeg() -> _pictures.Libjpeg | None:
    try:
        return _pictures.Libjpeg(_imaging.__file__ or "")
    except OSError:
        return None
