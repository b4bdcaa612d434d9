"""How a graph value is stored: element type, scale and zero point, blocked shape."""

from __future__ import annotations

import numpy as np

from tessera.engine import _native
from tessera.engine.backends.cpu.tensor import Precision, Tensor
from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import QuantParams, ValueInfo

_SIGNED_SHIFT = 128


def image_shape(info: ValueInfo) -> tuple[int, int, int]:
    """(channels, height, width) of a value: [N, C, H, W], or [N, C] as one pixel.

    Raises:
        ModelError: another rank, a size known only at run time, or a first dimension that is not the batch.
    """
    sizes = info.shape[1:]
    if len(info.shape) not in (2, 4) or any(size is None or size < 1 for size in sizes):
        raise ModelError(
            f"Value '{info.name}' has shape {list(info.shape)}; the CPU engine runs [N, C, H, W] and [N, C] "
            "with all sizes but the batch known."
        )
    channels, height, width = (*sizes, 1, 1)[:3]
    assert channels is not None
    assert height is not None
    assert width is not None
    return channels, height, width


def unsigned_zero_point(quant: QuantParams, name: str) -> int:
    """The zero point once values are stored as u8: signed ones are shifted by 128.

    Raises:
        ModelError: one scale per channel, which activations cannot have here.
    """
    if quant.axis is not None:
        raise ModelError(f"Value '{name}' has one scale per channel; the CPU engine needs one scale per activation.")
    return int(quant.zero_point) + (_SIGNED_SHIFT if quant.dtype == np.dtype(np.int8) else 0)


def tensor_for(info: ValueInfo, precision: Precision) -> Tensor:
    """The tensor that stores a value: u8 where the graph quantises it, else the precision's floating-point type.

    Raises:
        ModelError: the value cannot be stored.
    """
    channels, height, width = image_shape(info)
    if info.quant is None and info.dtype != np.dtype(np.float32):
        raise ModelError(
            f"Value '{info.name}' holds {info.dtype} numbers as such; the CPU engine runs integers only where they "
            "store real numbers."
        )
    if info.quant is not None:
        return Tensor(
            info.name,
            _native.U8,
            channels,
            height,
            width,
            scale=float(info.quant.scale),
            zero=unsigned_zero_point(info.quant, info.name),
        )
    return Tensor(info.name, _native.BF16 if precision == "bf16" else _native.F32, channels, height, width)


def quantised_clamp(tensor: Tensor, clip: tuple[float, float]) -> tuple[float, float]:
    """Clamp bounds in the units that the C core expects for a tensor: quantised for u8, else real."""
    if tensor.dtype != _native.U8:
        return clip
    low, high = (np.rint(np.clip(bound / tensor.scale, -1e6, 1e6)) + tensor.zero for bound in clip)
    return float(np.clip(low, 0, 255)), float(np.clip(high, 0, 255))
