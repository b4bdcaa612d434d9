"""What pruning a layer by itself does to the end of the network, and how much each layer should lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tessera.engine.graph.ir import Node
from tessera.engine.pruning.blocks import cheapest
from tessera.engine.pruning.layer import PrunableLayer
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunner, NodeRunners
from tessera.engine.quantize.rounding.noise import power
from tessera.engine.quantize.settlement.choice import PIECE, float_values

Array = npt.NDArray[np.float32]

# Each layer loses so much of itself, once and again, to find out what that does.
PROBED = (0.25, 0.5)

# Noise that grows by less than this power of the share would be no curve to choose by, by more is an accident.
_FLATTEST, _STEEPEST = 1.25, 6.0
# What most layers of ResNet-50 have.
_USUAL = 2.0
_HALVINGS = 60


@dataclass(frozen=True)
class Curve:
    """The noise at the network's end, over the signal there, where a layer loses a share of its blocks by itself.

    Attributes:
        noise: power over power, at the shares.
        shares: those of `PROBED`, or what comes nearest in a layer of few blocks: one block at least.
    """

    noise: tuple[float, float]
    shares: tuple[float, float] = PROBED

    @property
    def exponent(self) -> float:
        """The noise grows with this power of the share."""
        if self.shares[0] == self.shares[1]:
            return _USUAL
        first, second = (max(noise, 1e-12) for noise in self.noise)
        steepness = math.log(second / first) / math.log(self.shares[1] / self.shares[0])
        return min(max(steepness, _FLATTEST), _STEEPEST)

    @property
    def whole(self) -> float:
        """The noise where the whole layer is lost, were the curve to go on so far."""
        return float(max(self.noise[1], 1e-12) / self.shares[1] ** self.exponent)


def allot(curves: Mapping[str, Curve], prices: Mapping[str, float], share: float) -> dict[str, float]:
    """Shares of layers that save a share of all multiplications with the least noise, were noise to add up.

    Where the sum is least, one more multiplication saved costs the same noise in every layer that has not lost all.

    Args:
        curves: by layer.
        prices: multiplications, by layer.
        share: from 0 to 1.

    Returns:
        By layer, from 0 to 1.
    """
    total = sum(prices.values())

    def shares(slope: float) -> dict[str, float]:
        return {
            name: min(1.0, (slope * prices[name] / (curve.whole * curve.exponent)) ** (1 / (curve.exponent - 1)))
            for name, curve in curves.items()
        }

    low, high = -60.0, 60.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        saved = sum(prices[name] * part for name, part in shares(math.exp(middle) / total).items())
        low, high = (middle, high) if saved < share * total else (low, middle)
    return shares(math.exp(high) / total)


def measure_sensitivities(
    runners: NodeRunners,
    layers: Mapping[str, tuple[Node, PrunableLayer]],
    images: Array,
    report: Callable[[str, float], None],
) -> dict[str, Curve]:
    """Prune one layer at a time, by each of `PROBED`, and run the rest of the network from there.

    Args:
        runners: the float network and what runs its nodes.
        layers: those that can be pruned, by their outputs.
        images: float32 [n, C, H, W], a few at a time.
        report: called as `report(stage, fraction)`.

    Returns:
        By layer.
    """
    graph = runners.graph
    wanted_of = [(name, share) for name in layers for share in PROBED]
    noise, signal, done = dict.fromkeys(wanted_of, 0.0), 0.0, 0
    pruned = {}
    for index, (name, share) in enumerate(wanted_of):
        report("trying layers", index / len(wanted_of))
        pruned[name, share] = _pruned(runners, *layers[name], share)
    for start in range(0, len(images), PIECE):
        values = float_values(runners, images[start : start + PIECE])
        wanted = values[graph.outputs[0]]
        signal += power(wanted)

        def measure(of: tuple[str, float], values: Mapping[str, Array] = values, wanted: Array = wanted) -> float:
            nonlocal done
            got = _run_from(runners, values, layers[of[0]][0], pruned[of])
            done += 1
            report("measuring sensitivity", done * PIECE / (len(wanted_of) * max(len(images), PIECE)))
            return power(np.subtract(got, wanted))

        for of, more in zip(wanted_of, runners.each(measure, wanted_of), strict=True):
            noise[of] += more
    first, second = PROBED
    scale = max(signal, 1e-30)
    return {
        name: Curve(
            (noise[name, first] / scale, noise[name, second] / scale),
            (_nearest(layer, first), _nearest(layer, second)),
        )
        for name, (_, layer) in layers.items()
    }


def _nearest(layer: PrunableLayer, share: float) -> float:
    """The share nearest to another that at least one block makes."""
    return max(1, round(share * layer.costs.size)) / layer.costs.size


def _pruned(runners: NodeRunners, node: Node, layer: PrunableLayer, share: float) -> NodeRunner:
    names = weight_names(runners.graph, node)
    assert names is not None, "layers have weights"
    changed = layer.pruned(cheapest({node.output: layer.costs}, _nearest(layer, share))[node.output])
    return runners.quantised(node, dict(zip(names, changed, strict=True)))


def _run_from(runners: NodeRunners, values: Mapping[str, Array], layer: Node, runner: NodeRunner) -> Array:
    """The network's result with one layer run by another runner."""
    graph = runners.graph
    changed = {layer.output: runner.run(values)}
    last_reader = {name: position for position, node in enumerate(graph.nodes) for name in node.present_inputs()}
    for position, node in enumerate(graph.nodes):
        if node is layer or not any(name in changed for name in node.present_inputs()):
            continue
        reader = runners.of(node)
        changed[node.output] = reader.run_on(
            [changed[name] if name in changed else values[name] for name in reader.inputs]
        )
        for name in node.present_inputs():
            if last_reader[name] == position:
                changed.pop(name, None)
    return changed[graph.outputs[0]]
