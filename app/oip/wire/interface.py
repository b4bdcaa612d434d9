"""The one input and the one output of a model, and what a request must say of them before its data are touched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tessera.app.errors import InvalidInferenceRequestError, TooManyImagesError, quoted
from tessera.app.oip.wire.datatypes import BYTES
from tessera.wording import counted


@dataclass(frozen=True)
class Interface:
    """The one input and the one output of a model.

    Attributes:
        input_name: Name of the input.
        output_name: Name of the output.
        image: Height and width of a picture.
        labels: Names of the classes.
        max_images: Most images in one request.
        others: Heights and widths of further pictures that it takes.
    """

    input_name: str
    output_name: str
    image: tuple[int, int]
    labels: Sequence[str]
    max_images: int
    others: tuple[tuple[int, int], ...] = ()

    @property
    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one picture of the usual size by the datatype that it travels in."""
        return _shapes(*self.image)

    @property
    def raw_bytes(self) -> int:
        """Bytes of an FP32 tensor of one picture."""
        return 4 * math.prod(self.row_shapes["FP32"])

    def check_input(self, name: str, datatype: str, shape: tuple[int, ...]) -> None:
        """Check what a request declares of its input.

        Args:
            name: The input's name.
            datatype: Its datatype.
            shape: Its shape: [N, 3, H, W] of FP32, [N, H, W, 3] of UINT8, [N] or [N, 1] of BYTES.

        Raises:
            InvalidInferenceRequestError: Another input, datatype or shape than the model takes.
            TooManyImagesError: More images than one request may have.
        """
        if name != self.input_name:
            raise InvalidInferenceRequestError(
                f"The model has no input {quoted(name)}; its only input is {self.input_name!r}."
            )
        row = self.row_shapes.get(datatype)
        if row is None:
            height, width = self.image
            raise InvalidInferenceRequestError(
                f"Input {name!r} has datatype {quoted(datatype, 20)}; it takes FP32 [N,3,{height},{width}], "
                f"UINT8 [N,{height},{width},3] or BYTES [N]."
            )
        count = shape[0] if shape else 0
        rows = dict.fromkeys([row, *(_shapes(*size)[datatype] for size in self.others)])
        if not count or (shape[1:] not in rows and (datatype != BYTES or shape[1:] != (1,))):
            expected = " or ".join(f"[{', '.join(['N', *map(str, known)])}]" for known in rows)
            raise InvalidInferenceRequestError(
                f"Input {name!r} of datatype {datatype} has shape {list(shape)}; expected is {expected} "
                "with N at least 1."
            )
        if count > self.max_images:
            raise TooManyImagesError(f"The request has {count} images; the limit is {self.max_images}.")

    def check_one_input(self, count: int) -> None:
        """Check how many inputs a request has.

        Raises:
            InvalidInferenceRequestError: Not one.
        """
        if count == 0:
            raise InvalidInferenceRequestError(f"The request has no inputs; the model has one, {self.input_name!r}.")
        if count > 1:
            raise InvalidInferenceRequestError(
                f"The request has more than one input; the model has one, {self.input_name!r}."
            )

    def check_outputs(self, names: Sequence[str]) -> None:
        """Check the names of the outputs that a request asks for; none asks for all.

        Raises:
            InvalidInferenceRequestError: An output that the model does not have, or more than it has.
        """
        if len(names) > 1:
            raise InvalidInferenceRequestError(
                f"The request asks for {counted(len(names), 'output')}; the model has one, {self.output_name!r}."
            )
        for name in names:
            if name != self.output_name:
                raise InvalidInferenceRequestError(
                    f"The model has no output {quoted(name)}; its only output is {self.output_name!r}."
                )


def _shapes(height: int, width: int) -> dict[str, tuple[int, ...]]:
    return {"FP32": (3, height, width), "UINT8": (height, width, 3), BYTES: ()}
