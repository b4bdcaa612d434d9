"""From the tensors of a request to what the service runs, and from logits to the outputs that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera.app.errors import InvalidInferenceRequestError
from tessera.app.oip.wire.request import InputTensor, RequestedOutput
from tessera.app.oip.wire.response import OutputTensor, classify_output
from tessera.app.protocol.multipart import ImageFile

# No normalised picture comes near it, and no network in use overflows fp32 from it; beyond it, sums may become infinite
# and the answer meaningless. It is the largest value of half precision.
_LARGEST = 65504.0


def images_of(tensor: InputTensor) -> list[ImageFile] | np.ndarray:
    """Take the images out of a request's tensor.

    Returns:
        The files of a BYTES tensor; or the tensor itself, float32 [N, 3, H, W] or uint8 [N, H, W, 3].

    Raises:
        InvalidInferenceRequestError: Values out of range.
    """
    if tensor.values is None:
        return [ImageFile(None, element) for element in tensor.elements]
    return _checked(tensor.name, tensor.values)


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


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        # Two passes without a temporary array; NaN makes both comparisons false.
        if not (values.max() <= _LARGEST and values.min() >= -_LARGEST):
            raise InvalidInferenceRequestError(
                f"Input {name!r} has values that are not finite, or outside -{_LARGEST:.0f} to {_LARGEST:.0f}."
            )
        return values.astype(np.float32, copy=False)
    return values
