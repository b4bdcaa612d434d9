"""The ONNX operators the engine reads, and how each one's attributes become the plain form used in the graph.

Every entry of `OPERATORS` turns one ONNX node into graph nodes whose attributes are complete (no defaults left),
version-free (an attribute that later became an input is an attribute here) and resolved (auto_pad and ceil_mode are
numbers). A form that cannot be expressed is refused by name: nothing is ever dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from tessera.engine.errors import ModelError, UnsupportedOperatorError
from tessera.engine.graph.ir import NO_CLIP, Array, Graph, Node, Shape
from tessera.engine.graph.qoperators import qoperators
from tessera.engine.graph.source import Source
from tessera.engine.graph.windows import conv_window, pool_window
from tessera.wording import counted

_MOST_INPUTS = 1000  # of a Concat; the last one of a DenseNet-264 has 65


def normalise(source: Source, graph: Graph) -> list[Node]:
    """Turns one ONNX node into graph nodes, the last of which writes the node's output.

    Args:
        source: the node as the file has it.
        graph: the graph read so far; shapes of the node's inputs are known in it.

    Raises:
        UnsupportedOperatorError: the operator, or this form of it, is outside what the engine runs.
        ModelError: the node contradicts ONNX.
    """
    require_supported(source.name, source.op)
    minimum, maximum, build = OPERATORS[source.op]
    if not minimum <= len(source.inputs) <= maximum or not all(source.inputs[:minimum]):
        given = len([value for value in source.inputs if value])
        raise ModelError(f"{source.describe()} has {counted(given, 'input')}; {minimum} to {maximum} are expected.")
    if not source.outputs or not source.outputs[0]:
        raise ModelError(f"{source.describe()} writes no value.")
    if any(source.outputs[1:]):
        raise source.refuse(f"only its first output is supported, but it also writes '{source.outputs[1]}'.")
    return build(source, graph)


def require_supported(node: str, operator: str) -> None:
    """Raises UnsupportedOperatorError when the engine does not know `operator`."""
    if operator not in OPERATORS:
        known = ", ".join(sorted(OPERATORS))
        raise UnsupportedOperatorError(node, operator, f"the engine does not run this operator. It runs: {known}.")


def _shape(graph: Graph, value: str) -> Shape:
    return graph.values[value].shape


def _constant(source: Source, graph: Graph, index: int, what: str) -> Array:
    value = graph.constants.get(source.input(index))
    if value is None:
        raise source.refuse(f"its {what} is computed at run time; it must be a constant.")
    return value


def _axis(source: Source, axis: int, rank: int, *, end: bool = False) -> int:
    """`axis` counted from the front; `end` allows one past the last dimension."""
    if not -rank <= axis < rank + int(end):
        raise ModelError(f"{source.describe()}: axis {axis} is outside an input of {counted(rank, 'dimension')}.")
    return axis + rank if axis < 0 else axis


def _conv(source: Source, graph: Graph) -> list[Node]:
    window = conv_window(source, graph)
    inputs = [source.input(0), source.input(1), source.input(2), ""]
    groups = int(source.attributes.get("group", 1))
    return [source.node(inputs, **window, groups=groups, clip=NO_CLIP)]


def _max_pool(source: Source, graph: Graph) -> list[Node]:
    return [source.node([source.input(0)], **pool_window(source, graph))]


def _average_pool(source: Source, graph: Graph) -> list[Node]:
    counted = bool(source.attributes.get("count_include_pad", 0))
    return [source.node([source.input(0)], **pool_window(source, graph), count_include_pad=counted)]


def _reduce_mean(source: Source, graph: Graph) -> list[Node]:
    """The mean over height and width, as PyTorch's exporter writes global average pooling since 2.9."""
    shape = _shape(graph, source.input(0))
    axes = source.attributes.get("axes", ())
    if source.input(1):
        axes = _constant(source, graph, 1, "axes").reshape(-1)
    spatial = sorted({_axis(source, int(axis), len(shape)) for axis in axes})
    if len(shape) < 3 or spatial != list(range(2, len(shape))):
        raise source.refuse(f"it takes the mean over axes {list(map(int, axes))}; all but the first two are supported.")
    pool = replace(source, op="GlobalAveragePool")
    if source.attributes.get("keepdims", 1):
        return [pool.node([source.input(0)])]
    pooled = graph.add_value(f"{source.outputs[0]}.pooled", (), graph.values[source.input(0)].dtype)
    return [
        Node("GlobalAveragePool", source.name, [source.input(0)], [pooled]),
        Node("Flatten", f"{source.name}.flatten", [pooled], [source.outputs[0]], {"axis": 1}),
    ]


def _plain(source: Source, graph: Graph) -> list[Node]:
    return [source.node(list(source.inputs))]


def _add(source: Source, graph: Graph) -> list[Node]:
    return [source.node(list(source.inputs), clip=NO_CLIP)]


def _hard_sigmoid(source: Source, graph: Graph) -> list[Node]:
    slope, offset = (float(source.attributes.get(key, usual)) for key, usual in (("alpha", 0.2), ("beta", 0.5)))
    return [source.node([source.input(0)], alpha=slope, beta=offset)]


