"""The rows of a batch as one array: where they lie when they lie side by side, copied together otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.app.scheduling.ticket import Batch, InputType, Rows
from tessera.models.preprocessing.image_size import Size, sides
from tessera.wording import counted

RowShapes = Mapping[InputType, tuple[int, int, int]]


def row_shapes(size: Size) -> RowShapes:
    """Shapes of one row, for images of a size.

    Pixels are [height, width, 3] as the decoder writes them; a normalised tensor is [3, height, width] as the Open
    Inference Protocol sends it.
    """
    height, width = sides(size)
    return {"uint8": (height, width, 3), "float32": (3, height, width)}


def check_rows(rows: Rows, images: int, dtype: InputType, shapes: RowShapes) -> None:
    """Raise `ValueError` when `rows` are not what a ticket of `images` and `dtype` needs."""
    first = rows if isinstance(rows, np.ndarray) else rows[0] if rows else None
    shape = shapes[dtype]
    if len(rows) != images or first is None or first.dtype != dtype or first.shape[-len(shape) :] != shape:
        found = "nothing" if first is None else f"{counted(len(rows), 'row')} of {first.dtype} {first.shape}"
        raise ValueError(f"the request needs {counted(images, 'row')} of {dtype} {shape}, and has {found}")


class RowBuffers:
    """The memory in which rows of several requests come together; an array for each lane and kind of input.

    A request's images are decoded into one array, so a request alone in its batch is never copied. Mixed batches cost
    one copy of each row, as do rows that arrive as a list of views. A row of 224 x 224 pixels has 150 kB; its copy
    takes a few thousandths of its run time.

    Args:
        max_batch: The most rows.
        shapes: As `row_shapes` gives them, for each lane.
    """

    def __init__(self, max_batch: int, shapes: Mapping[str, RowShapes]) -> None:
        self._max_batch = max_batch
        self._shapes = shapes
        self._buffers: dict[tuple[str, InputType], npt.NDArray[Any]] = {}

    def gather(self, batch: Batch) -> npt.NDArray[Any]:
        """The batch's rows, [N, ...]; valid until the next call."""
        ticket, start = batch.members[0]
        rows = _rows(ticket.rows)
        in_place = isinstance(rows, np.ndarray) or len(batch) == 1
        if in_place and all(
            other is ticket and index == start + place for place, (other, index) in enumerate(batch.members)
        ):
            return rows[start : start + len(batch)] if isinstance(rows, np.ndarray) else rows[start][np.newaxis]
        buffer = self._buffer(batch.variant, batch.dtype)[: len(batch)]
        for row, (other, index) in zip(buffer, batch.members, strict=True):
            np.copyto(row, _rows(other.rows)[index])
        return buffer

    def _buffer(self, lane: str, dtype: InputType) -> npt.NDArray[Any]:
        buffer = self._buffers.get((lane, dtype))
        if buffer is None:
            buffer = self._buffers[lane, dtype] = np.empty((self._max_batch, *self._shapes[lane][dtype]), dtype)
        return buffer


def _rows(rows: Rows | None) -> Rows:
    assert rows is not None, "only queued tickets are taken into batches"
    return rows
