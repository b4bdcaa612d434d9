"""The kinds of steps of an execution plan; each appends itself to a program of the C core."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine import _native
from tessera.engine.backends.cpu.tensor import Frame, Tensor

Pair = tuple[int, int]

_CURVES = {
    "Sigmoid": _native.SIGMOID,
    "HardSigmoid": _native.HARD_SIGMOID,
    "HardSwish": _native.HARD_SWISH,
    "Swish": _native.SWISH,
}


@dataclass
class Step(ABC):
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

    @abstractmethod
    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """Appends the step to a program whose tensors are these.

        Raises:
            ValueError: the C core refuses it.
        """


@dataclass
class InputStep(Step):
    """Reads the caller's array. `pixel_values`: [channels, 256], what a uint8 pixel becomes; None: floats only."""

    pixel_values: npt.NDArray[Any] | None = None

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        tensor = tensors[self.target]
        shape = (tensor.channels, tensor.height, tensor.width)
        pixels = None if self.pixel_values is None else np.ascontiguousarray(self.pixel_values)
        program.input(self.target, shape, tensor.scale, pixels, 1 if pixels is None else pixels.itemsize)


def byte_parts(weights: npt.NDArray[Any]) -> list[npt.NDArray[np.int8]]:
    """Arrays of signed bytes that add up to weights within 16 bits: one, unless a zero point left no room in it.

    Few weights of real networks need a second one, which is mostly zeros.
    """
    if weights.dtype == np.int8:
        return [weights]
    limits = np.iinfo(np.int8)
    rest = weights.astype(np.int16, copy=False)
    parts: list[npt.NDArray[np.int8]] = []
    while not parts or rest.any():
        parts.append(np.clip(rest, limits.min, limits.max).astype(np.int8))
        rest = rest - parts[-1]
    return parts


@dataclass
class ConvStep(Step):
    """A convolution with its epilogue. Weights are OIHW: integers for u8 sources, else float32."""

    weights: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))
    bias: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))
    scale: npt.NDArray[np.float32] | None = None
    residual_scale: float = 1.0
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    pads: Pair = (0, 0)
    groups: int = 1
    clamp: tuple[float, float] = (float("-inf"), float("inf"))

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        outputs, _, height, width = self.weights.shape
        integer = tensors[self.source].dtype == _native.U8
        parts = byte_parts(self.weights) if integer else [self.weights]
        program.conv(
            source=self.source,
            target=self.target,
            residual=self.other,
            kernel=(height, width),
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
            groups=self.groups,
            weights=np.concatenate(parts) if len(parts) > 1 else np.ascontiguousarray(parts[0]),
            bias=np.ascontiguousarray(self.bias),
            scale=None if self.scale is None else np.ascontiguousarray(self.scale),
            residual_scale=self.residual_scale,
            low=self.clamp[0],
            high=self.clamp[1],
            filter_elements=int(self.weights[0].size),
            outputs=outputs,
            integer=integer,
            rests=len(parts) - 1,
        )


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

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        program.pool(
            self.source,
            self.target,
            self.kernel,
            self.strides,
            self.dilations,
            self.pads,
            self.average,
            self.count_padding,
            self.scale,
        )


@dataclass
class GlobalAverageStep(Step):
    """Mean over all pixels of a channel. `tapped`: a run gives out what is averaged to those who ask for it."""

    scale: float = 1.0
    tapped: bool = False

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        source = tensors[self.source]
        tap = source.scale if self.tapped else 0.0
        program.global_average(self.source, self.target, self.scale, tap, source.elements)


@dataclass
class EltwiseStep(Step):
    """Addition, clamp or conversion of element type."""

    source_scale: float = 1.0
    other_scale: float = 1.0
    clamp: tuple[float, float] = (float("-inf"), float("inf"))

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        scales = self.source_scale, self.other_scale
        program.eltwise(self.source, self.other, self.target, *scales, *self.clamp)


@dataclass
class ProductStep(Step):
    """Products of two images, or of an image and one number a channel. `scale`: of the product, to output units."""

    scale: float = 1.0

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        program.product(self.source, self.other, self.target, self.scale)


@dataclass
class CurveStep(Step):
    """A function of each value by itself: `op` is its name, `line` the slope and offset of the hard ones."""

    line: tuple[float, float] = (1 / 6, 0.5)
    scales: tuple[float, float] = (1.0, 1.0)

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        program.curve(self.source, self.target, _CURVES[self.op], *self.line, *self.scales)


@dataclass
class FlattenStep(Step):
    """Channels, rows and columns become channels of one pixel."""

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        program.flatten(self.source, self.target)


@dataclass
class SoftmaxStep(Step):
    """Softmax over the channels of each pixel."""

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        program.softmax(self.source, self.target)


@dataclass
class OutputStep(Step):
    """Writes the caller's array."""

    def append(self, program: _native.Program, tensors: Sequence[Tensor]) -> None:
        """See `Step.append`."""
        program.output(self.source, tensors[self.source].elements)
