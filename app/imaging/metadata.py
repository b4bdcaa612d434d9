"""What files say about themselves beside their pixels, looked through before Pillow does.

Pillow parses it in Python, holding the GIL, and keeps it. A megabyte of it can cost a second, where Pillow takes
several steps for each byte, or minutes, where it puts pieces together one by one. None of it but the orientation
concerns the pixels: what the format lets go of is left out, what is more than honest files have is refused.
"""

from __future__ import annotations

import re
import struct

from PIL import TiffImagePlugin

from tessera.app.errors import CorruptImageError, ImageTooLargeError
from tessera.wording import counted

MOST_EXIF = 64 * 1024  # bytes; what one segment of a JPEG holds
MOST_NUMBERS = 64 * 1024  # in one tag of a TIFF: more strips than any picture within `max_pixels` has rows

_MOST_SEGMENTS = 4096
_MOST_TABLES = 16 * 1024  # bytes of quantisation tables; four fill half a kilobyte
_MOST_PHOTOSHOP = 2 * 1024 * 1024  # bytes of Photoshop's blocks
_FREE_CHUNKS = 10_000
_BYTES_PER_CHUNK = 100

# Markers that have a length behind them, as Pillow knows them; it stops at the rest of those that are found.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SEGMENTS = {*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xF0), 0xFE}
_PASSED_OVER = {0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)}
_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
_SOS, _DQT, _APP1, _APP13 = 0xDA, 0xDB, 0xE1, 0xED

_PNG = b"\x89PNG\r\n\x1a\n"
_KEPT_CHUNKS = {b"tRNS", b"eXIf"}  # of those that a decoder may ignore
_KEPT_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # once each: they may hold the orientation

_MOST_TAGS = 4096  # libtiff sorts its list of tags anew for each that it does not know
_TEXTS = {1, 2, 7}  # types of TIFF whose values stay bytes
_DIRECTORIES = {34665, 34853, 40965}  # tags that point to another directory


def prepare(data: bytes) -> bytes:
    """Look through a file of any format; returns what Pillow is to open.

    Raises:
        ImageTooLargeError: There is more metadata than honest files have.
        CorruptImageError: A JPEG has several frames.
    """
    if data.startswith(b"\xff\xd8\xff"):
        _check_segments(data)
    elif data.startswith(_PNG):
        return _without_text(data)
    elif data.startswith(tuple(TiffImagePlugin.PREFIXES)):
        _check_directory(data, depth=2)
    return data


def check_exif(exif: object) -> None:
    """Refuse more EXIF data than a photo has, wherever it comes from.

    Raises:
        ImageTooLargeError: There is more.
    """
    if isinstance(exif, bytes) and len(exif) > MOST_EXIF + 6:  # and "Exif\0\0"
        raise _too_much_exif()


def too_many_pieces() -> ImageTooLargeError:
    """The error of a file that is cut into more pieces than any honest one."""
    return ImageTooLargeError("The image consists of too many small pieces (segments, chunks or blocks).")


def _too_much_exif() -> ImageTooLargeError:
    return ImageTooLargeError(f"The image has more than {MOST_EXIF} bytes of EXIF data; save it without, or with less.")


def _check_segments(data: bytes) -> None:
    """Walk through a JPEG's segments up to its first scan, exactly as Pillow does."""
    exif = tables = photoshop = frames = 0
    position = 2
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(data, position)
        if marker is None:
            return
        kind, position = data[marker.start() + 1], marker.end()
        if kind in _PASSED_OVER:
            continue
        if kind not in _SEGMENTS or kind == _SOS:
            return
        length = max(2, int.from_bytes(data[position : position + 2], "big"))
        if kind == _DQT:
            tables += length
        elif kind in _FRAMES:
            frames += 1
        elif kind == _APP1 and data.startswith(b"Exif\0\0", position + 2):
            exif += length - 8
        elif kind == _APP13 and data.startswith(b"Photoshop 3.0\0", position + 2):
            photoshop += length
        if exif > MOST_EXIF:
            raise _too_much_exif()
        if tables > _MOST_TABLES or photoshop > _MOST_PHOTOSHOP:
            raise ImageTooLargeError("The image has far more tables or blocks of Photoshop's than a picture needs.")
        if frames > 1:
            raise CorruptImageError("The JPEG file has several frame headers.")
        position += length
    raise too_many_pieces()


def _without_text(data: bytes) -> bytes:
    """The same PNG without colour profiles, further frames, private chunks and texts that say nothing of the pixels.

    Each may unpack to a megabyte, and their number is not bounded.
    """
    kept, start, position = [], 0, len(_PNG)
    texts = set(_KEPT_TEXTS)
    for _ in range(_FREE_CHUNKS + len(data) // _BYTES_PER_CHUNK):
        if position + 8 > len(data):
            break
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if kind[0] & 0x20 and kind not in _KEPT_CHUNKS:
            keyword = data[position + 8 : position + 40].partition(b"\0")[0]
            if keyword in texts:
                texts.remove(keyword)
            else:
                kept.append(data[start:position])
                start = end
        position = end
        if kind == b"IEND":
            break
    else:
        raise too_many_pieces()
    return b"".join([*kept, data[start:]]) if kept else data


def count_tags(data: bytes) -> int:
    """How many tags a TIFF says that its first directory has; 0 where the file ends before it says so."""
    try:
        return _Directory(data).entries
    except struct.error:
        return 0


class _Directory:
    """Where a TIFF's directory lies and how it is written.

    Args:
        data: The file.
        offset: Where the directory begins; None for the first one.

    Raises:
        struct.error: It lies outside of the file.
    """

    def __init__(self, data: bytes, offset: int | None = None) -> None:
        order = ">" if data[:2] == b"MM" else "<"
        big = data[2] == 43  # as Pillow tells them apart
        if offset is None:
            (offset,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
        if offset > len(data):  # struct has another error for offsets that no address can have
            raise struct.error("the directory lies outside of the file")
        self.entries: int = struct.unpack_from(order + ("Q" if big else "H"), data, offset)[0]
        self.first: int = offset + (8 if big else 2)
        self.entry = struct.Struct(order + ("HHQQ" if big else "HHLL"))


def _check_directory(data: bytes, depth: int, offset: int | None = None) -> None:
    """Refuse a TIFF one of whose tags has more numbers than any picture's; each becomes an object or several."""
    seen = set()
    try:
        directory = _Directory(data, offset)
        if directory.entries > _MOST_TAGS:
            raise too_many_pieces()
        for index in range(directory.entries):
            place = directory.first + index * directory.entry.size
            tag, kind, numbers, value = directory.entry.unpack_from(data, place)
            if numbers > MOST_NUMBERS and kind not in _TEXTS:
                raise ImageTooLargeError(
                    f"Tag {tag} of the TIFF file has {counted(numbers, 'value')}; the limit is {MOST_NUMBERS}."
                )
            if tag in _DIRECTORIES and tag not in seen and depth > 0:
                seen.add(tag)
                _check_directory(data, depth - 1, value)
    except struct.error:
        return  # a directory outside of the file: Pillow says what is wrong
