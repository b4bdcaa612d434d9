"""JPEGs larger than they are wanted: decoded at a fraction, seen as the whole would be."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tessera.app.errors import CorruptImageError
from tessera.app.imaging import decoder as decoder_module
from tessera.app.imaging.decoder import ImageDecoder
from tessera.models.preprocessing.centre_crop import CentreCrop
from tessera.models.preprocessing.transform import Preprocessing
from tests.imagefiles import drawing, encode

LIMIT = 64 * 1024 * 1024


def decode(data: bytes, *, decode_scale: bool = True, preprocessing: Preprocessing | None = None) -> np.ndarray:
    decoder = ImageDecoder(preprocessing or Preprocessing(), max_pixels=LIMIT, decode_scale=decode_scale)
    row = np.empty(decoder.shape, np.uint8)
    decoder.decode(data, row)
    return row


def pixels_held(data: bytes, *, decode_scale: bool = True) -> int:
    """Of the picture, as the decoder expects; the least that tells fractions apart."""
    opened = ImageDecoder(Preprocessing(), max_pixels=LIMIT, decode_scale=decode_scale).open(data)
    return opened.cost.size


@pytest.mark.parametrize(
    ("shorter", "scale"), [(500, 1), (1023, 1), (1024, 2), (2047, 2), (2048, 4), (4095, 4), (4096, 8)]
)
@pytest.mark.parametrize("landscape", [True, False])
def test_a_photo_stays_twice_as_large_as_it_is_wanted(
    shorter: int, scale: int, landscape: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (shorter + 64, shorter) if landscape else (shorter, shorter + 64)
    data = encode(Image.new("RGB", size), "JPEG")
    made = []

    def crop(size: tuple[int, int], *rest: Any, **named: Any) -> CentreCrop:
        made.append(size)
        return CentreCrop(size, *rest, **named)

    monkeypatch.setattr(decoder_module, "CentreCrop", crop)
    decode(data)
    assert made == [(-(-size[0] // scale), -(-size[1] // scale))]
    made.clear()
    decode(data, decode_scale=False)
    assert made == [size]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 7}])
def test_the_fraction_shows_what_the_whole_shows(orientation: int, options: dict[str, object]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(drawing(2203, 1651), "JPEG", quality=90, exif=exif, **options)
    difference = np.abs(decode(data).astype(int) - decode(data, decode_scale=False))
    assert difference.mean() < 0.6
    assert np.quantile(difference, 0.99) <= 4


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_decoded_at_a_fraction_too(mode: str) -> None:
    data = encode(drawing(2200, 1650).convert(mode), "JPEG", quality=90)
    assert pixels_held(data) < pixels_held(data, decode_scale=False) - 1_000_000
    assert np.abs(decode(data).astype(int) - decode(data, decode_scale=False)).mean() < 0.6


def test_the_first_of_several_pictures_is_decoded_at_a_fraction() -> None:
    data = encode(drawing(2200, 1650), "MPO", quality=90, save_all=True, append_images=[drawing(160, 120)])
    assert pixels_held(data) < pixels_held(data, decode_scale=False) - 1_000_000
    assert np.abs(decode(data).astype(int) - decode(data, decode_scale=False)).mean() < 0.6


def test_other_formats_are_decoded_whole() -> None:
    data = encode(drawing(2200, 1650), "PNG", compress_level=1)
    assert np.array_equal(decode(data), decode(data, decode_scale=False))


def test_without_it_only_what_would_not_fit_is_divided() -> None:
    # All coefficients of a progressive picture without subsampling, and its pixels, are ten bytes a pixel.
    data = encode(Image.new("RGB", (8000, 8000)), "JPEG", progressive=True, subsampling=0)
    assert pixels_held(data, decode_scale=False) <= ImageDecoder(Preprocessing(), max_pixels=LIMIT).memory
    assert (decode(data, decode_scale=False) == 0).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_decoding_ends_soon_after_nobody_wants_it(options: dict[str, object]) -> None:
    random = np.random.default_rng(0)
    # The slowest of photos: a CPU that decodes it within eight milliseconds is not in sight.
    data = encode(Image.fromarray(random.integers(0, 256, (3500, 3500, 3), np.uint8)), "JPEG", quality=95, **options)
    opened = ImageDecoder(Preprocessing(), max_pixels=LIMIT).open(data)
    asked = 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked < 2

    out = np.full((224, 224, 3), 7, np.uint8)
    with pytest.raises(CorruptImageError, match="nobody waits"):
        opened.decode(out, wanted=wanted)
    assert asked == 2
    assert (out == 7).all()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_truncated_file_is_an_error_at_a_fraction_too(share: float, options: dict[str, object]) -> None:
    data = encode(drawing(2200, 1650), "JPEG", quality=90, **options)
    for decode_scale in (True, False):
        with pytest.raises(CorruptImageError):
            decode(data[: int(len(data) * share)], decode_scale=decode_scale)


def test_bytes_behind_the_picture_change_nothing() -> None:
    data = encode(drawing(2200, 1650), "JPEG", quality=90)
    assert np.array_equal(decode(data), decode(data + bytes(100_000)))
    assert Image.open(io.BytesIO(data)).size == (2200, 1650)
