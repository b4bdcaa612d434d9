"""The quantiser takes every network that the engine runs: operators are taught once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tessera import engine
from tessera.engine.errors import ModelError
from tessera.engine.graph.operators import OPERATORS
from tessera.engine.graph.reader import convert_model
from tessera.engine.quantize import calibrate, quantised_model
from tessera.engine.quantize.measures import sqnr
from tests.unit.graph.onnx_models import build, node, normal
from tests.unit.graph.operator_examples import CASES, EXAMPLES, IMAGE, NAMES, Example, computes_on_integers
from tests.unit.quantize.networks import nodes, producers, run

SHAPE = ["N", 3, 6, 6]
IMAGES = normal(24, 3, 6, 6)


def network(body: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A convolution and its ReLU, which write "x" [N, 4, 6, 6], and what follows, which writes "logits" [N, 5]."""
    stem = [node("Conv", ["image", "stem"], "sums", pads=[1, 1, 1, 1]), node("Relu", ["sums"], "x")]
    stem_weights = normal(4, 3, 3, 3, seed=9) * np.float32(0.2)
    model = build([*stem, *body], SHAPE, {"stem": stem_weights, **constants}, outputs=("logits",), rank=2)
    model.graph.input[0].name = "image"
    return model


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    result = quantised_model(model, calibrate(model, [IMAGES], fallback="none", threads=1)[0])
    onnx.checker.check_model(result, full_check=True)
    return result


def assert_close_to_float(model: onnx.ModelProto, result: onnx.ModelProto, folder: Path, decibels: float) -> None:
    """The quantised network gives the float one's answers on the engine."""
    expected = run(model, IMAGES)
    (folder / "quantised.onnx").write_bytes(result.SerializeToString())
    with engine.load(folder / "quantised.onnx", threads=1) as session:
        assert sqnr(expected, session.run(IMAGES)) > decibels


# Each turns "x" [N, 4, 6, 6] into "f" [N, 4].
POOLS = {
    "pool and Flatten": [node("GlobalAveragePool", ["x"], "p"), node("Flatten", ["p"], "f")],
    "pool and Reshape": [node("GlobalAveragePool", ["x"], "p"), node("Reshape", ["p", "features"], "f")],
    "pool and Squeeze": [node("GlobalAveragePool", ["x"], "p"), node("Squeeze", ["p", "spatial"], "f")],
    "ReduceMean": [node("ReduceMean", ["x"], "f", axes=[2, 3], keepdims=0)],
    "ReduceMean and Flatten": [node("ReduceMean", ["x"], "p", axes=[-2, -1]), node("Flatten", ["p"], "f")],
}
# Each turns "f" [N, 4] into "logits" [N, 5].
CLASSIFIERS = {
    "Gemm": [node("Gemm", ["f", "rows", "bias"], "logits", transB=1)],
    "MatMul and Add": [node("MatMul", ["f", "matrix"], "m"), node("Add", ["m", "bias"], "logits")],
    "Add in front": [node("MatMul", ["f", "matrix"], "m"), node("Add", ["bias", "m"], "logits")],
    "MatMul": [node("MatMul", ["f", "matrix"], "logits")],
}
HEAD = {
    "features": np.array([0, 4]),
    "spatial": np.array([2, 3]),
    "rows": normal(5, 4, seed=3),
    "matrix": normal(4, 5, seed=4),
    "bias": normal(5, seed=5),
}


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("pool", POOLS)
def test_every_usual_head_runs_in_integers_and_agrees_with_the_float_one(
    pool: str, classifier: str, tmp_path: Path
) -> None:
    body = [*POOLS[pool], *CLASSIFIERS[classifier]]
    read = {name for made in body for name in made.input}
    model = network(body, {name: array for name, array in HEAD.items() if name in read})
    result = quantised(model)
    (layer,) = nodes(result, "Gemm")
    assert layer.output[0] == "logits"
    assert all(producers(result)[name].op_type == "DequantizeLinear" for name in layer.input)
    assert_close_to_float(model, result, tmp_path, 30.0)
    assert sqnr(run(model, IMAGES), run(result, IMAGES)) > 30.0  # and on ONNX Runtime


@pytest.mark.parametrize("example", CASES, ids=NAMES)
def test_every_operator_that_the_engine_runs_can_be_quantised_around(example: Example, tmp_path: Path) -> None:
    shape = convert_model(build(example.nodes, ["N", *IMAGE], example.constants, rank=example.rank)).values["y"].shape
    features = int(np.prod([size or 1 for size in shape[1:]]))
    head = [node("Flatten", ["y"], "flat"), node("Gemm", ["flat", "head"], "logits")]
    weights = normal(features, 5, seed=7) * np.float32(features**-0.5)
    model = network([*example.nodes, *head], {**example.constants, "head": weights})
    assert_close_to_float(model, quantised(model), tmp_path, 25.0)


def test_no_operator_is_left_out_and_those_on_integers_are_refused_by_name() -> None:
    for operator in set(OPERATORS) - set(EXAMPLES):
        assert computes_on_integers(operator)
    pair = [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "d")]
    head = [node("Flatten", ["d"], "f"), node("Gemm", ["f", "w"], "logits")]
    constants = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8), "w": normal(144, 5)}
    with pytest.raises(ModelError, match="quantised already"):
        calibrate(network([*pair, *head], constants), [IMAGES])


def test_a_calibration_names_values_as_the_file_does() -> None:
    body = [
        node("Identity", ["x"], "copy"),
        node("Conv", ["copy", "filters"], "c"),
        node("BatchNormalization", ["c", "scale", "mean", "mean", "scale"], "normal"),
        node("Relu", ["normal"], "r"),
        node("GlobalAveragePool", ["r"], "p"),
        node("Flatten", ["p"], "f"),
        node("MatMul", ["f", "matrix"], "m"),
        node("Add", ["m", "bias"], "sum"),
        node("Identity", ["sum"], "logits"),
    ]
    constants = {"filters": normal(4, 4, 1, 1), "scale": np.abs(normal(4)) + 0.5, "mean": normal(4, seed=1)}
    model = network(body, {**constants, "matrix": HEAD["matrix"], "bias": HEAD["bias"]})
    calibration, _ = calibrate(model, [IMAGES], fallback="none", threads=1)
    assert set(calibration.ranges) == {"image", "x", "r", "p"}
    assert set(calibration.bias_corrections) == {"sums", "normal", "sum"}
    assert {n.name for n in quantised_model(model, calibration).graph.node} >= {"sums_node", "c_node", "m_node"}
