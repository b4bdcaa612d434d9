"""How a photo becomes a network's input: scaled, cropped, normalised, as torchvision and timm evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
LARGEST_IMAGE = 4096  # length of its side, in pixels


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the network's input.

    Attributes:
        size: height and width of the centre crop, in pixels.
        resize: length that the photo's shorter side is scaled to first, in pixels; `size` over timm's `crop_pct`.
        mean: per-channel mean (red, green, blue) to subtract, in 0..1 units.
        std: per-channel standard deviation to divide by, in 0..1 units.
        interpolation: filter of the scaling, always with antialias.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image's pixels: [size, size, 3]."""
        return (self.size, self.size, 3)


class Geometry(NamedTuple):
    """Where a picture of one size is resized to and cropped at, in pixels.

    Attributes:
        width: Width after the resize.
        height: Height after the resize.
        left: Left edge of the centre crop in the resized picture.
        top: Top edge of the centre crop in the resized picture.
    """

    width: int
    height: int
    left: int
    top: int


def geometry(width: int, height: int, preprocessing: Preprocessing) -> Geometry:
    """Compute resize and crop of a `width` x `height` picture exactly as torchvision's evaluation transform does.

    The longer side is cut to a whole number, the crop offset is rounded half to even: both decide which pixels the
    network sees, so both follow torchvision (`Resize(int)`, `CenterCrop`), whose numbers published accuracies rest on.
    """
    resize, size = preprocessing.resize, preprocessing.size
    if width <= height:
        new_width, new_height = resize, int(resize * height / width)
    else:
        new_width, new_height = int(resize * width / height), resize
    return Geometry(new_width, new_height, round((new_width - size) / 2.0), round((new_height - size) / 2.0))
