"""From the tensors of a request to what the service runs, and from logits to the outputs that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.errors import InvalidInferenceRequestError, TooManyImagesError
from app.protocol.multipart import Upload
from app.protocol.oip.datatypes import BYTES
from app.protocol.oip.request import InferRequest, InputTensor, RequestedOutput, check_unique
from app.protocol.oip.response import OutputTensor, classify_output

# No normalised picture comes near it, and no network in use overflows fp32 from it; beyond it, sums may become infinite
# and the answer meaningless. It is the largest value of half precision.
_LARGEST = 65504.0


@dataclass(frozen=True)
class Interface:
    """The one input and the one output of a model.

    Attributes:
        input_name: Name of the input.
        output_name: Name of the output.
        image: Height and width of a picture.
        labels: Names of the classes.
        max_images: Most images in one request.
    """

    input_name: str
    output_name: str
    image: tuple[int, int]
    labels: Sequence[str]
    max_images: int


def images_of(request: InferRequest, interface: Interface) -> list[Upload] | np.ndarray:
    """Take the images out of a request.

    Returns:
        The files of a BYTES tensor [N] or [N, 1]; or the tensor itself, float32 [N, 3, H, W] or uint8 [N, H, W, 3].

    Raises:
        InvalidInferenceRequestError: Another input, datatype or shape than the model takes, or values out of range.
        TooManyImagesError: More images than one request may have.
    """
    check_unique("Input", [tensor.name for tensor in request.inputs])
    for tensor in request.inputs:
        if tensor.name != interface.input_name:
            raise InvalidInferenceRequestError(
                f"The model has no input {tensor.name[:80]!r}; its only input is {interface.input_name!r}."
            )
    (tensor,) = request.inputs
    height, width = interface.image
    shapes = {"FP32": (3, height, width), "UINT8": (height, width, 3)}
    if tensor.datatype != BYTES and tensor.datatype not in shapes:
        raise InvalidInferenceRequestError(
            f"Input {tensor.name!r} has datatype {tensor.datatype}; it takes FP32 [N,3,{height},{width}], "
            f"UINT8 [N,{height},{width},3] or BYTES [N]."
        )
    count = tensor.shape[0] if tensor.shape else 0
    expected = shapes.get(tensor.datatype, ())
    fits = tensor.shape[1:] == expected or (tensor.datatype == BYTES and tensor.shape[1:] == (1,))
    if not count or not fits:
        raise InvalidInferenceRequestError(
            f"Input {tensor.name!r} of datatype {tensor.datatype} has shape {list(tensor.shape)}; expected is "
            f"[{', '.join(['N', *map(str, expected)])}] with N at least 1."
        )
    if count > interface.max_images:
        raise TooManyImagesError(f"The request has {count} images; the limit is {interface.max_images}.")
    return _uploads(tensor) if tensor.values is None else _checked(tensor.name, tensor.values)


def outputs_of(request: InferRequest, interface: Interface) -> tuple[RequestedOutput, ...]:
    """What the answer must hold.

    Raises:
        InvalidInferenceRequestError: An output that the model does not have, or one asked for twice.
    """
    if request.outputs is None:
        return (RequestedOutput(interface.output_name, request.binary_outputs),)
    check_unique("Output", [output.name for output in request.outputs])
    for output in request.outputs:
        if output.name != interface.output_name:
            raise InvalidInferenceRequestError(
                f"The model has no output {output.name[:80]!r}; its only output is {interface.output_name!r}."
            )
    return request.outputs


def build_outputs(
    wanted: Sequence[RequestedOutput], logits: np.ndarray, labels: Sequence[str]
) -> list[tuple[OutputTensor, bool]]:
    """Make the outputs of float32 logits [N, classes]; each with whether it travels as binary data."""
    return [
        (
            classify_output(output.name, logits, output.classes, labels)
            if output.classes
            else OutputTensor(output.name, logits.shape, logits),
            output.binary,
        )
        for output in wanted
    ]


def _uploads(tensor: InputTensor) -> list[Upload]:
    return [Upload(None, bytes(element)) for element in tensor.elements]


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        # Two passes without a temporary array; NaN makes both comparisons false.
        if not (values.max() <= _LARGEST and values.min() >= -_LARGEST):
            raise InvalidInferenceRequestError(
                f"Input {name!r} has values that are not finite, or outside -{_LARGEST:.0f} to {_LARGEST:.0f}."
            )
        return values.astype(np.float32, copy=False)
    return values
