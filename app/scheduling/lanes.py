"""A lane: a variant at one size of images. What runs together in a batch is of one lane, and so is what is measured.

The lane of the usual size is called as its variant is, those of further sizes have theirs behind an @.
"""

from __future__ import annotations

from tessera.models.preprocessing.image_size import Size, size_flag

_BETWEEN = "@"


def lane_of(variant: str, further: Size | None = None) -> str:
    """The lane of a variant at a further size; None: at the usual one."""
    return variant if further is None else f"{variant}{_BETWEEN}{size_flag(further)}"


def variant_of(lane: str) -> str:
    """The variant of a lane."""
    return lane.partition(_BETWEEN)[0]


def beside(lane: str, variant: str) -> str:
    """The lane of another variant at the same size."""
    return variant + lane[len(variant_of(lane)) :]
