"""Walks a lowered graph and writes the execution plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine import _native
from tessera.engine.backends.cpu.convolution import bias_of, clamp_of, conv_macs, fill_parameters, filters_of
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.backends.cpu.steps import (
    ConvStep,
    CurveStep,
    EltwiseStep,
    FlattenStep,
    GlobalAverageStep,
    InputStep,
    OutputStep,
    PoolStep,
    ProductStep,
    SoftmaxStep,
    Step,
)
from tessera.engine.backends.cpu.storage import image_shape, quantised_clamp, tensor_for
from tessera.engine.backends.cpu.tensor import Precision, Tensor
from tessera.engine.errors import ModelError, UnsupportedOperatorError
from tessera.engine.graph.ir import NO_CLIP, Graph, Node
from tessera.engine.normalisation import Normalisation

_PACKED_CHANNELS = 4


def plan_graph(
    graph: Graph, precision: Precision, normalisation: Normalisation | None, tap: str | None = None
) -> ExecutionPlan:
    """Plans a lowered graph with one input and one output. Where tensors lie is left to `layout`, `segments`, `arena`.

    Args:
        graph: the result of `tessera.engine.graph.passes.lower`.
        precision: element type of values that the graph does not quantise ("bf16", else float32).
        normalisation: what uint8 pixels go through before the graph's input; None when only floats are accepted.
        tap: the value in front of a global average pooling that a run can give out; None: none.

    Raises:
        ModelError: a shape or quantisation that the CPU engine does not run.
        UnsupportedOperatorError: a node that it does not run.
    """
    return _Planner(graph, precision, normalisation, tap).plan()


class _Planner:
    def __init__(
        self, graph: Graph, precision: Precision, normalisation: Normalisation | None, tap: str | None
    ) -> None:
        self._graph = graph
        self._precision = precision
        self._normalisation = normalisation
        self._tap = tap
        self._tensors: list[Tensor] = []
        self._steps: list[Step] = []
        self._by_value: dict[str, int] = {}

    def plan(self) -> ExecutionPlan:
        if len(self._graph.inputs) != 1 or len(self._graph.outputs) != 1:
            raise ModelError(
                f"Graph '{self._graph.name}' has {len(self._graph.inputs)} inputs and {len(self._graph.outputs)} "
                "outputs; the CPU engine runs graphs with one of each."
            )
        self._input(self._graph.inputs[0])
        for node in self._graph.nodes:
            handler = _HANDLERS.get(node.op)
            if handler is None:
                raise UnsupportedOperatorError(node.name, node.op, "the CPU engine has no kernel for this form of it.")
            handler(self, node)
        self._output(self._graph.outputs[0])
        return ExecutionPlan(self._tensors, self._steps)

    # Tensors

    def _add_tensor(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _new_value(self, name: str) -> int:
        """A tensor for a value that some node writes."""
        index = self._add_tensor(tensor_for(self._graph.values[name], self._precision))
        self._by_value[name] = index
        return index

    def _value(self, name: str, node: Node) -> int:
        """The tensor of a value that some node reads."""
        if name not in self._by_value:
            raise UnsupportedOperatorError(node.name, node.op, f"it reads the constant '{name}' as an activation.")
        return self._by_value[name]

    def _converted(self, index: int, dtype: int) -> int:
        """The same value in another floating-point type, through an extra step when it is not stored so."""
        source = self._tensors[index]
        if source.dtype == dtype:
            return index
        target = self._add_tensor(Tensor(source.name, dtype, source.channels, source.height, source.width))
        self._steps.append(
            EltwiseStep(f"{source.name} to float", "Convert", index, target=target, source_scale=source.scale)
        )
        return target

    def _float_type(self) -> int:
        return _native.BF16 if self._precision == "bf16" else _native.F32

    # Edges

    def _input(self, name: str) -> None:
        info = self._graph.values[name]
        index = self._new_value(name)
        tensor = self._tensors[index]
        readers = self._graph.consumers(name)
        packed = tensor.channels <= _PACKED_CHANNELS and all(
            node.op == "Conv" and node.attrs["groups"] == 1 and node.attrs["dilations"][1] == 1 for node in readers
        )
        if packed and tensor.dtype == _native.U8:
            # A float convolution would need a conversion step, which wants blocks.
            packed = all(filters_of(self._graph, node).integer for node in readers)
        if packed:
            tensor.block = tensor.channels
        pixels = _pixel_values(tensor, self._normalisation) if self._normalisation else None
        self._steps.append(InputStep(info.name, "Input", target=index, pixel_values=pixels))

    def _output(self, name: str) -> None:
        if name not in self._by_value:
            raise ModelError(f"Graph output '{name}' is a constant or an input; there is nothing to run.")
        index = self._by_value[name]
        if self._tensors[index].packed:
            raise ModelError(f"Graph output '{name}' is the graph's input; there is nothing to run.")
        self._steps.append(OutputStep(name, "Output", self._converted(index, _native.F32)))

    # Operators

    def _conv(self, node: Node) -> None:
        filters = filters_of(self._graph, node)
        outputs = filters.values.shape[0]
        source = self._value(node.inputs[0], node)
        integer = self._tensors[source].dtype == _native.U8 and filters.integer
        if not integer:
            source = self._converted(source, self._float_type())
        residual = node.inputs[3] if len(node.inputs) > 3 else ""
        other = self._value(residual, node) if residual else -1
        target = self._new_value(node.output)
        top, left, bottom, right = node.attrs["pads"]
        self._frame(source, (top, left, bottom, right))
        step = ConvStep(
            node.name,
            "Conv",
            source,
            other,
            self._conv_target(node, target, integer),
            strides=node.attrs["strides"],
            dilations=node.attrs["dilations"],
            pads=(top, left),
            groups=node.attrs["groups"],
        )
        written = self._tensors[step.target]
        step.macs = conv_macs(filters, written)
        step.clamp = clamp_of(node, written)
        residual_tensor = self._tensors[other] if residual else None
        bias = bias_of(self._graph, node, outputs)
        fill_parameters(step, filters, bias, self._tensors[source], written, residual_tensor)
        self._steps.append(step)
        if step.target != target:
            self._quantise(step.target, target)

    def _conv_target(self, node: Node, target: int, integer: bool) -> int:
        """Floating-point convolutions write floats, which a further step quantises where the graph says so."""
        tensor = self._tensors[target]
        if integer or tensor.dtype != _native.U8:
            return target
        return self._add_tensor(Tensor(node.output, self._float_type(), tensor.channels, tensor.height, tensor.width))

    def _quantise(self, source: int, target: int) -> None:
        tensor = self._tensors[target]
        self._steps.append(
            EltwiseStep(
                tensor.name,
                "Quantise",
                source,
                target=target,
                source_scale=float(np.float32(1.0) / np.float32(tensor.scale)),
                clamp=quantised_clamp(tensor, NO_CLIP),
            )
        )

    def _frame(self, index: int, pads: tuple[int, int, int, int]) -> None:
        tensor = self._tensors[index]
        top, left, bottom, right = (max(old, new) for old, new in zip(tensor.frame, pads, strict=True))
        tensor.frame = (top, left, bottom, right)

    def _batch_normalization(self, node: Node) -> None:
        """One that no convolution could absorb."""
        gamma, beta, mean, variance = (self._graph.constants[name].astype(np.float64) for name in node.inputs[1:5])
        factor = gamma / np.sqrt(variance + node.attrs["epsilon"])
        self._channel_affine(node, node.inputs[0], factor, beta - mean * factor)

    def _channel_affine(
        self, node: Node, value: str, factor: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]
    ) -> None:
        """Scales and shifts each channel: a 1x1 convolution of every channel with itself."""
        weights = self._graph.add_constant(f"{node.name}.scale", factor.astype(np.float32).reshape(-1, 1, 1, 1))
        bias = self._graph.add_constant(f"{node.name}.shift", shift.astype(np.float32))
        attrs = {
            "kernel": (1, 1),
            "strides": (1, 1),
            "pads": (0, 0, 0, 0),
            "dilations": (1, 1),
            "groups": factor.size,
            "clip": node.attrs.get("clip", NO_CLIP),
        }
        self._conv(Node("Conv", node.name, [value, weights, bias, ""], node.outputs, attrs))

    def _units(self, source: int, target: int) -> float:
        """Source units to target units."""
        return float(np.float32(self._tensors[source].scale) / np.float32(self._tensors[target].scale))

    def _pool(self, node: Node) -> None:
        source, target = self._value(node.inputs[0], node), self._new_value(node.output)
        top, left, bottom, right = node.attrs["pads"]
        overhang_bottom, overhang_right = node.attrs["overhang"]
        self._steps.append(
            PoolStep(
                node.name,
                node.op,
                source,
                target=target,
                kernel=node.attrs["kernel"],
                strides=node.attrs["strides"],
                dilations=node.attrs["dilations"],
                pads=(top, left, bottom - overhang_bottom, right - overhang_right),
                average=node.op == "AveragePool",
                count_padding=bool(node.attrs.get("count_include_pad", False)),
                scale=self._units(source, target),
            )
        )

    def _global_average(self, node: Node) -> None:
        source, target = self._value(node.inputs[0], node), self._new_value(node.output)
        self._steps.append(
            GlobalAverageStep(
                node.name,
                node.op,
                source,
                target=target,
                scale=self._units(source, target),
                tapped=node.inputs[0] == self._tap,
            )
        )

    def _add(self, node: Node) -> None:
        constants = [name for name in node.inputs[:2] if name in self._graph.constants]
        if constants:
            self._add_constant(node, constants[0])
            return
        source, other = (self._value(name, node) for name in node.inputs[:2])
        target = self._new_value(node.output)
        shapes = {image_shape(self._graph.values[name]) for name in (*node.inputs[:2], node.output)}
        if len(shapes) != 1:
            raise UnsupportedOperatorError(node.name, node.op, "its operands have different shapes.")
        self._eltwise(node, source, other, target)

    def _add_constant(self, node: Node, constant: str) -> None:
        value = next(name for name in node.inputs[:2] if name != constant)
        shift = self._per_channel(node, value, constant)
        self._channel_affine(node, value, np.ones(shift.size), shift)

    def _per_channel(self, node: Node, value: str, constant: str) -> npt.NDArray[np.float64]:
        """A constant operand as one number for each channel of the other one, which is the output's shape."""
        info, array = self._graph.values[value], self._graph.constants[constant]
        channels = image_shape(info)[0]
        per_channel = (*array.shape[-len(info.shape) + 1 :], 1)[0] == channels and array.size == channels
        if array.size != 1 and not per_channel:
            what = "adds" if node.op == "Add" else "multiplies by"
            raise UnsupportedOperatorError(node.name, node.op, f"it {what} a constant that differs within a channel.")
        return np.broadcast_to(array.astype(np.float64).reshape(-1), channels)

    def _mul(self, node: Node) -> None:
        constants = [name for name in node.inputs if name in self._graph.constants]
        if constants:
            value = next(name for name in node.inputs if name != constants[0])
            factor = self._per_channel(node, value, constants[0])
            self._channel_affine(node, value, factor, np.zeros(factor.size))
            return
        names = list(node.inputs)
        shapes = [image_shape(self._graph.values[name]) for name in names]
        if shapes[0] != image_shape(self._graph.values[node.output]):
            names.reverse()
            shapes.reverse()
        if shapes[0] != image_shape(self._graph.values[node.output]) or shapes[1] not in (
            shapes[0],
            (shapes[0][0], 1, 1),
        ):
            raise UnsupportedOperatorError(
                node.name, node.op, "its operands are neither images of one shape nor gates."
            )
        source, other = (self._value(name, node) for name in names)
        target = self._new_value(node.output)
        # What a quantum of the other operand is worth is part of the factor.
        scale = self._units(source, target) * self._tensors[other].scale
        self._steps.append(ProductStep(node.name, node.op, source, other, target, scale=scale))

    def _curve(self, node: Node) -> None:
        source, target = self._value(node.inputs[0], node), self._new_value(node.output)
        slope, offset = node.attrs.get("alpha", 1 / 6), node.attrs.get("beta", 0.5)
        scales = self._tensors[source].scale, self._tensors[target].scale
        self._steps.append(CurveStep(node.name, node.op, source, target=target, line=(slope, offset), scales=scales))

    def _clip(self, node: Node) -> None:
        self._eltwise(node, self._value(node.inputs[0], node), -1, self._new_value(node.output))

    def _convert(self, node: Node) -> None:
        self._eltwise(node, self._value(node.inputs[0], node), -1, self._new_value(node.output))

    def _eltwise(self, node: Node, source: int, other: int, target: int) -> None:
        tensor = self._tensors[target]
        self._steps.append(
            EltwiseStep(
                node.name,
                node.op,
                source,
                other,
                target,
                source_scale=self._units(source, target),
                other_scale=self._units(other, target) if other >= 0 else 1.0,
                clamp=quantised_clamp(tensor, node.attrs.get("clip", NO_CLIP)),
            )
        )

    def _flatten(self, node: Node) -> None:
        """Flatten, or a Reshape that flattens. One pixel is flat already: then both values share a tensor."""
        index = self._value(node.inputs[0], node)
        source = self._tensors[index]
        info = self._graph.values[node.output]
        if image_shape(info) != (source.elements, 1, 1):
            raise UnsupportedOperatorError(node.name, node.op, "it does not flatten each image into one row.")
        target = tensor_for(info, self._precision)
        same_units = (source.dtype, source.scale, source.zero) == (target.dtype, target.scale, target.zero)
        if (source.height, source.width) != (1, 1):
            flat = Tensor(info.name, source.dtype, source.elements, 1, 1, scale=source.scale, zero=source.zero)
            flattened = self._add_tensor(flat)
            self._steps.append(FlattenStep(node.name, node.op, index, target=flattened))
            index = flattened
        if same_units:
            self._by_value[node.output] = index
        else:
            self._eltwise(node, index, -1, self._new_value(node.output))

    def _softmax(self, node: Node) -> None:
        rank = len(self._graph.values[node.inputs[0]].shape)
        if node.attrs["axis"] % rank != 1:
            raise UnsupportedOperatorError(node.name, node.op, "it does not run over channels (axis 1).")
        source = self._converted(self._value(node.inputs[0], node), _native.F32)
        target = self._new_value(node.output)
        tensor = self._tensors[target]
        floats = target
        if tensor.dtype != _native.F32:
            floats = self._add_tensor(Tensor(tensor.name, _native.F32, tensor.channels, tensor.height, tensor.width))
        self._steps.append(SoftmaxStep(node.name, node.op, source, target=floats))
        if floats != target:
            self._quantise(floats, target)


