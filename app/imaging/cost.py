"""What a file may cost to decode beyond its bytes and pixels, bounded before it is spent.

- **Pieces.** Formats cut files into segments, chunks and blocks, and Pillow walks them in Python, holding the GIL:
  16 MB of empty pieces keep it busy for half a minute. `BoundedReader` bounds the reads that any parser makes, and the
  bytes: pieces may be told to overlap. What a format keeps beside its pixels is `tessera.app.imaging.metadata`'s.
- **Scans.** A JPEG codes its picture in scans, and each costs the decoder a pass over every coefficient, however few
  bytes it has. The specification (ITU-T T.81) sets no bound on their number, and an empty scan takes some 100 bytes.
  `count_scans` counts them from the markers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image

from tessera.app.errors import CorruptImageError, ImageTooLargeError
from tessera.app.imaging.metadata import too_many_pieces
from tessera.app.imaging.pillow import numbers
from tessera.wording import counted

SCANS = 16  # passes over a picture of `max_pixels`; encoders make about ten, a smaller picture may have more

_FREE_READS = 10_000
_BYTES_PER_READ = 100  # honest pieces are larger, and take a few reads each
_FREE_BYTES = 1 << 20
_PASSES = 4  # over all bytes; honest files are read once, and their headers several times
_MOST_SEGMENTS = 4096

# In coded data 0xFF is followed by 0 (stuffing) or a restart marker; so the next of these is a marker segment.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOS, _EOI, _SOI, _TEM = 0xDA, 0xD9, 0xD8, 0x01
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)  # start of frame, with the number of components at its eighth byte


class BoundedReader(io.BytesIO):
    """A file in memory that can be read only so many times, and only while somebody wants it.

    Args:
        data: The file.

    Attributes:
        wanted: Asked at every read; None: it is wanted.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.wanted: Callable[[], bool] | None = None
        self._left = _FREE_READS + len(data) // _BYTES_PER_READ
        self._bytes_left = _FREE_BYTES + _PASSES * len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO` does.

        Raises:
            ImageTooLargeError: It has been read too often.
            OSError: Nobody wants it any more.
        """
        if self.wanted is not None and not self.wanted():
            raise OSError("nobody waits for it any more")
        read = super().read(size)
        self._left -= 1
        self._bytes_left -= len(read)
        if self._left < 0 or self._bytes_left < 0:
            raise too_many_pieces()
        return read


def check_scans(picture: Image.Image, data: bytes, *, max_pixels: int) -> float:
    """Refuse a JPEG, or a TIFF with JPEG inside, whose scans cost far more than its pixels.

    Returns:
        Passes over the whole picture; 1 for other formats.

    Args:
        picture: The picture, opened and not loaded.
        data: Its file.
        max_pixels: The limit of pixels; `SCANS` passes over as many are allowed.

    Raises:
        ImageTooLargeError: There are too many scans.
        CorruptImageError: A TIFF's strips overlap or lie outside of the file, or its tags cannot be read.
    """
    pixels = picture.width * picture.height
    allowed = SCANS * max_pixels / pixels
    if picture.format in ("JPEG", "MPO"):
        scans: float = count_scans(data, int(allowed))
    elif picture.format == "TIFF" and str(picture.info.get("compression", "")).endswith("jpeg"):
        scans = _scans_of_tiff(picture, data, int(allowed))
    else:
        return 1
    if scans > allowed:
        raise ImageTooLargeError(
            f"The image has more than {counted(int(allowed), 'scan')} of {picture.width} x {picture.height} pixels; "
            "save it with fewer scans, or as a baseline JPEG."
        )
    return scans


def count_scans(data: bytes, most: int) -> int:
    """Count the scans that a decoder runs of the JPEG stream at the start of `data`; not exact above `most`.

    A sequential stream whose first scan has all components is over with that, and a decoder runs no further ones: its
    coded data, which most photos consist of, need not be searched.
    """
    scans, position, components = 0, 0, 0
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(data, position)
        if marker is None:
            return scans
        kind, position = data[marker.start() + 1], marker.end()
        if kind == _EOI or scans > most:
            return scans
        if kind in (_SOI, _TEM):
            continue
        if kind in _SEQUENTIAL:
            components = data[position + 7] if position + 7 < len(data) else 0
        elif kind == _SOS:
            if scans == 0 and 0 < components <= int.from_bytes(data[position + 2 : position + 3], "big"):
                return 1
            scans += 1
        # A segment's length counts its own two bytes; what it spans may hold anything, such as a thumbnail's markers.
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return most + 1


def _scans_of_tiff(picture: Image.Image, data: bytes, most: int) -> float:
    """Passes over the whole picture: every strip or tile is a JPEG stream of its own."""
    offsets = numbers(picture, 273) or numbers(picture, 324)
    lengths = numbers(picture, 279) or numbers(picture, 325)
    if not offsets or sum(lengths) > len(data):
        raise CorruptImageError("The TIFF file's strips overlap or lie outside of it.")
    scans = sum(
        count_scans(data[offset : offset + length], most * len(offsets))
        for offset, length in zip(offsets, lengths, strict=False)
    )
    return scans / len(offsets)
