"""The body of an infer request: JSON, or JSON with binary tensors behind it, or one bare tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from tessera.app.errors import InvalidInferenceRequestError, UnsupportedOperationError, quoted
from tessera.app.oip.wire import datatypes
from tessera.app.oip.wire.datatypes import BYTES, Proceed
from tessera.app.oip.wire.envelope import Envelope, open_envelope
from tessera.app.oip.wire.interface import Interface
from tessera.wording import counted

_MAX_RANK = 8
_MAX_DIMENSION = 2**31 - 1
_SHARED_MEMORY = "shared_memory_region"
_BINARY_SIZE = "binary_data_size"
_RESERVED_PREFIX = "triton_"
# Asks for an empty answer after the last one, of models that cannot tell which is the last. Ours answers once, and says
# of that answer that it is the last (`triton_final_response`), so there is nothing to add.
_FINAL_RESPONSE = "triton_enable_empty_final_response"


@dataclass(frozen=True)
class InputTensor:
    """One input with its payload.

    Attributes:
        name: The input's name.
        datatype: "FP32", "UINT8" or "BYTES".
        shape: As declared by the client.
        values: The numbers, of `shape`; None for BYTES.
        elements: The elements of a BYTES tensor in row-major order.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: np.ndarray | None = None
    elements: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class RequestedOutput:
    """One output that the client asks for.

    Attributes:
        name: The output's name.
        binary: Whether it travels as binary data.
        classes: Above 0, the classification extension: this many best classes instead of the tensor.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """A parsed request.

    Attributes:
        id: The client's own, to be echoed; "" when it gave none.
        input: The tensor; it is what the model takes.
        outputs: In the order asked for; None means all.
        binary_outputs: Whether outputs that are not named travel as binary data.
        priority: 1 is the highest; 0 is the default.
        timeout_seconds: From the `timeout` parameter, or None.
    """

    id: str
    input: InputTensor
    outputs: tuple[RequestedOutput, ...] | None
    binary_outputs: bool
    priority: int = 0
    timeout_seconds: float | None = None


def parse_request(
    body: bytes, header_length: int | None, interface: Interface, proceed: Proceed = lambda: None
) -> InferRequest:
    """Parse a whole infer body, after decompression.

    What is declared is held against the model before anything is made of the data, so a request takes no more memory
    than a few times its bytes, and no more time than is linear in them.

    Args:
        body: JSON, then the binary data of the input, if it has some.
        header_length: Bytes of JSON at the start; None means all of it.
        interface: What the model takes.
        proceed: Called between the pieces of a long text of numbers; what it raises ends the work.

    Raises:
        InvalidInferenceRequestError: It is not what the protocol says, or what the model takes; the message names the
            input or key.
        TooManyImagesError: More images than one request may have.
        UnsupportedOperationError: It refers to shared memory.
    """
    length = len(body) if header_length is None else header_length
    if not 0 < length <= len(body):
        raise InvalidInferenceRequestError(
            f"Inference-Header-Content-Length is {length}, and the body has {counted(len(body), 'byte')}."
        )
    envelope = open_envelope(memoryview(body)[:length], interface)
    document = envelope.document
    parameters = _parameters(document, "The request")
    binary_outputs = _flag(parameters, "binary_data_output", default=False)
    outputs = None
    if document.get("outputs") is not None:
        entries = [_object(entry, "Each of outputs") for entry in _list(document, "outputs")]
        interface.check_outputs([_text(entry, "name") for entry in entries])
        outputs = tuple(_parse_output(entry, binary_outputs) for entry in entries) or None
    return InferRequest(
        id=_text(document, "id", default=""),
        priority=check_priority(parameters.get("priority", 0)),
        timeout_seconds=check_timeout(parameters.get("timeout")),
        outputs=outputs,
        binary_outputs=binary_outputs,
        input=_parse_input(envelope, memoryview(body)[length:], interface, proceed),
    )


def parse_raw_request(body: bytes, interface: Interface) -> InferRequest:
    """Parse the body of a raw binary request (header length 0): the data of the only input, for a batch of one.

    A body with exactly the bytes of one FP32 tensor is that tensor; any other is the one element of a BYTES tensor. An
    image file that happens to have that size is refused as a tensor, because its values are out of range: never read
    as a wrong picture.

    Args:
        body: The data.
        interface: What the model takes.
    """
    name = interface.input_name
    if len(body) == interface.raw_bytes:
        shape = (1, *interface.row_shapes["FP32"])
        tensor = InputTensor(name, "FP32", shape, datatypes.tensor_from_binary(name, "FP32", shape, memoryview(body)))
    else:
        tensor = InputTensor(name, BYTES, (1,), elements=(body,))
    return InferRequest(id="", input=tensor, outputs=None, binary_outputs=True)


def check_priority(value: object) -> int:
    """Check the `priority` parameter.

    Raises:
        InvalidInferenceRequestError: It is not a whole number from 0 on.
    """
    if not _is_whole(value) or not 0 <= value < 2**32:
        raise InvalidInferenceRequestError("The parameter priority must be a whole number, 0 for the default.")
    return value


def check_timeout(value: object) -> float | None:
    """Turn the `timeout` parameter, microseconds, into seconds; None and 0 mean that there is none.

    Raises:
        InvalidInferenceRequestError: It is not a whole number from 0 on.
    """
    if value is None:
        return None
    if not _is_whole(value) or not 0 <= value < 2**63:
        raise InvalidInferenceRequestError("The parameter timeout must be a whole number of microseconds.")
    return value / 1e6 if value else None


def check_classes(name: str, value: object) -> int:
    """Check the `classification` parameter of an output.

    Raises:
        InvalidInferenceRequestError: It is not a whole number above 0.
    """
    if not _is_whole(value) or value < 1:
        raise InvalidInferenceRequestError(
            f"Output {name!r}: the parameter classification must be a whole number of classes above 0."
        )
    return value


def check_shape(name: str, value: object) -> tuple[int, ...]:
    """Check the shape of an input.

    Raises:
        InvalidInferenceRequestError: It is not a list of whole numbers from 0 on, or has too many.
    """
    if not isinstance(value, (list, tuple)) or len(value) > _MAX_RANK:
        raise InvalidInferenceRequestError(
            f"Input {quoted(name)} needs a shape: a list of at most {_MAX_RANK} numbers."
        )
    for dimension in value:
        if not _is_whole(dimension) or not 0 <= dimension <= _MAX_DIMENSION:
            raise InvalidInferenceRequestError(f"The shape of input {quoted(name)} must hold whole numbers from 0 on.")
    return tuple(value)


def _parse_input(envelope: Envelope, rest: memoryview, interface: Interface, proceed: Proceed) -> InputTensor:
    """Read the input; `rest` is the binary data behind the JSON."""
    entry, text = envelope.entry, envelope.data
    name = _text(entry, "name")
    datatype = _text(entry, "datatype")
    shape = check_shape(name, entry.get("shape"))
    parameters = _parameters(entry, f"Input {quoted(name)}")
    if _SHARED_MEMORY in parameters:
        raise UnsupportedOperationError(f"Input {quoted(name)}: shared memory is not supported; send the data itself.")
    interface.check_input(name, datatype, shape)
    if (text is not None) == (_BINARY_SIZE in parameters):
        raise InvalidInferenceRequestError(
            f"Input {name!r} needs exactly one of data and the parameter {_BINARY_SIZE}."
        )
    if text is None:
        return _input_of_binary(name, datatype, shape, rest, parameters[_BINARY_SIZE])
    if len(rest):
        raise _left_over(len(rest))
    if datatype == BYTES:
        return InputTensor(name, datatype, shape, elements=datatypes.elements_from_json(name, shape, text))
    values = datatypes.tensor_from_json(name, datatype, shape, text, proceed)
    return InputTensor(name, datatype, shape, values)


def _input_of_binary(
    name: str, datatype: str, shape: tuple[int, ...], rest: memoryview, declared: object
) -> InputTensor:
    sizes = _binary_sizes(name, datatype, shape, declared)
    total = sum(sizes)
    if total > len(rest):
        raise InvalidInferenceRequestError(
            f"Input {name!r} declares {counted(total, 'byte')} of binary data; the body has {len(rest)} left."
        )
    if total < len(rest):
        raise _left_over(len(rest) - total)
    if datatype != BYTES:
        return InputTensor(name, datatype, shape, datatypes.tensor_from_binary(name, datatype, shape, rest))
    if isinstance(declared, str):
        elements = datatypes.elements_from_sizes(name, shape, rest, sizes)
    else:
        elements = datatypes.elements_from_binary(name, shape, rest)
    return InputTensor(name, datatype, shape, elements=elements)


def _left_over(count: int) -> InvalidInferenceRequestError:
    return InvalidInferenceRequestError(f"The body has {counted(count, 'byte')} beyond those of its inputs.")


def _binary_sizes(name: str, datatype: str, shape: tuple[int, ...], value: object) -> list[int]:
    """The sizes that `binary_data_size` declares: one number, or for BYTES also a text such as "812,4711"."""
    if isinstance(value, str) and datatype == BYTES:
        datatypes.check_elements(name, shape, value.count(",") + 1)
        parts = value.split(",")
        if all(part.isascii() and part.isdigit() and len(part) < 12 for part in parts):
            return [int(part) for part in parts]
    elif _is_whole(value) and value >= 0:
        return [value]
    raise InvalidInferenceRequestError(f"Input {name!r}: {_BINARY_SIZE} must be a whole number of bytes.")


def _parse_output(entry: Mapping[str, Any], binary_by_default: bool) -> RequestedOutput:
    name = _text(entry, "name")  # the model's own by now
    parameters = _parameters(entry, f"Output {name!r}")
    if _SHARED_MEMORY in parameters:
        raise UnsupportedOperationError(f"Output {name!r}: shared memory is not supported; take the data itself.")
    binary = _flag(parameters, "binary_data", default=binary_by_default)
    classes = check_classes(name, parameters["classification"]) if "classification" in parameters else 0
    return RequestedOutput(name, binary, classes)


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInferenceRequestError(f"{what} must be a JSON object.")
    return value


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidInferenceRequestError(f"The request's {key} must be a list.")
    return value


def _text(entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or (not value and default is None):
        raise InvalidInferenceRequestError(f"The request's {key} must be a text.")
    return value


def check_parameters(parameters: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Check a map of parameters; `what` names their owner in messages.

    Raises:
        InvalidInferenceRequestError: A reserved name, or a value that is no text, number or boolean.
    """
    for key, value in parameters.items():
        if key == _FINAL_RESPONSE:
            _flag(parameters, key, default=False)
        elif key.startswith(_RESERVED_PREFIX):
            raise InvalidInferenceRequestError(f"{what}: parameters that begin with {_RESERVED_PREFIX} are reserved.")
        if not isinstance(value, (str, int, float, bool)):
            raise InvalidInferenceRequestError(
                f"{what}: the parameter {quoted(key, 40)} must be a text, number or boolean."
            )
    return parameters


def _parameters(entry: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    return check_parameters(_object(entry.get("parameters") or {}, f"{what}'s parameters"), what)


def _flag(parameters: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InvalidInferenceRequestError(f"The parameter {key} must be true or false.")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
