"""Blocks of a convolution's weights, and which layers have any."""

from __future__ import annotations

import numpy as np

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Array, Graph, Node
from tessera.engine.quantize.network.layers import weight_names

Block = tuple[int, int]

# Output and input channels of one tap that all kernels but AMX's leave out. The widest, AVX-512's, compute 32 channels.
BLOCK: Block = (32, 8)


def layers_with_blocks(graph: Graph, block: Block) -> list[tuple[Node, str, str]]:
    """Convolutions that can be pruned, with the names of their weights and biases.

    Left out are layers without a full block of input channels, convolutions in groups and fully connected layers.

    Args:
        graph: as `tessera.engine.quantize.network.layers.read_network` reads it.
        block: output and input channels.

    Raises:
        ModelError: there is none.
    """
    found = [
        (node, *names)
        for node in graph.nodes
        if (names := weight_names(graph, node)) is not None
        and node.op == "Conv"
        and node.attrs["groups"] == 1
        and graph.constants[names[0]].shape[1] >= block[1]
    ]
    if not found:
        raise ModelError(f"No convolution of the model has a full block of {block[1]} input channels to prune.")
    return found


def check_share(share: float) -> None:
    """Refuse what is no share.

    Raises:
        ModelError: it is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ModelError(f"A share of {share:g} of the blocks cannot be pruned. Give one from 0 to 1.")


def block_energies(weights: Array, block: Block) -> Array:
    """Sums of the squared weights of each block.

    Args:
        weights: [outputs, inputs, height, width].
        block: output and input channels; the last ones may be cut.

    Returns:
        float64 [blocks of outputs, blocks of inputs, height, width].
    """
    squares = np.square(weights.astype(np.float64))
    for axis, size in enumerate(block):
        squares = np.add.reduceat(squares, np.arange(0, weights.shape[axis], size), axis=axis)
    return squares


def cheapest(costs: dict[str, Array], share: float) -> dict[str, Array]:
    """Which blocks are the share that costs least.

    Args:
        costs: by layer, what its blocks cost, of any shape.
        share: from 0 to 1.

    Returns:
        bool, in the shapes of the costs.
    """
    every = np.concatenate([cost.ravel() for cost in costs.values()])
    chosen = np.zeros(len(every), bool)
    chosen[np.argsort(every, kind="stable")[: round(share * len(every))]] = True
    ends = np.cumsum([cost.size for cost in costs.values()])[:-1]
    parts = np.split(chosen, ends)
    return {name: flags.reshape(cost.shape) for (name, cost), flags in zip(costs.items(), parts, strict=True)}


def spread(flags: Array, weights: Array, block: Block) -> Array:
    """From blocks [blocks of outputs, blocks of inputs, ...] to weights [outputs, inputs, ...]."""
    for axis, size in enumerate(block):
        flags = np.repeat(flags, size, axis=axis).take(np.arange(weights.shape[axis]), axis=axis)
    return flags
