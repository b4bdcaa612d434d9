"""Operators that compute on integers (QLinearConv and its kin), spelled out as what they mean.

Each becomes DequantizeLinear, the operator on real numbers, QuantizeLinear: the form that QDQ files have, so that the
passes meet one form only. ONNX Runtime's quantiser writes these operators in its QOperator format, some of them in its
own domain com.microsoft.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tessera.engine.errors import ModelError
from tessera.engine.graph import shapes
from tessera.engine.graph.ir import Array, Graph, Node
from tessera.engine.graph.source import Source

Normalise = Callable[[Source, Graph], list[Node]]


class _Expansion:
    """The nodes that one integer operator becomes, each described in the graph as soon as it is there."""

    def __init__(self, source: Source, graph: Graph, normalise: Normalise) -> None:
        self.source = source
        self.graph = graph
        self.nodes: list[Node] = []
        self._normalise = normalise

    def input(self, index: int, what: str) -> str:
        """An input that must be there."""
        value = self.source.input(index)
        if not value:
            raise ModelError(f"{self.source.describe()} has no {what} (input {index}).")
        return value

    def scale(self, index: int, what: str) -> Array:
        """A constant scale, float32 [] or [channels]."""
        scale = self.graph.constants.get(self.input(index, what))
        if scale is None:
            raise self.source.refuse(f"its {what} is computed at run time; it must be a constant.")
        if scale.dtype != np.float32 or scale.ndim > 1:
            raise ModelError(f"{self.source.describe()}: its {what} must be one float32 number or one per channel.")
        return scale.reshape(()) if scale.size == 1 else scale

    def add(
        self, op: str, inputs: list[str], attributes: Mapping[str, Any] | None = None, output: str | None = None
    ) -> str:
        """Adds a node, under a name of its own unless `output` is given. Returns what it writes."""
        if output is None:
            output = self.graph.add_value(f"{self.source.outputs[0]}.{op}", (), np.dtype(np.float32))
        made = Source(op, self.source.name, tuple(inputs), (output,), attributes or {})
        for node in self._normalise(made, self.graph):
            self.graph.values[node.output] = shapes.infer(node, self.graph)
            self.nodes.append(node)
        return output

    def real(self, index: int, what: str, axis: int | None = None) -> str:
        """The real numbers behind input `index`, whose scale and zero point follow it; per channel along `axis`."""
        value = self.input(index, what)
        if axis is None and self.scale(index + 1, f"scale of its {what}").ndim:
            raise self.source.refuse(f"its {what} has one scale per row or channel; one for all is supported.")
        inputs = [value, self.input(index + 1, f"scale of its {what}"), self.source.input(index + 2)]
        return self.add("DequantizeLinear", inputs, {"axis": axis or 0})

    def bias(self, index: int, scale: Array) -> str:
        """The real numbers behind the int32 input `index` in units of `scale`, "" when it is absent."""
        value = self.source.input(index)
        if not value:
            return ""
        if self.graph.values[value].dtype != np.int32:
            raise ModelError(f"{self.source.describe()}: its bias is {self.graph.values[value].dtype}, not int32.")
        name = self.graph.add_constant(f"{value}.scale", scale)
        rank = len(self.graph.values[value].shape)
        return self.add("DequantizeLinear", [value, name], {"axis": rank - 1 if rank else 0})

    def stored(self, value: str, index: int) -> list[Node]:
        """Quantises `value` with the scale and zero point from input `index` on; the expansion is then complete."""
        scale = self.input(index, "output scale")
        zero_point = self.source.input(index + 1)
        if not zero_point:
            kind = self.graph.values[self.source.input(0)].dtype
            zero_point = self.graph.add_constant(f"{scale}.zero_point", np.zeros((), kind))
        if self.scale(index, "output scale").ndim:
            raise self.source.refuse("its output has one scale per channel; one for all is supported.")
        self.add("QuantizeLinear", [value, scale, zero_point], output=self.source.outputs[0])
        return self.nodes


def _conv(made: _Expansion) -> list[Node]:
    x, weights = made.real(0, "input"), made.real(3, "weights", axis=0)
    bias = made.bias(8, made.scale(1, "input scale") * made.scale(4, "weight scale"))
    inputs = [x, weights, bias] if bias else [x, weights]
    return made.stored(made.add("Conv", inputs, made.source.attributes), 6)


def _matmul(made: _Expansion) -> list[Node]:
    columns = len(made.graph.values[made.input(3, "second factor")].shape) - 1
    product = made.add("MatMul", [made.real(0, "first factor"), made.real(3, "second factor", axis=max(columns, 0))])
    return made.stored(product, 6)


def _gemm(made: _Expansion) -> list[Node]:
    attributes = made.source.attributes
    alpha = np.float32(attributes.get("alpha", 1.0))
    factors = [
        made.real(0, "first factor"),
        made.real(3, "second factor", axis=0 if attributes.get("transB", 0) else 1),
    ]
    bias = made.bias(6, alpha * made.scale(1, "input scale") * made.scale(4, "weight scale"))
    if made.source.input(7):
        return made.stored(made.add("Gemm", [*factors, bias], attributes), 7)
    made.add("Gemm", [*factors, bias], attributes, made.source.outputs[0])
    return made.nodes


def _binary(op: str) -> Callable[[_Expansion], list[Node]]:
    def expand(made: _Expansion) -> list[Node]:
        return made.stored(made.add(op, [made.real(0, "first operand"), made.real(3, "second operand")]), 6)

    return expand


def _unary(op: str, also: tuple[str, ...] = ()) -> Callable[[_Expansion], list[Node]]:
    """An operator of one input; `also` names attributes that ONNX's own operator does not have."""

    def expand(made: _Expansion) -> list[Node]:
        attributes = dict(made.source.attributes)
        if attributes.pop("channels_last", 0):
            raise made.source.refuse("its input has channels last; [N, C, H, W] is supported.")
        for name in also:
            attributes.pop(name, None)
        return made.stored(made.add(op, [made.real(0, "input")], attributes), 3)

    return expand


# operator: (fewest inputs, most inputs, how to spell it out)
_EXPANSIONS: Mapping[str, tuple[int, int, Callable[[_Expansion], list[Node]]]] = {
    "QLinearConv": (8, 9, _conv),
    "QLinearMatMul": (8, 8, _matmul),
    "com.microsoft.QGemm": (6, 9, _gemm),
    "com.microsoft.QLinearAdd": (7, 8, _binary("Add")),
    "com.microsoft.QLinearMul": (7, 8, _binary("Mul")),
    "com.microsoft.QLinearSigmoid": (4, 5, _unary("Sigmoid")),
    "com.microsoft.QLinearAveragePool": (4, 5, _unary("AveragePool")),
    "com.microsoft.QLinearGlobalAveragePool": (4, 5, _unary("GlobalAveragePool")),
    "com.microsoft.QLinearSoftmax": (4, 5, _unary("Softmax", ("opset",))),
}


def qoperators(normalise: Normalise) -> dict[str, tuple[int, int, Normalise]]:
    """Integer operators as entries of `operators.OPERATORS`.

    Args:
        normalise: normalises the operators that they are spelled out with.
    """

    def entry(expand: Callable[[_Expansion], list[Node]]) -> Normalise:
        return lambda source, graph: expand(_Expansion(source, graph, normalise))

    return {op: (fewest, most, entry(expand)) for op, (fewest, most, expand) in _EXPANSIONS.items()}
