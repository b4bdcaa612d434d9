"""What Pillow reads of a file, and whose fault it is when it cannot.

Pillow's plugins raise OSError and SyntaxError on purpose, and on damaged files whatever they trip over: ValueError,
KeyError, struct.error, TypeError, OverflowError and more. So the type of an error tells nothing, and its place decides:
what is raised inside a call that has Pillow read the file is the file's fault. All else is a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from PIL import Image, TiffImagePlugin

from tessera.app.errors import CorruptImageError, ImageTooLargeError, RequestError
from tessera.wording import counted

# Of a row, with 64 bits a pixel. Pillow counts a row's bits in an int, and has a MemoryError for those that are more.
MOST_COLUMNS = (2**31 - 1) // 64 - 7


@contextmanager
def reading_file() -> Iterator[None]:
    """Around calls that have Pillow read a file, and around nothing else.

    Raises:
        CorruptImageError: It cannot.
        ImageTooLargeError: It refuses to, for the number of pixels.
    """
    try:
        yield
    except (RequestError, MemoryError, ImportError):
        raise
    except Image.DecompressionBombError:
        most = 2 * cast(int, Image.MAX_IMAGE_PIXELS)
        raise ImageTooLargeError(f"The image's header declares more than {counted(most, 'pixel')}.") from None
    except Exception as error:
        raise damaged(error) from error


def damaged(error: Exception) -> CorruptImageError:
    """The error of a file that cannot be read, from what a decoder raised."""
    text = " ".join(str(error).split())[:160].rstrip(".")
    return CorruptImageError(f"The image is truncated or damaged: {text or type(error).__name__}.")


def numbers(picture: Image.Image, tag: int) -> tuple[int, ...]:
    """The numbers in a tag of a TIFF, none negative; empty where there is no such tag, or the picture is no TIFF.

    Raises:
        CorruptImageError: The tag cannot be read, or holds something else.
    """
    if picture.format != "TIFF":
        return ()
    with reading_file():
        value = cast(TiffImagePlugin.TiffImageFile, picture).tag_v2.get(tag, ())
    values: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(number, int) and number >= 0 for number in values):
        raise CorruptImageError(f"Tag {tag} of the TIFF file holds values that no picture has.")
    return cast("tuple[int, ...]", values)
