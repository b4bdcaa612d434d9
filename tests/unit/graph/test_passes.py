"""What every pass promises: it says whether it changed the graph, and a lowered graph leaves nothing to do."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st

from tessera.engine.graph.ir import Graph
from tessera.engine.graph.passes import PASSES, lower
from tessera.engine.graph.reader import convert_model
from tests.unit.graph.random_networks import networks

Drawn = tuple[onnx.ModelProto, np.ndarray]
NETWORKS = st.one_of(networks(), networks(quantised=True))


def contents(graph: Graph) -> object:
    nodes = [(n.op, n.name, list(n.inputs), list(n.outputs), dict(n.attrs)) for n in graph.nodes]
    quantised = [
        (name, graph.values[name].quant) for node in graph.nodes for name in (*node.inputs, *node.outputs) if name
    ]
    return nodes, quantised, list(graph.outputs)


@given(NETWORKS)
def test_every_pass_says_whether_it_changed_the_graph(drawn: Drawn) -> None:
    graph = convert_model(drawn[0])
    for _ in range(2):
        for run in PASSES:
            before = contents(graph)
            assert run(graph) == (contents(graph) != before), run.__name__


@given(NETWORKS)
def test_a_lowered_graph_has_nothing_left_to_lower(drawn: Drawn) -> None:
    lowered = lower(convert_model(drawn[0]))
    assert [run.__name__ for run in PASSES if run(lowered)] == []
