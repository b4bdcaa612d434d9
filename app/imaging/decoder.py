"""Bytes of an image file to one uint8 RGB row of a batch. Pillow is the decoder of record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# Importing the plugins here registers exactly the formats below, once, before decoder threads start.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from tessera.app.errors import (
    CorruptImageError,
    EmptyBodyError,
    ImageTooLargeError,
    RequestError,
    UnsupportedImageError,
)
from tessera.app.imaging import rle  # noqa: F401  # registers its decoder
from tessera.app.imaging.colour import TIFF_SAMPLES, check_samples, levels, to_plain
from tessera.app.imaging.cost import BoundedReader, check_scans
from tessera.app.imaging.estimate import Estimate, estimate, orientation
from tessera.app.imaging.libtiff import silence_libtiff
from tessera.app.imaging.metadata import check_exif, prepare
from tessera.models.preprocessing import Preprocessing, geometry, resize_and_crop
from tessera.wording import counted

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

BYTES_PER_PIXEL = 8  # what decoding may hold for each of `max_pixels`
MEMORY_BESIDE = 32 * 1024 * 1024  # and for a file, its buffers and a band of its picture, or for many small pictures

_LIST = ", ".join(FORMATS)
_SCALES = (2, 4, 8)  # by which libjpeg can divide a picture's sides while it decodes

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

    Attributes:
        memory: Bytes that one decode may hold, and all decodes of the service together.
    """

    def __init__(self, preprocessing: Preprocessing, *, max_pixels: int) -> None:
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self.memory = BYTES_PER_PIXEL * max_pixels + MEMORY_BESIDE
        # A stranger's odd file is no business of our log. The filter is process-wide, the only scope Python offers that
        # holds in threads, and it touches warnings attributed to Pillow's own modules only.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        silence_libtiff()

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
                pixels do (see `tessera.app.imaging.cost`); nothing was decoded.
            CorruptImageError: The file is truncated or damaged.
        """
        self.open(data).decode(out)

    def open(self, data: bytes) -> OpenedImage:
        """Read what a file says of its picture, and nothing of the picture.

        Raises:
            RequestError: As `decode`, for all that shows before any pixel is decoded.
        """
        if not data:
            raise EmptyBodyError("The image is empty (0 bytes).")
        with self._explained():
            file = prepare(data)
            picture = self._identify(file)
            self._check_size(*picture.size)
            check_exif(picture.info.get("exif"))
            check_samples(picture)
            scans = check_scans(picture, file, max_pixels=self._max_pixels)
            return OpenedImage(self, picture, *self._affordable(picture, file, scans))

    def finish(self, opened: OpenedImage, out: np.ndarray) -> None:
        """Decode what `open` returned; as `decode`."""
        with self._explained():
            out[:] = np.asarray(resize_and_crop(opened.pixels(), self._preprocessing).convert("RGB"))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever Pillow raises, as an error of the request."""
        try:
            yield
        except RequestError:
            raise
        except Image.DecompressionBombError:
            raise ImageTooLargeError(
                f"The image's header declares far more than the limit of {counted(self._max_pixels, 'pixel')}."
            ) from None
        except Exception as error:
            # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, KeyError and more on damaged files.
            # The bytes are the only input here, so whatever was raised, they are what is wrong.
            raise CorruptImageError(f"The image is truncated or damaged: {_reason(error)}.") from error

    def _identify(self, data: bytes) -> Image.Image:
        try:
            return Image.open(BoundedReader(data), formats=FORMATS)
        except UnidentifiedImageError:
            if data.startswith(tuple(TiffImagePlugin.PREFIXES)):
                raise UnsupportedImageError(
                    f"The TIFF file is damaged, or stores its samples in a way that is not supported. {TIFF_SAMPLES}."
                ) from None
            raise UnsupportedImageError(f"The data is not an image of any of these formats: {_LIST}.") from None

    def _affordable(self, picture: Image.Image, data: bytes, scans: float) -> tuple[Estimate, int]:
        """What decoding will cost, and by what a JPEG's sides are to be divided so that it can be paid."""
        whole = estimate(picture, data, self._preprocessing, scans=scans)
        if whole.size <= self.memory:
            return whole, 1
        if picture.format in ("JPEG", "MPO"):
            for scale in _SCALES:
                # Twice as large as it is wanted, the picture is still scaled down by what the model expects.
                if min(picture.size) // scale < 2 * self._preprocessing.resize:
                    break
                scaled = estimate(picture, data, self._preprocessing, scans=scans, scale=scale)
                if scaled.size <= self.memory:
                    return scaled, scale
        raise ImageTooLargeError(
            f"Decoding the {picture.width} x {picture.height} pixels of this {picture.format} file would hold "
            f"{whole.size >> 20} MB of memory; the limit is {self.memory >> 20}. Send fewer pixels, or a baseline JPEG."
        )

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
                f"the limit is {counted(self._max_pixels, 'pixel')} in all."
            )


class OpenedImage:
    """An image file whose header has been read; good for one decode.

    Args:
        decoder: Who opened it.
        picture: The picture, not loaded.
        cost: What decoding it will hold and take.
        scale: By what a JPEG's sides are divided while it is decoded.

    Attributes:
        cost: As given.
    """

    def __init__(self, decoder: ImageDecoder, picture: Image.Image, cost: Estimate, scale: int) -> None:
        self.cost = cost
        self._decoder = decoder
        self._picture: Image.Image | None = picture
        self._scale = scale

    def decode(self, out: np.ndarray) -> None:
        """Decode it; see `ImageDecoder.decode`."""
        self._decoder.finish(self, out)

    def pixels(self) -> Image.Image:
        """The whole picture, upright, in mode L or RGB. Each step lets go of what the one before has made."""
        assert self._picture is not None, "an image is decoded once"
        picture, self._picture = self._picture, None
        if self._scale > 1:
            picture.draft(None, (picture.width // self._scale, picture.height // self._scale))
        table = levels(picture)
        picture.load()
        check_exif(picture.info.get("exif"))  # of a PNG's that comes after its pixels
        turn = _TRANSPOSE.get(orientation(picture))
        picture = _let_go(picture)
        if turn is not None:
            picture = picture.transpose(turn)
        return to_plain(picture, table)


def _let_go(picture: Image.Image) -> Image.Image:
    """The same pixels, without the file and the decoder, which an opened picture keeps (WebP: twelve bytes a pixel)."""
    plain = picture._new(picture.im)
    plain.format = picture.format
    return plain


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:160].rstrip(".")
    return text or type(error).__name__
