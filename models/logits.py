"""Where a classifier's logits are: a Softmax at its end, and what only copies or stores its result, is taken off.

Everything behind a session takes logits: answers, tensors of /v2, the quantiser's gate, evaluation. A network that
ends in Softmax would otherwise get another one, which makes a sure answer of 1000 classes read 0.003.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from onnx import ModelProto, NodeProto, TensorProto, helper

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph, Shape
from tessera.engine.graph.protos import unused_name

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_SOFTMAX = ("Softmax", "LogSoftmax", "QLinearSoftmax")
_SHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
# What leaves the order of the classes as it is and means nothing any more once logits take the place of probabilities.
_FOLLOWING = ("Cast", "Clip", "DequantizeLinear", "Dropout", "Exp", "Identity", "Log", "QuantizeLinear")
_INDEPENDENT = ("HardSigmoid", "QLinearSigmoid", "Sigmoid")
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Normaliser:
    """A Softmax that was taken off.

    Attributes:
        name: how messages call it.
        logits: the value that it read.
        axis: its axis, as the file has it.
        whole_tail: it spans all dimensions from its axis on, as it did before opset 13.
    """

    name: str
    logits: str
    axis: int
    whole_tail: bool


def expose_logits(model: ModelProto) -> list[Normaliser]:
    """Make a model's outputs its logits, in place; outputs that are the same logits become one.

    A LogSoftmax is taken off as well: its result differs from the logits by a number that all classes share. Shapes
    are not known yet, so `check_logits` has to be called once the graph is read.

    Returns:
        The Softmaxes that were taken off.

    Raises:
        ModelError: the network's scores are those of independent classes, each with a Sigmoid of its own.
    """
    graph = model.graph
    producers = {name: node for node in graph.node if node.domain in _DOMAINS for name in node.output if name}
    removed: dict[str, Normaliser] = {}
    outputs: dict[str, str] = {}
    for value in graph.output:
        following = _following(value.name, producers)
        end = producers.get(following[-1].input[0] if following else value.name)
        if end is not None and end.op_type in _INDEPENDENT:
            raise ModelError(
                f"The network ends in {end.op_type} '{_name(end)}', which gives each class a probability of its own. "
                "Tessera serves networks whose classes exclude each other; if those of this one do, export it without "
                "that node."
            )
        name = value.name
        if end is not None and end.op_type in _SOFTMAX:
            found = _normaliser(end, model)
            is_reshaped = any(node.op_type in _SHAPING for node in following)
            name = _flattened(model, found.logits, value.name) if is_reshaped else found.logits
            removed[found.logits] = found
        outputs.setdefault(_origin(name, producers), name)
    if removed or len(outputs) < len(graph.output):
        _set_outputs(model, list(outputs.values()))
    return list(removed.values())


def check_logits(graph: Graph, removed: list[Normaliser]) -> None:
    """Make sure that each Softmax which was taken off spanned all classes of one image, and that none is left.

    Args:
        graph: the graph as the reader sees it afterwards.
        removed: what `expose_logits` returned.

    Raises:
        ModelError: the network's results are no probabilities of classes that exclude each other.
    """
    for normaliser in removed:
        shape = graph.values[normaliser.logits].shape
        if not _spans_classes(normaliser, shape):
            raise ModelError(
                f"Softmax '{normaliser.name}' at the network's end spans axis {normaliser.axis} of {list(shape)} and "
                "not all classes of one image, so its results are not the probabilities of one choice."
            )
    if not removed:
        _refuse_probabilities(graph)


def _following(output: str, producers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """The nodes from `output` back that may follow a Softmax, the last one first."""
    found: list[NodeProto] = []
    node = producers.get(output)
    while node is not None and node.op_type in (*_FOLLOWING, *_SHAPING) and node.input:
        found.append(node)
        node = producers.get(node.input[0])
    return found


def _normaliser(node: NodeProto, model: ModelProto) -> Normaliser:
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    opset = attributes.get("opset") or next(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0
    )
    whole_tail = opset < 13
    logits = node.input[0]
    if node.op_type == "QLinearSoftmax":
        logits = unused_name(model, f"{node.output[0]}.logits")
        read = helper.make_node("DequantizeLinear", node.input[:3], [logits], f"{_name(node)}.logits")
        model.graph.node.append(read)  # behind all others: its readers come later still
    return Normaliser(_name(node), logits, attributes.get("axis", 1 if whole_tail else -1), whole_tail)


def _flattened(model: ModelProto, logits: str, output: str) -> str:
    """The logits as [N, classes]: what their shape became behind the Softmax, in one step."""
    name = unused_name(model, f"{output}.logits")
    model.graph.node.append(helper.make_node("Flatten", [logits], [name], name, axis=1))
    return name


def _origin(name: str, producers: Mapping[str, NodeProto]) -> str:
    node = producers.get(name)
    while node is not None and node.op_type == "Identity":
        name = node.input[0]
        node = producers.get(name)
    return name


def _set_outputs(model: ModelProto, names: list[str]) -> None:
    graph = model.graph
    declared = {value.name: value for value in graph.output}
    kept = [
        declared.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "classes"]) for name in names
    ]
    del graph.output[:]
    graph.output.extend(kept)
    needed, nodes = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(nodes))


def _spans_classes(normaliser: Normaliser, shape: Shape) -> bool:
    axis = normaliser.axis + len(shape) if normaliser.axis < 0 else normaliser.axis
    if not 0 <= axis < len(shape):
        return False
    others = shape[:axis] if normaliser.whole_tail else (*shape[:axis], *shape[axis + 1 :])
    # The batch is None and counts as one image; before opset 13 axis 0 of a single image was all of it.
    return prod(size or 1 for size in others) == 1 and (axis > 0 or normaliser.whole_tail)


def _refuse_probabilities(graph: Graph) -> None:
    """Walk from the output to the last layers with weights: no Softmax may lie between."""
    producers = {node.output: node for node in graph.nodes}
    waiting, seen = list(graph.outputs), set(graph.outputs)
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.op in _WEIGHTED:
            continue
        if node.op == "Softmax":
            raise ModelError(
                f"The network's scores are made from those of Softmax '{node.name}', so there are no logits to serve. "
                "Export the network without what follows its last layer with weights."
            )
        waiting += [value for value in node.present_inputs() if value not in seen]
        seen.update(node.inputs)


def _name(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
