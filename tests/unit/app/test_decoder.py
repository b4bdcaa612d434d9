"""Decoding: every kind of file, the exact reference preprocessing, and no harm from bad bytes."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tessera.app.errors import (
    CorruptImageError,
    EmptyBodyError,
    ImageTooLargeError,
    RequestError,
    UnsupportedImageError,
)
from tessera.app.imaging.decoder import ImageDecoder
from tessera.app.imaging.pillow import reading_file
from tessera.models.preprocessing import jpeg
from tessera.models.preprocessing.centre_crop import CentreCrop
from tessera.models.preprocessing.image_size import of_sides
from tessera.models.preprocessing.photos import read_photos
from tessera.models.preprocessing.transform import Preprocessing, geometry
from tests import imagefiles
from tests.imagefiles import KINDS, drawing, encode

LIMIT = 64 * 1024 * 1024


STANDARD = Preprocessing()


def decode(data: bytes, max_pixels: int = LIMIT, preprocessing: Preprocessing = STANDARD) -> np.ndarray:
    decoder = ImageDecoder(preprocessing, max_pixels=max_pixels)
    row = np.zeros(decoder.shape, np.uint8)
    decoder.decode(data, row)
    return row


def reference(picture: Image.Image) -> np.ndarray:
    """The evaluation transform, as torchvision defines it for PIL images."""
    rgb = picture.convert("RGB")
    width, height = rgb.size
    short, long = min(width, height), max(width, height)
    resized_long = int(256 * long / short)
    size = (256, resized_long) if width <= height else (resized_long, 256)
    resized = rgb.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2.0), round((size[1] - 224) / 2.0)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_shows_its_picture(kind: str) -> None:
    pixels = decode(KINDS[kind]())
    if "16-bit" in kind:
        expected = np.linspace(0, 255, 256)[16:240]
        assert np.abs(pixels[100, :, 0] - expected).max() <= 1.5
        return
    if "rotated" not in kind:
        assert np.array_equal(pixels, reference(Image.open(io.BytesIO(KINDS[kind]()))))
    if "bilevel" not in kind:
        # Few colours and lossy coding change single pixels; the picture as a whole stays.
        wanted = reference(drawing().convert("L") if "grey" in kind else drawing()).astype(int)
        assert np.abs(pixels - wanted).mean() < 12


@pytest.mark.parametrize(
    ("width", "height"),
    [(320, 240), (240, 320), (256, 256), (224, 224), (257, 481), (500, 375), (1, 1), (3, 2), (999, 40)],
)
def test_pixels_equal_the_reference_preprocessing(width: int, height: int) -> None:
    data = imagefiles.png(width, height)
    assert np.array_equal(decode(data), reference(Image.open(io.BytesIO(data))))


LENGTHS = st.integers(1, 600)


@given(st.integers(1, 5000), st.integers(1, 5000), LENGTHS, LENGTHS, st.integers(0, 300))
def test_the_crop_lies_inside_the_resized_picture(width: int, height: int, high: int, wide: int, border: int) -> None:
    preprocessing = Preprocessing(of_sides(high, wide), min(high, wide) + border)
    plan = geometry(width, height, preprocessing)
    if high == wide:
        assert min(plan.width, plan.height) == high + border
    assert 0 <= plan.left <= plan.width - wide
    assert 0 <= plan.top <= plan.height - high
    # Within the rounding of one pixel, the picture just covers the frame.
    frame = preprocessing.resize / min(high, wide)
    assert min(plan.width / (wide * frame), plan.height / (high * frame)) == pytest.approx(1, abs=1 / min(high, wide))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (640, 427), (1600, 200)])
def test_a_rectangle_sees_the_middle_of_a_photo_scaled_to_cover_it(width: int, height: int) -> None:
    data = imagefiles.png(width, height)
    # A margin of an eighth, as timm's crop_pct 8/9 has it: a frame of 189 x 270.
    scale = max(270 / width, 189 / height)
    resized = (
        Image.open(io.BytesIO(data))
        .convert("RGB")
        .resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    )
    left, top = round((resized.width - 240) / 2), round((resized.height - 168) / 2)
    wanted = resized.crop((left, top, left + 240, top + 168))
    assert np.array_equal(decode(data, preprocessing=Preprocessing((168, 240), 189)), np.asarray(wanted))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photo_for_a_rectangle_is_decoded_at_a_fraction_that_changes_little(orientation: int) -> None:
    wanted = Preprocessing((96, 160), 108)
    data = imagefiles.rotated_jpeg(orientation, 2000, 1500)
    opened = ImageDecoder(wanted, max_pixels=10**7).open(data)
    whole, divided = np.empty((2, *wanted.shape), np.uint8)
    opened.decode(divided)
    ImageDecoder(wanted, max_pixels=10**7, decode_scale=False).decode(data, whole)
    assert np.abs(divided.astype(int) - whole).mean() < 2


def test_each_model_sees_photos_as_it_wants_them() -> None:
    data = imagefiles.png(500, 375)
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    # timm's resnet50.a1_in1k at 288: crop_pct 1.0, bicubic.
    wanted = picture.resize((384, 288), Image.Resampling.BICUBIC).crop((48, 0, 336, 288))
    pixels = decode(data, preprocessing=Preprocessing(288, 288, interpolation="bicubic"))
    assert np.array_equal(pixels, np.asarray(wanted))
    assert not np.array_equal(pixels, decode(data, preprocessing=Preprocessing(288, 288)))


@pytest.mark.parametrize("data", [imagefiles.png(500, 375), imagefiles.rotated_jpeg(6)])
def test_calibration_sees_the_pixels_that_the_service_sees(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(data)
    wanted = Preprocessing(64, 72, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic")
    (seen,) = read_photos([tmp_path / "photo"], wanted)
    assert np.array_equal((seen[0].transpose(1, 2, 0) * 255).round(), decode(data, preprocessing=wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = decode(imagefiles.rotated_jpeg(1)).astype(int)
    assert np.abs(decode(imagefiles.rotated_jpeg(orientation)) - upright).mean() < 3


def test_damaged_exif_is_ignored() -> None:
    data = bytearray(imagefiles.rotated_jpeg(6))
    start = data.index(b"Exif\x00\x00") + 6
    data[start : start + 8] = b"\xff" * 8
    assert decode(bytes(data)).std() > 0


def test_16_bit_grey_keeps_its_range() -> None:
    pixels = decode(encode(Image.fromarray(np.full((300, 300), 0x8000, np.uint16)), "PNG"))
    assert (pixels == 128).all()


def test_alpha_is_dropped_and_not_blended() -> None:
    picture = Image.new("RGBA", (300, 300), (200, 100, 50, 0))
    assert (decode(encode(picture, "PNG")) == (200, 100, 50)).all()


def test_a_file_without_bytes_is_named_as_such() -> None:
    with pytest.raises(EmptyBodyError):
        decode(b"")


@pytest.mark.parametrize("data", [b"hello", b"\xff\xd8\xff", b"%PDF-1.7\n", b"\x00" * 1000, b"<svg></svg>"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        decode(data)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000"])
def test_formats_outside_the_list_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedImageError):
        decode(encode(drawing(64, 64), kind))


@pytest.mark.parametrize("picture", [Image.new("F", (40, 40), 0.5), Image.new("I", (40, 40), 70000)])
def test_samples_without_an_8_bit_reading_are_refused(picture: Image.Image) -> None:
    with pytest.raises(UnsupportedImageError, match="no defined 8-bit range"):
        decode(encode(picture, "TIFF"))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "tiff lzw", "png 16-bit", "jpeg progressive"]
)
def test_truncated_files_are_errors(kind: str, share: float) -> None:
    data = KINDS[kind]()
    with pytest.raises((CorruptImageError, UnsupportedImageError)):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("declare", [imagefiles.bitmap_declaring, imagefiles.png_declaring])
@pytest.mark.parametrize("size", [(8193, 8192), (13000, 13000), (60000, 60000)])
def test_too_many_declared_pixels_are_refused_before_decoding(declare, size: tuple[int, int]) -> None:
    # The pixels are missing: had decoding begun, the error would be another one.
    with pytest.raises(ImageTooLargeError, match="header declares"):
        decode(declare(*size))


def test_the_limit_itself_is_allowed() -> None:
    assert decode(imagefiles.png(300, 300), max_pixels=300 * 300).any()
    with pytest.raises(ImageTooLargeError):
        decode(imagefiles.png(300, 301), max_pixels=300 * 300)


def test_a_sliver_is_resized_where_its_crop_lies() -> None:
    sliver = np.zeros((1, 3000), np.uint8)
    sliver[0, 1500:] = 255
    row = decode(encode(Image.fromarray(sliver), "PNG"))[100, :, 0].astype(int)
    assert row[0] < 20
    assert row[-1] > 235
    assert (np.diff(row) >= 0).all()


def test_a_failed_decode_leaves_the_row_alone() -> None:
    row = np.full((224, 224, 3), 7, np.uint8)
    with pytest.raises(RequestError):
        ImageDecoder(STANDARD, max_pixels=LIMIT).decode(imagefiles.jpeg()[:2000], row)
    assert (row == 7).all()


def test_warnings_of_the_decoder_do_not_leak() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(imagefiles.palette_with_transparency())
        with pytest.raises(CorruptImageError):
            decode(imagefiles.png_declaring(10_000, 9_000), max_pixels=100_000_000)
    assert caught == []


def tiff_tagged(tag: int, kind: int, *, compression: str = "raw") -> bytes:
    """A TIFF of palette colours or of JPEG strips, one of whose tags says that its values are of another kind."""
    picture = drawing(64, 48) if compression == "jpeg" else drawing(64, 48).quantize(16)
    whole = bytearray(encode(picture, "TIFF", compression=compression))
    (directory,) = struct.unpack_from("<L", whole, 4)
    (count,) = struct.unpack_from("<H", whole, directory)
    entries = range(directory + 2, directory + 2 + 12 * count, 12)
    (entry,) = (at for at in entries if struct.unpack_from("<H", whole, at) == (tag,))
    struct.pack_into("<H", whole, entry + 2, kind)
    return bytes(whole)


@pytest.mark.parametrize(
    ("data", "raised"),
    [
        (tiff_tagged(320, 11), TypeError),  # a palette of floating-point numbers
        (tiff_tagged(320, 8), OverflowError),  # and one of negative numbers
        (encode(drawing(), "PNG")[:600], OSError),
    ],
    ids=["floats", "negatives", "truncated"],
)
def test_whatever_pillow_raises_of_a_file_is_the_fault_of_the_file(data: bytes, raised: type[Exception]) -> None:
    with pytest.raises(CorruptImageError) as refused:
        decode(data)
    assert isinstance(refused.value.__cause__, raised)


@pytest.mark.parametrize("data", [imagefiles.jpeg(), imagefiles.png()], ids=["jpeg", "png"])
def test_an_error_of_ours_is_not_the_fault_of_the_file(data: bytes) -> None:
    opened = ImageDecoder(STANDARD, max_pixels=LIMIT).open(data)
    with pytest.raises(ValueError, match="150528 bytes, not 300"):
        opened.decode(np.empty((10, 10, 3), np.uint8))
    with pytest.raises(AssertionError, match="decoded once"):
        opened.decode(np.empty((224, 224, 3), np.uint8))


@pytest.mark.parametrize("ours", [MemoryError, ImportError])
def test_what_this_machine_lacks_is_not_the_fault_of_the_file(ours: type[Exception]) -> None:
    with pytest.raises(ours), reading_file():
        raise ours


@pytest.mark.parametrize("tag", [273, 279])
def test_strips_at_no_place_that_a_file_has_are_damage(tag: int) -> None:
    with pytest.raises(CorruptImageError, match=f"Tag {tag}"):
        decode(tiff_tagged(tag, 11, compression="jpeg"))


def test_where_pillow_has_another_libjpeg_each_crop_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data, prepared = imagefiles.jpeg(), []
    expected = decode(data)

    class CountedCrop(CentreCrop):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            prepared.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("tessera.app.imaging.decoder.CentreCrop", CountedCrop)
    monkeypatch.setattr(Image.core, "__file__", np.__file__)  # a file that is no libjpeg-turbo
    jpeg._libjpeg.cache_clear()
    try:
        assert np.array_equal(decode(data), expected)
    finally:
        jpeg._libjpeg.cache_clear()
    assert len(prepared) == 1


def test_a_row_longer_than_pillow_can_count_is_refused() -> None:
    with pytest.raises(ImageTooLargeError, match="in a row"):
        decode(imagefiles.png_declaring(50_000_000, 1))


@settings(max_examples=80)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from([Preprocessing(), Preprocessing(24, 28)]), st.data())
def test_damaged_files_give_pixels_or_a_request_error(
    kind: str, preprocessing: Preprocessing, data: st.DataObject
) -> None:
    damaged = bytearray(KINDS[kind]())
    for _ in range(data.draw(st.integers(1, 8))):
        # Mostly near the start, where headers are.
        position = data.draw(st.integers(0, min(len(damaged), 400) - 1) | st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(1, len(damaged)))] if data.draw(st.booleans()) else damaged
    refusal = None
    try:
        decode(bytes(damaged), max_pixels=2_000_000, preprocessing=preprocessing)  # the small one at a fraction
    except RequestError as error:
        refusal = error
    assert refusal is None or (400 <= refusal.status < 500 and "0x" not in refusal.message)
