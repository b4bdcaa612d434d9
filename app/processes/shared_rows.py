"""Shared memory of one frontend: slots that its images are decoded into, and where their scores come back."""

from __future__ import annotations

import math
import mmap
import os
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tessera.app.errors import DeviceFailedError, InferenceError, RequestError
from tessera.app.scheduling.rows import row_shapes
from tessera.app.scheduling.ticket import InputType, Outcome
from tessera.app.served.model import ServedModel
from tessera.models.preprocessing.image_size import Size, sides

SLOTS_PER_ROW: dict[InputType, int] = {"uint8": 1, "float32": 4}  # a slot holds a byte for each of a row's values

_RESULT = struct.Struct("<QIIIxxxxdd")  # identity, state, batch size, classes, queue seconds, compute seconds
_LOGITS_AT = 64
_NONE, _OK, _FAILED, _DEVICE_FAILED, _RUNNING = range(5)
_OWNER_AND_STATE = struct.Struct("<QI")


class SlotLayout(NamedTuple):
    """How large slots are, which the model decides.

    Attributes:
        size: Height and width of its largest images, in pixels; one number where they are equal.
        classes: Scores per image.
    """

    size: Size
    classes: int

    @classmethod
    def of(cls, model: ServedModel) -> SlotLayout:
        """The layout for a model."""
        return cls(max(model.sizes, key=lambda size: math.prod(sides(size))), len(model.labels))

    @property
    def row_bytes(self) -> int:
        """Bytes of a slot; rows of any type that begin with a slot are aligned."""
        return _aligned(3 * math.prod(sides(self.size)))

    @property
    def result_bytes(self) -> int:
        """Bytes of a slot's outcome."""
        return _LOGITS_AT + _aligned(4 * self.classes)


def _aligned(count: int) -> int:
    return -(-count // 64) * 64


def create_slots(slots: int, layout: SlotLayout) -> int:
    """Reserve an anonymous file for `slots` slots; returns its descriptor. Its pages come into being when touched."""
    file = os.memfd_create("tessera-slots", os.MFD_CLOEXEC)
    os.ftruncate(file, slots * (layout.row_bytes + layout.result_bytes))
    return file


class SlotArea:
    """The slots, as one of the two processes sees them. Slots are numbered from 0.

    The frontend writes the rows and reads the outcomes, the engine the other way round; who may do what when is agreed
    by messages. Freed with its last view.

    Args:
        file: A descriptor of `create_slots`; the caller still owns it.
        layout: The layout that it was created with.
    """

    def __init__(self, file: int, layout: SlotLayout) -> None:
        size = os.fstat(file).st_size
        self.slots = size // (layout.row_bytes + layout.result_bytes)
        self._layout = layout
        self._memory = np.frombuffer(mmap.mmap(file, size), np.uint8)

    def rows(self, first: int, images: int, dtype: InputType, size: Size | None = None) -> npt.NDArray[Any]:
        """The rows of a request, in place: uint8 [images, height, width, 3] or float32 [images, 3, height, width].

        A row of any size has as many slots as one of the largest, which is the one that None means.

        Raises:
            ValueError: They are not within the area.
        """
        slots = images * SLOTS_PER_ROW[dtype]
        if images < 1 or first < 0 or first + slots > self.slots:
            raise ValueError(f"slots {first} to {first + slots} are not within {self.slots}")
        # Rows lie side by side, so where slots are longer than rows the rest is at the end of them all.
        start, shape = first * self._layout.row_bytes, (images, *row_shapes(size or self._layout.size)[dtype])
        flat = self._memory[start : start + math.prod(shape) * np.dtype(dtype).itemsize]
        return flat.view(dtype).reshape(shape)

    def write_outcome(self, slot: int, identity: int, outcome: Outcome) -> None:
        """Leave what became of the image that begins at `slot`; `identity` is the request's."""
        start = self._result(slot)
        logits = outcome.logits
        if logits is not None:
            view = self._memory[start + _LOGITS_AT : start + _LOGITS_AT + logits.nbytes].view(np.float32)
            view[:] = logits
        _RESULT.pack_into(
            self._memory.data,
            start,
            identity,
            _state(outcome),
            outcome.batch_size,
            0 if logits is None else len(logits),
            outcome.queue_seconds,
            outcome.compute_seconds,
        )

    def mark(self, slot: int, identity: int, *, running: bool) -> None:
        """Leave whether the engine runs the image that begins at `slot`; nothing when its slot is another's by now."""
        start = self._result(slot)
        if running or self.is_running(slot, identity):
            _OWNER_AND_STATE.pack_into(self._memory.data, start, identity, _RUNNING if running else _NONE)

    def is_running(self, slot: int, identity: int) -> bool:
        """Whether the engine runs the image that begins at `slot`, or died of that; `identity` is the request's."""
        return _OWNER_AND_STATE.unpack_from(self._memory.data, self._result(slot)) == (identity, _RUNNING)

    def read_outcome(self, slot: int, identity: int) -> Outcome:
        """Take what became of the image that begins at `slot`; an outcome of another request is none."""
        start = self._result(slot)
        owner, state, batch_size, classes, queue_seconds, compute_seconds = _RESULT.unpack_from(
            self._memory.data, start
        )
        if owner != identity or state not in (_OK, _FAILED, _DEVICE_FAILED):
            return Outcome(None, InferenceError("the engine process left no outcome in the slot"), 0.0, 0.0, 1)
        if state != _OK:
            failure: RequestError = InferenceError("The engine failed on this image.")
            if state == _DEVICE_FAILED:
                failure = DeviceFailedError("The accelerator failed; it is being set up again.", retry_after=1)
            return Outcome(None, failure, queue_seconds, compute_seconds, batch_size)
        logits = self._memory[start + _LOGITS_AT : start + _LOGITS_AT + 4 * classes].view(np.float32).copy()
        return Outcome(logits, None, queue_seconds, compute_seconds, batch_size)

    def _result(self, slot: int) -> int:
        return self.slots * self._layout.row_bytes + slot * self._layout.result_bytes


def _state(outcome: Outcome) -> int:
    if outcome.logits is not None:
        return _OK
    return _DEVICE_FAILED if isinstance(outcome.failure, DeviceFailedError) else _FAILED


class SlotAllocator:
    """Which slots are free: runs of neighbours, the lowest first, so that few pages are ever touched.

    Args:
        slots: How many there are.
    """

    def __init__(self, slots: int) -> None:
        self._free = [(0, slots)]  # (first, how many), in order, never adjacent

    def take(self, slots: int) -> int | None:
        """Reserve `slots` neighbours; returns the first, or None when there is no such run."""
        for place, (first, length) in enumerate(self._free):
            if length >= slots:
                if length == slots:
                    del self._free[place]
                else:
                    self._free[place] = (first + slots, length - slots)
                return first
        return None

    def give(self, first: int, slots: int) -> None:
        """Free what `take` returned."""
        place = next((i for i, (start, _) in enumerate(self._free) if start > first), len(self._free))
        end = first + slots
        if place < len(self._free) and self._free[place][0] == end:
            end += self._free.pop(place)[1]
        if place > 0 and sum(self._free[place - 1]) == first:
            place -= 1
            first = self._free.pop(place)[0]
        self._free.insert(place, (first, end - first))
