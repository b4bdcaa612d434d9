"""QDQ graphs: pairs become stored-quantised values without changing a result by more than one quantum."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera.engine.graph.ir import Graph, QuantParams
from tessera.engine.graph.passes import lower
from tessera.engine.graph.quantisation import dequantise, quantise
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tests.unit.graph.onnx_models import agree, build, node, normal, ops
from tests.unit.graph.random_networks import networks

STEP = 0.0625
SHAPE = ["N", 3, 6, 6]


def constants() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "s": np.float32(STEP),
        "z": np.uint8(100),
        "s2": np.float32(2 * STEP),
        "w": rng.integers(-127, 128, (3, 3, 1, 1), dtype=np.int8),
        "ws": np.array([0.01, 0.02, 0.03], np.float32),
        "wz": np.zeros(3, np.int8),
        "b": rng.integers(-500, 500, 3, dtype=np.int32),
        "bs": np.array([0.01, 0.02, 0.03], np.float32) * np.float32(STEP),
        "bz": np.zeros(3, np.int32),
    }


def pair(value: str, output: str, scale: str = "s") -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", [value, scale, "z"], f"{output}_q"),
        node("DequantizeLinear", [f"{output}_q", scale, "z"], output),
    ]


def conv(value: str, output: str) -> list[onnx.NodeProto]:
    """A Conv as quantisers write it: int8 weights per channel, int32 bias."""
    return [
        node("DequantizeLinear", ["w", "ws", "wz"], f"{output}_w", axis=0),
        node("DequantizeLinear", ["b", "bs", "bz"], f"{output}_b", axis=0),
        node("Conv", [value, f"{output}_w", f"{output}_b"], output),
    ]


def model(nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",), rank: int = 4) -> onnx.ModelProto:
    read = {value for n in nodes for value in n.input}
    kept = {name: array for name, array in constants().items() if name in read}
    return build(nodes, SHAPE, kept, outputs=outputs, rank=rank)


def x() -> np.ndarray:
    return normal(2, 3, 6, 6, seed=3) * 3


def check(nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",)) -> Graph:
    return agree(model(nodes, outputs), {"x": x()}, quantum=STEP)


@given(networks(quantised=True))
@settings(max_examples=60, derandomize=True)
def test_passes_change_no_result_by_more_than_one_quantum(case: tuple[onnx.ModelProto, np.ndarray]) -> None:
    graph = convert_model(case[0])
    lowered = lower(graph)
    before = run_reference(graph, {"x": case[1]})["y"]
    after = run_reference(lowered, {"x": case[1]})["y"]
    assert before.dtype == after.dtype == np.float32
    quant = lowered.values["y"].quant
    # A step that one rounding moved travels on through a few layers; random weights have gains near one.
    quantum = float(quant.scale) if quant else 8 / 255
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 + quantum)
    assert (np.abs(after - before) > 1e-4).mean() < 0.05
    assert "DequantizeLinear" not in ops(lowered)


def test_a_quantised_block_becomes_convolutions_on_stored_integers() -> None:
    nodes = [
        *pair("x", "xd"),
        *conv("xd", "a"),
        node("Relu", ["a"], "r"),
        *pair("r", "rd"),
        *conv("rd", "c"),
        node("Add", ["c", "xd"], "sum"),
        node("Relu", ["sum"], "t"),
        *pair("t", "y"),
    ]
    graph = check(nodes)
    assert ops(graph) == ["Conv", "Conv"]
    first, second = graph.nodes
    for value in ("x", first.output, "y"):
        quant = graph.values[value].quant
        assert quant is not None
        assert graph.values[value].dtype == quant.dtype == np.uint8
        assert (float(quant.scale), int(quant.zero_point), quant.axis) == (STEP, 100, None)
    assert second.inputs[3] == "x"
    assert second.attrs["clip"] == (0.0, float("inf"))
    weights = graph.values[first.inputs[1]]
    assert graph.constants[weights.name].dtype == np.int8
    assert weights.quant is not None
    assert weights.quant.axis == 0
    np.testing.assert_array_equal(weights.quant.scale, constants()["ws"])
    bias = graph.constants[first.inputs[2]]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, constants()["b"].astype(np.float32) * constants()["bs"])


def test_addition_of_a_quantised_convolution_result_stays() -> None:
    nodes = [*pair("x", "xd"), *conv("xd", "a"), *pair("a", "ad"), node("Add", ["ad", "xd"], "sum"), *pair("sum", "y")]
    graph = check(nodes)
    assert ops(graph) == ["Conv", "Add"]
    assert graph.nodes[1].inputs == ["a", "x"]


def test_projection_shortcut_is_stored_quantised_and_the_main_branch_takes_it() -> None:
    nodes = [*pair("x", "xd"), *conv("xd", "short"), *pair("short", "sd"), *conv("xd", "main")]
    graph = check([*nodes, node("Add", ["main", "sd"], "sum"), node("Relu", ["sum"], "t"), *pair("t", "y")])
    assert [n.name for n in graph.nodes] == ["short_node", "main_node"]
    assert graph.nodes[1].inputs[3] == "short"
    assert graph.values["short"].quant is not None


def test_every_reader_may_have_its_own_dequantisation() -> None:
    nodes = [
        *pair("x", "xd"),
        node("DequantizeLinear", ["xd_q", "s", "z"], "again"),
        *conv("xd", "a"),
        node("Add", ["a", "again"], "y"),
    ]
    assert ops(check(nodes)) == ["Conv"]


def test_every_reader_may_have_its_own_pair() -> None:
    nodes = [node("Relu", ["x"], "r"), *pair("r", "one"), *pair("r", "two"), *conv("one", "a")]
    graph = check([*nodes, node("Add", ["a", "two"], "y")])
    assert ops(graph) == ["Clip", "Conv"]
    assert graph.values["r"].quant is not None


def test_value_also_used_unquantised_is_quantised_on_the_side() -> None:
    nodes = [node("Relu", ["x"], "r"), *pair("r", "rd"), *conv("rd", "a"), node("Add", ["a", "r"], "y")]
    graph = check(nodes)
    assert ops(graph) == ["Clip", "QuantizeLinear", "Conv"]
    assert graph.values["r"].quant is None
    assert graph.values["rd"].quant is not None
    assert graph.nodes[2].inputs[0] == "rd"
    assert graph.nodes[2].inputs[3] == "r"


def test_value_quantised_in_two_ways_is_kept_exact() -> None:
    nodes = [node("Relu", ["x"], "r"), *pair("r", "one"), *pair("r", "two", "s2"), *conv("one", "a")]
    graph = check([*nodes, node("Add", ["a", "two"], "y")])
    assert ops(graph) == ["Clip", "QuantizeLinear", "QuantizeLinear", "Conv"]


def test_requantisation_to_other_parameters_is_kept() -> None:
    graph = check([*pair("x", "one"), *pair("one", "two", "s2"), *conv("two", "y")])
    assert ops(graph) == ["QuantizeLinear", "Conv"]
    assert float(graph.values["x"].quant.scale) == STEP
    assert float(graph.values["two"].quant.scale) == 2 * STEP


def test_repeated_quantisation_with_the_same_parameters_is_one() -> None:
    assert ops(check([*pair("x", "one"), *pair("one", "two"), *conv("two", "y")])) == ["Conv"]


def test_pooling_between_equal_pairs_stays_on_integers() -> None:
    pool = node("MaxPool", ["xd"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph = check([*pair("x", "xd"), pool, *pair("p", "y")])
    assert ops(graph) == ["MaxPool"]
    assert graph.values["x"].quant.matches(graph.values["y"].quant)


def test_pair_between_input_and_output_keeps_both_names() -> None:
    graph = check(pair("x", "y"))
    assert (graph.inputs, graph.outputs) == (["x"], ["y"])
    assert graph.values["y"].quant is not None


def test_returned_real_and_quantised_forms_both_survive() -> None:
    graph = check([node("Relu", ["x"], "r"), *pair("r", "y")], outputs=("r", "y"))
    assert graph.outputs == ["r", "y"]
    assert graph.values["r"].quant is None


def test_returned_integers_stay_integers() -> None:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], "y")]
    integers = build(nodes, SHAPE, {k: constants()[k] for k in "sz"}, output_type=onnx.TensorProto.UINT8)
    graph = agree(integers, {"x": x()})
    assert ops(graph) == ["QuantizeLinear"]
    assert graph.values["y"].quant is None


def test_reading_back_with_other_parameters_is_never_absorbed() -> None:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s2", "z"], "y")]
    assert ops(check(nodes)) == ["QuantizeLinear", "DequantizeLinear"]


def test_float_weights_behind_a_pair_become_integers() -> None:
    named = {"w": normal(3, 3, 1, 1), "s": np.float32(0.02), "z": np.int8(0)}
    nodes = [*pair("w", "wd"), node("Conv", ["x", "wd"], "y")]
    graph = agree(build(nodes, SHAPE, named), {"x": x()})
    assert ops(graph) == ["Conv"]
    assert graph.constants[graph.nodes[0].inputs[1]].dtype == np.int8


def test_weights_quantised_along_their_inputs_become_float() -> None:
    nodes = [node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=1), node("Conv", ["x", "wd"], "y")]
    graph = agree(model(nodes), {"x": x()})
    assert graph.constants[graph.nodes[0].inputs[1]].dtype == np.float32


@pytest.mark.parametrize("transposed", [False, True])
def test_quantised_classifier_weights_are_turned_to_oihw_with_their_scales(transposed: bool) -> None:
    named = {k: constants()[k] for k in ("s", "z", "ws", "wz")}
    named["m"] = np.random.default_rng(0).integers(-127, 128, (3, 9) if transposed else (9, 3), dtype=np.int8)
    nodes = [
        *pair("x", "xd"),
        node("GlobalAveragePool", ["xd"], "g"),
        *pair("g", "gd"),
        node("Flatten", ["gd"], "f"),
        *pair("f", "fd"),
        node("DequantizeLinear", ["m", "ws", "wz"], "md", axis=0 if transposed else 1),
        node("Gemm", ["fd", "md"], "l", transB=int(transposed)),
        *pair("l", "y"),
    ]
    graph = agree(build(nodes, ["N", 9, 4, 4], named, rank=2), {"x": normal(2, 9, 4, 4)}, quantum=STEP)
    assert ops(graph) == ["GlobalAveragePool", "Conv", "Flatten"]
    weights = graph.values[graph.nodes[1].inputs[1]]
    assert weights.shape == (3, 9, 1, 1)
    assert weights.quant.axis == 0
    # The Conv itself stores integers: nothing is left to round afterwards.
    assert graph.values[graph.nodes[1].output].quant is not None


@pytest.mark.parametrize("signs", [[1.0, -2.0, 0.0], [0.5, 0.25, 3.0]])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_batch_normalization_folds_into_the_scales_of_quantised_weights(signs: list[float], per_tensor: bool) -> None:
    named = {k: constants()[k] for k in ("w", "ws", "wz")}
    if per_tensor:
        named["ws"], named["wz"] = np.float32(0.02), np.int8(0)
    named |= {"g": np.array(signs, np.float32), "p": normal(3), "v": np.ones(3, np.float32)}
    nodes = [
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=0),
        node("Conv", ["x", "wd"], "a"),
        node("BatchNormalization", ["a", "g", "p", "p", "v"], "y"),
    ]
    graph = agree(build(nodes, SHAPE, named), {"x": x()})
    assert ops(graph) == ["Conv"]
    quant = graph.values[graph.nodes[0].inputs[1]].quant
    assert quant is not None
    assert (quant.scale > 0).all()


def test_batch_normalization_whose_sign_the_integers_cannot_take_stays() -> None:
    named = {"w": np.full((3, 3, 1, 1), -128, np.int8), "ws": constants()["ws"], "wz": constants()["wz"]}
    named |= {"g": -np.ones(3, np.float32), "p": normal(3), "v": np.ones(3, np.float32)}
    nodes = [
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=0),
        node("Conv", ["x", "wd"], "a"),
        node("BatchNormalization", ["a", "g", "p", "p", "v"], "y"),
    ]
    assert ops(agree(build(nodes, SHAPE, named), {"x": x()})) == ["Conv", "BatchNormalization"]


@given(st.floats(2**-10, 2**10, width=32), st.integers(0, 255), st.lists(st.integers(0, 255), min_size=1))
def test_stored_integers_survive_reading_and_storing_again(scale: float, zero_point: int, stored: list[int]) -> None:
    params = QuantParams(np.float32(scale).reshape(()), np.array(zero_point, np.int32), np.dtype(np.uint8), None)
    integers = np.array(stored, np.uint8)
    np.testing.assert_array_equal(quantise(dequantise(integers, params), params), integers)


@given(st.lists(st.floats(width=32), min_size=1), st.sampled_from([np.uint8, np.int8]))
def test_every_float_is_stored_as_the_nearest_integer_in_range(values: list[float], dtype: type) -> None:
    params = QuantParams(np.array(0.5, np.float32), np.array(7, np.int32), np.dtype(dtype), None)
    limits = np.iinfo(dtype)
    for value, stored in zip(values, quantise(np.array(values, np.float32), params).tolist(), strict=True):
        if np.isnan(value):
            assert stored == limits.min
        else:
            exact = min(max(value / 0.5, -1e6), 1e6)
            assert stored == min(max(round(exact) + 7, limits.min), limits.max)
