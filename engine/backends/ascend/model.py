"""A loaded .om model: its description, its gears, its input and output."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tessera.engine.backends.ascend.constants import DYNAMIC_BATCH_INPUT, DataType
from tessera.engine.backends.ascend.device import Device
from tessera.engine.backends.ascend.errors import AclError, AclUsageError
from tessera.engine.backends.ascend.library import Library
from tessera.engine.backends.ascend.memory import DeviceBuffer
from tessera.engine.backends.ascend.structures import Batch, IODims
from tessera.engine.errors import ModelError
from tessera.wording import counted

_DTYPES: dict[int, np.dtype[Any]] = {
    DataType.FLOAT: np.dtype(np.float32),
    DataType.FLOAT16: np.dtype(np.float16),
    DataType.UINT8: np.dtype(np.uint8),
}

# 5xxxxx codes that speak of the file, not of the device: no GE, wrong chip, cannot load.
_LOAD_FAILURES = (500002, 507008, 545001)


@dataclass(frozen=True)
class OfflineTensor:
    """An input or output of an .om model.

    Attributes:
        name: its name.
        shape: of one image, without N.
        dtype: of its elements.
        bytes: buffer size for the largest gear.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bytes: int

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Description:
    """What an .om model takes and gives.

    Attributes:
        image: the input that images go into.
        output: the output.
        gears: batch sizes that it runs, in the order that ATC was given.
        shape_input: index of the extra input that carries the gear, None for a fixed batch size.
        shape_bytes: size of that input.
    """

    image: OfflineTensor
    output: OfflineTensor
    gears: tuple[int, ...]
    shape_input: int | None
    shape_bytes: int


def query_size(library: Library, path: Path) -> tuple[int, int]:
    """(work, weight) bytes of device memory that a model needs.

    Raises:
        AclError: CANN cannot read it.
    """
    work, weights = ctypes.c_size_t(), ctypes.c_size_t()
    library.call("aclmdlQuerySize", bytes(path), work, weights)
    return work.value, weights.value


class OfflineModel:
    """A model loaded on a device; made, used and closed inside `device.active()`, always of the same device.

    Args:
        device: where to load it.
        path: the .om file.
        weights: memory that holds or will hold the weights, shared with other loads of the same file on the device;
            None lets CANN allocate it.

    Attributes:
        id: CANN's number of it.
        description: what it takes and gives.

    Raises:
        ModelError: CANN refuses the file, or it is no image classifier with one input and one output.
        AclError: the device failed, or has no memory left.
    """

    def __init__(self, device: Device, path: Path, weights: DeviceBuffer | None = None) -> None:
        self._library = device.library
        self.id = _load(self._library, path, weights)
        try:
            self.description = _describe(self._library, self.id, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unload it."""
        self._library.release("aclmdlUnload", self.id)


def _load(library: Library, path: Path, weights: DeviceBuffer | None) -> int:
    number = ctypes.c_uint32()
    try:
        if weights is None:
            library.call("aclmdlLoadFromFile", bytes(path), number)
        else:
            memory = (None, 0, weights.address, weights.size)
            library.call("aclmdlLoadFromFileWithMem", bytes(path), number, *memory)
    except AclError as error:
        if isinstance(error, AclUsageError) or error.code in _LOAD_FAILURES:
            raise ModelError(f"CANN cannot load {path}: {error}") from error
        raise
    return number.value


def _describe(library: Library, model: int, path: Path) -> Description:
    handle = library.pointer("aclmdlCreateDesc")
    try:
        library.call("aclmdlGetDesc", handle, model)
        return _Reader(library, handle, path).description()
    finally:
        library.release("aclmdlDestroyDesc", handle)


class _Reader:
    def __init__(self, library: Library, handle: int, path: Path) -> None:
        self._library = library
        self._handle = handle
        self._path = path

    def description(self) -> Description:
        inputs = self._library.value("aclmdlGetNumInputs", self._handle)
        outputs = self._library.value("aclmdlGetNumOutputs", self._handle)
        gears = self._gears()
        images = inputs - bool(gears)
        if images != 1 or outputs != 1:
            raise ModelError(
                f"{self._path} has {counted(images, 'input')} and {counted(outputs, 'output')}; one of each is "
                "expected."
            )
        shape_input = self._shape_input() if gears else None
        image_index = 1 if shape_input == 0 else 0
        image, fixed = self._tensor("Input", image_index, gears)
        output, _ = self._tensor("Output", 0, gears)
        shape_bytes = 0 if shape_input is None else self._size("Input", shape_input)
        return Description(image, output, gears or (fixed,), shape_input, shape_bytes)

    def _gears(self) -> tuple[int, ...]:
        batch = Batch()
        self._library.call("aclmdlGetDynamicBatch", self._handle, batch)
        return tuple(batch.sizes[: batch.count])

    def _shape_input(self) -> int:
        index = ctypes.c_size_t()
        self._library.call("aclmdlGetInputIndexByName", self._handle, DYNAMIC_BATCH_INPUT, index)
        return index.value

    def _size(self, side: str, index: int) -> int:
        size: int = self._library.value(f"aclmdlGet{side}SizeByIndex", self._handle, index)
        return size

    def _tensor(self, side: str, index: int, gears: tuple[int, ...]) -> tuple[OfflineTensor, int]:
        """An input or output, and its N where that is fixed.

        Its size must be what its dimensions and type come to: a buffer that is too small for what the device writes
        would be silent damage.
        """
        dims = IODims()
        self._library.call(f"aclmdlGet{side}Dims", self._handle, index, dims)
        code = self._library.value(f"aclmdlGet{side}DataType", self._handle, index)
        name = dims.name.decode(errors="replace")
        n, *shape = dims.shape() or (0,)
        if code not in _DTYPES:
            raise ModelError(
                f"{self._path}: {side.lower()} '{name}' has element type {code}; float and uint8 are known."
            )
        if (n < 1 and not gears) or any(size < 1 for size in shape):
            raise ModelError(
                f"{self._path}: {side.lower()} '{name}' has shape {[n, *shape]}; only the batch size may vary, by "
                "--dynamic_batch_size."
            )
        tensor = OfflineTensor(name, tuple(shape), _DTYPES[code], self._size(side, index))
        expected = tensor.image_bytes * (max(gears) if gears else n)
        if tensor.bytes != expected:
            raise ModelError(
                f"{self._path}: CANN says {tensor.bytes} bytes for {side.lower()} '{name}', but its shape and type "
                f"come to {expected}. Convert the file again, with the CANN version that runs here."
            )
        return tensor, n
