"""The JSON of an infer request, taken apart without reading the tensor in it.

A JSON document can take thirty times its text as Python objects. So a document is first only cut: into texts that are
bounded and then read as usual, and into the one that holds data and may be long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import msgspec

from tessera.app.errors import InvalidInferenceRequestError
from tessera.app.oip.wire.interface import Interface

_MOST_TEXT = 64 * 1024  # bytes of everything that is not data, each

_ABSENT = msgspec.Raw()  # no JSON value is an empty text


class _Document(msgspec.Struct):
    id: msgspec.Raw = _ABSENT
    parameters: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT
    outputs: msgspec.Raw = _ABSENT


class _Input(msgspec.Struct):
    name: msgspec.Raw = _ABSENT
    datatype: msgspec.Raw = _ABSENT
    shape: msgspec.Raw = _ABSENT
    parameters: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT


_DOCUMENT = msgspec.json.Decoder(_Document)
_INPUTS = msgspec.json.Decoder(tuple[_Input])


class Envelope(NamedTuple):
    """An infer request without its data.

    Attributes:
        document: Its keys `id`, `parameters` and `outputs`, where it has them.
        entry: The keys of its input but for `data`.
        data: The JSON text of the input's data; None where it has none.
    """

    document: Mapping[str, Any]
    entry: Mapping[str, Any]
    data: memoryview | None


def open_envelope(text: memoryview, interface: Interface) -> Envelope:
    """Take a request's JSON apart.

    Raises:
        InvalidInferenceRequestError: It is not JSON, not an object, something else than data is long beyond measure, or
            there are not as many inputs as the model has.
    """
    try:
        document = _DOCUMENT.decode(text)
    except msgspec.ValidationError:
        raise InvalidInferenceRequestError("The request must be a JSON object.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unreadable(str(error)) from None
    inputs = memoryview(document.inputs)
    try:
        (entry,) = _INPUTS.decode(inputs)
    except (msgspec.DecodeError, RecursionError) as error:
        _refuse_inputs(inputs, interface, str(error))
    data = memoryview(entry.data)
    return Envelope(
        _small(document, "id", "parameters", "outputs"),
        _small(entry, "name", "datatype", "shape", "parameters"),
        data if len(data) else None,
    )


def parse_json(text: bytes) -> object:
    """Parse a short JSON text.

    Raises:
        InvalidInferenceRequestError: It is not JSON in UTF-8, or nested beyond measure.
    """
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise _unreadable(reason) from None


def _small(struct: msgspec.Struct, *keys: str) -> dict[str, Any]:
    found = {}
    for key in keys:
        text = memoryview(getattr(struct, key))
        if not len(text):
            continue
        if len(text) > _MOST_TEXT:
            raise InvalidInferenceRequestError(
                f"The request's {key} takes {len(text)} bytes of JSON; at most {_MOST_TEXT} are read."
            )
        found[key] = parse_json(bytes(text))
    return found


def _refuse_inputs(inputs: memoryview, interface: Interface, reason: str) -> NoReturn:
    """Say what is wrong with something that is not a list of one object."""
    start = bytes(inputs[:64]).translate(None, b" \t\r\n")
    if not start.startswith(b"["):
        raise InvalidInferenceRequestError("The request's inputs must be a list.")
    if "length" in reason:
        interface.check_one_input(0 if start.startswith(b"[]") else 2)
    raise InvalidInferenceRequestError("Each of inputs must be a JSON object.")


def _unreadable(reason: str) -> InvalidInferenceRequestError:
    return InvalidInferenceRequestError(f"The request's JSON cannot be read: {reason[:120]}.")
