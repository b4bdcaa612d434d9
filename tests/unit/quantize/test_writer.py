"""The QDQ file: standard, deterministic, and placed the way integer kernels need it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tessera.engine.errors import InputError, ModelError, UnsupportedOperatorError
from tessera.engine.quantize import ActivationRange, Calibration, calibrate, quantised_model, quantize, write_quantised
from tests.unit.models.tiny import tiny_images, tiny_model
from tests.unit.quantize.networks import constants, nodes, producers, run


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return tiny_model()


@pytest.fixture(scope="module")
def calibration(model: onnx.ModelProto) -> Calibration:
    return calibrate(model, [tiny_images(24)], fallback="none", threads=1)[0]


@pytest.fixture(scope="module")
def quantised(model: onnx.ModelProto, calibration: Calibration) -> onnx.ModelProto:
    return quantised_model(model, calibration)


def test_result_is_valid_onnx_with_the_same_interface(model: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantised, full_check=True)
    assert quantised.opset_import[0].version == 17
    assert quantised.ir_version <= 9
    assert [v.SerializeToString() for v in quantised.graph.input] == [v.SerializeToString() for v in model.graph.input]
    assert [v.name for v in quantised.graph.output] == ["output"]
    assert {p.key: p.value for p in quantised.metadata_props} == {p.key: p.value for p in model.metadata_props}
    assert not nodes(quantised, "BatchNormalization")


def test_int8_logits_stay_close_to_float(model: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    images = tiny_images(16, seed=5)
    expected, found = run(model, images), run(quantised, images)
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean() + 0.02 * expected.std()


def test_weights_are_per_channel_s8_and_biases_s32_at_the_accumulators_scale(quantised: onnx.ModelProto) -> None:
    made, values = producers(quantised), constants(quantised)
    layers = nodes(quantised, "Conv") + nodes(quantised, "Gemm")
    assert len(layers) == 1 + 5 * 3 + 4 + 1
    for layer in layers:
        activation, weight, bias = (made[name] for name in layer.input)
        assert all(node.op_type == "DequantizeLinear" for node in (activation, weight, bias))
        integers, scales, zeros = (values[name] for name in weight.input)
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() <= 127
        assert scales.shape == zeros.shape == integers.shape[:1]
        assert not zeros.any()
        assert values[bias.input[0]].dtype == np.int32
        assert np.array_equal(values[bias.input[1]], values[activation.input[1]] * scales)


def test_activations_behind_relu_have_zero_point_zero_and_others_represent_zero(quantised: onnx.ModelProto) -> None:
    made, values = producers(quantised), constants(quantised)
    for node in nodes(quantised, "QuantizeLinear"):
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.uint8
        assert zero_point.shape == ()
        producer = made.get(node.input[0])
        if producer is not None and producer.op_type in ("Relu", "MaxPool", "GlobalAveragePool", "Flatten"):
            assert zero_point == 0
        else:
            assert 0 < zero_point < 255


def test_image_range_follows_from_the_normalisation(calibration: Calibration) -> None:
    assert calibration.ranges["input"].low == pytest.approx((0 - 0.485) / 0.229, rel=1e-5)
    assert calibration.ranges["input"].high == pytest.approx((1 - 0.406) / 0.225, rel=1e-5)


def test_residual_sum_stays_in_the_last_convolution_and_the_shortcut_is_eight_bit(quantised: onnx.ModelProto) -> None:
    made = producers(quantised)
    for add in nodes(quantised, "Add"):
        kinds = sorted(made[name].op_type for name in add.input)
        assert kinds == ["Conv", "DequantizeLinear"]
        main = next(made[name] for name in add.input if made[name].op_type == "Conv")
        assert main.name.endswith("conv3")
        readers = [node for node in quantised.graph.node if add.output[0] in node.input]
        assert [node.op_type for node in readers] == ["Relu"]


def test_pooling_and_flattening_keep_the_scale_of_their_input(quantised: onnx.ModelProto) -> None:
    made = producers(quantised)
    for node in nodes(quantised, "MaxPool") + nodes(quantised, "Flatten"):
        before = made[node.input[0]]
        after = next(reader for reader in quantised.graph.node if node.output[0] in reader.input)
        assert before.op_type == "DequantizeLinear"
        assert after.op_type == "QuantizeLinear"
        assert list(before.input[1:]) == list(after.input[1:])


def test_logits_are_not_quantised(quantised: onnx.ModelProto) -> None:
    assert producers(quantised)["output"].op_type == "Gemm"


def test_same_model_and_calibration_give_the_same_bytes(
    model: onnx.ModelProto, calibration: Calibration, tmp_path: Path
) -> None:
    digests = set()
    for number in range(2):
        write_quantised(model, Calibration.from_json(calibration.to_json()), tmp_path / f"{number}.onnx")
        digests.add(hashlib.sha256((tmp_path / f"{number}.onnx").read_bytes()).hexdigest())
    assert len(digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.onnx", "1.onnx"]


def test_quantize_works_from_file_to_file_and_returns_its_calibration(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "in.onnx")
    calibration = quantize(tmp_path / "in.onnx", (tiny_images(4, seed=s) for s in range(3)), tmp_path / "out.onnx")
    assert calibration.images == 12
    expected = quantised_model(model, calibration).SerializeToString(deterministic=True)
    assert (tmp_path / "out.onnx").read_bytes() == expected


def test_bias_correction_brings_channel_means_closer(model: onnx.ModelProto) -> None:
    images = tiny_images(200)
    expected = run(model, images).mean(axis=0)

    def offset(bias_correction: bool) -> float:
        calibration, _ = calibrate(model, [images], bias_correction=bias_correction, fallback="none")
        return float(np.abs(run(quantised_model(model, calibration), images).mean(axis=0) - expected).max())

    assert offset(True) < 0.5 * offset(False)


def test_matmul_and_add_make_a_quantised_classifier() -> None:
    random = np.random.default_rng(3)
    weight = random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    matrix = random.normal(0, 0.3, (8, 4)).astype(np.float32)
    offset = random.normal(0, 0.3, 4).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["g"]),
            helper.make_node("Flatten", ["g"], ["f"]),
            helper.make_node("MatMul", ["f", "m"], ["p"]),
            helper.make_node("Add", ["b", "p"], ["y"]),
        ],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(a, n) for a, n in ((weight, "w"), (matrix, "m"), (offset, "b"))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    images = random.normal(0, 1, (32, 3, 8, 8)).astype(np.float32)
    result = quantised_model(model, calibrate(model, [images], fallback="none")[0])
    onnx.checker.check_model(result, full_check=True)
    assert len(nodes(result, "Gemm")) == 1
    assert not nodes(result, "MatMul")
    assert np.abs(run(result, images) - run(model, images)).max() < 0.1


def test_projection_that_comes_last_in_the_file_is_still_the_shortcut() -> None:
    random = np.random.default_rng(4)
    shapes = {"stem": (8, 3), "deep1": (8, 8), "deep2": (8, 8), "short": (8, 8), "head": (4, 8)}
    weights = {name: random.normal(0, 0.4, (*shape, 1, 1)).astype(np.float32) for name, shape in shapes.items()}

    def conv(name: str, source: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, f"{name}.w"], [name], name)

    graph = helper.make_graph(
        [
            conv("stem", "x"),
            helper.make_node("Relu", ["stem"], ["s"]),
            conv("deep1", "s"),
            helper.make_node("Relu", ["deep1"], ["d"]),
            conv("deep2", "d"),
            conv("short", "s"),
            helper.make_node("Add", ["deep2", "short"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["r"]),
            conv("head", "r"),
        ],
        "projection",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("head", TensorProto.FLOAT, ["N", 4, 4, 4])],
        [numpy_helper.from_array(value, f"{name}.w") for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = random.normal(0, 1, (16, 3, 4, 4)).astype(np.float32)
    result = quantised_model(model, calibrate(model, [images], bias_correction=False, fallback="none")[0])
    made = producers(result)
    (add,) = nodes(result, "Add")
    assert [made[name].op_type for name in add.input] == ["Conv", "DequantizeLinear"]
    assert made[add.input[0]].name == "deep2"


def test_switched_off_channel_keeps_its_bias() -> None:
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0] = 1e-20
    bias = np.array([0.75, -0.5], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "dead",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 2, 2])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = np.random.default_rng(0).normal(0, 1, (4, 3, 2, 2)).astype(np.float32)
    result = run(quantised_model(model, calibrate(model, [images], fallback="none")[0]), images)
    assert np.allclose(result, bias.reshape(1, 2, 1, 1), atol=1e-4)


def test_calibration_of_another_model_is_refused(model: onnx.ModelProto, calibration: Calibration) -> None:
    with pytest.raises(ModelError, match="belongs to another model"):
        quantised_model(tiny_model(bottleneck=False), calibration)
    surplus = Calibration({**calibration.ranges, "other": ActivationRange(0.0, 1.0)})
    with pytest.raises(ModelError, match="'other'"):
        quantised_model(model, surplus)


def test_quantised_model_is_not_quantised_again(quantised: onnx.ModelProto, calibration: Calibration) -> None:
    with pytest.raises(ModelError, match="quantised already"):
        quantised_model(quantised, calibration)


def test_unknown_operator_is_named() -> None:
    graph = helper.make_graph(
        [helper.make_node("Erf", ["x"], ["y"], "gate")],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 2, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedOperatorError, match="Erf") as caught:
        calibrate(model, [np.zeros((1, 3, 2, 2), np.float32)])
    assert caught.value.node == "gate"


def test_damaged_model_files_are_refused(tmp_path: Path) -> None:
    for payload in (b"", b"not a model", tiny_model().SerializeToString()[:5000]):
        (tmp_path / "bad.onnx").write_bytes(payload)
        with pytest.raises(ModelError):
            calibrate(tmp_path / "bad.onnx", [tiny_images(1)])
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        calibrate(tmp_path / "missing.onnx", [tiny_images(1)])


@pytest.mark.parametrize(
    "images",
    [
        [],
        [np.zeros((1, 3, 32, 32), np.uint8)],
        [np.zeros((3, 32, 32), np.float32)],
        [np.full((1, 3, 32, 32), np.nan, np.float32)],
        [np.zeros((1, 4, 32, 32), np.float32)],
        ["photo.jpg"],
    ],
)
def test_unusable_images_are_refused(model: onnx.ModelProto, images: list[object]) -> None:
    with pytest.raises(InputError):
        calibrate(model, images)  # type: ignore[arg-type]


def test_unwritable_target_is_reported_and_leaves_nothing(
    model: onnx.ModelProto, calibration: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="Cannot write"):
        write_quantised(model, calibration, tmp_path / "no" / "such" / "folder.onnx")
    assert not list(tmp_path.iterdir())
