"""Pruning by what the weights alone tell."""

from __future__ import annotations

import os

import numpy as np
import onnx

from tessera.engine.graph.writer import to_onnx
from tessera.engine.pruning.blocks import (
    BLOCK,
    Block,
    block_energies,
    cheapest,
    check_share,
    layers_with_blocks,
    spread,
)
from tessera.engine.quantize.network.layers import read_network


def prune(
    model: str | os.PathLike[str] | onnx.ModelProto, share: float, *, block: Block = BLOCK, evenly: bool = False
) -> onnx.ModelProto:
    """Set the blocks of a network's convolutions to zero that carry least, and fold its batch normalisations.

    What a block carries is its part of the squared weights of its layer. Left whole are layers without a full block of
    input channels, convolutions in groups and fully connected layers.

    Args:
        model: float32 ONNX, a file or in memory.
        share: of all blocks, from 0 to 1, that become zero.
        block: output channels and input channels that share a block; every tap has blocks of its own.
        evenly: the same share of every layer, which saves most time. Else blocks are compared across layers, which
            costs less accuracy: wide layers, with many blocks and few pixels, lose most.

    Returns:
        The pruned model, to be run or quantised like any other.

    Raises:
        ModelError: the model cannot be read or is quantised already, the share is none, or no layer has blocks.
        UnsupportedOperatorError: a node's operator is none that the engine runs.
    """
    check_share(share)
    graph = read_network(model)
    energies = {name: block_energies(graph.constants[name], block) for _, name, _ in layers_with_blocks(graph, block)}
    carried = {name: energy / (energy.sum() or 1) for name, energy in energies.items()}
    if evenly:
        zero = {name: cheapest({name: part}, share)[name] for name, part in carried.items()}
    else:
        zero = cheapest(carried, share)
    for name, flags in zero.items():
        weights = graph.constants[name]
        graph.constants[name] = np.where(spread(flags, weights, block), 0, weights)
    return to_onnx(graph)
