"""Layouts, padding and tiles of a convolution on Ascend's cube unit: plain arithmetic, without CANN.

Activations lie in NC1HWC0: [N, C1, H, W, 16] with C1 = ceil(C / 16). Weights lie in FRACTAL_Z: [C1 * Kh * Kw, N1, 16,
16], the last two axes being output and input channels, the first one running over C1, then the kernel's rows, then its
columns. What has no channel is zero. (CANN, "data formats"; C0 = 16 is 32 bytes of fp16.)

Runs under Python 3.7, which CANN 6.0 may use; `ascendc/geometry.h` is the same arithmetic for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

C0 = 16
FRACTAL = C0 * C0
KERNEL = 3
MOST_N1 = 4
BIAS_BYTES = MOST_N1 * C0 * 4
_LARGEST_STRIDE_FIELD = 65535  # of a copy instruction, in blocks of 32 bytes


class Shape(NamedTuple):
    """A 3x3 convolution in blocks of channels; sizes and padding in pixels."""

    batch: int
    c1: int
    height: int
    width: int
    cout1: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int

    @property
    def out_height(self) -> int:
        """Rows of the result."""
        return output_size(self.height, KERNEL, self.pad_top, self.pad_bottom, self.stride_h)

    @property
    def out_width(self) -> int:
        """Columns of the result."""
        return output_size(self.width, KERNEL, self.pad_left, self.pad_right, self.stride_w)


class Buffers(NamedTuple):
    """Bytes of a core's buffers."""

    l1: int
    l0a: int
    l0b: int
    l0c: int


class Tile(NamedTuple):
    """What a core works on at a time.

    Rows of the result from one load of L1, pixels (m) and channel blocks of the reduction (k1) and of the result (n1)
    per step of the cube unit.
    """

    rows: int
    m: int
    k1: int
    n1: int


class Window(NamedTuple):
    """Rows of the input that some rows of the result need, and the rows of padding above and below them."""

    first: int
    rows: int
    pad_top: int
    pad_bottom: int


def ceil_div(value: int, unit: int) -> int:
    """`value / unit`, rounded up."""
    return -(-value // unit)


def output_size(size: int, kernel: int, before: int, after: int, stride: int) -> int:
    """Positions of a kernel along an axis."""
    return (size + before + after - kernel) // stride + 1


def nc1hwc0_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[N, C, H, W] as NC1HWC0."""
    n, c, h, w = shape
    return n, ceil_div(c, C0), h, w, C0


def fractal_z_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[O, I, Kh, Kw] as FRACTAL_Z."""
    o, i, kh, kw = shape
    return ceil_div(i, C0) * kh * kw, ceil_div(o, C0), C0, C0


def to_nc1hwc0(x: Any) -> Any:
    """Array [N, C, H, W] to [N, C1, H, W, 16]."""
    n, c1, h, w, _ = nc1hwc0_shape(x.shape)
    padded = np.zeros((n, c1 * C0, h, w), x.dtype)
    padded[:, : x.shape[1]] = x
    return np.ascontiguousarray(padded.reshape(n, c1, C0, h, w).transpose(0, 1, 3, 4, 2))


def from_nc1hwc0(x: Any, channels: int) -> Any:
    """Array [N, C1, H, W, 16] to [N, channels, H, W]."""
    n, c1, h, w, _ = x.shape
    return np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3).reshape(n, c1 * C0, h, w)[:, :channels])


def to_fractal_z(weights: Any) -> Any:
    """Array [O, I, Kh, Kw] to [C1 * Kh * Kw, N1, 16, 16]."""
    o, i, kh, kw = weights.shape
    k, n1, _, _ = fractal_z_shape(weights.shape)
    padded = np.zeros((n1 * C0, ceil_div(i, C0) * C0, kh, kw), weights.dtype)
    padded[:o, :i] = weights
    blocks = padded.reshape(n1, C0, -1, C0, kh, kw)
    return np.ascontiguousarray(blocks.transpose(2, 4, 5, 0, 1, 3).reshape(k, n1, C0, C0))


def input_window(shape: Shape, first_row: int, rows: int) -> Window:
    """The rows of the input under `rows` rows of the result from `first_row` on."""
    above = first_row * shape.stride_h - shape.pad_top
    below = (first_row + rows - 1) * shape.stride_h - shape.pad_top + KERNEL  # one past the last row that is read
    first, end = max(above, 0), min(below, shape.height)
    return Window(first, end - first, first - above, below - end)


def choose_tile(shape: Shape, buffers: Buffers) -> Tile:
    """The largest tile that fits: half of L1 each for weights and image rows, two steps at once in L0A and L0B.

    Raises:
        ValueError: a single row does not fit, or a copy instruction cannot reach from channel block to channel block.
    """
    k1 = shape.c1 * KERNEL * KERNEL
    half = (buffers.l1 - BIAS_BYTES) // 2
    n1 = min(shape.cout1, MOST_N1, half // (k1 * FRACTAL * 2))
    rows = shape.out_height
    while rows > 0 and _most_rows(shape, rows) * shape.width * shape.c1 * C0 * 2 > half:
        rows -= 1
    if n1 < 1 or rows < 1 or shape.height * shape.width > _LARGEST_STRIDE_FIELD:
        raise ValueError(f"{shape!r} does not fit the buffers {buffers!r}")
    step = min(k1, 4, buffers.l0b // (n1 * FRACTAL * 2 * 2))
    pixels = ceil_div(rows * shape.out_width, C0) * C0
    m = min(pixels, buffers.l0a // (step * C0 * 2 * 2), buffers.l0c // (n1 * C0 * 4)) // C0 * C0
    return Tile(rows, m, step, n1)


def _most_rows(shape: Shape, rows: int) -> int:
    """Rows of the input that any `rows` rows of the result need at most."""
    return min(shape.height, (rows - 1) * shape.stride_h + KERNEL)
