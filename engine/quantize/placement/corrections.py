"""Where the bias of each quantised layer is corrected: behind the residual Add and ReLU its result goes through."""

from __future__ import annotations

from tessera.engine.graph.ir import Graph, Node
from tessera.engine.quantize.network.layers import weight_names
from tessera.engine.quantize.placement.values import Placement, residual_operands


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
