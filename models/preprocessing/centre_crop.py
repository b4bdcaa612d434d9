"""Resize and centre crop of a decoded picture, straight into the network's input; only the crop is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tessera.models.preprocessing import _pictures
from tessera.models.preprocessing.image_size import sides
from tessera.models.preprocessing.transform import Geometry, Preprocessing, geometry

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


class CentreCrop:
    """Resize of a picture and the centre of it; equal, to the bit, to Pillow's resize of all of it, then crop.

    Args:
        size: Width and height of the decoded picture, as it is stored.
        preprocessing: What the model expects.
        orientation: EXIF's, 1 to 8; only what the crop needs is turned.
        original: Width and height as stored, before a decoder divided them by `scale`; None: `size`.
        scale: What the decoder divided them by, rounding up; the filter is narrowed by what that has smoothed.

    Attributes:
        size: As given.
        resize: What takes the pixels.
        box: The stored pixels that are needed: left, top, right, bottom.
        as_stored: Whether they are taken as they are stored, not turned.
    """

    def __init__(
        self,
        size: tuple[int, int],
        preprocessing: Preprocessing,
        *,
        orientation: int = 1,
        original: tuple[int, int] | None = None,
        scale: int = 1,
    ) -> None:
        width, height = original or size
        upright = _upright(size, orientation)
        place = geometry(*_upright((width, height), orientation), preprocessing)
        extent = _upright((width / scale, height / scale), orientation)
        high, wide = sides(preprocessing.size)
        self._tall = _goes_down_first(upright, place)
        if self._tall:
            orientation, upright, extent = _TRANSPOSED[orientation], upright[::-1], extent[::-1]
            place = Geometry(place.height, place.width, place.top, place.left)
            high, wide = wide, high
        across = (upright[0], extent[0], place.width, place.left, wide)
        down = (upright[1], extent[1], place.height, place.top, high)
        self._orientation = orientation
        self._shape = (high, wide, 3)
        self.size = size
        self.resize = _pictures.Resize(across, down, scale, preprocessing.interpolation == "bicubic")
        self.box = _as_stored(self.resize.box, size, orientation)
        self.as_stored = orientation == 1

    def take(
        self,
        picture: Image.Image,
        *,
        at: tuple[int, int] = (0, 0),
        plain: Callable[[Image.Image], Image.Image] | None = None,
    ) -> None:
        """Take the picture, or a part of it that has the box.

        Args:
            picture: The pixels, as they are stored.
            at: Where their first column and row lie in the picture.
            plain: Converts a part of them to mode L or RGB; None: as Pillow does.
        """
        whole = self.as_stored and at == (0, 0) and picture.mode == "RGB"
        if not (whole and _take_whole(self.resize, picture)):
            self._take_in_bands(picture, at, plain or _to_rgb)

    def write(self, out: NDArray[np.uint8]) -> None:
        """Write the crop, uint8 [height, width, 3], RGB, contiguous."""
        if self._tall:
            crop = np.empty(self._shape, np.uint8)
            self.resize.finish(crop)
            out[:] = crop.transpose(1, 0, 2)
        else:
            self.resize.finish(out)

    def _take_in_bands(
        self, picture: Image.Image, at: tuple[int, int], plain: Callable[[Image.Image], Image.Image]
    ) -> None:
        left, top, right, bottom = self.resize.box
        rows = max(1, _BAND // (right - left))
        turn = _TURNS.get(self._orientation)
        for first in range(top, bottom, rows):
            band = _as_stored((left, first, right, min(first + rows, bottom)), self.size, self._orientation)
            part = picture.crop((band[0] - at[0], band[1] - at[1], band[2] - at[0], band[3] - at[1]))
            part = plain(part if turn is None else part.transpose(turn))
            self.resize.take(part if part.mode == "RGB" else part.convert("RGB"), right - left, left, first)


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
