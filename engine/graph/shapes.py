"""Shape and type of what each node writes. Dimension 0 stays None exactly as long as it is the batch.

A node that would mix images of one batch is refused: requests of different clients share batches, so one image's
answer must never depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tessera.engine.errors import ModelError, UnsupportedModelError, UnsupportedOperatorError
from tessera.engine.graph.geometry import output_size
from tessera.engine.graph.ir import Graph, Node, Shape, ValueInfo
from tessera.wording import counted

# Elements per image of one value. Far above any real network; keeps a malformed one from exhausting memory.
LARGEST_VALUE = 2**31

_ANY_TYPE = frozenset({"Clip", "Flatten", "Identity", "MaxPool", "Reshape"})
_FLOAT32 = np.dtype(np.float32)


def infer(node: Node, graph: Graph) -> ValueInfo:
    """Shape and type of the node's output, from those of its inputs.

    Raises:
        ModelError: the inputs do not fit the node or each other.
        UnsupportedOperatorError: the node would mix the images of a batch.
    """
    inputs = [graph.values[value] if value else None for value in node.inputs]
    first = inputs[0]
    if first is None:
        raise ModelError(f"{node.describe()} has no first input.")
    dtype = _output_type(node, graph, inputs)
    shape = _RULES[node.op](node, graph)
    if prod(size or 1 for size in shape) > LARGEST_VALUE:
        raise ModelError(f"{node.describe()} would write {list(shape)}, more than {LARGEST_VALUE} elements per image.")
    return ValueInfo(node.output, shape, dtype)


def infer_all(graph: Graph) -> None:
    """Infers every node's output in order, in place, keeping quantisation.

    Raises:
        ModelError: as for `infer`.
    """
    for node in graph.nodes:
        known = graph.values.get(node.output)
        info = infer(node, graph)
        if known is not None and known.quant is not None:
            info.quant, info.dtype = known.quant, known.quant.dtype
        graph.values[node.output] = info


def same_shape(first: Shape, second: Shape) -> bool:
    """True when both are certainly the same at run time; only the batch may be unknown."""
    return first == second and None not in first[1:]


def _output_type(node: Node, graph: Graph, inputs: list[ValueInfo | None]) -> np.dtype[Any]:
    first = inputs[0]
    assert first is not None
    if node.op == "DequantizeLinear":
        return _FLOAT32
    read = [info for info in inputs[: 1 if node.op == "QuantizeLinear" else None] if info is not None]
    if node.op in _ANY_TYPE and first.quant is None:
        return first.dtype
    for info in read:
        if info.quant is None and info.dtype != _FLOAT32:
            raise UnsupportedModelError(f"{node.describe()} reads '{info.name}' as float32, but it is {info.dtype}.")
    if node.op == "QuantizeLinear":
        return graph.values[node.inputs[2]].dtype
    return _FLOAT32


def _refuse_mixing(node: Node, how: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(node.name, node.op, f"it {how}, so images of one batch would influence each other.")


def _same(node: Node, graph: Graph) -> Shape:
    return graph.values[node.inputs[0]].shape


def _windows(node: Node, shape: Shape) -> tuple[int | None, int | None]:
    top, left, bottom, right = node.attrs["pads"]
    sizes: list[int | None] = []
    for axis, (size, before, after) in enumerate(((shape[2], top, bottom), (shape[3], left, right))):
        if size is None:
            sizes.append(None)
            continue
        kernel, stride, dilation = (node.attrs[key][axis] for key in ("kernel", "strides", "dilations"))
        windows = output_size(size, kernel, stride, dilation, before, after)
        if windows < 1:
            raise ModelError(
                f"{node.describe()}: a kernel of {kernel} with dilation {dilation} does not fit into {size} positions "
                f"with padding {before} and {after}."
            )
        sizes.append(windows)
    return sizes[0], sizes[1]


def _conv(node: Node, graph: Graph) -> Shape:
    shape, weights = _same(node, graph), graph.values[node.inputs[1]].shape
    groups = node.attrs["groups"]
    out, per_group = weights[0], weights[1]
    if out is None or per_group is None:
        raise ModelError(f"{node.describe()}: the shape of its weights is not fixed.")
    if groups < 1 or out % groups or out < 1:
        raise ModelError(
            f"{node.describe()}: {counted(out, 'output channel')} cannot be divided into {counted(groups, 'group')}."
        )
    if shape[1] != per_group * groups:
        raise ModelError(
            f"{node.describe()}: its input has {shape[1]} channels; "
            f"its weights expect {per_group} in each of {counted(groups, 'group')}."
        )
    if node.inputs[2] and graph.values[node.inputs[2]].shape != (out,):
        bias = graph.values[node.inputs[2]].shape
        raise ModelError(f"{node.describe()}: its bias has shape {list(bias)}; [{out}] is expected.")
    result = (shape[0], out, *_windows(node, shape))
    if node.inputs[3] and graph.values[node.inputs[3]].shape != result:
        raise ModelError(f"{node.describe()}: its residual does not have its output's shape {list(result)}.")
    return result


def _pool(node: Node, graph: Graph) -> Shape:
    shape = _same(node, graph)
    return (shape[0], shape[1], *_windows(node, shape))


def _global_pool(node: Node, graph: Graph) -> Shape:
    shape = _same(node, graph)
    if len(shape) < 3:
        raise ModelError(f"{node.describe()}: its input {list(shape)} has no spatial dimensions.")
    return (*shape[:2], *[1] * (len(shape) - 2))


def _batch_normalization(node: Node, graph: Graph) -> Shape:
    shape = _same(node, graph)
    for value in node.inputs[1:]:
        if len(shape) < 2 or graph.values[value].shape != (shape[1],):
            raise ModelError(f"{node.describe()}: '{value}' must have one element per channel of {list(shape)}.")
    return shape


def _broadcast(node: Node, first: Shape, second: Shape) -> Shape:
    rank = max(len(first), len(second))
    pairs = zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    result: list[int | None] = []
    for axis, (a, b) in enumerate(pairs):
        if a is not None and b is not None and a != b and 1 not in (a, b):
            raise ModelError(f"{node.describe()}: shapes {list(first)} and {list(second)} do not broadcast.")
        if axis == 0 and None in (a, b) and {a, b} - {None, 1}:
            raise _refuse_mixing(node, f"combines the batch with a fixed size of {a or b}")
        known = {a, b} - {1}
        result.append(1 if not known else None if known == {None} else next(size for size in known if size is not None))
    return tuple(result)


def _combine(node: Node, graph: Graph) -> Shape:
    first, second = (graph.values[value].shape for value in node.inputs)
    for shorter, longer in ((first, second), (second, first)):
        if len(shorter) < len(longer) and shorter and shorter[0] is None:
            verb = "adds" if node.op == "Add" else "multiplies"
            raise _refuse_mixing(node, f"{verb} the batch along another dimension")
    return _broadcast(node, first, second)


def _concat(node: Node, graph: Graph) -> Shape:
    shapes, axis = [graph.values[value].shape for value in node.present_inputs()], node.attrs["axis"]
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) > 1 or len({len(shape) for shape in shapes}) > 1:
        raise ModelError(f"{node.describe()}: {', '.join(map(str, map(list, shapes)))} do not lie side by side.")
    if axis == 0 and any(shape[0] is None for shape in shapes):
        raise _refuse_mixing(node, "joins batches")
    sizes = [shape[axis] for shape in shapes]
    whole = None if None in sizes else sum(size or 0 for size in sizes)
    return (*shapes[0][:axis], whole, *shapes[0][axis + 1 :])


def _flatten(node: Node, graph: Graph) -> Shape:
    shape, axis = _same(node, graph), node.attrs["axis"]
    head, tail = shape[:axis], shape[axis:]
    if shape and shape[0] is None:
        if prod(size or 0 for size in head[1:]) != 1 or axis == 0:
            raise _refuse_mixing(node, f"flattens {list(shape)} at axis {axis}, across the batch")
        return (None, None if None in tail else prod(size or 0 for size in tail))
    if None in shape:
        raise ModelError(f"{node.describe()}: the sizes of its input {list(shape)} are not known.")
    return (prod(size or 0 for size in head), prod(size or 0 for size in tail))


def _reshape(node: Node, graph: Graph) -> Shape:
    shape, target = _same(node, graph), node.attrs["shape"]
    if any(size == 0 and axis >= len(shape) for axis, size in enumerate(target)):
        raise ModelError(f"{node.describe()}: {list(target)} copies a dimension that {list(shape)} does not have.")
    wanted: list[int | None] = [shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    if not (shape and shape[0] is None):
        return _fill(node, shape, wanted)
    if wanted and wanted[0] == -1 and None not in shape[1:] and None not in wanted[1:]:
        wanted[0] = None  # checked below: the rest must hold exactly one image
    if not wanted or wanted[0] is not None or (wanted[0] is None and target[0] not in (0, -1)):
        raise _refuse_mixing(node, f"reshapes {list(shape)} to {list(target)}, across the batch")
    try:
        return (None, *_fill(node, shape[1:], wanted[1:]))
    except ModelError as error:
        if target[0] == -1:
            raise _refuse_mixing(node, f"reshapes {list(shape)} to {list(target)}, across the batch") from error
        raise


def _fill(node: Node, shape: Shape, wanted: list[int | None]) -> Shape:
    """`wanted` with its -1 filled in so that it holds what `shape` holds."""
    if None in shape or None in wanted:
        return tuple(None if size == -1 else size for size in wanted)
    total = prod(size or 0 for size in shape)
    known = prod(size or 0 for size in wanted if size != -1)
    if (-1 in wanted and (known == 0 or total % known)) or (-1 not in wanted and known != total):
        raise ModelError(f"{node.describe()}: {list(shape)} does not fit into {wanted} (sizes without the batch).")
    return tuple(total // known if size == -1 else size for size in wanted)


def _softmax(node: Node, graph: Graph) -> Shape:
    shape = _same(node, graph)
    if node.attrs["axis"] == 0 and shape[0] is None:
        raise _refuse_mixing(node, "normalises along the batch")
    return shape


def _gemm(node: Node, graph: Graph) -> Shape:
    a, b = (graph.values[value].shape for value in node.inputs[:2])
    if len(a) != 2 or len(b) != 2:
        raise ModelError(f"{node.describe()}: it multiplies {list(a)} by {list(b)}; both need two dimensions.")
    if (node.attrs["trans_a"] and a[0] is None) or b[0] is None:
        raise _refuse_mixing(node, "sums over the batch")
    rows, inner = a[::-1] if node.attrs["trans_a"] else a
    other, columns = b[::-1] if node.attrs["trans_b"] else b
    _require_inner(node, inner, other)
    if node.inputs[2] and _broadcast(node, (rows, columns), graph.values[node.inputs[2]].shape) != (rows, columns):
        raise ModelError(f"{node.describe()}: its third input does not broadcast to [{rows}, {columns}].")
    return (rows, columns)


def _matmul(node: Node, graph: Graph) -> Shape:
    a, b = (graph.values[value].shape for value in node.inputs)
    if len(a) < 2 or len(b) < 2:
        raise UnsupportedOperatorError(
            node.name, node.op, f"it multiplies {list(a)} by {list(b)}; vectors are not supported."
        )
    if b[0] is None and len(b) == 2:
        raise _refuse_mixing(node, "sums over the batch")
    _require_inner(node, a[-1], b[-2])
    for shorter, longer in ((a, b), (b, a)):
        if shorter[0] is None and len(shorter) < len(longer):
            raise _refuse_mixing(node, "multiplies the batch along another dimension")
    return (*_broadcast(node, a[:-2], b[:-2]), a[-2], b[-1])


def _require_inner(node: Node, left: int | None, right: int | None) -> None:
    if left is not None and right is not None and left != right:
        raise ModelError(f"{node.describe()}: inner sizes {left} and {right} differ.")


def _quantisation(node: Node, graph: Graph) -> Shape:
    shape, scale = _same(node, graph), graph.values[node.inputs[1]].shape
    if scale and shape[node.attrs["axis"]] != scale[0]:
        raise _refuse_mixing(node, "has one scale per image")
    return shape


_RULES: dict[str, Callable[[Node, Graph], Shape]] = {
    "Add": _combine,
    "AveragePool": _pool,
    "BatchNormalization": _batch_normalization,
    "Clip": _same,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _quantisation,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "HardSigmoid": _same,
    "HardSwish": _same,
    "Identity": _same,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _combine,
    "QuantizeLinear": _quantisation,
    "Relu": _same,
    "Reshape": _reshape,
    "Sigmoid": _same,
    "Softmax": _softmax,
    "Swish": _same,
}
