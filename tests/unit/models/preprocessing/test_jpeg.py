"""JPEGs straight from libjpeg: on the crop the pixels are Pillow's, to the bit, and what is odd is left to Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from tessera.models.preprocessing import _pictures
from tessera.models.preprocessing.centre_crop import CentreCrop
from tessera.models.preprocessing.image_size import of_sides
from tessera.models.preprocessing.jpeg import read_jpeg
from tessera.models.preprocessing.transform import Preprocessing
from tests.fuzz.images import mutations, seeds
from tests.imagefiles import drawing, encode

SMALL = Preprocessing(64, 72)


def direct(data: bytes, preprocessing: Preprocessing, *, scale: int = 1, orientation: int = 1) -> np.ndarray | None:
    """The crop by libjpeg, None where it does not take the file."""
    original = Image.open(io.BytesIO(data)).size
    size = (-(-original[0] // scale), -(-original[1] // scale))
    crop = CentreCrop(size, preprocessing, orientation=orientation, original=original, scale=scale)
    return written(crop, preprocessing) if read_jpeg(data, scale, crop) else None


def by_pillow(data: bytes, preprocessing: Preprocessing, *, scale: int = 1, orientation: int = 1) -> np.ndarray:
    picture = Image.open(io.BytesIO(data))
    original = picture.size
    picture.draft(None, (original[0] // scale, original[1] // scale))
    picture.load()
    crop = CentreCrop(picture.size, preprocessing, orientation=orientation, original=original, scale=scale)
    crop.take(picture)
    return written(crop, preprocessing)


def written(crop: CentreCrop, preprocessing: Preprocessing) -> np.ndarray:
    out = np.empty(preprocessing.shape, np.uint8)
    crop.write(out)
    return out


def texture(width: int, height: int, seed: int) -> Image.Image:
    """Noise at several scales, so that every block has other coefficients."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), np.uint8))
    fine = random.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse.resize((width, height))) + fine, 0, 255).astype(np.uint8))


@settings(max_examples=150)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    seed=st.integers(0, 99),
    grey=st.booleans(),
    progressive=st.booleans(),
    subsampling=st.sampled_from([0, 1, 2]),
    restart=st.sampled_from([0, 1, 5]),
    quality=st.sampled_from([5, 50, 90, 100]),
    scale=st.sampled_from([1, 1, 2, 4, 8]),
    orientation=st.integers(1, 8),
    sides=st.tuples(st.integers(8, 120), st.integers(8, 120)),
    border=st.integers(0, 40),
)
def test_the_crop_has_the_pixels_that_pillow_decodes(
    width: int,
    height: int,
    seed: int,
    grey: bool,
    progressive: bool,
    subsampling: int,
    restart: int,
    quality: int,
    scale: int,
    orientation: int,
    sides: tuple[int, int],
    border: int,
) -> None:
    picture = texture(max(width, scale), max(height, scale), seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "MAXBLOCK", 1 << 23)  # Pillow guesses how large the file will be, too low for noise
        data = encode(
            picture.convert("L") if grey else picture,
            "JPEG",
            quality=quality,
            progressive=progressive,
            subsampling=subsampling,
            restart_marker_blocks=restart,
        )
    wanted = Preprocessing(of_sides(*sides), min(sides) + border)
    result = direct(data, wanted, scale=scale, orientation=orientation)
    assert result is not None
    assert np.array_equal(result, by_pillow(data, wanted, scale=scale, orientation=orientation))


@pytest.mark.parametrize("samples", [(4, 1), (1, 2), (2, 4), (3, 1), (4, 2)])
@pytest.mark.parametrize("scale", [1, 2, 8])
@pytest.mark.parametrize("orientation", [1, 5])
def test_rare_subsampling_is_decoded_alike(samples: tuple[int, int], scale: int, orientation: int) -> None:
    data = subsampled(samples)
    result = direct(data, SMALL, scale=scale, orientation=orientation)
    assert result is not None
    assert np.array_equal(result, by_pillow(data, SMALL, scale=scale, orientation=orientation))


