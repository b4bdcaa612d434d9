"""Images as users have them, to files as the service takes them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

# In words: a path, the bytes of a file, a picture of PIL, or an array [height, width, 3] or [height, width].
ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | PIL.Image.Image | NDArray[np.uint8]"

# A request's share: as many as make a batch, and half of what the service takes by default.
_MOST_IMAGES = 16
_MOST_BYTES = 8 * 1024 * 1024

_MODES_OF_PNG = ("1", "I;16", "L", "LA", "P", "RGB", "RGBA")
# Nothing says which of their numbers is white.
_UNREADABLE_MODES = ("F", "I")


class File(NamedTuple):
    """An image file: what the service calls it in its messages, and its bytes."""

    name: str
    content: bytes


def chunks(images: Sequence[ImageLike]) -> Iterator[list[File]]:
    """Files in groups for one request each, read as they are asked for.

    Raises:
        OSError: A file cannot be read.
        TypeError: It is nothing that an image can be.
        ValueError: An array is not uint8 [height, width, 3] or [height, width].
    """
    chunk: list[File] = []
    size = 0
    for number, image in enumerate(images, start=1):
        file = read_image(image, number)
        size += len(file.content)
        if chunk and (len(chunk) == _MOST_IMAGES or size > _MOST_BYTES):
            yield chunk
            chunk, size = [], len(file.content)
        chunk.append(file)
    if chunk:
        yield chunk


def read_image(image: ImageLike, number: int = 1) -> File:
    """The file of one image; `number` names one that has no path.

    Raises:
        OSError: See `chunks`, also for those below.
        TypeError: See there.
        ValueError: See there.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        # Linux has names that are no text.
        return File(path.name.encode(errors="replace").decode(), path.read_bytes())
    if isinstance(image, bytes | bytearray | memoryview):
        return File(f"image {number}", bytes(image))
    return File(f"image {number}", _png(image))


def _png(image: Any) -> bytes:
    # Only here: who sends files need not wait for Pillow.
    from PIL import Image, ImageOps

    if isinstance(image, Image.Image):
        # A file says how it is to be turned; pixels do not.
        picture = ImageOps.exif_transpose(image)
    elif hasattr(image, "__array_interface__"):
        picture = _picture(image)
    else:
        raise TypeError(f"An image is a path, bytes, a PIL image or a uint8 array, not a {type(image).__name__}.")
    if picture.mode in _UNREADABLE_MODES:
        raise ValueError(f"A PIL image of mode {picture.mode} has no 8-bit reading; convert it first.")
    file = io.BytesIO()
    picture = picture if picture.mode in _MODES_OF_PNG else picture.convert("RGB")
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _picture(array: Any) -> PIL.Image.Image:
    from PIL import Image

    shape, kind = tuple(array.shape), str(array.dtype)
    if kind != "uint8" or len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)) or 0 in shape:
        hint = " Pass a batch as list(array)." if len(shape) == 4 else ""
        raise ValueError(
            f"An array must be uint8 [height, width, 3] or [height, width], not {kind} {list(shape)}.{hint}"
        )
    return Image.fromarray(array)
