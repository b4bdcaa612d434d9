"""Infer messages to requests, and outputs to messages: what `app/oip/wire` does for HTTP bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tessera.app.errors import InvalidInferenceRequestError, UnsupportedOperationError, quoted
from tessera.app.oip.wire import datatypes
from tessera.app.oip.wire.datatypes import BYTES, Proceed
from tessera.app.oip.wire.interface import Interface
from tessera.app.oip.wire.request import (
    InferRequest,
    InputTensor,
    RequestedOutput,
    check_classes,
    check_parameters,
    check_priority,
    check_shape,
    check_timeout,
)
from tessera.app.oip.wire.response import OutputTensor
from tessera.wording import counted

# The repeated field of InferTensorContents that holds a datatype.
_CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", BYTES: "bytes_contents"}


def parse_infer(message: Any, interface: Interface, proceed: Proceed = lambda: None) -> InferRequest:
    """Turn a ModelInferRequest into a request; see `tessera.app.oip.wire.request.parse_request`.

    Raises:
        InvalidInferenceRequestError: It is not what the protocol says, or what the model takes; the message names the
            input or key.
        TooManyImagesError: More images than one request may have.
        UnsupportedOperationError: It refers to shared memory.
    """
    interface.check_one_input(len(message.inputs))
    raw = message.raw_input_contents
    if len(raw) > 1:
        raise InvalidInferenceRequestError(
            f"raw_input_contents has {counted(len(raw), 'entry', 'entries')} for one input; give one, or none."
        )
    interface.check_outputs([output.name for output in message.outputs])
    parameters = read_parameters(message.parameters, "The request")
    return InferRequest(
        id=message.id,
        priority=check_priority(parameters.get("priority", 0)),
        timeout_seconds=check_timeout(parameters.get("timeout")),
        outputs=tuple(_parse_output(entry) for entry in message.outputs) or None,
        binary_outputs=True,
        input=_parse_input(message.inputs[0], raw, interface, proceed),
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


def _parse_input(entry: Any, raw: Any, interface: Interface, proceed: Proceed) -> InputTensor:
    name, datatype = entry.name, entry.datatype
    shape = check_shape(name, list(entry.shape))
    what = f"Input {quoted(name)}"
    _refuse_shared_memory(read_parameters(entry.parameters, what), what)
    interface.check_input(name, datatype, shape)
    if raw and entry.HasField("contents"):
        raise InvalidInferenceRequestError(f"Input {name!r} has both contents and raw_input_contents.")
    if raw and datatype == BYTES:
        elements = datatypes.elements_from_binary(name, shape, memoryview(raw[0]))
        return InputTensor(name, datatype, shape, elements=elements)
    if raw:
        return InputTensor(
            name, datatype, shape, datatypes.tensor_from_binary(name, datatype, shape, memoryview(raw[0]))
        )
    contents = getattr(entry.contents, _CONTENTS[datatype])
    if datatype == BYTES:
        datatypes.check_elements(name, shape, len(contents))
        return InputTensor(name, datatype, shape, elements=tuple(contents))
    return InputTensor(name, datatype, shape, datatypes.tensor_from_repeated(name, datatype, shape, contents, proceed))


def _parse_output(entry: Any) -> RequestedOutput:
    parameters = read_parameters(entry.parameters, f"Output {entry.name!r}")
    _refuse_shared_memory(parameters, f"Output {entry.name!r}")
    classes = check_classes(entry.name, parameters["classification"]) if "classification" in parameters else 0
    return RequestedOutput(entry.name, binary=True, classes=classes)


def _refuse_shared_memory(parameters: Mapping[str, Any], what: str) -> None:
    if "shared_memory_region" in parameters:
        raise UnsupportedOperationError(f"{what}: shared memory is not supported; send and take the data itself.")
