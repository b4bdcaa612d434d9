"""Bytes of an image file to one uint8 RGB row of a batch. Pillow is the decoder of record."""

from __future__ import annotations

import warnings

import numpy as np

# Importing the plugins here registers exactly the formats below, once, before decoder threads start.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from app.errors import CorruptImageError, EmptyBodyError, ImageTooLargeError, RequestError, UnsupportedImageError
from app.imaging.colour import to_rgb
from app.imaging.cost import BoundedReader, check_scans
from models.preprocessing import Preprocessing, geometry, resize_and_crop

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_LIST = ", ".join(FORMATS)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageDecoder:
    """Decodes image files; one instance serves any number of threads.

    Args:
        preprocessing: What the model expects of a photo.
        max_pixels: Most pixels (width x height) a file's header may declare, and the resized picture may have.
    """

    def __init__(self, preprocessing: Preprocessing, *, max_pixels: int) -> None:
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        # A stranger's odd file is no business of our log. The filter is process-wide, the only scope Python offers that
        # holds in threads, and it touches warnings attributed to Pillow's own modules only.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of what it writes: [size, size, 3]."""
        return self._preprocessing.shape

    def decode(self, data: bytes, out: np.ndarray) -> None:
        """Decode `data`, apply the model's preprocessing and write the pixels into `out`.

        The first frame counts in GIF, WebP, PNG and TIFF files with several. EXIF orientation is applied.

        Args:
            data: A whole JPEG, PNG, WebP, GIF, BMP or TIFF file.
            out: uint8 array [size, size, 3], RGB; left as it is when an error is raised.

        Raises:
            EmptyBodyError: `data` is empty.
            UnsupportedImageError: `data` is not an image of a supported format or pixel type.
            ImageTooLargeError: The header declares more than the pixel limit, or decoding would cost far more than the
                pixels do (see `app.imaging.cost`); nothing was decoded.
            CorruptImageError: The file is truncated or damaged.
        """
        if not data:
            raise EmptyBodyError("The image is empty (0 bytes).")
        try:
            with self._open(data) as picture:
                self._check_size(*picture.size)
                check_scans(picture, data, max_pixels=self._max_pixels)
                picture.load()
                upright = _upright(picture)
                out[:] = np.asarray(resize_and_crop(to_rgb(upright), self._preprocessing))
        except RequestError:
            raise
        except Image.DecompressionBombError:
            raise ImageTooLargeError(
                f"The image's header declares far more than the limit of {self._max_pixels} pixels."
            ) from None
        except Exception as error:
            # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, KeyError and more on damaged files.
            # The bytes are the only input here, so whatever was raised, they are what is wrong.
            raise CorruptImageError(f"The image is truncated or damaged: {_reason(error)}.") from error

    def _open(self, data: bytes) -> Image.Image:
        try:
            return Image.open(BoundedReader(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise UnsupportedImageError(f"The data is not an image of any of these formats: {_LIST}.") from None

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise CorruptImageError(f"The image's header declares a size of {width} x {height} pixels.")
        if width * height > self._max_pixels:
            raise ImageTooLargeError(
                f"The image's header declares {width} x {height} pixels; the limit is {self._max_pixels} in all."
            )
        resized = geometry(width, height, self._preprocessing)
        if resized.width * resized.height > self._max_pixels:
            raise ImageTooLargeError(
                f"The image is too elongated: with its shorter side resized to {self._preprocessing.resize}, "
                f"{width} x {height} pixels become {resized.width} x {resized.height}; "
                f"the limit is {self._max_pixels} pixels in all."
            )


def _upright(picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Damaged EXIF says nothing about the pixels, which have been decoded in full by now.
        return picture
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    if method is None:
        return picture
    turned = picture.transpose(method)
    turned.format = picture.format
    return turned


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160].rstrip(".")
    return text or type(error).__name__
