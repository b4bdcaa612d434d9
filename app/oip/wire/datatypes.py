"""Tensor payloads between bytes, JSON text and numpy. Nothing here makes an object per number or per element unasked.

What is declared has been checked by then (`Interface.check_input`): the datatype is FP32, UINT8 or BYTES, and there are
no more images than a request may have. So the shape bounds all that is made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from tessera.app.errors import InvalidInferenceRequestError
from tessera.wording import counted

BYTES = "BYTES"

# Little-endian on the wire, whatever the machine.
DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}

Proceed = Callable[[], None]
"""Called between the pieces of longer work; raises when its result is not wanted any more."""

_LENGTH_BYTES = 4
_PIECE = 64 * 1024  # bytes of JSON that are numbers at once


class _Base64(msgspec.Struct):
    b64: bytes


_Element = bytes | _Base64
_ELEMENTS = msgspec.json.Decoder(list[_Element | list[_Element]])
_NUMBERS: dict[str, msgspec.json.Decoder[Any]] = {
    "UINT8": msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=255)]]),
    "FP32": msgspec.json.Decoder(list[float]),
}
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
_UNSTRUCTURED = bytes(set(range(256)) - set(b"[],"))


def tensor_from_binary(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    """Read a tensor of numbers from its row-major little-endian bytes, without copying them.

    Raises:
        InvalidInferenceRequestError: The bytes are not as many as the shape and the datatype need.
    """
    dtype = DTYPES[datatype]
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise InvalidInferenceRequestError(
            f"Input {name!r} of datatype {datatype} and shape {list(shape)} needs {counted(needed, 'byte')}; "
            f"it has {len(data)}."
        )
    return np.frombuffer(data, dtype).reshape(shape)


def tensor_from_json(
    name: str, datatype: str, shape: tuple[int, ...], data: memoryview, proceed: Proceed
) -> np.ndarray:
    """Read a tensor of numbers from JSON: a list nested as the shape says, or flat in row-major order.

    A list of Python's numbers would take 8 to 30 times its text, so the text is read in pieces. Their brackets and
    commas are held against those that the shape asks for, and what is between them is numbers.

    Args:
        name: The input's name, for messages.
        datatype: "FP32" or "UINT8".
        shape: Its shape.
        data: A valid JSON text.
        proceed: See `Proceed`.

    Raises:
        InvalidInferenceRequestError: Values of another kind or out of range, or another number or nesting of them.
    """
    values = np.empty(math.prod(shape), DTYPES[datatype])
    expected = _nesting(shape if bytes(data[:_PIECE]).translate(None, b" \t\r\n")[:2] == b"[[" else (values.size,))
    at = seen = count = 0
    while at < len(data):
        proceed()
        piece = bytes(data[at : at + _PIECE])
        if at + len(piece) < len(data):
            piece = piece[: piece.rfind(b",") + 1]
        structure = piece.translate(None, _UNSTRUCTURED)
        if not piece or not expected.startswith(structure, seen):
            break
        at += len(piece)
        seen += len(structure)
        numbers = _numbers(name, datatype, piece)
        if count + len(numbers) > values.size:
            break
        with np.errstate(over="ignore"):  # what overflows FP32 becomes infinite and is refused as such where it is used
            values[count : count + len(numbers)] = numbers
        count += len(numbers)
    if count != values.size or seen != len(expected):
        raise InvalidInferenceRequestError(
            f"The data of input {name!r} must be {counted(values.size, 'value')}, flat or nested as its shape "
            f"{list(shape)} says."
        )
    return values.reshape(shape)


def tensor_from_repeated(
    name: str, datatype: str, shape: tuple[int, ...], data: Sequence[Any], proceed: Proceed
) -> np.ndarray:
    """Read a tensor of numbers from a field of a message, piece by piece for the same reason as from JSON.

    Raises:
        InvalidInferenceRequestError: Values out of range, or another number of them.
    """
    count = math.prod(shape)
    if len(data) != count:
        raise InvalidInferenceRequestError(
            f"Input {name!r} of datatype {datatype} and shape {list(shape)} has {counted(len(data), 'value')} "
            "in its contents."
        )
    values = np.empty(count, DTYPES[datatype])
    for at in range(0, count, _PIECE):
        proceed()
        numbers = np.array(data[at : at + _PIECE])
        if datatype == "UINT8" and int(numbers.max()) > 255:
            raise _not_numbers(name, datatype)
        values[at : at + len(numbers)] = numbers
    return values.reshape(shape)


def elements_from_binary(name: str, shape: tuple[int, ...], data: memoryview) -> tuple[bytes, ...]:
    """Cut the elements of a BYTES tensor apart: each has its length, 4 bytes little-endian, before it.

    Raises:
        InvalidInferenceRequestError: A length points past the end, or the number of elements is not the shape's.
    """
    count, at = math.prod(shape), 0
    elements: list[bytes] = []
    while at < len(data):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or end > len(data):
            raise InvalidInferenceRequestError(
                f"Input {name!r} of datatype BYTES is cut short: element {len(elements)} ends past the data."
            )
        if len(elements) == count:
            raise InvalidInferenceRequestError(
                f"Input {name!r} of shape {list(shape)} has more than its {counted(count, 'element')}."
            )
        elements.append(bytes(data[start:end]))
        at = end
    check_elements(name, shape, len(elements))
    return tuple(elements)


def elements_from_sizes(name: str, shape: tuple[int, ...], data: memoryview, sizes: Sequence[int]) -> tuple[bytes, ...]:
    """Cut the elements of a BYTES tensor apart where they lie side by side without lengths between them.

    This is how OpenVINO Model Server's clients send images: `binary_data_size` is then a text of sizes, "812,4711".

    Raises:
        InvalidInferenceRequestError: The number of sizes is not the shape's.
    """
    check_elements(name, shape, len(sizes))
    elements, at = [], 0
    for size in sizes:
        elements.append(bytes(data[at : at + size]))
        at += size
    return tuple(elements)


def elements_from_json(name: str, shape: tuple[int, ...], data: memoryview) -> tuple[bytes, ...]:
    """Read the elements of a BYTES tensor from JSON: a list, flat or nested, of base64 texts.

    JSON text cannot hold arbitrary bytes, so image files travel as base64, either as such or as `{"b64": "..."}`.

    Raises:
        InvalidInferenceRequestError: Something is not base64, or the number of elements is not the shape's.
    """
    # Neither form of an element has a comma inside, so they can be counted before there is an object for each.
    commas = sum(bytes(data[at : at + _PIECE]).count(b",") for at in range(0, len(data), _PIECE))
    if commas >= math.prod(shape):
        raise InvalidInferenceRequestError(
            f"Input {name!r} of shape {list(shape)} needs a list of {counted(math.prod(shape), 'BYTES element')}, "
            'each a base64 text, "..." or {"b64": "..."}; it has more.'
        )
    try:
        decoded = _ELEMENTS.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInferenceRequestError(
            f"Input {name!r} of datatype BYTES takes base64 texts in JSON, "
            '"..." or {"b64": "..."}; or send binary data.'
        ) from None
    found = [element for entry in decoded for element in (entry if isinstance(entry, list) else [entry])]
    check_elements(name, shape, len(found))
    return tuple(element.b64 if isinstance(element, _Base64) else element for element in found)


def check_elements(name: str, shape: tuple[int, ...], found: int) -> None:
    """Check the number of elements of a BYTES tensor.

    Raises:
        InvalidInferenceRequestError: It is not the shape's.
    """
    if found != math.prod(shape):
        raise InvalidInferenceRequestError(
            f"Input {name!r} of shape {list(shape)} needs {counted(math.prod(shape), 'BYTES element')}; it has {found}."
        )


def pack_elements(elements: Iterable[bytes]) -> bytes:
    """Put the elements of a BYTES tensor one after the other, each behind its length of 4 bytes little-endian."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(_LENGTH_BYTES, "little"), element))


def _nesting(shape: tuple[int, ...]) -> bytes:
    """The brackets and commas of a list of that shape, no dimension being 0."""
    inner = b""
    for size in reversed(shape):
        inner = b"[" + (inner + b",") * (size - 1) + inner + b"]"  # joining a list would take 80 bytes an entry
    return inner


def _numbers(name: str, datatype: str, piece: bytes) -> list[Any]:
    """The numbers of a piece of a list, which ends behind one of its commas or with the list."""
    text = piece.translate(_BRACKETS_TO_SPACES).removesuffix(b",")
    try:
        numbers: list[Any] = _NUMBERS[datatype].decode(b"[" + text + b"]")
    except (msgspec.DecodeError, RecursionError):
        raise _not_numbers(name, datatype) from None
    return numbers


def _not_numbers(name: str, datatype: str) -> InvalidInferenceRequestError:
    limits = ", whole numbers from 0 to 255" if datatype == "UINT8" else ""
    return InvalidInferenceRequestError(f"The data of input {name!r} must be {datatype} values{limits}.")
