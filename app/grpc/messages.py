"""Infer messages to requests, and outputs to messages: what `app/protocol/oip` does for HTTP bodies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import InvalidInferenceRequestError, UnsupportedOperationError
from app.protocol.oip import datatypes
from app.protocol.oip.request import (
    InferRequest,
    InputTensor,
    RequestedOutput,
    check_classes,
    check_parameters,
    check_priority,
    check_shape,
    check_timeout,
)
from app.protocol.oip.response import OutputTensor

# The repeated field of InferTensorContents that holds a datatype.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def parse_infer(message: Any) -> InferRequest:
    """Turn a ModelInferRequest into a request.

    Raises:
        InvalidInferenceRequestError: It is not what the protocol says; the message names the input or key.
        UnsupportedOperationError: It refers to shared memory.
    """
    raw = message.raw_input_contents
    if not message.inputs:
        raise InvalidInferenceRequestError("The request has no inputs.")
    if raw and len(raw) != len(message.inputs):
        raise InvalidInferenceRequestError(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs; give all of them, or none."
        )
    parameters = read_parameters(message.parameters, "The request")
    return InferRequest(
        id=message.id,
        inputs=tuple(
            _parse_input(entry, memoryview(raw[index]) if raw else None) for index, entry in enumerate(message.inputs)
        ),
        outputs=tuple(_parse_output(entry) for entry in message.outputs) or None,
        binary_outputs=True,
        priority=check_priority(parameters.get("priority", 0)),
        timeout_seconds=check_timeout(parameters.get("timeout")),
    )


def fill_response(
    message: Any, model: str, version: str, request_id: str, outputs: Sequence[tuple[OutputTensor, bool]]
) -> None:
    """Write outputs into a ModelInferResponse, their payloads as raw contents."""
    message.model_name, message.model_version, message.id = model, version, request_id
    for tensor, _ in outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(tensor.to_binary())


def read_parameters(entries: Any, what: str) -> Mapping[str, Any]:
    """Turn a map of parameters into plain values; `what` names their owner in messages.

    Raises:
        InvalidInferenceRequestError: One has no value, or a reserved name.
    """
    choices = {key: (entry, entry.WhichOneof("parameter_choice")) for key, entry in entries.items()}
    return check_parameters(
        {key: getattr(entry, choice) if choice else None for key, (entry, choice) in choices.items()}, what
    )


def _parse_input(entry: Any, raw: memoryview | None) -> InputTensor:
    name, datatype = entry.name, entry.datatype
    shape = check_shape(name, list(entry.shape))
    _refuse_shared_memory(read_parameters(entry.parameters, f"Input {name!r}"), f"Input {name!r}")
    if datatype != datatypes.BYTES:
        datatypes.dtype_of(name, datatype)
    if raw is not None:
        if entry.HasField("contents"):
            raise InvalidInferenceRequestError(f"Input {name!r} has both contents and raw_input_contents.")
        if datatype == datatypes.BYTES:
            elements = tuple(datatypes.elements_from_binary(name, shape, raw))
            return InputTensor(name, datatype, shape, elements=elements)
        return InputTensor(name, datatype, shape, datatypes.tensor_from_binary(name, datatype, shape, raw))
    return _parse_contents(name, datatype, shape, entry.contents)


def _parse_contents(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> InputTensor:
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidInferenceRequestError(f"Input {name!r}: {datatype} travels in raw_input_contents only.")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise InvalidInferenceRequestError(
            f"Input {name!r} of datatype {datatype} and shape {list(shape)} has {len(values)} values in {field}."
        )
    if datatype == datatypes.BYTES:
        return InputTensor(name, datatype, shape, elements=tuple(memoryview(element) for element in values))
    return InputTensor(name, datatype, shape, datatypes.tensor_from_json(name, datatype, shape, list(values)))


def _parse_output(entry: Any) -> RequestedOutput:
    parameters = read_parameters(entry.parameters, f"Output {entry.name!r}")
    _refuse_shared_memory(parameters, f"Output {entry.name!r}")
    classes = check_classes(entry.name, parameters["classification"]) if "classification" in parameters else 0
    return RequestedOutput(entry.name, binary=True, classes=classes)


def _refuse_shared_memory(parameters: Mapping[str, Any], what: str) -> None:
    if "shared_memory_region" in parameters:
        raise UnsupportedOperationError(f"{what}: shared memory is not supported; send and take the data itself.")
