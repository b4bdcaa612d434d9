"""Zeros in blocks that the engine leaves out: float ONNX in, standard ONNX with zeros in its weights out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Array, Graph
from tessera.engine.graph.writer import to_onnx
from tessera.engine.quantize.network.layers import read_network, weight_names

Block = tuple[int, int]

# Output and input channels of one tap that all kernels but AMX's leave out. The widest, AVX-512's, compute 32 channels.
BLOCK: Block = (32, 8)


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
    if not 0 <= share <= 1:
        raise ModelError(f"A share of {share:g} of the blocks cannot be pruned. Give one from 0 to 1.")
    graph = read_network(model)
    layers = dict(_layers(graph, block))
    if not layers:
        raise ModelError(f"No convolution of the model has a full block of {block[1]} input channels to prune.")
    energies = {name: block_energies(weights, block) for name, weights in layers.items()}
    carried = {name: energy / (energy.sum() or 1) for name, energy in energies.items()}
    if evenly:
        zero = {name: _least({name: part}, share)[name] for name, part in carried.items()}
    else:
        zero = _least(carried, share)
    for name, weights in layers.items():
        graph.constants[name] = np.where(_spread(zero[name], weights, block), 0, weights)
    return to_onnx(graph)


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


def _layers(graph: Graph, block: Block) -> Iterator[tuple[str, Array]]:
    for node in graph.nodes:
        names = weight_names(graph, node)
        if names is None or node.op != "Conv":
            continue
        weights = graph.constants[names[0]]
        if node.attrs["groups"] == 1 and weights.shape[1] >= block[1]:
            yield names[0], weights


def _least(carried: dict[str, Array], share: float) -> dict[str, Array]:
    """Which blocks are the share that carries least, in the shapes of the arrays."""
    all_parts = np.concatenate([part.ravel() for part in carried.values()])
    chosen = np.zeros(len(all_parts), bool)
    chosen[np.argsort(all_parts, kind="stable")[: round(share * len(all_parts))]] = True
    ends = np.cumsum([part.size for part in carried.values()])[:-1]
    return {
        name: flags.reshape(part.shape)
        for (name, part), flags in zip(carried.items(), np.split(chosen, ends), strict=True)
    }


def _spread(zero: Array, weights: Array, block: Block) -> Array:
    """From blocks to weights."""
    for axis, size in enumerate(block):
        zero = np.repeat(zero, size, axis=axis).take(np.arange(weights.shape[axis]), axis=axis)
    return zero
