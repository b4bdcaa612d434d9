"""Kinds of values that flags take."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from tessera.models.preprocessing.image_size import LARGEST_IMAGE, Size, parse_size

if TYPE_CHECKING:
    from tessera.models.evaluation.gates import Gate


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def pixels(text: str) -> int:
    """A length of an image's side."""
    number = int(text)
    if not 1 <= number <= LARGEST_IMAGE:
        raise argparse.ArgumentTypeError(f"must be from 1 to {LARGEST_IMAGE}")
    return number


def size(text: str) -> Size:
    """Height and width of images."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def triple(text: str) -> tuple[float, float, float]:
    """Three numbers with commas between."""
    red, green, blue = (float(part) for part in text.split(","))
    return red, green, blue


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    return tuple(int(part) for part in text.split(","))


def decibels(text: str) -> float:
    """A finite number."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError("must be a finite number")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return number


def some(text: str) -> float:
    """A number above 0, at most 1."""
    number = share(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def gate(text: str) -> Gate:
    """A limit on what may be lost, such as top5=0.5."""
    from tessera.models.evaluation.gates import Gate  # loads numpy, which a wrong call of something else has no need of

    try:
        return Gate.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
