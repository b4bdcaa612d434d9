"""What decoding a picture will hold and take, told from its header, its scans and its format.

The bytes are those of Pillow, libjpeg and libwebp, measured; a test holds them against what the process really took.
The seconds are those of one slow core: they compare pictures, and `tessera.app.imaging.decoder_pool` learns the pace.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin

from tessera.app.imaging.metadata import count_tags
from tessera.models.preprocessing import Preprocessing, geometry

# Nanoseconds of each pixel, without what its bytes and scans take.
_NANOSECONDS = {"JPEG": 8, "MPO": 8, "PNG": 12, "WEBP": 45, "GIF": 13, "BMP": 6, "TIFF": 12}
_PER_SCAN = 3  # in each pixel
_PER_BYTE = 10  # of the file, where it is unpacked
_PER_BYTE_OF_RUNS = 100  # in Python
_PER_PAIR_OF_TAGS = 50  # of a TIFF
_TO_RESIZE = 12  # each pixel, with what converts and turns it
_RESIZED = 10  # each pixel of the resized picture

_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_GREY = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
_WIDE = 4  # bytes of a pixel in every other mode
_ALWAYS = 4 << 20  # buffers, and bands of what is converted in bands
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
    """
    pixels = picture.width * picture.height
    decoded = pixels // scale**2
    stored = decoded * _NARROW.get(picture.mode, _WIDE)
    plain = decoded * (1 if picture.mode in _GREY else _WIDE)
    resized = geometry(picture.width, picture.height, preprocessing)
    passes = (resized.width * picture.height // scale + resized.width * resized.height) * _WIDE
    stages = [
        stored + _beside(picture, data, pixels, scans),
        2 * stored if may_be_turned(picture, data) else 0,
        stored + plain if picture.mode not in ("L", "RGB") else 0,
        plain + passes,
    ]
    nanoseconds = pixels * (_NANOSECONDS.get(picture.format or "", 45) + _PER_SCAN * scans) + decoded * _TO_RESIZE
    nanoseconds += _RESIZED * passes // _WIDE
    if picture.format == "TIFF":
        nanoseconds += _PER_PAIR_OF_TAGS * count_tags(data) ** 2
    if picture.format in ("PNG", "TIFF", "GIF"):
        nanoseconds += _PER_BYTE * len(data)
    elif _is_run_length_encoded(picture):
        nanoseconds += _PER_BYTE_OF_RUNS * len(data)
    return Estimate(max(stages) + len(data) + _ALWAYS, nanoseconds / 1e9)


def may_be_turned(picture: Image.Image, data: bytes) -> bool:
    """Whether the picture has an orientation beside upright, or may have one behind its pixels."""
    if picture.format == "PNG":  # which Pillow would decode to look
        return any(name in data for name in (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"))
    return orientation(picture) != 1


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or it says nothing."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, which says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _beside(picture: Image.Image, data: bytes, pixels: int, scans: float) -> int:
    """Bytes that the decoder itself holds beside the pixels that it writes."""
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
        return _coefficients(picture, pixels) if scans > 1 or _is_progressive(picture) else 0
    if picture.format == "WEBP":
        return _WEBP * pixels
    if picture.format == "TIFF":
        return _piece(cast(TiffImagePlugin.TiffImageFile, picture)) * (3 if scans > 1 else 1)
    return 2 * pixels if _is_run_length_encoded(picture) else 0


def _coefficients(picture: JpegImagePlugin.JpegImageFile, pixels: int) -> int:
    """All coefficients of a JPEG in several scans, two bytes each; fewer where a component is subsampled."""
    areas = [max(1, across) * max(1, down) for _, down, across, _ in picture.layer] or [1]
    widest = max(1, *(max(1, across) for _, _, across, _ in picture.layer))
    tallest = max(1, *(max(1, down) for _, down, _, _ in picture.layer))
    return 2 * pixels * sum(areas) // (widest * tallest)


def _is_progressive(picture: Image.Image) -> bool:
    return "progressive" in picture.info


def _is_run_length_encoded(picture: Image.Image) -> bool:
    return picture.format == "BMP" and picture.info.get("compression") in (1, 2)


def _piece(picture: TiffImagePlugin.TiffImageFile) -> int:
    """Bytes of the strip or tile that libtiff unpacks at a time, which a header may make as large as it likes."""
    tags = picture.tag_v2
    width, height = _number(tags.get(_TILE_WIDTH)), _number(tags.get(_TILE_LENGTH))
    if not (width and height):
        rows = _number(tags.get(_ROWS_PER_STRIP)) or picture.height
        width, height = picture.width, min(rows, picture.height)
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    samples = 1 if _number(tags.get(_PLANES)) == 2 else _number(tags.get(_SAMPLES_PER_PIXEL)) or 1
    return width * height * samples * _number(bits) // 8


def _number(value: object) -> int:
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) else 0
