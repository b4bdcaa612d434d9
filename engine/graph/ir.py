"""The graph that every pass and backend shares: values, nodes, constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.engine.errors import ModelError
from tessera.wording import counted

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]

NO_CLIP = (float("-inf"), float("inf"))


@dataclass(frozen=True, eq=False)
class QuantParams:
    """Affine quantisation: real = (stored - zero_point) * scale.

    Attributes:
        scale: float32, shape () for one scale per tensor or [channels].
        zero_point: int32, same shape as `scale`.
        dtype: stored element type, uint8 or int8.
        axis: the dimension that `scale` runs along, None for one scale per tensor.
    """

    scale: Array
    zero_point: Array
    dtype: np.dtype[Any]
    axis: int | None

    def matches(self, other: QuantParams | None) -> bool:
        """True when `other` stores every real number as the same integer."""
        return (
            other is not None
            and self.dtype == other.dtype
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass
class ValueInfo:
    """What is known about one value.

    Attributes:
        name: the value's name in the graph.
        shape: sizes; dimension 0 is None exactly when it is the batch, another None is a size unknown until run time.
        dtype: element type as stored. A value with `quant` is stored as integers and read as float32.
        quant: set when the value is stored quantised: its producer quantises with saturation, its readers dequantise.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    quant: QuantParams | None = None

    @property
    def batched(self) -> bool:
        """True when dimension 0 is the batch."""
        return len(self.shape) > 0 and self.shape[0] is None


@dataclass(eq=False)
class Node:
    """One operation. `inputs` holds value names, "" for an absent optional input."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The name of the only value this node writes."""
        return self.outputs[0]

    def describe(self) -> str:
        """How error messages call this node."""
        return f"{self.op} node '{self.name}'"

    def present_inputs(self) -> Iterator[str]:
        """The inputs that are not absent."""
        return (value for value in self.inputs if value)


@dataclass
class Graph:
    """A network: nodes in an order in which they can run, and everything known about its values.

    Attributes:
        name: the graph's name in the file.
        nodes: topologically sorted; every node writes exactly one value.
        inputs: names of the values given to a run.
        outputs: names of the values a run returns.
        constants: weights and other fixed arrays by value name; float64 where they are still to be rounded.
        values: one entry per input, node output and constant.
        metadata: the file's metadata_props.
        opset: ONNX opset version the file was written for; attributes are already normalised, so only reports
            and the writer need it.
    """

    name: str
    nodes: list[Node]
    inputs: list[str]
    outputs: list[str]
    constants: dict[str, Array]
    values: dict[str, ValueInfo]
    metadata: dict[str, str]
    opset: int

    def producer(self, value: str) -> Node | None:
        """The node that writes `value`, None for graph inputs and constants."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: str) -> list[Node]:
        """The nodes that read `value`, each once, in running order."""
        return [node for node in self.nodes if value in node.inputs]

    def writers(self) -> dict[str, Node]:
        """The node that writes each value; graph inputs and constants have none."""
        return {node.output: node for node in self.nodes}

    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each value that any reads, each node once, in running order."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.present_inputs()):
                readers.setdefault(value, []).append(node)
        return readers

    def add_constant(self, name: str, array: Array, quant: QuantParams | None = None) -> str:
        """Adds a constant under `name`, or under a numbered form of it when taken. Returns the name used."""
        unique, number = name, 1
        while unique in self.values:
            number += 1
            unique = f"{name}.{number}"
        self.constants[unique] = array
        self.values[unique] = ValueInfo(unique, tuple(array.shape), array.dtype, quant)
        return unique

    def add_value(self, name: str, shape: Shape, dtype: np.dtype[Any], quant: QuantParams | None = None) -> str:
        """Declares a value under `name`, or under a numbered form of it when taken. Returns the name used."""
        unique, number = name, 1
        while unique in self.values:
            number += 1
            unique = f"{name}.{number}"
        self.values[unique] = ValueInfo(unique, shape, dtype, quant)
        return unique

    def copy(self) -> Graph:
        """A graph to rewrite without changing this one. Arrays are shared: passes replace them, never edit them."""
        return Graph(
            name=self.name,
            nodes=[replace(n, inputs=list(n.inputs), outputs=list(n.outputs), attrs=dict(n.attrs)) for n in self.nodes],
            inputs=list(self.inputs),
            outputs=list(self.outputs),
            constants=dict(self.constants),
            values={name: replace(info) for name, info in self.values.items()},
            metadata=dict(self.metadata),
            opset=self.opset,
        )

    def validate(self) -> None:
        """Checks that the graph can run in its order and that its descriptions agree with each other.

        Raises:
            ModelError: a value is read before it is written, written twice, undescribed, or described wrongly.
        """
        written = set(self.inputs) | set(self.constants)
        for node in self.nodes:
            for value in node.present_inputs():
                if value not in written:
                    raise ModelError(f"{node.describe()} reads '{value}', which nothing before it writes.")
            if len(node.outputs) != 1:
                raise ModelError(
                    f"{node.describe()} writes {counted(len(node.outputs), 'value')}; exactly one is expected."
                )
            if node.output in written:
                raise ModelError(f"{node.describe()} writes '{node.output}', which is already written elsewhere.")
            written.add(node.output)
        if not self.outputs:
            raise ModelError(f"Graph '{self.name}' has no outputs, so running it would return nothing.")
        for value in self.outputs:
            if value not in written:
                raise ModelError(f"Graph output '{value}' is never written.")
        for value in written:
            self._validate_value(value)

    def _validate_value(self, value: str) -> None:
        info = self.values.get(value)
        if info is None:
            raise ModelError(f"Value '{value}' has no description.")
        array = self.constants.get(value)
        if array is not None and (tuple(array.shape) != info.shape or array.dtype != info.dtype):
            raise ModelError(
                f"Constant '{value}' is {array.dtype}{list(array.shape)} "
                f"but is described as {info.dtype}{list(info.shape)}."
            )
        if info.quant is not None:
            _validate_quant(info, info.quant)


def _validate_quant(info: ValueInfo, quant: QuantParams) -> None:
    if info.dtype != quant.dtype:
        raise ModelError(f"Value '{info.name}' is stored as {info.dtype} but its quantisation says {quant.dtype}.")
    if quant.axis is None:
        fits = quant.scale.shape == ()
    else:
        fits = 0 <= quant.axis < len(info.shape) and quant.scale.shape == (info.shape[quant.axis],)
    if not fits or quant.zero_point.shape != quant.scale.shape:
        raise ModelError(
            f"Value '{info.name}' of shape {list(info.shape)} cannot be quantised along axis {quant.axis} "
            f"with {counted(quant.scale.size, 'scale')} and {counted(quant.zero_point.size, 'zero point')}."
        )