_HANDLERS: dict[str, Callable[[_Planner, Node], None]] = {
    "Conv": _Planner._conv,
    "MaxPool": _Planner._pool,
    "AveragePool": _Planner._pool,
    "GlobalAveragePool": _Planner._global_average,
    "Add": _Planner._add,
    "Clip": _Planner._clip,
    "HardSigmoid": _Planner._curve,
    "HardSwish": _Planner._curve,
    "Mul": _Planner._mul,
    "Sigmoid": _Planner._curve,
    "Swish": _Planner._curve,
    "BatchNormalization": _Planner._batch_normalization,
    "Flatten": _Planner._flatten,
    "Reshape": _Planner._flatten,
    "Softmax": _Planner._softmax,
    "QuantizeLinear": _Planner._convert,
    "DequantizeLinear": _Planner._convert,
}


def _pixel_values(tensor: Tensor, normalisation: Normalisation) -> npt.NDArray[Any]:
    """[channels, 256] in the tensor's element type: what each value of a uint8 pixel becomes."""
    table = normalisation.table()
    if tensor.dtype == _native.U8:
        quantised = np.rint(table / np.float32(tensor.scale)) + tensor.zero
        levels: npt.NDArray[Any] = np.clip(quantised, 0, 255).astype(np.uint8)
        return levels
    if tensor.dtype == _native.BF16:
        bits = table.view(np.uint32)
        halves: npt.NDArray[Any] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return halves
    return table
