"""Every other operator, in every form that ONNX versions gave it, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tessera.engine.errors import InputError, ModelError, UnsupportedOperatorError
from tessera.engine.graph.operators import OPERATORS
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tests.unit.graph.onnx_models import agree, build, node, normal, ops

IMAGE = ["N", 3, 4, 5]


def image(batch: int = 2) -> np.ndarray:
    return normal(batch, 3, 4, 5)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def test_batch_normalization_of_images_and_of_features() -> None:
    constants = {name: np.abs(normal(3, seed=i)) + 0.5 for i, name in enumerate("abcd")}
    norm = node("BatchNormalization", ["x", *"abcd"], "y", epsilon=0.1)
    assert ops(agree(build([norm], IMAGE, constants), {"x": image()})) == ["BatchNormalization"]
    agree(build([norm], ["N", 3], constants, rank=2), {"x": normal(2, 3)})


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("opset", "axes"), [(11, (2, 3)), (17, (-1, -2)), (18, (3, 2)), (22, (-2, 3))])
def test_mean_over_height_and_width_is_global_average_pooling(opset: int, axes: tuple[int, ...], keepdims: int) -> None:
    constants = {"axes": np.array(axes, np.int64)} if opset >= 18 else {}
    attributes = {"keepdims": keepdims} if opset >= 18 else {"keepdims": keepdims, "axes": axes}
    mean = node("ReduceMean", ["x", *constants], "y", **attributes)
    graph = agree(build([mean], IMAGE, constants, opset=opset, rank=4 if keepdims else 2), {"x": image()})
    assert graph.nodes[0].op == "GlobalAveragePool"


@pytest.mark.parametrize("axes", [(1,), (0, 2, 3), (3,), (1, 2, 3), ()])
def test_other_means_are_refused(axes: tuple[int, ...]) -> None:
    mean = node("ReduceMean", ["x"], "y", **({"axes": axes} if axes else {}))
    with pytest.raises(UnsupportedOperatorError, match="takes the mean over axes"):
        convert_model(build([mean], IMAGE, opset=17))


@pytest.mark.parametrize("opset", [9, 13, 22])
def test_relu(opset: int) -> None:
    graph = agree(build([node("Relu", ["x"], "y")], IMAGE, opset=opset), {"x": image()})
    assert graph.nodes[0].attrs["clip"] == (0.0, float("inf"))


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes"),
    [
        (9, ["x"], {"min": -0.5, "max": 0.5}),
        (10, ["x"], {"max": 0.5}),
        (11, ["x", "lo", "hi"], {}),
        (13, ["x", "", "hi"], {}),
        (17, ["x", "lo"], {}),
        (17, ["x", "hi", "lo"], {}),
    ],
)
def test_clip(opset: int, inputs: list[str], attributes: dict[str, Any]) -> None:
    constants = {"lo": scalar(-0.5), "hi": scalar(0.5)} if opset > 10 else {}
    agree(build([node("Clip", inputs, "y", **attributes)], IMAGE, constants, opset=opset), {"x": image()})


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1, 1), (1, 3, 1, 1), (1, 3, 4, 5)])
def test_add_broadcasts_a_constant_on_either_side(shape: tuple[int, ...]) -> None:
    for inputs in (["x", "c"], ["c", "x"]):
        agree(build([node("Add", inputs, "y")], IMAGE, {"c": normal(*shape, seed=1)}), {"x": image()})


def test_add_of_two_inputs() -> None:
    model = build([node("Add", ["x", "z"], "y")], IMAGE, inputs={"z": ["N", 3, 1, 5]})
    agree(model, {"x": image(), "z": normal(2, 3, 1, 5, seed=1)})


@pytest.mark.parametrize(("opset", "axis"), [(9, 1), (11, 1), (22, 1), (11, -3), (22, -3)])
def test_flatten(opset: int, axis: int) -> None:
    agree(build([node("Flatten", ["x"], "y", axis=axis)], IMAGE, rank=2, opset=opset), {"x": image()})


@pytest.mark.parametrize(
    "target", [[0, -1], [-1, 60], [0, 3, 20], [-1, 3, 20], [0, 0, -1], [0, 0, 0, 0], [0, 6, 10, 1, 1]]
)
def test_reshape(target: list[int]) -> None:
    model = build([node("Reshape", ["x", "s"], "y")], IMAGE, {"s": np.array(target)}, rank=len(target))
    agree(model, {"x": image()})


def test_global_average_pool() -> None:
    agree(build([node("GlobalAveragePool", ["x"], "y")], IMAGE), {"x": image()})


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [None, (), (1,), (7,), (1, 7)])
@pytest.mark.parametrize("alpha", [1.0, -0.5])
def test_gemm(transposed: bool, bias: tuple[int, ...] | None, alpha: float) -> None:
    constants = {"w": normal(7, 6) if transposed else normal(6, 7)}
    if bias is not None:
        constants["b"] = np.asarray(normal(*bias, seed=1), np.float32)
    gemm = node("Gemm", ["x", *constants], "y", transB=int(transposed), alpha=alpha, beta=2.0)
    graph = agree(build([gemm], ["N", 6], constants, rank=2), {"x": normal(3, 6, seed=2)})
    assert ops(graph) == ["Reshape", "Conv", "Flatten"]


def test_gemm_whose_third_input_differs_by_image_stays() -> None:
    model = build([node("Gemm", ["x", "w", "z"], "y")], ["N", 6], {"w": normal(6, 7)}, rank=2, inputs={"z": ["N", 7]})
    assert ops(agree(model, {"x": normal(3, 6), "z": normal(3, 7)})) == ["Gemm"]


@pytest.mark.parametrize(
    ("left", "right"), [((6,), (6, 7)), ((4, 6), (6, 7)), ((4, 6), (1, 6, 7)), ((2, 4, 6), (2, 6, 7))]
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rank = max(len(left) + 1, len(right))
    model = build([node("MatMul", ["x", "w"], "y")], ["N", *left], {"w": normal(*right)}, rank=rank)
    agree(model, {"x": normal(3, *left, seed=1)})


def test_matmul_of_two_inputs() -> None:
    model = build([node("MatMul", ["x", "z"], "y")], ["N", 4, 6], rank=3, inputs={"z": ["N", 6, 5]})
    agree(model, {"x": normal(3, 4, 6), "z": normal(3, 6, 5)})


@pytest.mark.parametrize("opset", [9, 12, 13, 22])
@pytest.mark.parametrize("axis", [None, 1, 2, 3])
def test_softmax_spans_what_its_opset_says(opset: int, axis: int | None) -> None:
    attributes = {} if axis is None else {"axis": axis}
    # Large inputs: a softmax that does not subtract the maximum overflows.
    agree(build([node("Softmax", ["x"], "y", **attributes)], IMAGE, opset=opset), {"x": image() * 200})


def test_identity_chain_between_input_and_output() -> None:
    agree(build([node("Identity", ["x"], "a"), node("Identity", ["a"], "y")], IMAGE), {"x": image()})


def test_identity_of_weights_and_constant_nodes() -> None:
    nodes = [
        node("Constant", [], "lo", value_float=-0.25),
        node("Constant", [], "shape", value_ints=[0, 60]),
        node("Identity", ["w"], "same"),
        node("Clip", ["x", "lo"], "a"),
        node("Add", ["a", "same"], "b"),
        node("Reshape", ["b", "shape"], "y"),
    ]
    agree(build(nodes, IMAGE, {"w": normal(3, 4, 5)}, rank=2), {"x": image()})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantise_and_dequantise_round_half_to_even_and_saturate(dtype: type, axis: int | None) -> None:
    scale = scalar(0.25) if axis is None else np.array([0.25, 0.5, 1.0], np.float32)
    constants = {"s": scale, "z": np.full(scale.shape, 3, dtype)}
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q", **attributes),
        node("DequantizeLinear", ["q", "s", "z"], "y", **attributes),
    ]
    # Every multiple of an eighth: each second one lies exactly between two steps.
    x = np.tile(np.arange(-300, 300, dtype=np.float32) / 8, 3).reshape(1, 3, 600, 1)
    x[0, 0, :4, 0] = [1e30, -1e30, np.inf, -np.inf]
    agree(build(nodes, ["N", 3, 600, 1], constants), {"x": x})


def test_quantisation_without_a_zero_point_is_unsigned() -> None:
    nodes = [node("QuantizeLinear", ["x", "s"], "y")]
    model = build(nodes, IMAGE, {"s": scalar(0.1)}, output_type=onnx.TensorProto.UINT8)
    assert agree(model, {"x": image()}).values["y"].dtype == np.uint8


def test_integers_given_to_the_graph_are_dequantised() -> None:
    nodes = [node("DequantizeLinear", ["x", "s", "z"], "y")]
    constants = {"s": scalar(0.1), "z": np.array(128, np.uint8)}
    model = build(nodes, IMAGE, constants, input_type=onnx.TensorProto.UINT8)
    agree(model, {"x": np.arange(120, dtype=np.uint8).reshape(2, 3, 4, 5)})


@given(st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=10)
def test_a_file_exported_for_one_batch_size_runs_any(exported: int, given_batch: int) -> None:
    nodes = [
        node("Reshape", ["x", "s"], "a"),
        node("Gemm", ["a", "w"], "y"),
    ]
    constants = {"s": np.array([exported, -1]), "w": normal(60, 4)}
    graph = convert_model(build(nodes, [exported, 3, 4, 5], constants, rank=2))
    whole = run_reference(graph, {"x": image(given_batch)})["y"]
    assert graph.values["y"].shape == (None, 4)
    for index in range(given_batch):
        single = run_reference(graph, {"x": image(given_batch)[index : index + 1]})["y"]
        np.testing.assert_allclose(whole[index : index + 1], single, atol=1e-5)


MIXING = {
    "Flatten at 0": ([node("Flatten", ["x"], "y", axis=0)], {}),
    "Flatten at 2": ([node("Flatten", ["x"], "y", axis=2)], {}),
    "Reshape into rows": ([node("Reshape", ["x", "s"], "y")], {"s": np.array([1, -1])}),
    "Reshape batch to channels": ([node("Reshape", ["x", "s"], "y")], {"s": np.array([-1, 20])}),
    "Concat of batches": ([node("Concat", ["x", "x"], "y", axis=0)], {}),
    "Softmax over images": ([node("Softmax", ["x"], "y", axis=0)], {}),
    "Add per image": ([node("Add", ["x", "c"], "y")], {"c": normal(2, 3, 4, 5)}),
    "MatMul over images": (
        [node("Reshape", ["x", "s"], "a"), node("MatMul", ["c", "a"], "y")],
        {"s": np.array([0, -1]), "c": normal(5, 2)},
    ),
}


@pytest.mark.parametrize("case", MIXING)
def test_a_graph_that_mixes_the_images_of_a_batch_is_refused(case: str) -> None:
    nodes, constants = MIXING[case]
    with pytest.raises(UnsupportedOperatorError, match="images of one batch would influence each other"):
        convert_model(build(nodes, IMAGE, constants))


@pytest.mark.parametrize("operator", ["Erf", "Dropout", "LSTM", "Transpose"])
def test_unknown_operators_are_named_with_the_known_ones(operator: str) -> None:
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert_model(build([node("Relu", ["x"], "a"), node(operator, ["a"], "y")], IMAGE))
    assert caught.value.node == "y_node"
    assert caught.value.operator == operator
    for known in OPERATORS:
        assert known in str(caught.value)


def test_operators_of_other_domains_are_refused_even_under_a_known_name() -> None:
    foreign = helper.make_node("Conv", ["x", "w"], ["y"], name="mine", domain="com.example")
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert_model(build([foreign], IMAGE, {"w": normal(1, 3, 1, 1)}))
    assert caught.value.operator == "com.example.Conv"


def test_extra_outputs_are_refused() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], name="pool", kernel_shape=[2, 2])
    with pytest.raises(UnsupportedOperatorError, match="also writes 'indices'"):
        convert_model(build([pool], IMAGE))


@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        ({}, "inputs are"),
        ({"x": image(), "z": image()}, "inputs are"),
        ({"x": image().astype(np.float64)}, "float64"),
        ({"x": image()[0]}, "shape"),
        ({"x": image()[:0]}, "shape"),
        ({"x": image()[:, :, :, :3]}, "shape"),
    ],
)
def test_wrong_arrays_are_named(feeds: dict[str, np.ndarray], complaint: str) -> None:
    graph = convert_model(build([node("Relu", ["x"], "y")], IMAGE))
    with pytest.raises(InputError, match=complaint):
        run_reference(graph, feeds)


@pytest.mark.parametrize(
    ("nodes", "constants", "complaint"),
    [
        ([node("Flatten", ["x"], "y", axis=5)], {}, "axis 5"),
        ([node("Reshape", ["x", "s"], "y")], {"s": np.array([0, 7])}, "does not fit"),
        ([node("Reshape", ["x", "s"], "y")], {"s": np.array([0, -1, -1])}, "not a shape"),
        ([node("Reshape", ["x", "s"], "y")], {"s": np.array([0, 60, 1, 1, 0])}, "copies a dimension"),
        ([node("Add", ["x", "c"], "y")], {"c": normal(7)}, "do not broadcast"),
        ([node("Add", ["x", "c"], "y")], {"c": np.zeros(5, np.int32)}, "int32"),
        ([node("MatMul", ["x", "c"], "y")], {"c": normal(7, 2)}, "inner sizes 5 and 7"),
        ([node("Gemm", ["x", "c"], "y")], {"c": normal(5, 2)}, "two dimensions"),
        ([node("BatchNormalization", ["x", *"cccc"], "y")], {"c": normal(4)}, "one element per channel"),
        ([node("BatchNormalization", ["x", *"cccc"], "y")], {"c": -np.ones(3, np.float32)}, "negative variance"),
        ([node("Squeeze", ["x", "s"], "y")], {"s": np.array([1])}, "drops dimension 1"),
        ([node("Squeeze", ["x"], "y")], {}, "names no axes"),
        ([node("Squeeze", ["x", "s"], "y")], {"s": np.array([4])}, "axis 4"),
        ([node("Clip", ["x", "c"], "y")], {"c": normal(2)}, "2 elements"),
        (
            [node("QuantizeLinear", ["x", "c"], "q"), node("DequantizeLinear", ["q", "c"], "y")],
            {"c": -scalar(1)},
            "positive",
        ),
        (
            [node("QuantizeLinear", ["x", "c"], "q"), node("DequantizeLinear", ["q", "c"], "y")],
            {"c": np.ones(4, np.float32)},
            "4 scales along",
        ),
    ],
)
def test_contradictory_nodes_are_named(nodes: Any, constants: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        convert_model(build(nodes, IMAGE, constants))
