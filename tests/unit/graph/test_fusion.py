"""The passes fuse what may be fused, keep what must be kept, and never change a result."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import convert_model
from tests.unit.graph.onnx_models import agree, build, node, normal, ops
from tests.unit.graph.random_networks import networks

SHAPE = ["N", 4, 6, 6]
INF = float("inf")


def x(batch: int = 2) -> np.ndarray:
    return normal(batch, 4, 6, 6, seed=9)


def weights(**extra: np.ndarray) -> dict[str, np.ndarray]:
    named = {"w": normal(4, 4, 3, 3, seed=1), "v": normal(4, 4, 1, 1, seed=2), "bias": normal(4, seed=3)}
    for index, name in enumerate(("gamma", "beta", "mean", "var")):
        named[name] = normal(4, seed=4 + index)
    named["var"] = np.abs(named["var"])
    return {**named, **extra}


def conv(source: str, output: str, name: str = "w", *more: str) -> onnx.NodeProto:
    pads = [1, 1, 1, 1] if name == "w" else [0, 0, 0, 0]
    return node("Conv", [source, name, *more], output, pads=pads)


def norm(source: str, output: str) -> onnx.NodeProto:
    return node("BatchNormalization", [source, "gamma", "beta", "mean", "var"], output)


def used(nodes: list[onnx.NodeProto], **extra: np.ndarray) -> onnx.ModelProto:
    read = {value for n in nodes for value in n.input}
    return build(nodes, SHAPE, {name: array for name, array in weights(**extra).items() if name in read})


@given(networks())
@settings(max_examples=60)
def test_passes_never_change_what_a_network_computes(case: tuple[onnx.ModelProto, np.ndarray]) -> None:
    model, image = case
    graph = agree(model, {"x": image})
    assert not {"Relu", "Identity", "Constant"} & set(ops(graph))


@given(networks())
@settings(max_examples=20)
def test_lowering_twice_is_lowering_once_and_leaves_the_graph_alone(case: tuple[onnx.ModelProto, np.ndarray]) -> None:
    graph = convert_model(case[0])
    before = [(n.op, list(n.inputs), dict(n.attrs)) for n in graph.nodes], set(graph.constants), set(graph.values)
    once = lower(graph)
    assert before == ([(n.op, n.inputs, n.attrs) for n in graph.nodes], set(graph.constants), set(graph.values))
    twice = lower(once)
    assert [(n.op, n.inputs, n.outputs, n.attrs) for n in twice.nodes] == [
        (n.op, n.inputs, n.outputs, n.attrs) for n in once.nodes
    ]


def test_residual_block_becomes_two_convolutions() -> None:
    nodes = [
        conv("x", "a"),
        norm("a", "b"),
        node("Relu", ["b"], "c"),
        conv("c", "d", "w", "bias"),
        norm("d", "e"),
        node("Add", ["e", "x"], "f"),
        node("Relu", ["f"], "y"),
    ]
    first, second = agree(used(nodes), {"x": x()}).nodes
    assert first.inputs[3] == ""
    assert first.attrs["clip"] == (0.0, INF)
    assert second.inputs[0] == first.output
    assert second.inputs[3] == "x"
    assert second.attrs["clip"] == (0.0, INF)
    assert second.outputs == ["y"]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shortcut_first", [False, True])
def test_of_two_convolutions_the_later_one_takes_the_addition(swapped: bool, shortcut_first: bool) -> None:
    main, shortcut = conv("x", "main"), conv("x", "short", "v")
    nodes = [*((shortcut, main) if shortcut_first else (main, shortcut))]
    nodes.append(node("Add", ["short", "main"] if swapped else ["main", "short"], "y"))
    graph = agree(used(nodes), {"x": x()})
    assert ops(graph) == ["Conv", "Conv"]
    assert graph.nodes[1].name == ("main_node" if shortcut_first else "short_node")
    assert graph.nodes[1].inputs[3] == graph.nodes[0].output


def test_the_fused_convolution_moves_behind_what_it_adds() -> None:
    nodes = [
        conv("x", "a"),
        node("MaxPool", ["x"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["p"], "r"),
        node("Add", ["a", "r"], "y"),
    ]
    graph = agree(used(nodes), {"x": x()})
    assert ops(graph) == ["MaxPool", "Clip", "Conv"]


KEPT_ADDITIONS = {
    "the sum with itself": [conv("x", "a"), node("Add", ["a", "a"], "y")],
    "used twice": [conv("x", "a"), node("Add", ["a", "x"], "s"), node("Add", ["a", "s"], "y")],
    "already clipped": [conv("x", "a"), node("Relu", ["a"], "r"), node("Add", ["r", "x"], "y")],
    "broadcast": [conv("x", "a"), node("GlobalAveragePool", ["x"], "g"), node("Add", ["a", "g"], "y")],
    "of a pool": [node("MaxPool", ["x"], "m", kernel_shape=[1, 1]), node("Add", ["m", "x"], "y")],
}


@pytest.mark.parametrize("case", KEPT_ADDITIONS)
def test_additions_that_no_convolution_can_take_stay(case: str) -> None:
    assert "Add" in ops(agree(used(KEPT_ADDITIONS[case]), {"x": x()}))


def test_second_addition_stays_when_the_convolution_has_one() -> None:
    nodes = [conv("x", "a"), node("Add", ["a", "x"], "s"), node("Add", ["s", "x"], "y")]
    graph = agree(used(nodes), {"x": x()})
    assert ops(graph) == ["Conv", "Add"]


def test_batch_normalization_of_a_shared_convolution_stays() -> None:
    nodes = [conv("x", "a"), norm("a", "b"), node("Add", ["a", "b"], "y")]
    assert "BatchNormalization" in ops(agree(used(nodes), {"x": x()}))


def test_batch_normalization_after_clipping_stays() -> None:
    nodes = [conv("x", "a"), node("Relu", ["a"], "r"), norm("r", "y")]
    assert ops(agree(used(nodes), {"x": x()})) == ["Conv", "BatchNormalization"]


def test_batch_normalizations_in_a_row_fold_with_groups_and_bias() -> None:
    constants = {**weights(), "w": normal(4, 1, 3, 3)}
    nodes = [node("Conv", ["x", "w", "bias"], "a", group=4), norm("a", "b"), norm("b", "y")]
    assert ops(agree(build(nodes, SHAPE, {k: v for k, v in constants.items() if k != "v"}), {"x": x()})) == ["Conv"]


def test_biases_and_batch_normalizations_in_turn_all_fold() -> None:
    nodes = [conv("x", "a"), node("Add", ["a", "c"], "b"), norm("b", "d"), node("Add", ["d", "c"], "e"), norm("e", "y")]
    assert ops(agree(used(nodes, c=normal(4, 1, 1)), {"x": x()})) == ["Conv"]


def test_batch_normalization_that_would_overflow_stays_correct() -> None:
    tiny = np.zeros(4, np.float32)
    constants = {name: array for name, array in weights(var=tiny).items() if name not in ("v", "bias")}
    zero_eps = node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], "y", epsilon=0.0)
    graph = lower(convert_model(build([conv("x", "a"), zero_eps], SHAPE, constants)))
    assert ops(graph) == ["Conv", "BatchNormalization"]


def test_weights_shared_by_two_convolutions_fold_separately() -> None:
    nodes = [conv("x", "a"), norm("a", "b"), conv("b", "y")]
    assert ops(agree(used(nodes), {"x": x()})) == ["Conv", "Conv"]


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), ()])
def test_constant_added_per_channel_becomes_bias(shape: tuple[int, ...]) -> None:
    nodes = [conv("x", "a", "w", "bias"), node("Add", ["c", "a"], "s"), node("Relu", ["s"], "y")]
    graph = agree(used(nodes, c=np.asarray(normal(*shape), np.float32)), {"x": x()})
    assert ops(graph) == ["Conv"]


def test_constant_added_along_the_width_stays() -> None:
    graph = agree(used([conv("x", "a"), node("Add", ["a", "c"], "y")], c=normal(6)), {"x": x()})
    assert ops(graph) == ["Conv", "Add"]


@pytest.mark.parametrize(("first", "second"), [((0, 6), (-1, 3)), ((-5, -2), (0, 4)), ((3, 5), (-1, 1))])
def test_clips_in_a_row_act_like_the_first_then_the_second(
    first: tuple[float, float], second: tuple[float, float]
) -> None:
    bounds = {
        f"{name}{i}": np.array(pair[i], np.float32) for name, pair in (("f", first), ("s", second)) for i in (0, 1)
    }
    nodes = [conv("x", "a"), node("Clip", ["a", "f0", "f1"], "b"), node("Clip", ["b", "s0", "s1"], "y")]
    assert ops(agree(used(nodes, **bounds), {"x": x()})) == ["Conv"]


def test_activation_of_a_value_that_is_also_returned_stays() -> None:
    model = build([conv("x", "a"), node("Relu", ["a"], "y")], SHAPE, {"w": weights()["w"]}, outputs=("a", "y"))
    graph = agree(model, {"x": x()})
    assert ops(graph) == ["Conv", "Clip"]
    assert graph.outputs == ["a", "y"]


def test_classifier_of_flattened_images_reads_them_without_flattening() -> None:
    nodes = [
        node("Flatten", ["x"], "f"),
        node("MatMul", ["f", "m"], "p"),
        node("Add", ["p", "c"], "s"),
        node("Relu", ["s"], "h"),
        node("Gemm", ["h", "n", "d"], "z", transB=1),
        node("Softmax", ["z"], "y"),
    ]
    constants = {"m": normal(144, 8), "c": normal(8), "n": normal(5, 8), "d": normal(5)}
    graph = agree(build(nodes, SHAPE, constants, rank=2), {"x": x()})
    assert ops(graph) == ["Conv", "Conv", "Flatten", "Softmax"]
    assert graph.nodes[0].inputs[0] == "x"
    assert graph.nodes[0].attrs["kernel"] == (6, 6)
    assert graph.nodes[0].attrs["clip"] == (0.0, INF)
    assert graph.constants[graph.nodes[1].inputs[1]].shape == (5, 8, 1, 1)


def test_dead_nodes_and_their_weights_go() -> None:
    nodes = [conv("x", "unused", "v"), conv("x", "y")]
    graph = lower(convert_model(used(nodes)))
    assert ops(graph) == ["Conv"]
    assert set(graph.values) == {"x", "y", "w"}


def test_computation_on_constants_only_is_done_once() -> None:
    nodes = [
        node("Relu", ["v"], "k"),
        node("Reshape", ["k", "s"], "k2"),
        node("Conv", ["x", "k2"], "y"),
    ]
    graph = agree(used(nodes, s=np.array([4, 4, 1, 1])), {"x": x()})
    assert ops(graph) == ["Conv"]


def test_names_that_passes_make_do_not_collide_with_the_files() -> None:
    constants = {**weights(), "w.folded": normal(4), "y.bias": normal(4)}
    nodes = [
        conv("x", "a"),
        norm("a", "b"),
        node("BatchNormalization", ["b", "gamma", "w.folded", "y.bias", "var"], "y"),
    ]
    del constants["v"], constants["bias"]
    assert ops(agree(build(nodes, SHAPE, constants), {"x": x()})) == ["Conv"]


def test_attributes_are_plain_python_numbers() -> None:
    pool = node("AveragePool", ["r"], "p", kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2], count_include_pad=1)
    graph = agree(used([conv("x", "a"), node("Relu", ["a"], "r"), pool, node("Add", ["p", "p"], "y")]), {"x": x()})
    for made in graph.nodes:
        for value in made.attrs.values():
            for number in value if isinstance(value, tuple) else (value,):
                assert type(number) in (bool, int, float)


def test_two_outputs_of_one_value_keep_their_names() -> None:
    nodes = [conv("x", "a"), node("Identity", ["a"], "y"), node("Identity", ["a"], "z")]
    graph = agree(build(nodes, SHAPE, {"w": weights()["w"]}, outputs=("z", "y", "a")), {"x": x()})
    assert graph.outputs == ["z", "y", "a"]


def test_unused_graph_input_stays() -> None:
    model = build([node("Relu", ["x"], "y")], SHAPE, inputs={"extra": ["N", 2]})
    assert agree(model, {"x": x(), "extra": normal(2, 2)}).inputs == ["x", "extra"]


@pytest.mark.parametrize(("curve", "fused"), [("Sigmoid", "Swish"), ("HardSigmoid", "HardSwish")])
@pytest.mark.parametrize("order", [["c", "s"], ["s", "c"]])
def test_a_value_times_its_own_sigmoid_is_one_node(curve: str, fused: str, order: list[str]) -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node(curve, ["c"], "s"), node("Mul", order, "y")]
    graph = lower(convert_model(build(nodes, ["N", 3, 6, 6], {"w": normal(4, 3, 1, 1)})))
    assert [made.op for made in graph.nodes] == ["Conv", fused]


def test_a_sigmoid_that_is_read_elsewhere_too_stays() -> None:
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Sigmoid", ["c"], "s"),
        node("Mul", ["c", "s"], "m"),
        node("Add", ["m", "s"], "y"),
    ]
    graph = lower(convert_model(build(nodes, ["N", 3, 6, 6], {"w": normal(4, 3, 1, 1)})))
    assert "Sigmoid" in [made.op for made in graph.nodes]
