"""The execution plan: what runs in which order, on which tensors, and where those lie in the arena."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine import _native

Precision = Literal["int8", "fp32", "bf16"]
Frame = tuple[int, int, int, int]
Pair = tuple[int, int]

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


@dataclass
class Step:
    """One step of the plan: tensors by index into the plan's list, -1 where absent."""

    name: str
    op: str
    source: int = -1
    other: int = -1
    target: int = -1
    macs: int = 0

    def tensors(self) -> list[int]:
        """The tensors it touches."""
        return [index for index in (self.source, self.other, self.target) if index >= 0]


@dataclass
class InputStep(Step):
    """Reads the caller's array. `pixel_values`: [channels, 256], what a uint8 pixel becomes; None: floats only."""

    pixel_values: npt.NDArray[Any] | None = None


@dataclass
class ConvStep(Step):
    """A convolution with its epilogue. Weights are OIHW: int8 for u8 sources, else float32."""

    weights: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))
    bias: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))
    scale: npt.NDArray[np.float32] | None = None
    residual_scale: float = 1.0
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    pads: Pair = (0, 0)
    groups: int = 1
    clamp: tuple[float, float] = (float("-inf"), float("inf"))


@dataclass
class PoolStep(Step):
    """Maximum or average pooling. `pads` (top, left, bottom, right) are those that an average may count."""

    kernel: Pair = (1, 1)
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    pads: Frame = (0, 0, 0, 0)
    average: bool = False
    count_padding: bool = False
    scale: float = 1.0


@dataclass
class GlobalAverageStep(Step):
    """Mean over all pixels of a channel."""

    scale: float = 1.0


@dataclass
class EltwiseStep(Step):
    """Addition, clamp or conversion of element type."""

    source_scale: float = 1.0
    other_scale: float = 1.0
    clamp: tuple[float, float] = (float("-inf"), float("inf"))


@dataclass
class FlattenStep(Step):
    """Channels, rows and columns become channels of one pixel."""


@dataclass
class SoftmaxStep(Step):
    """Softmax over the channels of each pixel."""


@dataclass
class OutputStep(Step):
    """Writes the caller's array."""


@dataclass
class Segment:
    """Consecutive steps that run for `images` images before the next segment starts."""

    first: int
    last: int
    images: int


@dataclass
class ExecutionPlan:
    """Everything the C core needs.

    Attributes:
        tensors: all activation tensors.
        steps: in running order, an InputStep first, an OutputStep last.
        segments: a partition of the steps.
        chunk: images that one pass may hold.
        arena_bytes: bytes of activations of one thread.
    """

    tensors: list[Tensor]
    steps: list[Step]
    segments: list[Segment] = field(default_factory=list)
    chunk: int = 1
    arena_bytes: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(step.macs for step in self.steps)
