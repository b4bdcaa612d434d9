"""ONNX tensors to numpy arrays, with every size checked against the bytes that are really there."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tessera.engine.errors import ModelError, UnsupportedModelError
from tessera.engine.graph.ir import Array
from tessera.wording import counted

# What a model can hold when its external data has been moved inside.
LARGEST_EXTERNAL = 2**31 - 1

_TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
}


# Bytes of an element of the types that are moved into a file and not read: ONNX Runtime may run them.
_FOREIGN_SIZES: dict[int, int] = {
    TensorProto.BOOL: 1,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.DOUBLE: 8,
}


def type_of(element_type: int, what: str) -> np.dtype[Any]:
    """The numpy type of an ONNX element type.

    Raises:
        UnsupportedModelError: `what` has an element type that the engine does not run.
    """
    dtype = _TYPES.get(element_type)
    if dtype is None:
        known = element_type in TensorProto.DataType.values()
        name = TensorProto.DataType.Name(TensorProto.DataType.ValueType(element_type)) if known else str(element_type)
        raise UnsupportedModelError(
            f"{what} has element type {name.lower()}; the engine reads float32, uint8, int8, int32 and int64. "
            "Export the model in float32."
        )
    return dtype


def read_tensor(tensor: TensorProto, folder: Path | None) -> Array:
    """One tensor as an array of its declared shape.

    Args:
        tensor: an initialiser or the value of a Constant node.
        folder: the model file's folder, the only place external data may come from; None when there is none.

    Raises:
        ModelError: the element type is not supported, or the data does not hold the declared shape.
    """
    what = f"Tensor '{tensor.name}'"
    dtype = type_of(tensor.data_type, what)
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise ModelError(f"{what} declares a negative size: {list(shape)}.")
    wanted = prod(shape) * dtype.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        data = _external_bytes(tensor, folder, wanted)
    elif tensor.HasField("raw_data"):
        data = tensor.raw_data
    else:
        return _typed(tensor, shape, dtype, what)
    if len(data) != wanted:
        raise ModelError(
            f"{what} of shape {list(shape)} needs {counted(wanted, 'byte')} but the file holds {len(data)}."
        )
    array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    return _finite(array, what)


def _typed(tensor: TensorProto, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Array:
    fields: dict[int, int] = {
        TensorProto.FLOAT: len(tensor.float_data),
        TensorProto.INT64: len(tensor.int64_data),
    }
    stored = fields.get(tensor.data_type, len(tensor.int32_data))
    if stored != prod(shape):
        raise ModelError(
            f"{what} of shape {list(shape)} needs {counted(prod(shape), 'element')} but the file holds {stored}."
        )
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"{what} cannot be read: {error}.") from error
    return _finite(array.astype(dtype, copy=False), what)


def _finite(array: Array, what: str) -> Array:
    if array.dtype == np.float32 and np.isnan(array).any():
        raise ModelError(f"{what} contains values that are not numbers (NaN); the file is damaged or badly trained.")
    return array


def _external_bytes(tensor: TensorProto, folder: Path | None, wanted: int) -> bytes:
    what = f"Tensor '{tensor.name}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    # Text that is not UTF-8 comes out of protobuf as bytes.
    if folder is None or not location or not isinstance(location, str):
        raise ModelError(f"{what} is stored outside the model file, but the place of its data is not known.")
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
        inside = path.is_relative_to(root)
        readable = inside and path.is_file()
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"{what}: the description of its external data is malformed ({error}).") from error
    if not inside:
        raise ModelError(f"{what} points to '{location}', outside the model's folder; such files are not opened.")
    if not readable:
        raise ModelError(f"{what}: its data file '{location}' is missing from the model's folder.")
    if offset < 0 or length != wanted or offset + length > path.stat().st_size:
        raise ModelError(
            f"{what} needs {counted(wanted, 'byte')} from '{location}' at offset {offset} (length given: {length}); "
            f"the file has {path.stat().st_size}. It is incomplete or belongs to another model."
        )
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def embed_external(model: onnx.ModelProto, folder: Path | None) -> bool:
    """Moves external initialiser data into the model, in place, so that later steps see one form only.

    Returns:
        True when there was any.

    Raises:
        ModelError: the data is missing, too short, or outside `folder`.
    """
    found, total = False, 0
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            size = _FOREIGN_SIZES.get(tensor.data_type)
            size = size or type_of(tensor.data_type, f"Tensor '{tensor.name}'").itemsize
            data = _external_bytes(tensor, folder, prod(tensor.dims) * size)
            total += len(data)
            if total > LARGEST_EXTERNAL:  # many tensors may name the same bytes
                raise ModelError(f"The model's external data has more than {LARGEST_EXTERNAL} bytes in all.")
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = data
            found = True
    return found
