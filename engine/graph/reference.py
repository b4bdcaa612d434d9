"""The oracle: executes any graph, before or after the passes, in plain numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tessera.engine.errors import InputError
from tessera.engine.graph.ir import Array, Graph, Node, ValueInfo
from tessera.engine.graph.numpy_kernels import KERNELS
from tessera.engine.graph.quantisation import dequantise, node_params, quantise


def run_reference(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a graph.

    Args:
        graph: any graph from the reader or the passes.
        inputs: one array per graph input, of its declared shape with any batch >= 1. Inputs that the graph stores
            quantised are given as float32 like all others.

    Returns:
        The graph outputs by name, float32 wherever the graph's output is real-valued or stored quantised.

    Raises:
        InputError: an input is missing, unknown, or of the wrong type or shape.
    """
    values = evaluate(graph, inputs)
    return {name: values[name] for name in graph.outputs}


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Like `run_reference`, but returns every value that the nodes read or write, quantised ones dequantised."""
    _check_inputs(graph, inputs)
    stored: dict[str, Array] = {}
    for name, array in (*graph.constants.items(), *inputs.items()):
        stored[name] = array if name in graph.constants else _store(graph, name, array)
    for node in graph.nodes:
        stored[node.output] = _store(graph, node.output, run_node(graph, node, stored))
    return {name: _read(graph, name, array) for name, array in stored.items()}


def run_node(graph: Graph, node: Node, stored: Mapping[str, Array]) -> Array:
    """What one node computes from the stored forms of its inputs, before its output is stored."""
    inputs = [_read(graph, value, stored[value]) if value else None for value in node.inputs]
    first = inputs[0]
    assert first is not None
    with np.errstate(all="ignore"):
        if node.op == "QuantizeLinear":
            # A quantised output value does the rounding itself when it is stored.
            return first if graph.values[node.output].quant else quantise(first, node_params(node, graph))
        if node.op == "DequantizeLinear":
            return dequantise(first, node_params(node, graph))
        return KERNELS[node.op](node, inputs)


def _read(graph: Graph, name: str, stored: Array) -> Array:
    quant = graph.values[name].quant
    return stored if quant is None else dequantise(stored, quant)


def _store(graph: Graph, name: str, computed: Array) -> Array:
    quant = graph.values[name].quant
    return computed if quant is None else quantise(computed, quant)


def _check_inputs(graph: Graph, inputs: Mapping[str, Array]) -> None:
    if set(inputs) != set(graph.inputs):
        raise InputError(f"The graph's inputs are {sorted(graph.inputs)}, but {sorted(inputs)} were given.")
    for name, array in inputs.items():
        _check_input(graph.values[name], array)
    if len({array.shape[0] for array in inputs.values()}) > 1:
        raise InputError("All inputs must have the same batch size.")


def _check_input(info: ValueInfo, array: Array) -> None:
    dtype = np.dtype(np.float32) if info.quant else info.dtype
    if array.dtype != dtype:
        raise InputError(f"Input '{info.name}' is {array.dtype}; {dtype} is expected.")
    fits = array.ndim == len(info.shape) and all(
        size is None or size == given for size, given in zip(info.shape, array.shape, strict=True)
    )
    if not fits or 0 in array.shape:
        wanted = ", ".join("N" if size is None else str(size) for size in info.shape)
        raise InputError(f"Input '{info.name}' has shape {list(array.shape)}; [{wanted}] is expected, N at least 1.")
