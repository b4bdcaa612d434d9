"""Files for images of several sizes: they leave height and width open, and name the sizes that they are meant for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tessera.engine.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto

SIZES_KEY = "tessera.sizes"

HeightWidth = tuple[int, int]


def sizes_of(metadata: Mapping[str, str]) -> tuple[HeightWidth, ...]:
    """Heights and widths that a file is meant for, the usual one first; empty where it does not say.

    Raises:
        ModelError: they are no list of pairs of lengths.
    """
    try:
        told = json.loads(metadata.get(SIZES_KEY, "[]"))
        sizes = tuple((height, width) for height, width in told)
    except (TypeError, ValueError) as error:
        raise ModelError(f"Metadata {SIZES_KEY} must be a JSON list of [height, width].") from error
    if not all(type(length) is int and length > 0 for size in sizes for length in size):
        raise ModelError(f"Metadata {SIZES_KEY} must be a JSON list of [height, width], each in pixels.")
    return sizes


def open_sizes(model: ModelProto, sizes: Sequence[HeightWidth]) -> None:
    """Leave height and width of a model's image open, and name the sizes that it is meant for, in place."""
    constants = {tensor.name for tensor in model.graph.initializer}
    image = next(value for value in model.graph.input if value.name not in constants)
    for axis, name in ((2, "height"), (3, "width")):
        image.type.tensor_type.shape.dim[axis].dim_param = name
    kept = [entry for entry in model.metadata_props if entry.key != SIZES_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=SIZES_KEY, value=json.dumps([list(size) for size in sizes]))
