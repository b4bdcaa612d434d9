"""One walk through the network, node by node, that settles every number of its quantised form where it is needed.

The sample images are held at the current node twice: as the float network has them, and as the quantised network will
have them, with everything upstream already settled. So each decision is taken by its measured effect: the range of a
tensor by the error that it causes in the layers that read the tensor, and the bias of a layer by the shift of its
channel means, to which all earlier layers have contributed. The cost is about two passes of the float network over
the sample, whatever its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from engine.quantize.calibration import ActivationRange, rounded_correction, rounded_range
from engine.quantize.float_graph import weight_names
from engine.quantize.nodes import NodeRunners
from engine.quantize.placement import Placement, residual_operands
from engine.quantize.weights import quantise_weights

Array = NDArray[np.float32]

# Candidates are compared on so many images of the sample: their errors differ by far more than images do.
_COMPARED = 6

# Newton's method for the bias in front of a ReLU: few channels need more; those that are almost never above zero are
# not moved far for the little that their mean says.
_NEWTON_STEPS = 4
_LEAST_ACTIVE = 0.1
_LARGEST_SHIFT = 0.5
_LARGE = 28


@dataclass(frozen=True)
class TensorChoice:
    """How the range of one tensor was chosen.

    Attributes:
        name: the tensor.
        method: the winning method.
        errors: measured error of every candidate: noise power over signal power, summed over what reads the tensor.
    """

    name: str
    method: str
    errors: dict[str, float]


@dataclass(frozen=True)
class LayerNoise:
    """How far a layer's result is from the float network's, bias corrected.

    Attributes:
        name: the layer, by its output.
        op: "Conv" or "Gemm".
        noise: power of the error over power of the float result behind the layer's residual and ReLU, everything
            upstream quantised too.
    """

    name: str
    op: str
    noise: float


@dataclass(frozen=True)
class Settled:
    """What a walk has found.

    Attributes:
        ranges: by tensor, rounded as they are written down.
        corrections: by layer, what to add to each channel's bias; rounded likewise.
        choices: per tensor that had several candidates.
        layers: per quantised layer.
    """

    ranges: dict[str, ActivationRange]
    corrections: dict[str, tuple[float, ...]]
    choices: list[TensorChoice]
    layers: list[LayerNoise]


class Walk:
    """The state of a walk; `run` is called once.

    Args:
        runners: the float network and what runs its nodes.
        placement: where it is quantised.
        candidates: by tensor, the ranges to choose from, by method.
        correct: whether biases are corrected.
        report: called as `report(stage, fraction)`.
    """

    def __init__(
        self,
        runners: NodeRunners,
        placement: Placement,
        candidates: Mapping[str, Mapping[str, ActivationRange]],
        *,
        correct: bool,
        report: Callable[[str, float], None],
    ) -> None:
        graph = self._graph = runners.graph
        self._runners = runners
        self._placement = placement
        self._candidates = candidates
        self._correct = correct
        self._report = report
        self._readers = graph.consumers()
        self._floats: dict[str, Array] = {}
        self._stored: dict[str, Array] = {}
        self._ranges: dict[str, ActivationRange] = {}
        self._corrections: dict[str, tuple[float, ...]] = {}
        self._choices: list[TensorChoice] = []
        self._layers: list[LayerNoise] = []
        self._pending: dict[str, onnx.NodeProto] = {}

    def run(self, images: Array) -> Settled:
        """Walk through the network with float32 images [n, C, H, W].

        Raises:
            ModelError: a node cannot run.
        """
        source = self._graph.inputs[0].name
        self._floats[source] = images
        self._settle(source, images)
        remaining = {name: len(nodes) for name, nodes in self._readers.items()}
        for position, node in enumerate(self._graph.nodes):
            self._report("choosing ranges and correcting biases", position / len(self._graph.nodes))
            self._pass(node)
            for name in dict.fromkeys(node.input):
                if name in remaining:
                    remaining[name] -= 1
                    if remaining[name] == 0:
                        self._floats.pop(name, None)
                        self._stored.pop(name, None)
        return Settled(self._ranges, self._corrections, self._choices, self._layers)

    def _pass(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        runner = self._runners.of(node)
        wanted = runner.run(self._floats)
        names = weight_names(self._graph, node)
        root = self._placement.roots.get(node.input[0])
        if names is not None and root is not None:
            got = self._run_quantised(node, names, self._ranges[root])
            layer: onnx.NodeProto | None = node
        elif node.op_type == "Relu" and node.input[0] in self._pending:
            layer = self._pending.pop(node.input[0])
            got = self._rectified(layer, wanted, self._stored[node.input[0]])
            layer = None
        else:
            got = runner.run(self._stored)
            waiting = [self._pending.pop(name) for name in node.input if name in self._pending]
            layer = waiting[0] if waiting else None
        if layer is not None:
            if self._continues(output):
                self._pending[output] = layer
            else:
                got = self._shifted(layer, wanted, got)
        self._floats[output] = wanted
        self._settle(output, got)

    def _continues(self, value: str) -> bool:
        """Whether a layer's result stays in its accumulator, because a residual Add or a ReLU is all that reads it."""
        readers = self._readers.get(value, [])
        if value in self._placement.roots or value in self._graph.output_names() or len(readers) != 1:
            return False
        reader = readers[0]
        if reader.op_type == "Relu":
            return True
        return residual_operands(self._graph, reader) is not None and not any(
            name in self._pending for name in reader.input
        )

    def _run_quantised(self, node: onnx.NodeProto, names: tuple[str, str], stored_as: ActivationRange) -> Array:
        weight, bias = (self._graph.constants[name] for name in names)
        integers = quantise_weights(weight, bias, stored_as.scale_and_zero_point()[0])
        constants = {names[0]: integers.real(), names[1]: bias}
        return self._runners.quantised(node, constants).run(self._stored)

    def _shifted(self, layer: onnx.NodeProto, wanted: Array, got: Array) -> Array:
        """The result with each channel's mean put where the float network has it."""
        error = np.subtract(wanted, got)
        shift = error.mean(axis=_all_but_channels(error), dtype=np.float64)
        got += self._correction(layer, shift, got)
        return self._noted(layer, wanted, got)

    def _rectified(self, layer: onnx.NodeProto, wanted: Array, sums: Array) -> Array:
        """The result behind a ReLU, its bias such that the mean behind the ReLU is where the float network has it.

        The mean behind the ReLU grows with the bias by the share of positions that are above zero: Newton's method.
        """
        axes = _all_but_channels(sums)
        some = _thinned(sums)
        target = _thinned(wanted).mean(axis=axes, dtype=np.float64)
        limit = _LARGEST_SHIFT * some.std(axis=axes, dtype=np.float64)
        shift = np.zeros(sums.shape[1])
        for _ in range(_NEWTON_STEPS):
            moved = some + _per_channel(shift.astype(np.float32), some)
            active = np.maximum((moved > 0).mean(axis=axes), _LEAST_ACTIVE)
            np.maximum(moved, 0, out=moved)
            shift = np.clip(shift + (target - moved.mean(axis=axes, dtype=np.float64)) / active, -limit, limit)
        sums += self._correction(layer, shift, sums)
        return self._noted(layer, wanted, np.maximum(sums, 0, out=sums))

    def _correction(self, layer: onnx.NodeProto, shift: NDArray[np.float64], values: Array) -> Array:
        """Note a layer's correction; returns it, as it will be read back, in a shape that adds to `values`."""
        if not self._correct:
            shift = np.zeros_like(shift)
        else:
            self._corrections[layer.output[0]] = rounded_correction(shift)
            shift = np.array(self._corrections[layer.output[0]])
        return _per_channel(shift.astype(np.float32), values)

    def _noted(self, layer: onnx.NodeProto, wanted: Array, got: Array) -> Array:
        some = _thinned(wanted)
        noise = power(np.subtract(some, _thinned(got))) / max(power(some), 1e-30)
        self._layers.append(LayerNoise(layer.output[0], layer.op_type, noise))
        return got

    def _settle(self, name: str, value: Array) -> None:
        """Store a value as the quantised network does, its range chosen first where it has one of its own."""
        root = self._placement.roots.get(name)
        if root is None:
            self._stored[name] = value
            return
        if root == name:
            self._ranges[name] = rounded_range(self._choose(name, value))
        self._stored[name] = fake_quantise(value, self._ranges[root])

    def _choose(self, name: str, value: Array) -> ActivationRange:
        candidates = self._candidates[name]
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        step = max(1, len(value) // _COMPARED)
        some = np.ascontiguousarray(value[::step])
        layers = [
            self._runners.of(node)
            for node in self._readers.get(name, [])
            if weight_names(self._graph, node) is not None
        ]
        targets = [layer.run_on([some]) for layer in layers]
        errors = {}
        for method, candidate in candidates.items():
            rough = fake_quantise(some, candidate)
            errors[method] = relative_error(some, rough)
            for layer, target in zip(layers, targets, strict=True):
                errors[method] += relative_error(target, layer.run_on([rough]))
        best = min(errors, key=lambda method: errors[method])
        self._choices.append(TensorChoice(name, best, errors))
        return candidates[best]


def fake_quantise(values: Array, stored_as: ActivationRange) -> Array:
    """What is left of float32 values [images, ...] after being stored in eight bits."""
    scale, zero = stored_as.scale_and_zero_point()
    low, high = np.float32(-int(zero)), np.float32(255 - int(zero))
    result = np.empty_like(values)

    def convert(start: int) -> None:
        part = slice(start, start + 4)
        out = np.divide(values[part], scale, out=result[part])
        np.rint(out, out=out)
        np.clip(out, low, high, out=out)
        np.multiply(out, scale, out=out)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(convert, range(0, len(values), 4)))
    return result


def relative_error(wanted: Array, got: Array) -> float:
    """Noise power over signal power, without the mean error of each channel, which biases will take away."""
    error = np.subtract(wanted, got)
    error -= _per_channel(error.mean(axis=_all_but_channels(error)), error)
    return power(error) / max(power(wanted), 1e-30)


def power(values: Array) -> float:
    """Sum of squares."""
    flat = values.reshape(len(values), -1)
    return float(sum(float(np.dot(row, row)) for row in flat))


def _thinned(values: Array) -> Array:
    """Every second row and column of large feature maps: means over a sample need no more."""
    return np.ascontiguousarray(values[:, :, ::2, ::2]) if values.ndim == 4 and values.shape[2] >= _LARGE else values


def _all_but_channels(values: Array) -> tuple[int, ...]:
    return tuple(axis for axis in range(values.ndim) if axis != 1)


def _per_channel(channels: NDArray[np.float32], values: Array) -> Array:
    return channels.reshape(1, -1, *([1] * (values.ndim - 2)))
