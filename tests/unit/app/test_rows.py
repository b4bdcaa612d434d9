"""The rows of a batch: the right ones, whoever owns the memory they lie in, and copied only when they must be."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from tessera.app.scheduling.rows import RowBuffers, row_shapes
from tessera.app.scheduling.ticket import Batch, InputType, Rows, Ticket

SHAPES = row_shapes(224)


def pixels(images: int, first: int = 0, dtype: InputType = "uint8") -> np.ndarray:
    """Images whose every value is their number."""
    values = np.arange(first, first + images, dtype=dtype)
    return np.broadcast_to(values.reshape(-1, 1, 1, 1), (images, *SHAPES[dtype])).copy()


def ticket(rows: Rows, dtype: InputType = "uint8") -> Ticket:
    return Ticket("baseline", len(rows), dtype=dtype, rows=rows)


def gathered(*members: tuple[Ticket, int]) -> np.ndarray:
    return RowBuffers(16, {"baseline": SHAPES}).gather(Batch("baseline", members[0][0].dtype, members))


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("order", [[0], [3], [1, 2, 3], [2, 0], [0, 2, 3], [3, 2]])
def test_a_request_alone_gets_its_rows(order: list[int], listed: bool) -> None:
    rows = pixels(4)
    one = ticket(list(rows) if listed else rows)
    assert gathered(*((one, index) for index in order))[:, 0, 0, 0].tolist() == order


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_of_several_requests_come_together(dtype: InputType) -> None:
    one, other = ticket(pixels(2, 10, dtype), dtype), ticket(list(pixels(3, 20, dtype)), dtype)
    batch = gathered((one, 1), (other, 0), (other, 2))
    assert batch.dtype == dtype
    assert batch.shape == (3, *SHAPES[dtype])
    assert batch[:, -1, -1, -1].tolist() == [11, 20, 22]


def test_rows_side_by_side_are_not_copied() -> None:
    rows = pixels(5)
    one = ticket(rows)
    assert np.shares_memory(gathered((one, 1), (one, 2)), rows)
    assert np.shares_memory(gathered((ticket(list(rows)), 3)), rows)


def test_rows_may_lie_in_shared_memory() -> None:
    memory = SharedMemory(create=True, size=4 * 224 * 224 * 3)
    try:
        slots = np.ndarray((4, *SHAPES["uint8"]), np.uint8, memory.buf)
        slots[...] = pixels(4)
        apart = ticket([slots[3], slots[1]])
        assert gathered((apart, 0), (apart, 1))[:, 0, 0, 0].tolist() == [3, 1]
        del slots, apart
    finally:
        memory.close()
        memory.unlink()
