"""The rows of a batch as one array: where they lie when they lie side by side, copied together otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from app.imaging.decoder import SHAPE
from app.scheduling.ticket import Batch, InputType, Rows

_HEIGHT, _WIDTH, _CHANNELS = SHAPE
# Of one row: pixels as the decoder writes them, or a normalised tensor as the Open Inference Protocol sends it.
ROW_SHAPES: dict[InputType, tuple[int, ...]] = {"uint8": SHAPE, "float32": (_CHANNELS, _HEIGHT, _WIDTH)}


def check_rows(rows: Rows, images: int, dtype: InputType) -> None:
    """Raise `ValueError` when `rows` are not what a ticket of `images` and `dtype` needs."""
    first = rows if isinstance(rows, np.ndarray) else rows[0] if rows else None
    shape = ROW_SHAPES[dtype]
    if len(rows) != images or first is None or first.dtype != dtype or first.shape[-len(shape) :] != shape:
        found = "nothing" if first is None else f"{len(rows)} rows of {first.dtype} {first.shape}"
        raise ValueError(f"the request needs {images} rows of {dtype} {shape}, and has {found}")


class RowBuffers:
    """The memory in which rows of several requests come together; one array per kind of input, made at first use.

    A request's images are decoded into one array, so a request alone in its batch is never copied. Mixed batches, and
    rows that arrive as a list of views (into shared memory, for instance), cost one copy of 150 kB per uint8 image, a
    few thousandths of its run time.

    Args:
        max_batch: The most rows.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._buffers: dict[InputType, npt.NDArray[Any]] = {}

    def gather(self, batch: Batch) -> npt.NDArray[Any]:
        """The batch's rows, [N, ...]; valid until the next call."""
        ticket, start = batch.members[0]
        rows = _rows(ticket.rows)
        in_place = isinstance(rows, np.ndarray) or len(batch) == 1
        if in_place and all(
            other is ticket and index == start + place for place, (other, index) in enumerate(batch.members)
        ):
            return rows[start : start + len(batch)] if isinstance(rows, np.ndarray) else rows[start][np.newaxis]
        buffer = self._buffer(batch.dtype)[: len(batch)]
        for row, (other, index) in zip(buffer, batch.members, strict=True):
            np.copyto(row, _rows(other.rows)[index])
        return buffer

    def _buffer(self, dtype: InputType) -> npt.NDArray[Any]:
        buffer = self._buffers.get(dtype)
        if buffer is None:
            buffer = self._buffers[dtype] = np.empty((self._max_batch, *ROW_SHAPES[dtype]), dtype)
        return buffer


def _rows(rows: Rows | None) -> Rows:
    assert rows is not None, "only queued tickets are taken into batches"
    return rows
