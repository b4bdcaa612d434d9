"""Height and width of a network's images: one number for a square, or two, in files, flags and answers alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

Size = int | tuple[int, int]  # of a square; or height and width, which differ

MOST_SIZES = 8  # of one model that are served together
LARGEST_IMAGE = 4096  # length of its side, in pixels
SIZE_FORMS = f"one number of pixels or [height, width], each a whole number from 1 to {LARGEST_IMAGE}"


def sides(size: Size) -> tuple[int, int]:
    """Height and width in pixels."""
    return (size, size) if isinstance(size, int) else size


def of_sides(height: int, width: int) -> Size:
    """The size of images, in its one form: a square's is a number."""
    return height if height == width else (height, width)


def size_text(size: Size) -> str:
    """Height and width, for people."""
    height, width = sides(size)
    return f"{height} x {width}"


def size_flag(size: Size) -> str:
    """A size as a flag takes it; see `parse_size`."""
    return "x".join(map(str, (size,) if isinstance(size, int) else size))


def read_size(value: Any) -> Size | None:
    """A size as a file has it, a number or two in a list; None where it is none."""
    lengths = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(lengths) != 2 or not all(type(length) is int and 1 <= length <= LARGEST_IMAGE for length in lengths):
        return None
    return of_sides(*lengths)


def parse_sizes(text: str) -> tuple[Size, ...]:
    """One size or several as a flag has them, with commas between: 224,224x320.

    Raises:
        ValueError: one of them is none, is there twice, or there are too many.
    """
    sizes = tuple(parse_size(part.strip()) for part in text.split(","))
    if problem := wrong_sizes(sizes):
        raise ValueError(problem)
    return sizes


def wrong_sizes(sizes: Sequence[Size]) -> str:
    """What keeps these sizes from being served together; empty where nothing does."""
    twice = [size_text(size) for size, times in Counter(sizes).items() if times > 1]
    if twice:
        return f"names {twice[0]} twice"
    return "" if len(sizes) <= MOST_SIZES else f"names {len(sizes)} sizes; at most {MOST_SIZES} are served together"


def parse_size(text: str) -> Size:
    """A size as a flag has it: 288, or 224x320 for height and width.

    Raises:
        ValueError: it is none.
    """
    lengths = text.lower().split("x")
    # Longer numbers are none, and converting a text of many digits would take long.
    numbers = [int(length) if length.isascii() and length.isdecimal() and len(length) <= 9 else 0 for length in lengths]
    size = read_size(numbers[0] if len(numbers) == 1 else numbers)
    if size is None:
        raise ValueError(f"must be pixels such as 288, or height x width such as 224x320, from 1 to {LARGEST_IMAGE}")
    return size
