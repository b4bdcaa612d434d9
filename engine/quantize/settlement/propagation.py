"""Images go through the network, node by node, and settle each number of its quantised form where it is needed.

The sample images are held at the current node as the quantised network will have them, with everything upstream
already settled. So each decision is taken by its measured effect: the range of a tensor by the error that it causes in
the layers that read the tensor, and the bias of a layer by the shift of its channel means from the float network's, to
which all earlier layers have contributed. The cost is about two passes of the float network over the sample, whatever
its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tessera.engine.graph.ir import Node
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunner, NodeRunners
from tessera.engine.quantize.observation.channels import channel_means, thinned
from tessera.engine.quantize.placement.corrections import corrected_values
from tessera.engine.quantize.placement.values import Placement
from tessera.engine.quantize.rounding.activations import ActivationRange, fake_quantise
from tessera.engine.quantize.rounding.digits import rounded_correction, rounded_range
from tessera.engine.quantize.rounding.noise import per_channel, power, relative_error
from tessera.engine.quantize.rounding.weights import LARGEST, quantise_weights
from tessera.engine.quantize.settlement.bias import shift_before_relu

Array = NDArray[np.float32]

# The sample goes through the network in pieces of so many images, a thread each.
_PIECE = 8

# Candidates are compared on so many images of the sample: their errors differ by far more than images do.
_COMPARED = 6

# Channels whose bias is found at once.
_CHANNELS = 32


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
    """What a propagation has settled.

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


