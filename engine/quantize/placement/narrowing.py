"""Layers whose weights are kept a little smaller than eight bits allow, because they then multiply faster.

Without VNNI, u8 x s8 products are added in 16 bits, and only where the weights prove that their sums fit (see
`engine/csrc/conv/chain_forming.h`): four input channels of a position and 16 output channels share an instruction, and
where the positive or the negative weights of two neighbouring channels exceed 128 together, all of them are multiplied
in two halves. Layers with few input channels have large weights all over. Weights of seven bits, which end at 64,
always fit, and more of their sums fit together. Rounding of weights is by far not the largest part of the noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.network.runners import NodeRunners
from tessera.engine.quantize.rounding.weights import LARGEST, least_error_scales

NARROW = 64

_LANES = 16
_FOURS = 4
_SUM_LIMIT = 128
# As MOST_WEIGHT_BYTES of `engine/csrc/conv/winograd.c`, which keeps 36 words of two bytes for a pair of channels.
_MOST_WINOGRAD = 24 * 1024 * 1024 // 72

# Below this share of instructions that have to be doubled, there is little to win.
_CROWDED = 0.08


def narrow_layers(runners: NodeRunners) -> dict[str, int]:
    """The convolutions that gain, by their outputs, each with the magnitude that its integer weights are to end at."""
    nodes = runners.graph.nodes
    gains = runners.each(lambda node: _gains(runners.graph, node), nodes)
    return {node.output: NARROW for node, gain in zip(nodes, gains, strict=True) if gain}


def crowding(integers: NDArray[Any]) -> float:
    """Share (0 to 1) of the instructions of a convolution that must be doubled.

    Args:
        integers: weights [output channels, input channels, height, width] in [-127, 127].
    """
    outputs, inputs, height, width = integers.shape
    padded = np.zeros((-(-outputs // _LANES) * _LANES, -(-inputs // _FOURS) * _FOURS, height, width), np.int16)
    padded[:outputs, :inputs] = integers
    pairs = padded.reshape(-1, _LANES, padded.shape[1] // _FOURS, 2, 2, height, width)
    positive = np.maximum(pairs, 0).sum(axis=4, dtype=np.int16)
    negative = positive - pairs.sum(axis=4, dtype=np.int16)
    return float((np.maximum(positive, negative).max(axis=(1, 3)) > _SUM_LIMIT).mean())


def _gains(graph: Graph, node: Node) -> bool:
    names = weight_names(graph, node)
    if node.op != "Conv" or names is None or node.inputs[0] == graph.inputs[0]:
        return False  # what the first layer loses, all others work on
    weight = graph.constants[names[0]]
    if node.attrs["groups"] != 1:
        return False
    # 3x3 convolutions of stride 1 are computed after Winograd, in another way, unless that takes too much memory.
    is_winograd = node.attrs["kernel"] == (3, 3) and node.attrs["strides"] == (1, 1)
    if is_winograd and weight.shape[0] * weight.shape[1] <= _MOST_WINOGRAD:
        return False
    rows = weight.reshape(len(weight), -1)
    scales = np.maximum(least_error_scales(rows), np.finfo(np.float64).tiny)
    integers = rows / scales[:, None]
    np.rint(integers, out=integers)
    np.clip(integers, -LARGEST, LARGEST, out=integers)
    return crowding(integers.reshape(weight.shape)) > _CROWDED
