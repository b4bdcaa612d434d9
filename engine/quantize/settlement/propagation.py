"""Images go through the network, node by node, and settle each bias of its quantised form where it is needed.

The sample images are held at the current node as the quantised network will have them, with everything upstream
already settled. So the bias of a layer is corrected by the measured shift of its channel means from the float
network's, to which all earlier layers have contributed. The cost is about one pass of the float network over the
sample, whatever its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.engine import _native
from tessera.engine.graph.ir import Node
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunner, NodeRunners
from tessera.engine.quantize.observation.channels import channel_means, thinned
from tessera.engine.quantize.placement.corrections import corrected_values
from tessera.engine.quantize.placement.values import Placement
from tessera.engine.quantize.rounding.activations import ActivationRange, fake_quantise, restore, store
from tessera.engine.quantize.rounding.digits import rounded_correction
from tessera.engine.quantize.rounding.noise import per_channel, power
from tessera.engine.quantize.rounding.weights import LARGEST, quantise_weights
from tessera.engine.quantize.settlement.bias import shift_before_relu

Array = NDArray[np.float32]

# The sample goes through the network in pieces of so many images, a thread each.
_PIECE = 4

# The float network's values are at hand for so many images of the sample, to tell the noise by.
_COMPARED = 2

# In place of a piece that is read no more.
_NOTHING = np.empty(0, np.float32)

# Channels whose bias is found at once.
_CHANNELS = 32


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
        corrections: by layer, what to add to each channel's bias; rounded as it is written down.
        layers: per quantised layer.
    """

    corrections: dict[str, tuple[float, ...]]
    layers: list[LayerNoise]


class Propagation:
    """The images on their way through the network; `run` is called once.

    Args:
        runners: the float network and what runs its nodes.
        complete: where it could be quantised.
        floats: the tensors that stay in floating point. The biases of the layers that read them are settled beside
            the images' way, for CPUs on which others stay.
        ranges: by tensor, what its eight bits cover.
        targets: by value, the float network's channel means [C] over the sample, as `channel_means` takes them; of all
            `corrected_values`.
        weight_limits: by layer, the magnitude that its integer weights end at, where it is not 127.
        correct: whether biases are corrected.
        report: called as `report(stage, fraction)`.
    """

    def __init__(
        self,
        runners: NodeRunners,
        complete: Placement,
        floats: Collection[str],
        ranges: Mapping[str, ActivationRange],
        targets: Mapping[str, NDArray[np.float64]],
        weight_limits: Mapping[str, int],
        *,
        correct: bool,
        report: Callable[[str, float], None],
    ) -> None:
        graph = self._graph = runners.graph
        self._runners = runners
        self._complete = complete
        self._floating = frozenset(floats)
        self._ranges = ranges
        self._targets = targets
        self._weight_limits = weight_limits
        self._correct = correct
        self._report = report
        self._readers = graph.readers()
        self._corrected = corrected_values(graph, complete)
        self._floats: dict[str, Array] = {}
        # Numbers in eight bits are kept so, a quarter of what the sample takes otherwise.
        self._stored: dict[str, list[NDArray[Any]]] = {}
        self._corrections: dict[str, tuple[float, ...]] = {}
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
            self._report("correcting biases", position / len(self._graph.nodes))
            read = [name for name in dict.fromkeys(node.present_inputs()) if name in self._stored]
            for name in read:
                remaining[name] -= 1
            last = [name for name in read if remaining[name] == 0]
            self._pass(node, last)
            for name in last:
                self._floats.pop(name, None)
                self._stored.pop(name, None)
            _native.trim_heap()
        return Settled(self._corrections, self._layers)

    def _pass(self, node: Node, last: Collection[str]) -> None:
        """Take the images through one node, after which the values `last` are read no more."""
        output, layer = node.output, self._corrected.get(node.output)
        if layer is not None and self._reads_floats(layer):
            layer = None
        runner = self._runners.of(node)
        rounding = self._runners.start(self._quantised, node)  # meanwhile, what the float network has:
        wanted = runner.run(self._floats)
        quantised = rounding.result()
        rectified = node.op == "Relu" and layer is not None
        if rectified:
            got = self._floating_pieces(node.inputs[0])
        else:
            chosen = runner if quantised is None or self._reads_floats(node) else quantised

            aside = quantised is not None and chosen is runner

            def run(piece: int) -> Array:
                result = chosen.run_on([self._restored(name, piece) for name in runner.inputs])
                for name in last if piece or not aside else ():  # what is read aside is the first piece
                    self._stored[name][piece] = _NOTHING
                return result

            got = self._runners.each(run, range(len(self._stored[runner.inputs[0]])))
            if quantised is not None and aside:
                self._correct_aside(node, quantised, got[0])
        if layer is not None:
            self._correct_bias(layer, output, got, rectified=rectified)
            self._note(layer, wanted, got[0][: len(wanted)])
        self._floats[output] = wanted
        self._settle(output, got)

    def _reads_floats(self, layer: Node) -> bool:
        return self._complete.roots.get(layer.inputs[0]) in self._floating

    def _restored(self, name: str, piece: int) -> Array:
        """A piece of a value as floats, as the next nodes read it."""
        values = self._stored[name][piece]
        return restore(values, self._ranges[self._complete.roots[name]]) if values.dtype == np.uint8 else values

    def _floating_pieces(self, name: str) -> list[Array]:
        """All of a value that is in floating point: the arrays themselves."""
        return [self._restored(name, piece) for piece in range(len(self._stored[name]))]

    def _quantised(self, node: Node) -> NodeRunner | None:
        """The runner with quantised weights, of a layer that can read eight bits."""
        names, root = weight_names(self._graph, node), self._complete.roots.get(node.inputs[0])
        if names is None or root is None:
            return None
        weight, bias = (self._graph.constants[name] for name in names)
        limit = self._weight_limits.get(node.output, LARGEST)
        integers = quantise_weights(weight, bias, self._ranges[root].scale_and_zero_point()[0], limit)
        return self._runners.quantised(node, {names[0]: integers.real()})

    def _correct_aside(self, layer: Node, quantised: NodeRunner, exact: Array) -> None:
        """The bias correction of a layer that stays in floating point here, for when it does not.

        Args:
            layer: the layer.
            quantised: runs it with quantised weights.
            exact: its result of the first piece.
        """
        if self._correct:
            stored = fake_quantise(
                self._restored(layer.inputs[0], 0), self._ranges[self._complete.roots[layer.inputs[0]]]
            )
            error = channel_means(exact) - channel_means(quantised.run_on([stored]))
            self._corrections[layer.output] = rounded_correction(error.mean(axis=0, dtype=np.float64))

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
        """Keep a value as the quantised network stores it."""
        root = self._complete.roots.get(name)
        if root is None or root in self._floating:
            self._stored[name] = list(pieces)
        else:
            stored_as = self._ranges[root]

            def keep(piece: int) -> NDArray[np.uint8]:
                stored = store(pieces[piece], stored_as)
                pieces[piece] = _NOTHING
                return stored

            self._stored[name] = self._runners.each(keep, range(len(pieces)))


def _by_channel(pieces: Sequence[Array]) -> Array:
    """Pieces [n, C, ...] as one array [C, positions]."""
    channels = pieces[0].shape[1]
    return np.concatenate([np.moveaxis(piece, 1, 0).reshape(channels, -1) for piece in pieces], axis=1)
