"""Run-length encoded bitmaps: whatever the size, the same pixels as Pillow's own decoder, which is slow."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import BmpImagePlugin, Image

from tessera.app.errors import CorruptImageError
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.imaging.rle import RunLengthDecoder
from tessera.models.preprocessing.transform import Preprocessing

SIZE = 32
DECODER = ImageDecoder(Preprocessing(SIZE, SIZE), max_pixels=1 << 26)


def bitmap(runs: bytes, width: int, height: int, *, four_bits: bool = False) -> bytes:
    """A BMP of 16 or 256 shades of colour around its runs."""
    colours = 16 if four_bits else 256
    palette = b"".join(
        bytes([index * 255 // (colours - 1), 7, 255 - index * 255 // (colours - 1), 0]) for index in range(colours)
    )
    start = 14 + 40 + len(palette)
    bits, compression = (4, 2) if four_bits else (8, 1)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(runs), 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start) + header + palette + runs


def decode(data: bytes) -> np.ndarray:
    row = np.zeros(DECODER.shape, np.uint8)
    DECODER.decode(data, row)
    return row


def encoded(pixels: np.ndarray, *, four_bits: bool = False) -> bytes:
    """Runs of one colour, as drawings have them; `pixels` [height, width], the lowest row first as in the file."""
    runs = bytearray()
    for row in pixels:
        ends = np.flatnonzero(np.diff(row, append=-1)) + 1
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            value = int(row[first]) * (17 if four_bits else 1)
            for left in range(int(end - first), 0, -255):
                runs += bytes([min(left, 255), value])
        runs += b"\0\0"
    return bytes(runs + b"\0\1")


def by_pillow(data: bytes) -> bytes | None:
    """The pixels that Pillow's decoder of record gives, None where it gives none."""
    picture = Image.open(io.BytesIO(data))
    Image.register_decoder("bmp_rle", BmpImagePlugin.BmpRleDecoder)
    try:
        return picture.convert("RGB").tobytes()
    except (OSError, ValueError):
        return None
    finally:
        Image.register_decoder("bmp_rle", RunLengthDecoder)


@pytest.mark.parametrize("four_bits", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (1024, 768), (1920, 1080), (333, 517)])
def test_drawings_of_any_size_are_read(width: int, height: int, four_bits: bool) -> None:
    y, x = np.mgrid[0:height, 0:width]
    pixels = ((x // 3 + y // 5) % 16).astype(np.int64)
    data = bitmap(encoded(pixels, four_bits=four_bits), width, height, four_bits=four_bits)
    assert len(data) > 10_000 or width == 64
    shades = 16 if four_bits else 256
    red = (pixels[::-1] * 255 // (shades - 1)).astype(np.uint8)
    colours = np.stack([255 - red, np.full_like(red, 7), red], axis=-1)
    plain = io.BytesIO()
    Image.fromarray(colours).save(plain, "PNG")
    assert np.array_equal(decode(data), decode(plain.getvalue()))


@settings(max_examples=300)
@given(
    st.binary(max_size=120)
    | st.lists(st.sampled_from([b"\0\0", b"\0\2\1\1", b"\0\3abc\0", b"\5a", b"\0\1"]), max_size=30).map(b"".join),
    st.integers(1, 20),
    st.integers(1, 20),
    st.booleans(),
)
def test_any_runs_give_what_pillow_gives(runs: bytes, width: int, height: int, four_bits: bool) -> None:
    data = bitmap(runs, width, height, four_bits=four_bits)
    wanted = by_pillow(data)
    picture = Image.open(io.BytesIO(data))
    if wanted is None:
        with pytest.raises((OSError, ValueError)):
            picture.load()
    else:
        assert picture.convert("RGB").tobytes() == wanted


def test_a_picture_that_ends_early_is_told() -> None:
    with pytest.raises(CorruptImageError):
        decode(bitmap(b"\x40a\0\0" * 20, 64, 64))
