"""Single operators on the CPU engine against ONNX Runtime, in the forms that networks rarely combine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tessera import engine
from tests.unit.graph.onnx_models import build, node, normal, run_onnxruntime


def run(model: onnx.ModelProto, x: np.ndarray, folder: Path) -> np.ndarray:
    onnx.save(model, folder / "operator.onnx")
    with engine.load(folder / "operator.onnx", backend="cpu", threads=2, precision="fp32") as session:
        return session.run(x)


def check(model: onnx.ModelProto, x: np.ndarray, folder: Path) -> None:
    expected = run_onnxruntime(model, {"x": x})["y"]
    np.testing.assert_allclose(run(model, x, folder), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pools(data: st.DataObject, tmp_path: Path) -> None:
    draw = data.draw
    kernel = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    pads = [draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)]
    attributes: dict[str, object] = {
        "kernel_shape": kernel,
        "pads": pads,
        "strides": [draw(st.integers(1, 3)), draw(st.integers(1, 3))],
        "ceil_mode": draw(st.integers(0, 1)),
    }
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    shape = (draw(st.sampled_from([1, 3, 16, 20])), draw(st.integers(5, 12)), draw(st.integers(5, 12)))
    model = build([node(op, ["x"], "y", **attributes)], ["N", *shape])
    check(model, normal(2, *shape), tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_convolutions(data: st.DataObject, tmp_path: Path) -> None:
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3, 8]))
    channels = groups * draw(st.sampled_from([1, 2, 4, 16]))
    outputs = groups * draw(st.sampled_from([1, 2, 5, 16, 33]))
    kernel = [draw(st.integers(1, 5)), draw(st.integers(1, 5))]
    dilations = [draw(st.integers(1, 2)), draw(st.integers(1, 2))]
    pads = [draw(st.integers(0, 3)) for _ in range(4)]
    shape = (channels, draw(st.integers(4, 16)), draw(st.integers(4, 30)))
    assume(all((k - 1) * d < n for k, d, n in zip(kernel, dilations, shape[1:], strict=True)))
    strides = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    weights = normal(outputs, channels // groups, *kernel, seed=1)
    attributes = {"group": groups, "pads": pads, "strides": strides, "dilations": dilations}
    model = build([node("Conv", ["x", "w"], "y", **attributes)], ["N", *shape], {"w": weights})
    check(model, normal(draw(st.integers(1, 3)), *shape), tmp_path)


@pytest.mark.parametrize("shape", [(5, 1, 1), (5, 3, 2), (33, 7, 7)])
def test_flatten_softmax_and_matrix_products(shape: tuple[int, int, int], tmp_path: Path) -> None:
    features = int(np.prod(shape))
    nodes = [
        node("Flatten", ["x"], "f"),
        node("Gemm", ["f", "w", "b"], "g", alpha=0.5),
        node("Relu", ["g"], "r"),
        node("MatMul", ["r", "m"], "p"),
        node("Softmax", ["p"], "y", axis=-1),
    ]
    constants = {"w": normal(features, 40) * 0.1, "b": normal(40), "m": normal(40, 9)}
    check(build(nodes, ["N", *shape], constants, rank=2), normal(3, *shape), tmp_path)


def test_reshape_that_flattens(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], "r"), node("Reshape", ["r", "s"], "y")]
    check(build(nodes, ["N", 4, 3, 5], {"s": np.array([0, -1])}, rank=2), normal(2, 4, 3, 5), tmp_path)


def test_softmax_of_large_values_does_not_overflow(tmp_path: Path) -> None:
    model = build([node("Softmax", ["x"], "y", axis=1)], ["N", 3], rank=2)
    x = np.array([[1e4, 0.0, -1e4], [-1e30, -1e30, -1e30]], np.float32)
    check(model, x, tmp_path)


def test_not_a_number_is_not_hidden(tmp_path: Path) -> None:
    """One bad pixel spoils its own image and no other."""
    model = build([node("Conv", ["x", "w"], "y")], ["N", 3, 6, 6], {"w": normal(4, 3, 1, 1)})
    x = normal(2, 3, 6, 6)
    x[0, 1, 2, 3] = np.nan
    result = run(model, x, tmp_path)
    assert np.isnan(result[0, :, 2, 3]).all()
    assert np.isfinite(result[1]).all()


GATED = {
    "gates behind": [node("Mul", ["x", "g"], "y")],
    "gates in front": [node("Mul", ["g", "x"], "y")],
    "images": [node("Relu", ["x"], "r"), node("Mul", ["x", "r"], "y")],
    "one number a channel": [node("Mul", ["x", "c"], "y")],
    "one number": [node("Mul", ["half", "x"], "y")],
    "Swish": [node("Sigmoid", ["x"], "s"), node("Mul", ["s", "x"], "y")],
    "HardSwish of its parts": [node("HardSigmoid", ["x"], "s", alpha=1 / 6, beta=0.5), node("Mul", ["x", "s"], "y")],
    "Sigmoid": [node("Sigmoid", ["x"], "y")],
    "HardSigmoid": [node("HardSigmoid", ["x"], "y")],
    "HardSwish": [node("HardSwish", ["x"], "y")],
}


@pytest.mark.parametrize("shape", [(5, 6, 7), (32, 7, 7), (33, 1, 1)])
@pytest.mark.parametrize("case", GATED)
def test_gates_and_curves(case: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    nodes = [node("GlobalAveragePool", ["x"], "p"), node("Sigmoid", ["p"], "g")] if case.startswith("gates") else []
    constants = {"c": normal(shape[0], 1, 1), "half": np.array(0.5, np.float32)}
    read = {name for made in GATED[case] for name in made.input}
    used = {name: array for name, array in constants.items() if name in read}
    model = build([*nodes, *GATED[case]], ["N", *shape], used)
    check(model, normal(3, *shape) * np.float32(4), tmp_path)


def test_a_product_of_images_of_different_sizes_is_not_run(tmp_path: Path) -> None:
    row = node("AveragePool", ["x"], "row", kernel_shape=[6, 1])
    onnx.save(build([row, node("Mul", ["x", "row"], "y")], ["N", 4, 6, 7]), tmp_path / "operator.onnx")
    with pytest.raises(engine.UnsupportedOperatorError, match="neither images of one shape nor gates"):
        engine.load(tmp_path / "operator.onnx", backend="cpu")
