"""How a photo becomes a network's input: scaled, cropped, normalised, as torchvision and timm evaluate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from tessera.models.preprocessing.image_size import Size, sides

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the network's input.

    Attributes:
        size: height and width of the centre crop, in pixels; one number where they are equal.
        resize: length of the shorter side of the frame that a photo is scaled to cover, in pixels; the frame has the
            proportions of `size`, and is that over timm's `crop_pct`. For squares, the photo's own shorter side.
        mean: per-channel mean (red, green, blue) to subtract, in 0..1 units.
        std: per-channel standard deviation to divide by, in 0..1 units.
        interpolation: filter of the scaling, always with antialias.
    """

    size: Size = 224
    resize: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image's pixels: [height, width, 3]."""
        return (*sides(self.size), 3)

    def at(self, size: Size) -> Preprocessing:
        """The same for images of another size: of a photo as much is seen, in its proportions."""
        shorter = min(sides(size))
        return replace(self, size=size, resize=max(shorter, round(shorter * self.resize / min(sides(self.size)))))


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


def shortest_side(width: int, height: int, preprocessing: Preprocessing) -> int:
    """How long the shorter side of a picture is at most once it is scaled, whichever way up it turns out to be."""
    turned = (geometry(*pair, preprocessing) for pair in ((width, height), (height, width)))
    return max(min(place.width, place.height) for place in turned)


def geometry(width: int, height: int, preprocessing: Preprocessing) -> Geometry:
    """Compute resize and crop of a `width` x `height` picture exactly as torchvision's evaluation transform does.

    The picture is scaled until it covers the frame, as timm's `ResizeKeepRatio` does; for a square that is
    torchvision's `Resize(int)`. The longer side is cut to a whole number, the crop offset is rounded half to even: both
    decide which pixels the network sees, so both follow torchvision (`Resize(int)`, `CenterCrop`), whose numbers
    published accuracies rest on.
    """
    high, wide = sides(preprocessing.size)
    resize, shorter = preprocessing.resize, min(high, wide)
    if width * high <= height * wide:  # its width is what has to be scaled most
        new_width = round(resize * wide / shorter)
        new_height = max(high, int(new_width * height / width))
    else:
        new_height = round(resize * high / shorter)
        new_width = max(wide, int(new_height * width / height))
    return Geometry(new_width, new_height, round((new_width - wide) / 2.0), round((new_height - high) / 2.0))
