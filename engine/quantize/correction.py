"""Where the bias of each quantised layer is corrected: behind the residual Add and ReLU its result goes through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.graph.ir import Graph, Node
from engine.quantize.layers import weight_names
from engine.quantize.placement import Placement, residual_operands

# Newton's method for the bias in front of a ReLU: few channels need more; those that are almost never above zero are
# not moved far for the little that their mean says.
_NEWTON_STEPS = 4
_LEAST_ACTIVE = 0.1
_LARGEST_SHIFT = 0.5


def corrected_values(graph: Graph, placement: Placement) -> dict[str, Node]:
    """The values whose channel means are put right, each with the layer whose bias does it, in the network's order.

    A layer's result stays in its accumulator while a residual Add or a ReLU is all that reads it, so what counts is the
    mean behind these.
    """
    readers, outputs = graph.readers(), graph.outputs
    pending: dict[str, Node] = {}
    found: dict[str, Node] = {}

    def continues(value: str) -> bool:
        if value in placement.roots or value in outputs or len(readers.get(value, [])) != 1:
            return False
        reader = readers[value][0]
        if reader.op == "Relu":
            return True
        return residual_operands(graph, reader) is not None and not any(name in pending for name in reader.inputs)

    for node in graph.nodes:
        output = node.output
        waiting = [pending.pop(name) for name in node.present_inputs() if name in pending]
        is_quantised = weight_names(graph, node) is not None and node.inputs[0] in placement.roots
        layer = node if is_quantised else next(iter(waiting), None)
        if layer is None:
            continue
        if node.op != "Relu" and continues(output):
            pending[output] = layer
        else:
            found[output] = layer
    return found


def shift_before_relu(sums: NDArray[np.float32], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to add to each channel so that its mean behind a ReLU becomes a given one.

    That mean grows with the bias by the share of positions that are above zero: Newton's method.

    Args:
        sums: what goes into the ReLU, float32 [C, positions].
        target: the wanted means [C].

    Returns:
        float64 [C].
    """
    limit = _LARGEST_SHIFT * sums.std(axis=1).astype(np.float64)
    shift = np.zeros(len(target))
    for _ in range(_NEWTON_STEPS):
        moved = sums + shift.astype(np.float32)[:, None]
        np.maximum(moved, 0, out=moved)
        positive = np.array([np.count_nonzero(row) for row in moved > 0])
        active = np.maximum(positive / sums.shape[1], _LEAST_ACTIVE)
        shift = np.clip(shift + (target - moved.mean(axis=1)) / active, -limit, limit)
    return np.asarray(shift, np.float64)
