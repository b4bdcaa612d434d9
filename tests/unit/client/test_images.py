"""What the client sends of what it is given: the pixels that were meant, or an error that says what is wrong."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tessera.client.images import chunks, read_image
from tests import imagefiles

PIXELS = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)


def sent(image: object) -> np.ndarray:
    """The pixels of what is sent."""
    return np.asarray(Image.open(io.BytesIO(read_image(image).content)))  # type: ignore[arg-type]


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"whatever it is")
    for image in (path, str(path)):
        assert read_image(image) == ("photo.jpg", b"whatever it is")
    odd = tmp_path / os.fsdecode(b"no\xfftext.jpg")
    odd.write_bytes(b"")
    assert read_image(odd).name == "no?text.jpg"
    for image in (b"bytes", bytearray(b"bytes"), memoryview(b"bytes")):
        assert read_image(image, 3) == ("image 3", b"bytes")


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS[:, ::-1],
        PIXELS[..., 0],
        np.dstack([PIXELS, PIXELS[..., 0]]),
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("L"),
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257),
    ],
    ids=["rgb", "view", "grey", "rgba", "PIL", "PIL grey", "PIL 16 bit"],
)
def test_pixels_arrive_as_they_are(image: object) -> None:
    assert np.array_equal(sent(image), np.asarray(image))


def test_a_picture_that_is_to_be_turned_is_turned_as_its_file_would_be(tmp_path: Path) -> None:
    file = imagefiles.rotated_jpeg(6)
    picture = Image.open(io.BytesIO(file))
    assert sent(picture).shape[:2] == picture.size  # width and height have changed places


def test_other_kinds_of_pixels_become_rgb() -> None:
    assert sent(Image.fromarray(PIXELS).convert("CMYK")).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (PIXELS / 255, ValueError, "float64"),
        (PIXELS.transpose(2, 0, 1), ValueError, r"\[3, 20, 30\]"),
        (PIXELS[np.newaxis], ValueError, r"list\(array\)"),
        (PIXELS[:0], ValueError, r"\[0, 30, 3\]"),
        (Image.fromarray(PIXELS[..., 0].astype(np.float32)), ValueError, "mode F"),
        (7, TypeError, "not a int"),
        (None, TypeError, "path, bytes"),
        (Path("gone.jpg"), FileNotFoundError, "gone.jpg"),
    ],
)
def test_what_is_no_image_is_told(image: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        read_image(image)  # type: ignore[arg-type]


def test_a_long_list_goes_in_parts_that_the_service_takes() -> None:
    small, large = b"x", b"x" * (3 << 20)
    assert [len(part) for part in chunks([small] * 40)] == [16, 16, 8]
    assert [len(part) for part in chunks([large] * 5)] == [2, 2, 1]
    assert [len(part) for part in chunks([b"x" * (20 << 20), small])] == [1, 1]
    assert [file.name for part in chunks([small] * 17) for file in part][-1] == "image 17"
    assert list(chunks([])) == []