def _clip(source: Source, graph: Graph) -> list[Node]:
    bounds = list(NO_CLIP)
    for index, key in enumerate(("min", "max")):
        if key in source.attributes:
            bounds[index] = float(source.attributes[key])
        elif source.input(index + 1):
            value = _constant(source, graph, index + 1, key)
            if value.size != 1:
                raise ModelError(f"{source.describe()}: its {key} has {value.size} elements instead of one.")
            bounds[index] = float(value.reshape(()))
    if np.isnan(bounds).any():
        raise ModelError(f"{source.describe()}: a bound is not a number.")
    return [source.node([source.input(0)], clip=tuple(bounds))]


def _batch_normalization(source: Source, graph: Graph) -> list[Node]:
    if source.attributes.get("training_mode", 0):
        raise source.refuse("it is in training mode, so its result would depend on the batch.")
    variance = graph.constants.get(source.input(4))
    if variance is not None and variance.shape == _shape(graph, source.input(0))[1:2] and (variance < 0).any():
        raise ModelError(f"{source.describe()} has a negative variance; its weights are damaged. Export it again.")
    return [source.node(list(source.inputs), epsilon=float(source.attributes.get("epsilon", 1e-5)))]


def _concat(source: Source, graph: Graph) -> list[Node]:
    axis = _axis(source, int(source.attributes.get("axis", 1)), len(_shape(graph, source.input(0))))
    return [source.node(list(source.inputs), axis=axis)]


def _flatten(source: Source, graph: Graph) -> list[Node]:
    axis = _axis(source, int(source.attributes.get("axis", 1)), len(_shape(graph, source.input(0))), end=True)
    return [source.node([source.input(0)], axis=axis)]


def _reshape(source: Source, graph: Graph) -> list[Node]:
    target = _constant(source, graph, 1, "target shape")
    if target.ndim != 1 or target.dtype != np.int64:
        raise ModelError(f"{source.describe()}: its target shape must be a one-dimensional int64 constant.")
    shape = [int(size) for size in target]
    if source.attributes.get("allowzero", 0) and 0 in shape:
        raise source.refuse("allowzero with a size of 0 describes an empty tensor.")
    if min(shape, default=0) < -1 or shape.count(-1) > 1:
        raise ModelError(f"{source.describe()}: {shape} is not a shape to reshape to.")
    return [source.node([source.input(0)], shape=tuple(shape))]


def _squeeze(source: Source, graph: Graph) -> list[Node]:
    shape = _shape(graph, source.input(0))
    named = source.attributes.get("axes")
    if source.input(1):
        named = _constant(source, graph, 1, "axes").reshape(-1)
    if named is None:
        raise source.refuse("it names no axes, so it would drop a batch of one image too.")
    dropped = {_axis(source, int(axis), len(shape)) for axis in named}
    for axis in sorted(dropped):
        if shape[axis] is None:
            raise source.refuse(f"the size of dimension {axis}, which it drops, is not known to be 1.")
        if shape[axis] != 1:
            raise ModelError(f"{source.describe()}: it drops dimension {axis} of {list(shape)}, whose size is not 1.")
    kept = [size for axis, size in enumerate(shape) if axis not in dropped]
    if kept[1:].count(None) > 1:
        raise source.refuse(f"more than one size of its input {list(shape)} is not known.")
    target = tuple(-1 if size is None and axis else size or 0 for axis, size in enumerate(kept))
    return [replace(source, op="Reshape").node([source.input(0)], shape=target)]


def _gemm(source: Source, graph: Graph) -> list[Node]:
    attributes = source.attributes
    return [
        source.node(
            [source.input(0), source.input(1), source.input(2)],
            alpha=float(attributes.get("alpha", 1.0)),
            beta=float(attributes.get("beta", 1.0)),
            trans_a=bool(attributes.get("transA", 0)),
            trans_b=bool(attributes.get("transB", 0)),
        )
    ]


def _softmax(source: Source, graph: Graph) -> list[Node]:
    shape = _shape(graph, source.input(0))
    whole_tail = graph.opset < 13
    axis = _axis(source, int(source.attributes.get("axis", 1 if whole_tail else -1)), len(shape))
    tail = shape[axis + 1 :]
    if not whole_tail or all(size == 1 for size in tail):
        return [source.node([source.input(0)], axis=axis)]
    # Before opset 13 Softmax treated every dimension from `axis` on as one.
    if axis == 0 or None in shape[1:]:
        raise source.refuse("before opset 13 it spans all later dimensions, and here their sizes are not all known.")
    dtype = graph.values[source.input(0)].dtype
    merged = graph.add_value(f"{source.outputs[0]}.merged", (), dtype)
    shared = graph.add_value(f"{source.outputs[0]}.shared", (), dtype)
    return [
        Node("Reshape", f"{source.name}.merge", [source.input(0)], [merged], {"shape": (*[0] * axis, -1)}),
        Node("Softmax", source.name, [merged], [shared], {"axis": axis}),
        Node("Reshape", f"{source.name}.split", [shared], [source.outputs[0]], {"shape": (0, *shape[1:])}),
    ]


