"""From the graph as the file has it to the few fused operators that backends run.

The order matters. Copies go first, so that later passes meet the operators they look for side by side. Constants are
folded before quantisation is absorbed, because a quantised weight is a constant behind a DequantizeLinear.
Quantisation is absorbed before anything is fused, because a value that is stored quantised must not be fused away.

A pass edits the graph in place and returns whether it changed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera.engine.errors import UnsupportedOperatorError
from tessera.engine.graph import shapes
from tessera.engine.graph.ir import Graph
from tessera.engine.graph.passes.carry_quantisation import carry_quantisation
from tessera.engine.graph.passes.eliminate import eliminate
from tessera.engine.graph.passes.fold_batchnorm import fold_batchnorm
from tessera.engine.graph.passes.fold_bias import fold_bias
from tessera.engine.graph.passes.fold_constants import fold_constants
from tessera.engine.graph.passes.fuse_activation import fuse_activation
from tessera.engine.graph.passes.fuse_residual import fuse_residual
from tessera.engine.graph.passes.fuse_swish import fuse_swish
from tessera.engine.graph.passes.lower_gemm import lower_gemm
from tessera.engine.graph.passes.lower_qoperator import lower_qoperator
from tessera.engine.graph.passes.lower_quantisation import hoist_quantisation, lower_quantisation
from tessera.engine.graph.passes.plain_gemm import plain_gemm

PASSES = (
    eliminate,
    fold_constants,
    lower_qoperator,
    lower_quantisation,
    carry_quantisation,
    plain_gemm,
    lower_gemm,
    fold_batchnorm,
    fold_bias,
    fuse_activation,
    fuse_swish,
    hoist_quantisation,
    fuse_residual,
    eliminate,
)


def run_passes(graph: Graph, passes: Sequence[Callable[[Graph], bool]]) -> None:
    """Runs passes in their order, again and again until none of them finds anything to change."""
    while sum(run(graph) for run in passes):
        pass


def lower(graph: Graph) -> Graph:
    """Runs all passes on a copy of `graph`.

    Args:
        graph: a graph from `reader.read_model`.

    Returns:
        A graph of the same results whose nodes are Conv (with bias, residual and clip fused in), MaxPool, AveragePool,
        GlobalAveragePool, Add, Mul, Clip, Sigmoid, Swish, HardSigmoid, HardSwish, Flatten, Reshape, Softmax and, where
        nothing better was possible, MatMul, Gemm, BatchNormalization, QuantizeLinear and DequantizeLinear.

    Raises:
        UnsupportedOperatorError: a Conv's weights or bias are not constant.
    """
    lowered = graph.copy()
    run_passes(lowered, PASSES)
    for node in lowered.nodes:
        if node.op == "Conv" and any(value and value not in lowered.constants for value in node.inputs[1:3]):
            raise UnsupportedOperatorError(
                node.name, node.op, "its weights or bias are computed from the graph's input."
            )
    shapes.infer_all(lowered)
    lowered.validate()
    return lowered
