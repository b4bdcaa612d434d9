"""Resize and centre crop of a decoded picture, straight into the network's input; only the crop is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tessera.models import _pictures
from tessera.models.image_size import sides
from tessera.models.preprocessing import Geometry, Preprocessing, geometry

_Box = tuple[int, int, int, int]  # left, top, right, bottom
_Number = TypeVar("_Number", int, float)

_BAND = 1 << 18  # pixels that are converted at once; they stay in the L2

# EXIF's orientations, 1 to 8, as what makes the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_FROM_RIGHT, _FROM_BOTTOM = (2, 3, 7, 8), (3, 4, 6, 7)  # where the stored columns, or rows, run the other way
# The orientation that makes the transpose of the upright picture.
_TRANSPOSED = {1: 5, 2: 8, 3: 7, 4: 6, 5: 1, 6: 4, 7: 3, 8: 2}


def write_centre_crop(
    picture: Image.Image,
    preprocessing: Preprocessing,
    out: NDArray[np.uint8],
    *,
    orientation: int = 1,
    original: tuple[int, int] | None = None,
    scale: int = 1,
    plain: Callable[[Image.Image], Image.Image] | None = None,
) -> None:
    """Resize a picture and write the centre of it; equal, to the bit, to Pillow's resize of all of it, then crop.

    Args:
        picture: The decoded picture, as it is stored.
        preprocessing: What the model expects.
        out: uint8 [height, width, 3], RGB, contiguous.
        orientation: EXIF's, 1 to 8; only what the crop needs is turned.
        original: Width and height as stored, before a decoder divided them by `scale`; None: the picture's.
        scale: What the decoder divided them by, rounding up; the filter is narrowed by what that has smoothed.
        plain: Converts a part of the picture to mode L or RGB; None: as Pillow does.
    """
    width, height = original or picture.size
    size = _upright(picture.size, orientation)
    place = geometry(*_upright((width, height), orientation), preprocessing)
    extent = _upright((width / scale, height / scale), orientation)
    high, wide = sides(preprocessing.size)
    tall = _goes_down_first(size, place)
    if tall:
        orientation, size, extent = _TRANSPOSED[orientation], size[::-1], extent[::-1]
        place = Geometry(place.height, place.width, place.top, place.left)
        high, wide = wide, high
    across = (size[0], extent[0], place.width, place.left, wide)
    down = (size[1], extent[1], place.height, place.top, high)
    resize = _pictures.Resize(across, down, scale, preprocessing.interpolation == "bicubic")
    if not (orientation == 1 and picture.mode == "RGB" and _take_whole(resize, picture)):
        _take_in_bands(resize, picture, orientation, plain or _to_rgb)
    if tall:
        crop = np.empty((high, wide, 3), np.uint8)
        resize.finish(crop)
        out[:] = crop.transpose(1, 0, 2)
    else:
        resize.finish(out)


def orientation_of(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or it says nothing."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, which says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pair: tuple[_Number, _Number], orientation: int) -> tuple[_Number, _Number]:
    return (pair[1], pair[0]) if orientation in _ON_ITS_SIDE else pair


def _goes_down_first(size: tuple[int, int], place: Geometry) -> bool:
    """Whether Pillow (13 and newer) resizes columns before rows, which decides the last bit of some pixels."""
    fewer_rows = size[1] - place.height
    return fewer_rows > 0 and fewer_rows > 2 * (size[0] - place.width)


def _take_whole(resize: _pictures.Resize, picture: Image.Image) -> bool:
    """Without a copy, if Pillow keeps the picture in one piece (of up to 16 MB); returns whether it does."""
    try:
        resize.take(picture, picture.width, 0, 0)
    except ValueError:
        return False
    return True


def _take_in_bands(
    resize: _pictures.Resize, picture: Image.Image, orientation: int, plain: Callable[[Image.Image], Image.Image]
) -> None:
    left, top, right, bottom = resize.box
    rows = max(1, _BAND // (right - left))
    turn = _TURNS.get(orientation)
    for first in range(top, bottom, rows):
        box = (left, first, right, min(first + rows, bottom))
        part = picture.crop(_as_stored(box, picture.size, orientation))
        part = plain(part if turn is None else part.transpose(turn))
        resize.take(part if part.mode == "RGB" else part.convert("RGB"), right - left, left, first)


def _as_stored(box: _Box, size: tuple[int, int], orientation: int) -> _Box:
    """Where pixels of the upright picture lie in the stored one, which has this width and height."""
    left, top, right, bottom = box
    if orientation in _ON_ITS_SIDE:
        left, top, right, bottom = top, left, bottom, right
    if orientation in _FROM_RIGHT:
        left, right = size[0] - right, size[0] - left
    if orientation in _FROM_BOTTOM:
        top, bottom = size[1] - bottom, size[1] - top
    return left, top, right, bottom


def _to_rgb(part: Image.Image) -> Image.Image:
    return part.convert("RGB")
