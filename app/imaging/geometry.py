"""The standard evaluation preprocessing: shorter side to 256, bilinear with antialias, centre crop 224."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

CROP = 224
SHORTER_SIDE = 256


class Geometry(NamedTuple):
    """Where a picture of one size is resized to and cropped at, in pixels.

    Attributes:
        width: Width after the resize.
        height: Height after the resize.
        left: Left edge of the centre crop in the resized picture.
        top: Top edge of the centre crop in the resized picture.
    """

    width: int
    height: int
    left: int
    top: int


def geometry(width: int, height: int) -> Geometry:
    """Compute resize and crop of a `width` x `height` picture exactly as torchvision's evaluation transform does.

    The longer side is cut to a whole number, the crop offset is rounded half to even: both decide which pixels the
    network sees, so both follow torchvision, whose numbers published accuracies rest on.
    """
    if width <= height:
        new_width, new_height = SHORTER_SIDE, int(SHORTER_SIDE * height / width)
    else:
        new_width, new_height = int(SHORTER_SIDE * width / height), SHORTER_SIDE
    return Geometry(new_width, new_height, round((new_width - CROP) / 2.0), round((new_height - CROP) / 2.0))


def resize_and_crop(picture: Image.Image) -> Image.Image:
    """Return the 224x224 centre of `picture` (mode RGB) resized to a shorter side of 256."""
    # Pillow can resize only the part that is kept (resize(box=...)), but that differs from resizing the whole picture
    # in the last bit of some pixels, so the plain way stays.
    width, height, left, top = geometry(*picture.size)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + CROP, top + CROP))
