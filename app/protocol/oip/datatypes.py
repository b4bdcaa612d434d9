"""The protocol's datatypes, and tensor payloads between bytes, JSON values and numpy."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from app.errors import InvalidInferenceRequestError

BYTES = "BYTES"

# Little-endian on the wire, whatever the machine.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}

_LENGTH_BYTES = 4


def tensor_from_binary(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    """Read a tensor of numbers from its row-major little-endian bytes, without copying them.

    Raises:
        InvalidInferenceRequestError: The bytes are not as many as the shape and the datatype need.
    """
    dtype = dtype_of(name, datatype)
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise InvalidInferenceRequestError(
            f"Input {name!r} of datatype {datatype} and shape {list(shape)} needs {needed} bytes; it has {len(data)}."
        )
    return np.frombuffer(data, dtype).reshape(shape)


def tensor_from_json(name: str, datatype: str, shape: tuple[int, ...], data: object) -> np.ndarray:
    """Read a tensor of numbers from JSON: a list nested as the shape says, or flat in row-major order.

    Raises:
        InvalidInferenceRequestError: FP16, which has no JSON form; values of another kind or out of range; a wrong
            number of values.
    """
    dtype = dtype_of(name, datatype)
    if dtype == np.float16:
        raise InvalidInferenceRequestError(f"Input {name!r}: FP16 has no JSON form; send it as binary data.")
    try:
        values = np.asarray(data)
        if dtype == np.uint64 and values.dtype.kind == "f":
            values = _whole_numbers(data)
    except (ValueError, OverflowError):
        values = np.asarray(None)
    accepted = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    if values.size and values.dtype.kind not in accepted:
        raise InvalidInferenceRequestError(
            f"The data of input {name!r} must be a list of {datatype} values, flat or nested as its shape says."
        )
    if values.shape not in (shape, (math.prod(shape),)):
        raise InvalidInferenceRequestError(
            f"The data of input {name!r} has shape {list(values.shape)}; its declared shape is {list(shape)}."
        )
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise InvalidInferenceRequestError(
                f"The data of input {name!r} has values outside {limits.min} to {limits.max}, the range of {datatype}."
            )
    with np.errstate(over="ignore"):  # what overflows FP32 becomes infinite and is refused as such where it is used
        return values.astype(dtype).reshape(shape)


def elements_from_binary(name: str, shape: tuple[int, ...], data: memoryview) -> list[memoryview]:
    """Cut the elements of a BYTES tensor apart: each has its length, 4 bytes little-endian, before it.

    Raises:
        InvalidInferenceRequestError: A length points past the end, or the number of elements is not the shape's.
    """
    count, at = math.prod(shape), 0
    elements: list[memoryview] = []
    while at < len(data):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or end > len(data):
            raise InvalidInferenceRequestError(
                f"Input {name!r} of datatype BYTES is cut short: element {len(elements)} ends past the data."
            )
        if len(elements) == count:
            raise InvalidInferenceRequestError(
                f"Input {name!r} of shape {list(shape)} has more than its {count} elements."
            )
        elements.append(data[start:end])
        at = end
    if len(elements) != count:
        raise InvalidInferenceRequestError(
            f"Input {name!r} of shape {list(shape)} needs {count} BYTES elements; it has {len(elements)}."
        )
    return elements


def elements_from_sizes(name: str, shape: tuple[int, ...], data: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Cut the elements of a BYTES tensor apart where they lie side by side without lengths between them.

    This is how OpenVINO Model Server's clients send images: `binary_data_size` is then a text of sizes, "812,4711".

    Raises:
        InvalidInferenceRequestError: The number of sizes is not the shape's.
    """
    if len(sizes) != math.prod(shape):
        raise InvalidInferenceRequestError(
            f"Input {name!r} of shape {list(shape)} needs {math.prod(shape)} BYTES elements; binary_data_size has "
            f"{len(sizes)} sizes."
        )
    elements, at = [], 0
    for size in sizes:
        elements.append(data[at : at + size])
        at += size
    return elements


def elements_from_json(name: str, shape: tuple[int, ...], data: object) -> list[memoryview]:
    """Read the elements of a BYTES tensor from JSON: a list, flat or nested, of base64 texts.

    JSON text cannot hold arbitrary bytes, so image files travel as base64, either as such or as `{"b64": "..."}`.

    Raises:
        InvalidInferenceRequestError: Something is not base64, or the number of elements is not the shape's.
    """
    found = list(_leaves(data)) if isinstance(data, list) else []
    if len(found) != math.prod(shape):
        raise InvalidInferenceRequestError(
            f"Input {name!r} of shape {list(shape)} needs a list of {math.prod(shape)} BYTES elements; it has "
            f"{len(found)}."
        )
    return [memoryview(_decode_base64(name, element)) for element in found]


def pack_elements(elements: Iterable[bytes]) -> bytes:
    """Put the elements of a BYTES tensor one after the other, each behind its length of 4 bytes little-endian."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(_LENGTH_BYTES, "little"), element))


def dtype_of(name: str, datatype: str) -> np.dtype[Any]:
    """The numpy dtype of a datatype of numbers.

    Raises:
        InvalidInferenceRequestError: There is no such datatype.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInferenceRequestError(
            f"Input {name!r} has datatype {datatype[:20]!r}; there are: {', '.join((*DTYPES, BYTES))}."
        )
    return dtype


def _whole_numbers(data: object) -> np.ndarray:
    """Numbers on both sides of 2**63, which numpy would take for floats; an object array where some are fractions."""
    values = np.asarray(data, object)
    return values.astype(np.uint64) if all(isinstance(value, int) and value >= 0 for value in values.flat) else values


def _leaves(data: list[Any]) -> Iterable[object]:
    for value in data:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield value


def _decode_base64(name: str, element: object) -> bytes:
    text = element.get("b64") if isinstance(element, dict) else element
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInferenceRequestError(
        f'Input {name!r} of datatype BYTES takes base64 texts in JSON, "..." or {{"b64": "..."}}; or send binary data.'
    )
