"""Heat maps of a request as bytes, on their way from the engine process to a frontend; few requests have any."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from tessera.app.scheduling.ticket import HeatMaps

_SHAPE = struct.Struct("<4I")  # images, classes, height, width


def pack_heat_maps(images: Sequence[HeatMaps]) -> bytes:
    """The maps of all images of a request, at least one, which have the same shape."""
    classes, bias, values = (np.stack(arrays) for arrays in zip(*images, strict=True))
    parts = classes.astype("<i8"), bias.astype("<f4"), values.astype("<f4")
    return _SHAPE.pack(*values.shape) + b"".join(part.tobytes() for part in parts)


def unpack_heat_maps(data: bytes) -> list[HeatMaps]:
    """The inverse of `pack_heat_maps`."""
    images, top, height, width = _SHAPE.unpack_from(data)
    count, at = images * top, _SHAPE.size
    classes = np.frombuffer(data, "<i8", count, at).reshape(images, top)
    bias = np.frombuffer(data, "<f4", count, at + 8 * count).reshape(images, top)
    values = np.frombuffer(data, "<f4", -1, at + 12 * count).reshape(images, top, height, width)
    return [HeatMaps(*image) for image in zip(classes, bias, values, strict=True)]
