"""How much each tensor's eight bits cost at the end of the network, and what it would take to do without them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera.engine.graph.ir import Node
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.placement.floats import Gain
from tessera.engine.quantize.placement.values import Placement
from tessera.engine.quantize.rounding.activations import ActivationRange, fake_quantise
from tessera.engine.quantize.rounding.noise import per_channel, power
from tessera.engine.quantize.rounding.weights import LARGEST, quantise_weights
from tessera.engine.quantize.settlement.choice import PIECE, float_values

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Sensitivity(Gain):
    """What storing one tensor in eight bits costs, everything else in floating point.

    Attributes:
        tensor: the tensor.
        layers: the layers that read it, by their outputs; their weights are quantised with it.
        share: the layers' share of the network's multiply-accumulates, 0 to 1.
    """

    tensor: str
    layers: tuple[str, ...]
    share: float

    @property
    def decibels(self) -> float:
        """The noise as a signal-to-noise ratio in dB."""
        return decibels(self.noise)


# `measure_sensitivities` of one network on some images, for the tensors that are given ranges.
Measure = Callable[[Mapping[str, ActivationRange]], list[Sensitivity]]


def decibels(noise: float) -> float:
    """Noise power over signal power as a signal-to-noise ratio in dB; infinite without noise."""
    return -10 * math.log10(noise) if noise > 0 else math.inf


def measure_sensitivities(
    runners: NodeRunners,
    placement: Placement,
    ranges: Mapping[str, ActivationRange],
    weight_limits: Mapping[str, int],
    images: Array,
    report: Callable[[str, float], None],
    tails: Mapping[str, Mapping[str, Array]] | None = None,
) -> list[Sensitivity]:
    """Quantise one tensor at a time and run the rest of the network from there in floating point.

    Args:
        runners: the float network and what runs its nodes.
        placement: which tensors are quantised.
        ranges: by tensor, what its eight bits cover; tensors without one are left out.
        weight_limits: as for `tessera.engine.quantize.settlement.propagation.Propagation`.
        images: [n, C, H, W], looked at a few at a time. What counts is power summed over all results; some images
            exceed a range by far more than others, so a handful tells too little.
        report: called as `report(stage, fraction)`.
        tails: by tensor, the values of more images from it to the network's end; they count instead of `images` there.

    Returns:
        The worst first.
    """
    graph = runners.graph
    tensors = [tensor for tensor in placement.ranges_needed() if tensor in ranges]
    layers = {tensor: _layers_behind(runners, placement, tensor) for tensor in tensors}
    tails = {tensor: values for tensor, values in (tails or {}).items() if tensor in layers}
    inner = [tensor for tensor in tensors if tensor not in tails]
    noise = dict.fromkeys(tensors, 0.0)
    signal, done = 0.0, 0
    for start in range(0, len(images), PIECE):
        values = float_values(runners, images[start : start + PIECE], tensors)
        wanted = values[graph.outputs[0]]
        signal += power(wanted)

        def measure(tensor: str, values: Mapping[str, Array] = values, wanted: Array = wanted) -> float:
            nonlocal done
            got = _run_with(runners, values, tensor, ranges[tensor], layers[tensor], weight_limits)
            done += 1
            report("measuring sensitivity", done * PIECE / (len(inner) * max(len(images), PIECE)))
            return power(np.subtract(got, wanted))

        for tensor, more in zip(inner, runners.each(measure, inner), strict=True):
            noise[tensor] += more
        sizes = {name: value[0].size for name, value in values.items()}
        del values, wanted, measure  # before the next are there
    relative = {tensor: noise[tensor] / max(signal, 1e-30) for tensor in inner}
    for tensor, tail in tails.items():
        answers = tail[graph.outputs[0]]
        got = _run_with(runners, tail, tensor, ranges[tensor], layers[tensor], weight_limits)
        relative[tensor] = power(np.subtract(got, answers)) / max(power(answers), 1e-30)
    costs, readers = _multiplications(runners, sizes), graph.readers()
    total = max(sum(costs.values()), 1)

    def entry(tensor: str) -> Sensitivity:
        names = tuple(layer.output for layer in layers[tensor])
        macs = sum(costs[name] for name in names)
        weights = sum(int(graph.constants[layer.inputs[1]].size) for layer in layers[tensor])
        return Sensitivity(
            noise=float(f"{relative[tensor]:.4g}"),  # as it is written down, so that builds choose alike
            macs=macs,
            elements=sizes[tensor] * (1 + len(readers.get(tensor, ()))) + weights,
            rounded=sum(sizes[name] for name in names if name not in graph.outputs),
            tensor=tensor,
            layers=names,
            share=macs / total,
        )

    return sorted(map(entry, tensors), key=lambda found: -found.noise)


def _multiplications(runners: NodeRunners, sizes: Mapping[str, int]) -> dict[str, int]:
    """Multiply-accumulates of one image, by layer, from the numbers in each value of one image."""
    graph, costs = runners.graph, {}
    for node in graph.nodes:
        names = weight_names(graph, node)
        if names is not None:
            costs[node.output] = sizes[node.output] * int(graph.constants[names[0]][0].size)
    return costs


def _layers_behind(runners: NodeRunners, placement: Placement, tensor: str) -> list[Node]:
    graph = runners.graph
    return [
        node
        for node in graph.nodes
        if weight_names(graph, node) is not None and placement.roots.get(node.inputs[0]) == tensor
    ]


def _run_with(
    runners: NodeRunners,
    values: Mapping[str, Array],
    tensor: str,
    stored_as: ActivationRange,
    layers: Sequence[Node],
    weight_limits: Mapping[str, int],
) -> Array:
    """The network's result with one tensor and the weights of its layers in eight bits."""
    graph = runners.graph
    changed = {tensor: fake_quantise(values[tensor], stored_as)}
    quantised = {layer.output for layer in layers}
    last_reader = {name: position for position, node in enumerate(graph.nodes) for name in node.present_inputs()}
    for position, node in enumerate(graph.nodes):
        output = node.output
        if output == tensor or not any(name in changed for name in node.present_inputs()):
            continue
        runner = runners.of(node)
        if output in quantised:
            names = weight_names(graph, node)
            assert names is not None, "layers have weights"
            scale = stored_as.scale_and_zero_point()[0]
            weight, bias = (graph.constants[name] for name in names)
            integers = quantise_weights(weight, bias, scale, weight_limits.get(output, LARGEST))
            runner = runners.quantised(node, {names[0]: integers.real()})
        got = runner.run_on([changed[name] if name in changed else values[name] for name in runner.inputs])
        if output in quantised:  # its bias will be corrected
            error = np.subtract(values[output], got)
            got += per_channel(error.mean(axis=(0, *range(2, error.ndim)), dtype=np.float64), got)
        changed[output] = got
        for name in node.present_inputs():
            if last_reader[name] == position:
                changed.pop(name, None)
    result: Array = changed.get(graph.outputs[0], values[graph.outputs[0]])
    return result
