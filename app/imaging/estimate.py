"""What decoding a picture will hold and take, told from its header, its scans and its format.

The bytes are those of Pillow, libjpeg and libwebp, measured; a test holds them against what the process really took.
The seconds are those of one slow core: they compare pictures, and `tessera.app.imaging.decoder_pool` learns the pace.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image, JpegImagePlugin

from tessera.app.imaging.metadata import count_tags
from tessera.app.imaging.pillow import numbers
from tessera.models.preprocessing.image_size import sides
from tessera.models.preprocessing.transform import Preprocessing

# Nanoseconds of each pixel, without what its bytes and scans take.
_NANOSECONDS = {"JPEG": 8, "MPO": 8, "PNG": 12, "WEBP": 45, "GIF": 13, "BMP": 6, "TIFF": 12}
_PER_SCAN = 3  # in each pixel
_PER_BYTE = 10  # of the file, where it is unpacked
_PER_BYTE_OF_RUNS = 100  # in Python
_PER_PAIR_OF_TAGS = 50  # of a TIFF
_TO_RESIZE = 3  # each pixel, with what converts and turns it

_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_WIDE = 4  # bytes of a pixel in every other mode
_ALWAYS = 8 << 20  # buffers, and bands of what is converted, turned and resized in bands
_WEBP = 12  # two canvases and a copy of one
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _PLANES = 258, 277, 278, 284
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class Estimate(NamedTuple):
    """What a decode will cost.

    Attributes:
        size: Bytes that it will hold at its peak, beside the file.
        seconds: What it takes of a core.
    """

    size: int
    seconds: float


def estimate(
    picture: Image.Image, data: bytes, preprocessing: Preprocessing, *, scans: float, scale: int = 1
) -> Estimate:
    """Say what decoding, converting, turning and resizing will cost.

    Args:
        picture: The picture, opened and not loaded.
        data: Its file.
        preprocessing: What the model expects of a photo.
        scans: Passes over the picture, see `tessera.app.imaging.cost.check_scans`.
        scale: By what a JPEG's sides are divided while it is decoded.

    Raises:
        CorruptImageError: A TIFF's tags cannot be read.
    """
    pixels = picture.width * picture.height
    decoded = pixels // scale**2
    stored = decoded * _NARROW.get(picture.mode, _WIDE)
    # The crop's rows, or its columns, resized in one direction; a square's are at most those of the shorter side.
    length = min(picture.size) if isinstance(preprocessing.size, int) else max(picture.size)
    across = length // scale * max(sides(preprocessing.size)) * _WIDE
    size = stored + _beside(picture, data, pixels, scans) + across + len(data) + _ALWAYS
    nanoseconds = pixels * _PER_SCAN * scans + decoded * (_NANOSECONDS.get(picture.format or "", 45) + _TO_RESIZE)
    if picture.format == "TIFF":
        nanoseconds += _PER_PAIR_OF_TAGS * count_tags(data) ** 2
    if picture.format in ("PNG", "TIFF", "GIF"):
        nanoseconds += _PER_BYTE * len(data)
    elif _is_run_length_encoded(picture):
        nanoseconds += _PER_BYTE_OF_RUNS * len(data)
    return Estimate(size, nanoseconds / 1e9)


def is_progressive(picture: Image.Image) -> bool:
    """Whether a picture is a progressive JPEG."""
    return isinstance(picture, JpegImagePlugin.JpegImageFile) and "progressive" in picture.info


def _beside(picture: Image.Image, data: bytes, pixels: int, scans: float) -> int:
    """Bytes that the decoder itself holds beside the pixels that it writes."""
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
        return _coefficients(picture, pixels) if scans > 1 or is_progressive(picture) else 0
    if picture.format == "WEBP":
        return _WEBP * pixels
    if picture.format == "TIFF":
        return _piece(picture) * (3 if scans > 1 else 1)
    return 2 * pixels if _is_run_length_encoded(picture) else 0


def _coefficients(picture: JpegImagePlugin.JpegImageFile, pixels: int) -> int:
    """All coefficients of a JPEG in several scans, two bytes each; fewer where a component is subsampled."""
    areas = [max(1, across) * max(1, down) for _, down, across, _ in picture.layer] or [1]
    widest = max(1, *(max(1, across) for _, _, across, _ in picture.layer))
    tallest = max(1, *(max(1, down) for _, down, _, _ in picture.layer))
    return 2 * pixels * sum(areas) // (widest * tallest)


def _is_run_length_encoded(picture: Image.Image) -> bool:
    return picture.format == "BMP" and picture.info.get("compression") in (1, 2)


def _piece(picture: Image.Image) -> int:
    """Bytes of the strip or tile that libtiff unpacks at a time, which a header may make as large as it likes."""
    width, height = _number(picture, _TILE_WIDTH), _number(picture, _TILE_LENGTH)
    if not (width and height):
        rows = _number(picture, _ROWS_PER_STRIP) or picture.height
        width, height = picture.width, min(rows, picture.height)
    samples = 1 if _number(picture, _PLANES) == 2 else _number(picture, _SAMPLES_PER_PIXEL) or 1
    return width * height * samples * (_number(picture, _BITS_PER_SAMPLE) or 1) // 8


def _number(picture: Image.Image, tag: int) -> int:
    return (*numbers(picture, tag), 0)[0]
