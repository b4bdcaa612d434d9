"""The form in which every network is served: any number of images of one size in, logits out.

Exporters write down what they traced: a batch of one in the input's shape and in the target of a Reshape, or an image
size that stays open. The file in a model folder is left as it is; the graphs that are built from it have this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from tessera.engine.errors import ModelError, UnsupportedModelError
from tessera.engine.graph.ir import Shape
from tessera.engine.graph.protos import insert_constants, unused_name
from tessera.engine.graph.reader import check_model, convert_model, read_constants
from tessera.engine.graph.tensors import type_of
from tessera.models.logits import Normaliser, check_logits, expose_logits
from tessera.models.opaque_form import to_opaque_form
from tessera.models.preprocessing.image_size import Size, of_sides, sides, size_text
from tessera.wording import counted

_DEFAULT_SIZE = 224
_BATCH = "N"


@dataclass(frozen=True)
class ServingForm:
    """What a network in this form takes and gives.

    Attributes:
        size: height and width of an image in pixels.
        classes: number of its classes.
    """

    size: Size
    classes: int


def to_serving_form(model: ModelProto, size: Size | None = None) -> ServingForm:
    """Bring an ONNX model into the form in which it is served, in place.

    Args:
        model: the model, complete in itself.
        size: height and width of its images in pixels; None for what it says itself, or 224 where it leaves them open.

    Raises:
        ModelError: it contradicts ONNX, is no classifier of images of that size, or has several results; or neither our
            reader nor ONNX Runtime takes it.
    """
    check_model(model)
    image = _image(model)
    size = _bind_size(image, size)
    removed = expose_logits(model)
    _require_one_output(model, image.name)
    try:
        shape = _to_known_form(model, image, removed)
    except UnsupportedModelError as obstacle:
        shape = to_opaque_form(model, image, removed, obstacle)
    if len(shape) != 2 or shape[1] is None:
        raise ModelError(f"It gives {_layout(shape)}, not one result [N, classes]; it is no image classifier.")
    _declare_result(model, shape[1])
    return ServingForm(size, shape[1])


def _to_known_form(model: ModelProto, image: ValueInfoProto, removed: list[Normaliser]) -> Shape:
    """Leave the batch open by what the reader knows of the graph; returns the shape of its result.

    The model is as it was where the reader does not know it.

    Raises:
        ModelError: it contradicts itself or ONNX, or has no logits.
        UnsupportedModelError: the reader does not know it.
    """
    batch = image.type.tensor_type.shape.dim[0]
    given = batch.SerializeToString()
    try:
        _fix_traced_batch(model, image)
        graph = convert_model(model)
    except UnsupportedModelError:
        batch.ParseFromString(given)
        raise
    check_logits(graph, removed)
    _write_targets(model, {node.output: node.attrs["shape"] for node in graph.nodes if node.op == "Reshape"})
    batch.dim_param = _BATCH
    return graph.values[graph.outputs[0]].shape


def _image(model: ModelProto) -> ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(f"It has {counted(len(inputs), 'input')} ({names}), not one image; it is no image classifier.")
    return inputs[0]


def _bind_size(image: ValueInfoProto, size: Size | None) -> Size:
    """Write the size of images into the input's shape; returns it."""
    tensor = image.type.tensor_type
    # Some exporters write 0 or -1 for a size that is open.
    shape = tuple(int(length.dim_value) if length.dim_value > 0 else None for length in tensor.shape.dim)
    if len(shape) != 4 or shape[1] not in (3, None):
        channels_last = len(shape) == 4 and shape[3] == 3
        hint = " Export it with channels first (tf2onnx: --inputs-as-nchw)." if channels_last else ""
        raise ModelError(
            f"It takes {_layout(shape)}, not images [N, 3, height, width]; it is no image classifier.{hint}"
        )
    kind = type_of(tensor.elem_type, f"Input '{image.name}'")
    if kind != np.float32:
        raise ModelError(f"It takes {kind} images; float32 was expected.")
    high, wide = shape[2:]
    found = sides(size) if size is not None else (high or wide or _DEFAULT_SIZE, wide or high or _DEFAULT_SIZE)
    if high not in (None, found[0]) or wide not in (None, found[1]):
        fixed = f"{high or 'any'} x {wide or 'any'}"
        raise ModelError(
            f"It takes images of {fixed} pixels, not {size_text(of_sides(*found))}: its file fixes that. "
            "Export it with a dynamic height and width to serve it at other sizes."
        )
    for axis, length in enumerate((3, *found), start=1):
        tensor.shape.dim[axis].dim_value = length
    return of_sides(*found)


def _layout(shape: Shape) -> str:
    return f"[{', '.join('N' if not axis else str(size or '?') for axis, size in enumerate(shape))}]"


def _require_one_output(model: ModelProto, image: str) -> None:
    names = [value.name for value in model.graph.output]
    if len(names) != 1:
        raise ModelError(
            f"It has {counted(len(names), 'output')} ({', '.join(names)}); one result [N, classes] is expected. Keep "
            f'the one with the scores: python -c \'import onnx; onnx.utils.extract_model("FILE.onnx", "ONE.onnx", '
            f'["{image}"], ["{names[0]}"])\''
        )


def _fix_traced_batch(model: ModelProto, image: ValueInfoProto) -> None:
    """Give an open batch the size that a Reshape spells out, which is the one that the exporter traced.

    Only then does the reader see that this number means the batch.
    """
    batch = image.type.tensor_type.shape.dim[0]
    traced = {target[0] for target in _targets(model).values() if len(target) > 1 and target[0] > 0}
    if batch.dim_value < 1 and len(traced) == 1:
        batch.dim_value = traced.pop()


def _targets(model: ModelProto) -> dict[str, list[int]]:
    """By output, the constant target of every Reshape of a value that is not constant itself."""
    constants = read_constants(model)
    return {
        node.output[0]: constants[node.input[1]].reshape(-1).tolist()
        for node in model.graph.node
        if node.op_type == "Reshape" and node.input[0] not in constants and node.input[1] in constants
    }


def _write_targets(model: ModelProto, resolved: Mapping[str, Sequence[int]]) -> None:
    """Write down what the reader made of each Reshape: 0, a copy of the batch, for the batch that was traced."""
    targets, written = _targets(model), {}
    for node in model.graph.node:
        target, found = targets.get(node.output[0]), resolved.get(node.output[0])
        if target is not None and found is not None and target != list(found):
            node.input[1] = unused_name(model, f"{node.output[0]}.target")
            written[node.input[1]] = np.array(found, np.int64)
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    insert_constants(model, written)


def _declare_result(model: ModelProto, classes: int) -> None:
    output = helper.make_tensor_value_info(model.graph.output[0].name, TensorProto.FLOAT, [_BATCH, classes])
    model.graph.output[0].CopyFrom(output)
    # What is said of values between still has the traced batch.
    del model.graph.value_info[:]