class Propagation:
    """The images on their way through the network; `run` is called once.

    Args:
        runners: the float network and what runs its nodes.
        placement: where it is quantised.
        candidates: by tensor, the ranges to choose from, by method.
        targets: by value, the float network's channel means [C] over the sample, as `channel_means` takes them; of all
            `corrected_values`.
        weight_limits: by layer, the magnitude that its integer weights end at, where it is not 127.
        correct: whether biases are corrected.
        report: called as `report(stage, fraction)`.
    """

    def __init__(
        self,
        runners: NodeRunners,
        placement: Placement,
        candidates: Mapping[str, Mapping[str, ActivationRange]],
        targets: Mapping[str, NDArray[np.float64]],
        weight_limits: Mapping[str, int],
        *,
        correct: bool,
        report: Callable[[str, float], None],
    ) -> None:
        graph = self._graph = runners.graph
        self._runners = runners
        self._placement = placement
        self._candidates = candidates
        self._targets = targets
        self._weight_limits = weight_limits
        self._correct = correct
        self._report = report
        self._readers = graph.readers()
        self._corrected = corrected_values(graph, placement)
        self._floats: dict[str, Array] = {}
        self._stored: dict[str, list[Array]] = {}
        self._ranges: dict[str, ActivationRange] = {}
        self._corrections: dict[str, tuple[float, ...]] = {}
        self._choices: list[TensorChoice] = []
        self._layers: list[LayerNoise] = []

    def run(self, images: Array) -> Settled:
        """Take float32 images [n, C, H, W] through the network.

        Raises:
            ModelError: a node cannot run.
        """
        source = self._graph.inputs[0]
        self._floats[source] = images[:_COMPARED]
        self._settle(source, [images[start : start + _PIECE] for start in range(0, len(images), _PIECE)])
        remaining = {name: len(nodes) for name, nodes in self._readers.items()}
        for position, node in enumerate(self._graph.nodes):
            self._report("choosing ranges and correcting biases", position / len(self._graph.nodes))
            self._pass(node)
            for name in dict.fromkeys(node.present_inputs()):
                if name in remaining:
                    remaining[name] -= 1
                    if remaining[name] == 0:
                        self._floats.pop(name, None)
                        self._stored.pop(name, None)
        return Settled(self._ranges, self._corrections, self._choices, self._layers)

    def _pass(self, node: Node) -> None:
        output, layer = node.output, self._corrected.get(node.output)
        runner = self._runners.of(node)
        rounding = self._runners.start(self._quantised, node)  # meanwhile, what the float network has:
        wanted = runner.run(self._floats)
        quantised = rounding.result() or runner
        rectified = node.op == "Relu" and layer is not None
        if rectified:
            got = self._stored[node.inputs[0]]
        else:
            inputs = list(zip(*(self._stored[name] for name in runner.inputs), strict=True))
            got = self._runners.each(quantised.run_on, inputs)
        if layer is not None:
            self._correct_bias(layer, output, got, rectified=rectified)
            self._note(layer, wanted, got[0][: len(wanted)])
        self._floats[output] = wanted
        self._settle(output, got)

    def _quantised(self, node: Node) -> NodeRunner | None:
        """The runner with quantised weights, of a layer that reads eight bits."""
        names, root = weight_names(self._graph, node), self._placement.roots.get(node.inputs[0])
        if names is None or root is None:
            return None
        weight, bias = (self._graph.constants[name] for name in names)
        limit = self._weight_limits.get(node.output, LARGEST)
        integers = quantise_weights(weight, bias, self._ranges[root].scale_and_zero_point()[0], limit)
        return self._runners.quantised(node, {names[0]: integers.real()})

    def _correct_bias(self, layer: Node, value: str, pieces: list[Array], *, rectified: bool) -> None:
        """Put each channel's mean where the float network has it; of what goes into a ReLU, the mean behind it.

        Args:
            layer: whose bias it is.
            value: the corrected value.
            pieces: the value itself or, `rectified`, what goes into the ReLU; the corrected value afterwards.
            rectified: whether the value is the result of a ReLU.
        """
        target = self._targets[value]
        if not self._correct:
            shift = np.zeros(len(target))
        elif rectified:
            some = _by_channel(self._runners.each(lambda piece: np.ascontiguousarray(thinned(piece)), pieces))
            blocks = [slice(start, start + _CHANNELS) for start in range(0, len(target), _CHANNELS)]
            parts = self._runners.each(lambda block: shift_before_relu(some[block], target[block]), blocks)
            shift = np.concatenate(parts)
        else:
            means = np.concatenate(self._runners.each(channel_means, pieces))
            shift = target - means.mean(axis=0, dtype=np.float64)
        if self._correct:
            self._corrections[layer.output] = rounded_correction(shift)
            shift = np.array(self._corrections[layer.output])

        def apply(piece: Array) -> None:
            for start in range(len(piece)):  # one image at a time stays in the cache
                image = piece[start : start + 1]
                image += per_channel(shift, image)
                if rectified:
                    np.maximum(image, 0, out=image)

        self._runners.each(apply, pieces)

    def _note(self, layer: Node, wanted: Array, got: Array) -> None:
        noise = power(np.subtract(wanted, got)) / max(power(wanted), 1e-30)
        self._layers.append(LayerNoise(layer.output, layer.op, noise))

    def _settle(self, name: str, pieces: list[Array]) -> None:
        """Store a value as the quantised network does, its range chosen first where it has one of its own."""
        root = self._placement.roots.get(name)
        if root is not None:
            if root == name:
                self._ranges[name] = rounded_range(self._choose(name, pieces[0][:_COMPARED]))
            stored_as = self._ranges[root]
            pieces = self._runners.each(lambda piece: fake_quantise(piece, stored_as), pieces)
        self._stored[name] = pieces

    def _choose(self, name: str, some: Array) -> ActivationRange:
        candidates = self._candidates[name]
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        layers = [
            self._runners.of(node)
            for node in self._readers.get(name, [])
            if weight_names(self._graph, node) is not None
        ]

        def results(candidate: ActivationRange | None) -> list[Array]:
            stored = some if candidate is None else fake_quantise(some, candidate)
            return [stored, *(layer.run_on([stored]) for layer in layers)]

        def error(rough: Sequence[Array]) -> float:
            return sum(relative_error(target, got) for target, got in zip(targets, rough, strict=True))

        targets, *found = self._runners.each(results, [None, *candidates.values()])
        errors = dict(zip(candidates, self._runners.each(error, found), strict=True))
        best = min(errors, key=lambda method: errors[method])
        self._choices.append(TensorChoice(name, best, errors))
        return candidates[best]


def _by_channel(pieces: Sequence[Array]) -> Array:
    """Pieces [n, C, ...] as one array [C, positions]."""
    channels = pieces[0].shape[1]
    return np.concatenate([np.moveaxis(piece, 1, 0).reshape(channels, -1) for piece in pieces], axis=1)
