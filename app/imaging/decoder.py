"""Bytes of an image file to one uint8 RGB row of a batch. Pillow is the decoder of record.

A JPEG larger than the model needs is decoded at a half, a quarter or an eighth: libjpeg then transforms fewer
coefficients and nothing as large as the photo is ever held. It stays at least twice as large as it is wanted, so the
model's own resize decides what is seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

# Importing the plugins here registers exactly the formats below, once, before decoder threads start.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from tessera.app.errors import CorruptImageError, EmptyBodyError, ImageTooLargeError, UnsupportedImageError
from tessera.app.imaging import rle  # noqa: F401  # registers its decoder
from tessera.app.imaging.colour import TIFF_SAMPLES, check_samples, levels, to_plain
from tessera.app.imaging.cost import BoundedReader, check_scans
from tessera.app.imaging.estimate import Estimate, estimate, is_progressive
from tessera.app.imaging.libtiff import silence_libtiff
from tessera.app.imaging.metadata import check_exif, prepare
from tessera.app.imaging.pillow import MOST_COLUMNS, damaged, reading_file
from tessera.models.preprocessing.centre_crop import CentreCrop, orientation_of
from tessera.models.preprocessing.jpeg import libjpeg_fits, read_jpeg
from tessera.models.preprocessing.transform import Preprocessing, shortest_side

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

BYTES_PER_PIXEL = 8  # what decoding may hold for each of `max_pixels`
MEMORY_BESIDE = 32 * 1024 * 1024  # and for a file, its buffers and a band of its picture, or for many small pictures

_LIST = ", ".join(FORMATS)
_SCALES = (8, 4, 2)  # by which libjpeg can divide a picture's sides while it decodes
_LEAST_SCALED = 2  # times the size that is wanted
# How JPEG, PNG, GIF, WebP and TIFF files begin in base64, and URLs with a file in them.
_BASE64 = (b"/9j/", b"iVBORw0KGgo", b"R0lGOD", b"UklGR", b"SUkq", b"TU0A", b"data:image/")
_PIECE = 4096  # bytes of a progressive JPEG that are decoded at once: a few scans


class ImageDecoder:
    """Decodes image files; one instance serves any number of threads.

    Args:
        preprocessing: What the model expects of a photo.
        max_pixels: Most pixels (width x height) a file's header may declare.
        decode_scale: Whether large JPEGs are decoded at a fraction of their size; without, only those that would not
            fit into the memory are.

    Attributes:
        memory: Bytes that one decode may hold, and all decodes of the service together.
    """

    def __init__(self, preprocessing: Preprocessing, *, max_pixels: int, decode_scale: bool = True) -> None:
        self._preprocessing = preprocessing
        self._decode_scale = decode_scale
        self._max_pixels = max_pixels
        self.memory = BYTES_PER_PIXEL * max_pixels + MEMORY_BESIDE
        # A stranger's odd file is no business of our log. The filter is process-wide, the only scope Python offers that
        # holds in threads, and it touches warnings attributed to Pillow's own modules only.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        silence_libtiff()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of what it writes: [height, width, 3]."""
        return self._preprocessing.shape

    def decode(self, data: bytes, out: np.ndarray) -> None:
        """Decode `data`, apply the model's preprocessing and write the pixels into `out`.

        The first frame counts in GIF, WebP, PNG and TIFF files with several. EXIF orientation is applied.

        Args:
            data: A whole JPEG, PNG, WebP, GIF, BMP or TIFF file.
            out: uint8 array [height, width, 3], RGB; left as it is when an error is raised.

        Raises:
            EmptyBodyError: `data` is empty.
            UnsupportedImageError: `data` is not an image of a supported format or pixel type.
            ImageTooLargeError: The header declares more than the pixel limit, or decoding would cost far more than the
                pixels do (see `tessera.app.imaging.cost`); nothing was decoded.
            CorruptImageError: The file is truncated or damaged. Any error that is no `RequestError` is a fault of ours.
        """
        self.open(data).decode(out)

    def open(self, data: bytes) -> OpenedImage:
        """Read what a file says of its picture, and nothing of the picture.

        Raises:
            RequestError: As `decode`, for all that shows before any pixel is decoded.
        """
        if not data:
            raise EmptyBodyError("The image is empty (0 bytes).")
        file = prepare(data)
        reader = BoundedReader(file)
        picture = self._identify(reader)
        self._check_size(*picture.size)
        check_exif(picture.info.get("exif"))
        check_samples(picture)
        scans = check_scans(picture, file, max_pixels=self._max_pixels)
        return OpenedImage(self._preprocessing, picture, reader, *self._affordable(picture, file, scans))

    def _identify(self, reader: BoundedReader) -> ImageFile.ImageFile:
        with reading_file(), suppress(UnidentifiedImageError):
            return Image.open(reader, formats=FORMATS)
        if reader.getvalue().startswith(tuple(TiffImagePlugin.PREFIXES)):
            raise UnsupportedImageError(
                f"The TIFF file is damaged, or stores its samples in a way that is not supported. {TIFF_SAMPLES}."
            )
        found = _text_of_an_image(reader.getvalue()[:64].lstrip())
        if found:
            raise UnsupportedImageError(
                f"The data is {found}, and an image is sent here as it is: the file's own bytes as the body, as "
                "curl --data-binary @photo.jpg does, or in a form as parts named file. Base64 is for /v2."
            )
        raise UnsupportedImageError(f"The data is not an image of any of these formats: {_LIST}.")

    def _affordable(self, picture: Image.Image, data: bytes, scans: float) -> tuple[Estimate, int]:
        """What decoding will cost, and by what a JPEG's sides are divided while it is decoded."""
        scales = [scale for scale in _SCALES if self._may_divide(picture, scale)]
        tried = [*scales, 1] if self._decode_scale else [1, *reversed(scales)]
        for scale in tried:
            cost = estimate(picture, data, self._preprocessing, scans=scans, scale=scale)
            if cost.size <= self.memory:
                return cost, scale
        raise ImageTooLargeError(
            f"Decoding the {picture.width} x {picture.height} pixels of this {picture.format} file would hold "
            f"{cost.size >> 20} MB of memory; the limit is {self.memory >> 20}. Send fewer pixels, or a baseline JPEG."
        )

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise CorruptImageError(f"The image's header declares a size of {width} x {height} pixels.")
        if width * height > self._max_pixels:
            raise ImageTooLargeError(
                f"The image's header declares {width} x {height} pixels; the limit is {self._max_pixels} in all."
            )
        if width > MOST_COLUMNS:
            raise ImageTooLargeError(
                f"The image's header declares rows of {width} pixels; the limit is {MOST_COLUMNS} in a row."
            )

    def _may_divide(self, picture: Image.Image, scale: int) -> bool:
        least = _LEAST_SCALED * shortest_side(*picture.size, self._preprocessing)
        return picture.format in ("JPEG", "MPO") and min(picture.size) // scale >= least