def subsampled(samples: tuple[int, int]) -> bytes:
    """A JPEG whose header says that its first colour has so many samples across and down for each of the others.

    Pillow writes only the usual kinds. Here the header of another is changed, so its blocks are read in another order:
    a picture of nonsense, which every decoder must read alike. All colours have one code, and the blocks are as many.
    """
    across, down = samples
    blocks = (60, 40)  # of each of three colours
    data = bytearray(encode(texture(blocks[0] * 8, blocks[1] * 8, 3), "JPEG", quality=95, keep_rgb=True))
    at = data.index(b"\xff\xc0")
    units = 3 * blocks[0] // (across * down + 2)
    assert units * (across * down + 2) == 3 * blocks[0]
    data[at + 11] = across << 4 | down
    data[at + 5 : at + 9] = (blocks[1] * 8 * down).to_bytes(2, "big") + (units * 8 * across).to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_file_that_lacks_its_end_is_left_to_pillow(share: float, options: dict[str, object]) -> None:
    data = encode(texture(500, 375, 1), "JPEG", **options)
    assert direct(data, SMALL) is not None
    assert direct(data[: int(len(data) * share)], SMALL) is None


def test_damaged_files_give_what_pillow_gives_of_them_or_nothing() -> None:
    taken = 0
    for data in damaged_jpegs(1, 600):
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
                original, mode = picture.size, picture.mode
        except Exception:  # Pillow raises anything at all on damaged files
            continue
        if original[0] * original[1] > 1 << 18 or mode not in ("L", "RGB"):
            continue
        result = direct(data, SMALL)
        if result is not None:
            taken += 1
            assert np.array_equal(result, by_pillow(data, SMALL)), data.hex()
    assert taken > 20


def damaged_jpegs(seed: int, count: int) -> Iterator[bytes]:
    """Whole JPEGs with damage that libjpeg may or may not notice."""
    return mutations(seed, count, [whole for whole in seeds() if whole.startswith(b"\xff\xd8")])


def test_damage_outside_of_the_crop_is_noticed() -> None:
    data = bytearray(encode(texture(500, 1500, 1), "JPEG", quality=95))
    data[-4000:-3996] = b"\xff\xd9\xff\xd9"  # the picture ends among rows that nobody sees
    assert direct(bytes(data), SMALL) is None


@pytest.mark.parametrize("mode", ["CMYK"])
def test_colours_that_libjpeg_cannot_convert_are_left_to_pillow(mode: str) -> None:
    assert direct(encode(drawing().convert(mode), "JPEG"), SMALL) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"GIF89a", bytes(1000)])
def test_what_is_no_jpeg_is_left_to_pillow(data: bytes) -> None:
    assert not read_jpeg(data, 1, CentreCrop((320, 240), SMALL))


def test_a_picture_of_another_size_than_its_header_said_is_left_to_pillow() -> None:
    data = encode(drawing(320, 240), "JPEG")
    assert not read_jpeg(data, 1, CentreCrop((320, 241), SMALL))
    assert not read_jpeg(data, 2, CentreCrop((320, 240), SMALL))


def test_an_error_of_whoever_is_asked_comes_through() -> None:
    data = encode(texture(3500, 3500, 0), "JPEG", quality=95)

    def wanted() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_jpeg(data, 1, CentreCrop((3500, 3500), SMALL), wanted)


def test_boxes_that_do_not_fit_are_refused() -> None:
    library = _pictures.Libjpeg(Image.core.__file__)
    data = encode(drawing(320, 240), "JPEG")
    crop = CentreCrop((320, 240), SMALL)
    with pytest.raises(ValueError, match="not the one"):
        library.read(data, 1, (320, 240), (0, 0, 1, 1), crop.resize, None)
    pixels = np.empty((240, 320, 4), np.uint8)
    for box in [(0, 0, 320, 239), (5, 0, 5, 240), (0, 240, 320, 0), (320, 240, 0, 0)]:
        with pytest.raises(ValueError, match="does not have"):
            library.read(data, 1, (320, 240), box, pixels, None)
    for box in [(-1, 0, 319, 240), (1, 0, 321, 240), (0, -1, 320, 239)]:
        assert not library.read(data, 1, (320, 240), box, pixels, None)


def test_only_what_has_the_interface_of_libjpeg_turbo_is_taken() -> None:
    for path in (np.__file__, _pictures.__file__, "/nowhere.so"):
        with pytest.raises(OSError, match="uses no libjpeg-turbo"):
            _pictures.Libjpeg(path)
