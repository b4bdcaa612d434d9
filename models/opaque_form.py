"""The serving form of networks that our reader does not know: found out by running them on ONNX Runtime.

What the reader proves of a graph, that no image's answer depends on its neighbours in a batch, is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, TensorShapeProto, ValueInfoProto, helper, numpy_helper

from tessera.engine.errors import EngineError, ModelError, UnsupportedModelError
from tessera.engine.graph.ir import Graph, Node, Shape, ValueInfo
from tessera.engine.graph.protos import insert_constants, unused_name
from tessera.engine.loading import load
from tessera.engine.quantize.network.sessions import file_in_memory
from tessera.models.logits import Normaliser, check_logits

_BATCH = "N"
_SCORES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
# Images of different contrast: where a batch shares a scale, each one's answer shows it.
_CONTRASTS = (0.3, 1.0, 3.0)
_TOLERANCE = 1e-3  # of the largest score; sums in another order differ by less

Scores = NDArray[np.float32]


def to_opaque_form(
    model: ModelProto, image: ValueInfoProto, removed: list[Normaliser], obstacle: UnsupportedModelError
) -> Shape:
    """Leave the batch of a model open, in place, or fix it at one image where the graph allows no other.

    Args:
        model: one image in, logits out, all sizes but the batch bound.
        image: its input.
        removed: the Softmaxes that were taken off its end.
        obstacle: why the reader does not know it.

    Returns:
        The shape of its result, the batch as None.

    Raises:
        ModelError: ONNX Runtime does not run it either, it is no classifier, or it mixes the images of a batch.
    """
    batch = image.type.tensor_type.shape.dim[0]
    fixed = int(batch.dim_value) if batch.dim_value > 0 else None
    output = model.graph.output[0]
    kind = output.type.tensor_type.elem_type
    if kind not in _SCORES:
        name = TensorProto.DataType.Name(TensorProto.DataType.ValueType(kind)).lower()
        writer = next((node.op_type for node in model.graph.node if output.name in node.output), "no node")
        raise ModelError(f"Its result '{output.name}', of {writer}, is {name}; scores in floating point are expected.")
    # What is said of the result and of values between may have the traced batch.
    output.CopyFrom(helper.make_tensor_value_info(output.name, kind, None))
    del model.graph.value_info[:]
    images = _images(image, fixed or 1)
    try:
        wanted = _answers(model, images, fixed or 1)
    except EngineError as error:
        raise ModelError(f"{obstacle} ONNX Runtime does not run the network either: {error}") from error
    shape: Shape = (None, *wanted.shape[1:])
    check_logits(_outline(model, {name.logits: _shape_of(model, name.logits, images) for name in removed}), removed)
    if len(shape) == 2:
        for _ in _forms(model, batch, fixed or 1):
            if _keeps(model, images, wanted, batch.dim_value == 1):
                break
        else:
            raise ModelError(
                "The images of a batch would influence each other's answers: one image alone gives other scores than "
                "among others. Export the network for inference, with a batch of one image."
            )
    return shape


def _images(image: ValueInfoProto, batch: int) -> NDArray[np.float32]:
    """Whole batches of normalised images, three at least."""
    sizes = [int(size.dim_value) for size in image.type.tensor_type.shape.dim[1:]]
    count = -(-len(_CONTRASTS) // batch) * batch
    noise = np.random.default_rng(0).normal(0, 1, (count, *sizes))
    images: NDArray[np.float32] = (noise * np.resize(_CONTRASTS, (count, 1, 1, 1))).astype(np.float32)
    return images


def _answers(model: ModelProto, images: NDArray[np.float32], batch: int) -> Scores:
    """The scores of images that run `batch` at a time."""
    with file_in_memory(model.SerializeToString()) as path, load(path, backend="onnxruntime") as session:
        scores: Scores = np.concatenate([session.run(images[i : i + batch]) for i in range(0, len(images), batch)])
    return scores


def _shape_of(model: ModelProto, value: str, images: NDArray[np.float32]) -> Shape:
    """The shape of a value between, the batch as None."""
    part = ModelProto()
    part.CopyFrom(model)
    part.graph.output[0].CopyFrom(ValueInfoProto(name=value))
    batch = int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value) or 1
    return (None, *_answers(part, images[:batch], batch).shape[1:])


def _outline(model: ModelProto, shapes: dict[str, Shape]) -> Graph:
    """As much of a graph as the search for logits looks at."""
    nodes = [
        Node(node.op_type, node.name or node.output[0], list(node.input), list(node.output))
        for node in model.graph.node
        if node.output
    ]
    values = {name: ValueInfo(name, shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    return Graph(model.graph.name, nodes, [], [model.graph.output[0].name], {}, values, {}, 0)


def _forms(model: ModelProto, batch: TensorShapeProto.Dimension, traced: int) -> Iterator[None]:
    """Brings the model, in place, into one form after the other, the most useful first."""
    batch.dim_param = _BATCH
    yield
    if _copy_batch(model, traced):
        yield
    batch.dim_value = 1
    yield


def _keeps(model: ModelProto, images: NDArray[np.float32], wanted: Scores, alone: bool) -> bool:
    """Whether this form gives each image the wanted scores, whatever runs beside it."""
    try:
        batches = (1,) if alone else (1, len(images))
        found = [_answers(model, images, batch) for batch in batches]
    except EngineError:
        return False
    most = _TOLERANCE * float(np.abs(wanted).max(initial=0, where=np.isfinite(wanted)))
    return all(np.allclose(scores, wanted, rtol=0, atol=most, equal_nan=True) for scores in found)


def _copy_batch(model: ModelProto, traced: int) -> bool:
    """Let every Reshape whose constant target begins with the traced batch copy the batch; whether there is any."""
    targets = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and attribute.t.data_type == TensorProto.INT64:
                targets[node.output[0]] = attribute.t
    written = {}
    for node in model.graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in targets:
            continue
        target = numpy_helper.to_array(targets[node.input[1]]).reshape(-1)
        if len(target) > 1 and target[0] == traced:
            node.input[1] = unused_name(model, f"{node.output[0]}.target")
            written[node.input[1]] = np.array([0, *target[1:]], np.int64)
    insert_constants(model, written)
    return bool(written)
