"""QDQ files as ONNX Runtime's own transformers expect them.

Those that make its sums exact on CPUs without VNNI turn int8 into uint8. They pass over a zero point that is left out,
and over an `output_dtype` that says what the zero point says too; then the file cannot be loaded or run any more.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from tessera.engine.graph.ir import Graph
from tessera.engine.graph.protos import insert_constants, unused_name
from tessera.engine.graph.tensors import embed_external

_OPERATORS = ("QuantizeLinear", "DequantizeLinear")


def plain_qdq(path: Path, graph: Graph) -> bytes | None:
    """The file with all zero points written down and without `output_dtype`; None where it is like that already.

    Args:
        path: the file.
        graph: the same file as the reader sees it.

    Raises:
        ModelError: its external data cannot be read.
    """
    model = onnx.load(path, load_external_data=False)
    meant = {node.output: graph.constants[node.inputs[2]] for node in graph.nodes if node.op in _OPERATORS}
    added = {}
    changed = False
    for node in model.graph.node:
        if node.op_type not in _OPERATORS or node.output[0] not in meant:
            continue
        if len(node.input) < 3 or not node.input[2]:
            name = unused_name(model, f"{node.output[0]}.zero_point")
            added[name] = meant[node.output[0]]
            node.input[2:] = [name]
        named = [attribute for attribute in node.attribute if attribute.name == "output_dtype"]
        for attribute in named:
            node.attribute.remove(attribute)
        changed = changed or bool(added or named)
    if not changed:
        return None
    insert_constants(model, added)
    embed_external(model, path.parent)
    return model.SerializeToString()