def _quantisation(source: Source, graph: Graph) -> list[Node]:
    # ONNX Runtime's own operators of these names mean the same.
    source = replace(source, op=source.op.removeprefix("com.microsoft."))
    for attribute in ("block_size", "precision"):
        if source.attributes.get(attribute, 0):
            raise source.refuse(f"its attribute {attribute} is not supported.")
    scale = _constant(source, graph, 1, "scale")
    named = _named_type(source)
    stored = graph.values[source.input(0)].dtype if source.op == "DequantizeLinear" else named or np.dtype(np.uint8)
    zero_point = _constant(source, graph, 2, "zero point") if source.input(2) else np.zeros(scale.shape, stored)
    allowed = ("uint8", "int8") if source.op == "QuantizeLinear" else ("uint8", "int8", "int32")
    if zero_point.dtype.name not in allowed:
        raise source.refuse(f"it quantises to {zero_point.dtype}; {' and '.join(allowed)} are supported.")
    if source.op == "DequantizeLinear" and zero_point.dtype != stored:
        raise ModelError(f"{source.describe()}: its zero point is {zero_point.dtype} but its input is {stored}.")
    if named is not None and zero_point.dtype != named:
        raise ModelError(f"{source.describe()}: its zero point is {zero_point.dtype} but its output_dtype is {named}.")
    if scale.dtype != np.float32 or not np.all(np.isfinite(scale) & (scale > 0)):
        raise ModelError(f"{source.describe()}: its scale must be positive, finite float32 numbers.")
    if scale.size == 1:
        scale, zero_point = scale.reshape(()), zero_point.reshape(()) if zero_point.size == 1 else zero_point
    if scale.ndim > 1 or scale.shape != zero_point.shape:
        raise ModelError(
            f"{source.describe()}: scale {list(scale.shape)} and zero point {list(zero_point.shape)} do not match."
        )
    if zero_point.dtype == np.int32 and zero_point.any():
        raise ModelError(f"{source.describe()}: the zero point of int32 values must be 0.")
    axis = 0
    if scale.ndim == 1:
        shape = _shape(graph, source.input(0))
        axis = _axis(source, int(source.attributes.get("axis", 1)), len(shape))
        if shape[axis] != scale.size:
            raise ModelError(
                f"{source.describe()}: {counted(scale.size, 'scale')} along an axis of size {shape[axis]}."
            )
    inputs = [
        source.input(0),
        graph.add_constant(f"{source.outputs[0]}.scale", scale),
        graph.add_constant(f"{source.outputs[0]}.zero_point", zero_point),
    ]
    return [source.node(inputs, axis=axis)]


def _named_type(source: Source) -> np.dtype[Any] | None:
    """What a QuantizeLinear's attribute output_dtype asks for; None where its zero point says it alone."""
    number = int(source.attributes.get("output_dtype", TensorProto.UNDEFINED))
    if number == TensorProto.UNDEFINED:
        return None
    types = {int(TensorProto.UINT8): np.dtype(np.uint8), int(TensorProto.INT8): np.dtype(np.int8)}
    if source.op != "QuantizeLinear" or number not in types:
        raise source.refuse(f"its output_dtype is {number} in ONNX's count; 2 (uint8) and 3 (int8) are supported.")
    return types[number]


def _resolved_by_reader(source: Source, graph: Graph) -> list[Node]:
    raise ModelError(f"{source.describe()} does not hold a constant array.")


# operator: (fewest inputs, most inputs, how to normalise it)
OPERATORS: dict[str, tuple[int, int, Callable[[Source, Graph], list[Node]]]] = {
    "Add": (2, 2, _add),
    "AveragePool": (1, 1, _average_pool),
    "BatchNormalization": (5, 5, _batch_normalization),
    "Clip": (1, 3, _clip),
    "Concat": (1, _MOST_INPUTS, _concat),
    "Constant": (0, 0, _resolved_by_reader),
    "Conv": (2, 3, _conv),
    "DequantizeLinear": (2, 3, _quantisation),
    "Flatten": (1, 1, _flatten),
    "Gemm": (2, 3, _gemm),
    "GlobalAveragePool": (1, 1, _plain),
    "HardSigmoid": (1, 1, _hard_sigmoid),
    "HardSwish": (1, 1, _plain),
    "Identity": (1, 1, _plain),
    "MatMul": (2, 2, _plain),
    "MaxPool": (1, 1, _max_pool),
    "Mul": (2, 2, _plain),
    "QuantizeLinear": (2, 3, _quantisation),
    "ReduceMean": (1, 2, _reduce_mean),
    "Relu": (1, 1, _plain),
    "Reshape": (2, 2, _reshape),
    "Sigmoid": (1, 1, _plain),
    "Softmax": (1, 1, _softmax),
    "Squeeze": (1, 2, _squeeze),
    **qoperators(normalise),
    "com.microsoft.DequantizeLinear": (2, 3, _quantisation),
    "com.microsoft.QuantizeLinear": (2, 3, _quantisation),
}
