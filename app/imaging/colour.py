"""Any pixel format that Pillow reads to 8-bit RGB, or a clear refusal."""

from __future__ import annotations

import numpy as np
from PIL import Image

from app.errors import UnsupportedImageError

_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
_DIRECT = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"}


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert a decoded picture to mode RGB.

    Alpha is dropped, not blended, as the reference preprocessing (`Image.convert("RGB")`) does. 16-bit grey is scaled
    to 8 bits (65535 becomes 255), because Pillow's own conversion cuts every value above 255 to white.

    Raises:
        UnsupportedImageError: The samples have no defined 8-bit range (32-bit integers, floating point, CIELAB).
    """
    mode = picture.mode
    if mode == "RGB":
        return picture
    if mode in _SIXTEEN_BIT or (mode == "I" and picture.format == "PNG"):
        # Older Pillow opens 16-bit PNG as mode I with values 0..65535.
        return _grey_from_16_bit(np.asarray(picture)).convert("RGB")
    if mode in ("P", "PA") and "transparency" in picture.info:
        # Straight to RGB gives the same colours, but with a warning about the transparency that is lost.
        return picture.convert("RGBA").convert("RGB")
    if mode in _DIRECT:
        return picture.convert("RGB")
    raise UnsupportedImageError(
        f"The image stores its pixels as {mode!r}, which has no defined 8-bit range; send 8-bit or 16-bit samples."
    )


def _grey_from_16_bit(samples: np.ndarray) -> Image.Image:
    wide = samples.astype(np.uint32)
    return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
