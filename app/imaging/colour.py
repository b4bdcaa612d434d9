"""Any pixel format that Pillow reads to 8 bits of grey or RGB, or a clear refusal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, TiffImagePlugin

from tessera.app.errors import UnsupportedImageError
from tessera.app.imaging.pillow import numbers

TIFF_SAMPLES = (
    "TIFF is read with unsigned samples: grey of 1, 2, 4, 8, 12 or 16 bits, RGB and CMYK of 8 or 16, "
    "palettes of up to 8, YCbCr of 8"
)

_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR = {"RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_SIGNED, _FLOAT = 2, 3
_FORMATS = {_SIGNED: "signed integers", _FLOAT: "floating-point numbers"}

# libtiff reads every layout; Pillow's own way of reading what is not compressed takes 16-bit planes for 8-bit ones.
TiffImagePlugin.READ_LIBTIFF = True
# Kinds of grey that Pillow has no row for. The samples are read as they are; `Levels` knows which end is white.
for _order, _sixteen in ((b"II", "I;16"), (b"MM", "I;16B")):
    for _photometric in (0, 1):
        _kind = (_order, _photometric, (1,), 1)
        TiffImagePlugin.OPEN_INFO.setdefault((*_kind, (12,), ()), ("I;16", "I;12"))
        TiffImagePlugin.OPEN_INFO.setdefault((*_kind, (16,), ()), (_sixteen, _sixteen))


def check_samples(picture: Image.Image) -> None:
    """Refuse a TIFF whose samples are no unsigned integers; to be asked before it is decoded.

    Raises:
        UnsupportedImageError: They are not.
        CorruptImageError: Its tags cannot be read.
    """
    for kind in numbers(picture, _SAMPLE_FORMAT):
        if kind != 1:
            raise UnsupportedImageError(
                f"The samples are {_FORMATS.get(kind, 'of an unknown format')}, which have no defined 8-bit range. "
                f"{TIFF_SAMPLES}."
            )


def levels(picture: Image.Image) -> np.ndarray | None:
    """The 8-bit value of every 16-bit sample, uint8 [65536]; None for a picture with other samples."""
    if picture.mode not in _SIXTEEN_BIT:
        return None
    bits = numbers(picture, _BITS_PER_SAMPLE) or (16,)
    return _table(bits[0], numbers(picture, _PHOTOMETRIC) == (0,))


def to_plain(picture: Image.Image, table: np.ndarray | None) -> Image.Image:
    """Convert a decoded picture, or a part of one, to mode L where it is grey, else to RGB.

    Alpha is dropped, not blended, as the reference preprocessing (`Image.convert("RGB")`) does. Grey of 12 and 16 bits
    is scaled to 8, because Pillow's own conversion cuts every value above 255 to white.

    Args:
        picture: The picture, with all its pixels.
        table: What `levels` said of it.

    Raises:
        UnsupportedImageError: The samples have no defined 8-bit range (32-bit integers, floating point, CIELAB).
    """
    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture
    if table is not None:
        return Image.fromarray(table[np.asarray(picture)])
    picture.info.pop("transparency", None)  # of a palette or a colour; Pillow warns of what is lost
    if mode in ("1", "LA"):
        return picture.convert("L")
    if mode == "La":
        return picture.convert("LA").convert("L")
    if mode in _COLOUR or mode in ("P", "PA"):
        return picture.convert("RGB")
    raise UnsupportedImageError(
        f"The image stores its pixels as {mode!r}, which has no defined 8-bit range; send 8-bit or 16-bit samples."
    )


@lru_cache(maxsize=8)
def _table(bits: int, white_is_zero: bool) -> np.ndarray:
    top = (1 << bits) - 1
    samples = np.minimum(np.arange(65536, dtype=np.uint32), top)
    return (((top - samples if white_is_zero else samples) * 255 + top // 2) // top).astype(np.uint8)
