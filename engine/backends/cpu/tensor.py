"""Activation tensors of an execution plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tessera.engine import _native

Precision = Literal["int8", "fp32", "bf16"]
Frame = tuple[int, int, int, int]

ELEMENT_BYTES = {_native.U8: 1, _native.F32: 4, _native.BF16: 2}
Blocks = dict[int, int]


@dataclass
class Tensor:
    """One activation tensor in NC1HWC0.

    Attributes:
        name: the graph value it holds.
        dtype: `_native.U8`, `_native.F32` or `_native.BF16`.
        channels: before rounding up to the block.
        height: rows without the frame.
        width: columns without the frame.
        scale: real value of one quantum of u8 values, 1 for floating point.
        zero: zero point of u8 values, 0 for floating point.
        frame: (top, left, bottom, right) pixels of padding that convolutions read around it.
        block: C0, the channels of a pixel that lie side by side: what `layout` chooses, or all channels where `packed`;
            0 until that is known.
        phases: its pixels are four planes by (row mod 2, column mod 2), in which what is two pixels
            apart lies side by side; `frame` is counted in pixels of the image all the same.
        local: lives within one micro-batch of its segment.
        images: images that it has room for.
        offset: bytes from the start of the arena.
    """

    name: str
    dtype: int
    channels: int
    height: int
    width: int
    scale: float = 1.0
    zero: int = 0
    frame: Frame = (0, 0, 0, 0)
    block: int = 0
    phases: bool = False
    local: bool = False
    images: int = 1
    offset: int = 0

    @property
    def packed(self) -> bool:
        """True when all channels lie side by side."""
        return self.block == self.channels

    @property
    def framed(self) -> bool:
        """True when an image holds bytes that are filled once and must stay: a frame, or spare channels of a block."""
        return _native.image_framed(**self.native())

    @property
    def elements(self) -> int:
        """Elements of one image, without padding of any kind."""
        return self.channels * self.height * self.width

    def native(self) -> dict[str, Any]:
        """The keyword arguments of `_native.Program.tensor`."""
        return {
            "dtype": self.dtype,
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "frame": self.frame,
            "zero": self.zero,
            "block": self.block,
            "phases": self.phases,
            "local": self.local,
            "images": self.images,
            "offset": self.offset,
        }

    @property
    def image_bytes(self) -> int:
        """Bytes of one image, frame and rounding included.

        Raises:
            ValueError: the shape is outside what the engine can address.
        """
        return _native.image_bytes(**self.native())
