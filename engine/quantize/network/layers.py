"""The float network as the quantiser sees it: everything constant folded, each layer's weights its own."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from tessera.engine.errors import ModelError
from tessera.engine.graph.ir import Graph, Node
from tessera.engine.graph.passes import run_passes
from tessera.engine.graph.passes.eliminate import eliminate
from tessera.engine.graph.passes.fold_batchnorm import fold_batchnorm
from tessera.engine.graph.passes.fold_constants import fold_constants
from tessera.engine.graph.passes.plain_gemm import is_plain, plain_gemm
from tessera.engine.graph.passes.rewriter import Rewriter
from tessera.engine.graph.reader import convert_model, read_model


def read_network(model: str | os.PathLike[str] | onnx.ModelProto) -> Graph:
    """Read a float ONNX model and fold everything that is constant into the weights.

    Args:
        model: a file, or a model in memory.

    Returns:
        A graph in which nothing is fused, with the names of the file. Its vectors are float64, its weights float32:
        folded in float64, and half as large. Each layer (see `weight_names`) has a weight, output channels first, and
        a bias of its own.

    Raises:
        ModelError: the file cannot be read, is not a float32 image network, or is already quantised.
        UnsupportedOperatorError: a node's operator is none that the engine runs.
    """
    graph = convert_model(model) if isinstance(model, onnx.ModelProto) else read_model(Path(model))
    _require_float(graph)
    run_passes(graph, (partial(eliminate, keep_names=True), fold_constants))
    _widen(graph)
    run_passes(graph, (plain_gemm, fold_batchnorm))
    _own_constants(graph)
    for name, value in graph.constants.items():
        if value.dtype == np.float64 and value.ndim > 1:
            graph.constants[name] = value.astype(np.float32)
            graph.values[name].dtype = graph.constants[name].dtype
    graph.metadata = dict(sorted(graph.metadata.items()))
    return graph


def weight_names(graph: Graph, node: Node) -> tuple[str, str] | None:
    """Names of the constant weight and bias of a Conv or Gemm that can be quantised, or None for every other node."""
    if not _is_layer(graph, node) or node.inputs[2] not in graph.constants:
        return None
    return node.inputs[1], node.inputs[2]


def _is_layer(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies an activation by constant weights, and its bias is constant or absent."""
    if node.op not in ("Conv", "Gemm") or node.inputs[0] in graph.constants or node.inputs[1] not in graph.constants:
        return False
    is_constant = not node.inputs[2] or node.inputs[2] in graph.constants
    return is_constant and (node.op == "Conv" or is_plain(graph, node))


def _require_float(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            raise ModelError(f"The model is quantised already ({node.op} node '{node.name}'). Give its float form.")
    for name in (*graph.inputs, *graph.outputs):
        if graph.values[name].dtype != np.float32:
            raise ModelError(f"'{name}' is not float32. Only float32 networks can be quantised.")
    if len(graph.inputs) != 1:
        raise ModelError(f"The model has {len(graph.inputs)} inputs. Only networks with one input can be quantised.")


def _widen(graph: Graph) -> None:
    for name, array in graph.constants.items():
        if array.dtype == np.float32:
            graph.constants[name] = array.astype(np.float64)
            graph.values[name].dtype = graph.constants[name].dtype


def _own_constants(graph: Graph) -> None:
    """Give every layer a weight and a bias that no other node reads."""
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        if _is_layer(graph, node):
            weight = graph.constants[node.inputs[1]]
            bias = graph.constants[node.inputs[2]] if node.inputs[2] else np.zeros(len(weight))
            rewriter.set_input(node, 1, graph.add_constant(f"{node.name}.folded.weight", weight))
            rewriter.set_input(node, 2, graph.add_constant(f"{node.name}.folded.bias", bias))
    rewriter.commit()