class OpenedImage:
    """An image file whose header has been read; good for one decode.

    Args:
        preprocessing: What the model expects of it.
        picture: The picture, not loaded.
        reader: What it reads its file with.
        cost: What decoding it will hold and take.
        scale: By what a JPEG's sides are divided while it is decoded.

    Attributes:
        cost: As given.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        picture: ImageFile.ImageFile,
        reader: BoundedReader,
        cost: Estimate,
        scale: int,
    ) -> None:
        self.cost = cost
        self._preprocessing = preprocessing
        self._picture: ImageFile.ImageFile | None = picture
        self._reader = reader
        self._scale = scale

    def decode(self, out: np.ndarray, *, wanted: Callable[[], bool] | None = None) -> None:
        """Decode it; see `ImageDecoder.decode`.

        Args:
            out: As there.
            wanted: Asked whenever the decoder wants more of the file (WebP, and TIFF but for some, take all of it at
                once); when it says no, decoding ends with an error.
        """
        assert self._picture is not None, "an image is decoded once"
        picture, self._picture = self._picture, None
        self._reader.wanted = wanted
        crop = self._read_directly(picture) or self._load(picture)
        crop.write(out)

    def _read_directly(self, picture: ImageFile.ImageFile) -> CentreCrop | None:
        """What a JPEG's crop is, straight from libjpeg; None where Pillow has to look at it."""
        if picture.format not in ("JPEG", "MPO") or picture.mode not in ("L", "RGB") or not libjpeg_fits():
            return None
        size = (-(-picture.width // self._scale), -(-picture.height // self._scale))
        crop = CentreCrop(
            size, self._preprocessing, orientation=orientation_of(picture), original=picture.size, scale=self._scale
        )
        try:
            read = read_jpeg(self._reader.getvalue(), self._scale, crop, self._reader.wanted)
        except OSError as error:  # as from the reader: nobody waits for it any more
            raise damaged(error) from error
        return crop if read else None

    def _load(self, picture: ImageFile.ImageFile) -> CentreCrop:
        original, scale = picture.size, self._scale
        table = levels(picture)
        with reading_file():
            if scale > 1 and picture.draft(None, (original[0] // scale, original[1] // scale)) is None:
                scale = 1  # it will be decoded whole
            if is_progressive(picture):
                picture.decodermaxblock = _PIECE
            picture.load()
        check_exif(picture.info.get("exif"))  # of a PNG's that comes after its pixels
        crop = CentreCrop(
            picture.size, self._preprocessing, orientation=orientation_of(picture), original=original, scale=scale
        )
        crop.take(_let_go(picture), plain=partial(to_plain, table=table))
        return crop


def _let_go(picture: Image.Image) -> Image.Image:
    """The same pixels, without the file and the decoder, which an opened picture keeps (WebP: twelve bytes a pixel)."""
    return picture._new(picture.im)


def _text_of_an_image(start: bytes) -> str:
    """What a client has made of an image that other services take as text; empty where it is nothing of that kind."""
    if start.startswith((b"{", b"[")):
        return "JSON"
    return "base64 text" if start.startswith(_BASE64) else ""
