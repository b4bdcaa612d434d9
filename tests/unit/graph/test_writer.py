"""Writing a graph is the inverse of reading one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from tessera.engine.graph.ir import Graph
from tessera.engine.graph.operators import OPERATORS
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tessera.engine.graph.writer import to_onnx
from tests.unit.graph.onnx_models import assert_close, build, node, normal, run_onnxruntime
from tests.unit.graph.operator_examples import CASES, EXAMPLES, IMAGE, NAMES, Example, computes_on_integers
from tests.unit.graph.random_networks import networks

Drawn = tuple[onnx.ModelProto, np.ndarray]
NETWORKS = st.one_of(networks(), networks(quantised=True))


def contents(graph: Graph) -> dict[str, Any]:
    """All that a graph says, constants by what they hold: the reader names those of a quantisation anew."""

    def held(name: str) -> object:
        array = graph.constants.get(name)
        return name if array is None else (str(array.dtype), array.tolist())

    def stored(attribute: object) -> object:
        return np.float32(attribute) if isinstance(attribute, float) else attribute  # as a file has it

    nodes = [
        (n.op, n.name, [held(name) for name in n.inputs], n.output, {k: stored(v) for k, v in n.attrs.items()})
        for n in graph.nodes
    ]
    shapes = {name: graph.values[name].shape for name in (*graph.inputs, *(n.output for n in graph.nodes))}
    return {"nodes": nodes, "shapes": shapes, "ends": (graph.name, graph.inputs, graph.outputs, graph.metadata)}


@given(NETWORKS)
def test_what_is_written_reads_as_the_same_graph(drawn: Drawn) -> None:
    graph = convert_model(drawn[0])
    written = to_onnx(graph)
    onnx.checker.check_model(written, full_check=True)
    assert contents(convert_model(written)) == contents(graph)
    assert to_onnx(graph).SerializeToString(deterministic=True) == written.SerializeToString(deterministic=True)


def test_every_operator_that_the_engine_reads_has_an_example() -> None:
    assert set(EXAMPLES) == {operator for operator in OPERATORS if not computes_on_integers(operator)}


@pytest.mark.parametrize("example", CASES, ids=NAMES)
def test_every_operator_is_written_as_what_it_computes(example: Example) -> None:
    model = build(example.nodes, ["N", *IMAGE], example.constants, rank=example.rank)
    graph, feeds = convert_model(model), {"x": normal(2, *IMAGE)}
    written = to_onnx(graph)
    onnx.checker.check_model(written, full_check=True)
    assert contents(convert_model(written))["nodes"] == contents(graph)["nodes"]
    assert_close(run_onnxruntime(written, feeds), run_onnxruntime(model, feeds))


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_graphs_of_older_files_are_written_with_a_newer_opset(opset: int) -> None:
    nodes = [
        node("Clip", ["x"], "a", min=0.0, max=0.8) if opset < 11 else node("Relu", ["x"], "a"),
        node("Softmax", ["a"], "y", axis=1),
    ]
    model, feeds = build(nodes, ["N", 3, 4, 5], opset=opset), {"x": normal(2, 3, 4, 5)}
    graph = convert_model(model)
    written = to_onnx(graph)
    assert written.opset_import[0].version == 17
    assert_close(run_onnxruntime(written, feeds), run_onnxruntime(model, feeds))


def test_inner_values_can_be_asked_for_and_what_they_do_not_need_is_left_out() -> None:
    nodes = [node("Relu", ["x"], "a"), node("Conv", ["a", "w"], "b"), node("Relu", ["b"], "y")]
    model = build(nodes, ["N", 3, 4, 5], {"w": normal(2, 3, 1, 1)})
    graph, feeds = convert_model(model), {"x": normal(2, 3, 4, 5)}
    inner = to_onnx(graph, ["a", "a"])
    assert [n.output[0] for n in inner.graph.node] == ["a"]
    assert not inner.graph.initializer
    np.testing.assert_array_equal(run_onnxruntime(inner, feeds)["a"], np.maximum(feeds["x"], 0))


def test_arrays_that_are_attributes_in_the_graph_get_names_of_their_own() -> None:
    # The file has taken the names that come first to mind.
    nodes = [node("Reshape", ["x", "s"], "y"), node("Add", ["y", "y.shape"], "z")]
    model = build(nodes, ["N", 3, 4], {"s": np.array([0, 12]), "y.shape": normal(12)}, outputs=("z",), rank=2)
    feeds = {"x": normal(2, 3, 4)}
    assert_close(run_onnxruntime(to_onnx(convert_model(model)), feeds), run_onnxruntime(model, feeds))


def test_constants_in_float64_are_rounded() -> None:
    graph = convert_model(build([node("Add", ["x", "c"], "y")], ["N", 3, 4, 5], {"c": normal(3, 1, 1)}))
    wide = graph.constants["c"].astype(np.float64) + 1e-12
    graph.constants["c"], graph.values["c"].dtype = wide, wide.dtype
    (stored,) = to_onnx(graph).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), wide.astype(np.float32))


def test_an_operator_of_another_domain_keeps_its_attributes() -> None:
    graph = convert_model(build([node("Relu", ["x"], "y")], ["N", 3, 4, 5]))
    graph.nodes[0].op, graph.nodes[0].attrs = "tessera.Own", {"pads": [1, 2], "strength": 2}
    written = to_onnx(graph)
    (own,) = written.graph.node
    assert (own.domain, own.op_type) == ("tessera", "Own")
    assert {a.name: onnx.helper.get_attribute_value(a) for a in own.attribute} == {"pads": [1, 2], "strength": 2}
    assert {entry.domain: entry.version for entry in written.opset_import} == {"": 17, "tessera": 1}


def test_fused_and_stored_forms_are_refused_and_never_written_as_less_than_they_are() -> None:
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    fused = [node("Conv", ["x", "w"], "a"), node("Relu", ["a"], "y")]
    stored = [
        node("Relu", ["x"], "a"),
        node("QuantizeLinear", ["a", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "b"),
        node("MaxPool", ["b"], "y", kernel_shape=[1, 1], strides=[2, 2]),
    ]
    for nodes in (fused, stored):
        model = build(nodes, ["N", 3, 4, 5], {"w": normal(2, 3, 1, 1), "s": scale, "z": zero})
        with pytest.raises(ValueError, match="ONNX has no form for"):
            to_onnx(lower(convert_model(model)))


@given(networks())
def test_what_is_written_computes_the_same(drawn: Drawn) -> None:
    graph = convert_model(drawn[0])
    feeds = {"x": drawn[1]}
    assert_close(run_onnxruntime(to_onnx(graph), feeds), run_reference(graph, feeds))
