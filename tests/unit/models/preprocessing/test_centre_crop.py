"""Resize and centre crop: Pillow's pixels, to the bit, on every instruction set, from any kind of picture."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tessera.models.preprocessing import _pictures
from tessera.models.preprocessing.centre_crop import CentreCrop
from tessera.models.preprocessing.image_size import of_sides, sides
from tessera.models.preprocessing.transform import INTERPOLATIONS, Interpolation, Preprocessing, geometry

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LEVELS = ("scalar", "neon") if platform.machine() == "aarch64" else ("scalar", "avx2", "avx512")  # of kernels


def noise(width: int, height: int, seed: int = 0, *, extreme: bool = False) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels // 128 * 255 if extreme else pixels)


def pillows(picture: Image.Image, preprocessing: Preprocessing, orientation: int = 1) -> np.ndarray:
    turn = TURNS[orientation]
    upright = picture.convert("RGB") if turn is None else picture.convert("RGB").transpose(turn)
    place = geometry(*upright.size, preprocessing)
    resized = upright.resize((place.width, place.height), FILTERS[preprocessing.interpolation])
    high, wide = sides(preprocessing.size)
    right, bottom = place.left + wide, place.top + high
    return np.asarray(resized.crop((place.left, place.top, right, bottom)))


def ours(picture: Image.Image, preprocessing: Preprocessing, orientation: int = 1) -> np.ndarray:
    return crop_of(picture, CentreCrop(picture.size, preprocessing, orientation=orientation), preprocessing)


def crop_of(picture: Image.Image, crop: CentreCrop, preprocessing: Preprocessing) -> np.ndarray:
    out = np.empty(preprocessing.shape, np.uint8)
    crop.take(picture)
    crop.write(out)
    return out


@settings(max_examples=150)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    size=st.integers(1, 130),
    wider=st.integers(-60, 60),
    border=st.integers(0, 40),
    interpolation=st.sampled_from(INTERPOLATIONS),
    orientation=st.sampled_from(sorted(TURNS)),
    extreme=st.booleans(),
    level=st.sampled_from(LEVELS),
)
def test_any_picture_is_resized_as_pillow_resizes_it(
    width: int,
    height: int,
    size: int,
    wider: int,
    border: int,
    interpolation: Interpolation,
    orientation: int,
    extreme: bool,
    level: str,
) -> None:
    # Upscaled slivers would take Pillow, which resizes all of them, gigabytes.
    width, height = max(width, height // 60 + 1), max(height, width // 60 + 1)
    lengths = (size, max(1, size + wider))
    preprocessing = Preprocessing(of_sides(*lengths), min(lengths) + border, interpolation=interpolation)
    picture = noise(width, height, size, extreme=extreme)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESSERA_ISA", level)  # read when a resize is made; where the CPU has less, that is tested
        result = ours(picture, preprocessing, orientation)
    assert np.array_equal(result, pillows(picture, preprocessing, orientation))


@pytest.mark.parametrize("orientation", sorted(TURNS))
@pytest.mark.parametrize(("width", "height"), [(2600, 1900), (1900, 2600), (900, 5200), (5200, 900)])
def test_pictures_that_pillow_keeps_in_several_pieces(width: int, height: int, orientation: int) -> None:
    picture = noise(width, height)
    with pytest.raises(ValueError, match="contiguous"):
        picture.__arrow_c_array__()
    assert np.array_equal(ours(picture, Preprocessing(), orientation), pillows(picture, Preprocessing(), orientation))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "RGBX", "CMYK", "YCbCr"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_mode_is_converted_before_it_is_resized(mode: str, orientation: int) -> None:
    picture = noise(500, 375).convert(mode)
    assert np.array_equal(ours(picture, Preprocessing(), orientation), pillows(picture, Preprocessing(), orientation))


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_a_picture_decoded_at_a_fraction_lies_where_the_whole_one_does(orientation: int) -> None:
    # 1001 at a quarter are 251 pixels, the last of which holds a quarter of one.
    slope = np.add.outer(np.arange(1403), np.arange(1001)) * 255 // 2402
    whole = Image.fromarray(slope.astype(np.uint8)).convert("RGB")
    quarter = whole.reduce(4)
    assert quarter.size == (251, 351)
    wanted = Preprocessing(64, 72)
    crop = CentreCrop(quarter.size, wanted, orientation=orientation, original=whole.size, scale=4)
    assert np.abs(crop_of(quarter, crop, wanted).astype(int) - ours(whole, wanted, orientation)).max() <= 1


@pytest.mark.parametrize(
    "across",
    [
        (0, 1.0, 8, 0, 8),
        (10, 11.0, 8, 0, 8),
        (10, 10.0, 8, 1, 8),
        (10, 10.0, 8, -1, 8),
        (10, 0.0, 8, 0, 8),
        (10, 10.0, 0, 0, 0),
    ],
)
def test_impossible_axes_are_refused(across: tuple[int, float, int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible resize"):
        _pictures.Resize(across, (10, 10.0, 8, 0, 8), 1, False)
    with pytest.raises(ValueError, match="impossible resize"):
        _pictures.Resize((10, 10.0, 8, 0, 8), across, 1, False)


def test_what_does_not_fit_is_refused_and_nothing_is_written() -> None:
    resize = _pictures.Resize((10, 10.0, 8, 2, 4), (10, 10.0, 8, 2, 4), 1, False)
    left, _, right, _ = resize.box
    out = np.full((4, 4, 3), 7, np.uint8)
    with pytest.raises(ValueError, match="rows are missing"):
        resize.finish(out)
    with pytest.raises(ValueError, match="lack columns"):
        resize.take(noise(right - left - 1, 10), right - left - 1, left, 0)
    with pytest.raises(ValueError, match="lack columns"):
        resize.take(noise(10, 10), 7, 0, 0)
    with pytest.raises(TypeError, match="four bytes"):
        resize.take(noise(10, 10).convert("L"), 10, 0, 0)
    with pytest.raises(AttributeError):
        resize.take(object(), 10, 0, 0)
    resize.take(noise(10, 10), 10, 0, 0)
    for wrong in (out[:3], np.empty((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="bytes"):
            resize.finish(wrong)
    assert (out == 7).all()
    with pytest.raises(ValueError, match="contiguous"):
        resize.finish(np.empty((8, 4, 3), np.uint8)[::2])
