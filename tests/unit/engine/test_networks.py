"""Random networks: the CPU engine computes what the numpy reference computes, or says that it does not run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, event, given, settings

from tessera import engine
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tests.unit.graph.random_networks import networks

RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def compute(model: onnx.ModelProto, batch: np.ndarray, folder: Path, precision: str) -> np.ndarray | None:
    path = folder / "network.onnx"
    onnx.save(model, path)
    try:
        with engine.load(path, backend="cpu", threads=2, precision=precision) as session:
            event("ran")
            return session.run(batch)
    except engine.ModelError as error:
        event(f"refused: {type(error).__name__}")
        return None


@settings(max_examples=150, suppress_health_check=RELAXED)
@given(drawn=networks())
def test_float_networks_match_the_reference(drawn: tuple[onnx.ModelProto, np.ndarray], tmp_path: Path) -> None:
    model, batch = drawn
    actual = compute(model, batch, tmp_path, "fp32")
    if actual is not None:
        expected = run_reference(lower(convert_model(model)), {"x": batch})["y"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()))


# These bounds are about typical rounding, not worst cases: the same networks every time, so that a failure is a change.
@settings(max_examples=100, derandomize=True, suppress_health_check=RELAXED)
@given(drawn=networks())
def test_bf16_networks_are_near_the_reference(drawn: tuple[onnx.ModelProto, np.ndarray], tmp_path: Path) -> None:
    model, batch = drawn
    actual = compute(model, batch, tmp_path, "bf16")
    if actual is not None:
        expected = run_reference(lower(convert_model(model)), {"x": batch})["y"]
        # Eight bits of mantissa, up to ten layers, sums that may cancel: 5 % of the largest value.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=0.05 * max(1.0, np.abs(expected).max()))


def test_quantised_networks_match_the_reference(tmp_path: Path) -> None:
    """A sum on the border of two quanta may round either way, and later layers carry that on to all their values.

    So of all values of all networks nearly all agree to float rounding, and none is far off.
    """
    errors = []

    @settings(max_examples=150, derandomize=True, suppress_health_check=RELAXED)
    @given(drawn=networks(quantised=True))
    def explore(drawn: tuple[onnx.ModelProto, np.ndarray]) -> None:
        model, batch = drawn
        actual = compute(model, batch, tmp_path, "auto")
        if actual is not None:
            expected = run_reference(lower(convert_model(model)), {"x": batch})["y"]
            error = np.abs(actual - expected) / max(1.0, float(np.abs(expected).max()))
            assert error.max() <= 0.1
            errors.append(error.ravel())

    explore()
    assert np.quantile(np.concatenate(errors), 0.95) <= 1e-4


def test_most_float_networks_run_natively(tmp_path: Path) -> None:
    """The property tests above would pass if the engine refused everything."""
    ran = refused = 0

    @settings(max_examples=60, database=None, derandomize=True, suppress_health_check=RELAXED)
    @given(drawn=networks())
    def count(drawn: tuple[onnx.ModelProto, np.ndarray]) -> None:
        nonlocal ran, refused
        if compute(*drawn, tmp_path, "fp32") is None:
            refused += 1
        else:
            ran += 1

    count()
    assert ran > 4 * refused, f"{ran} ran, {refused} were refused"


def test_auto_falls_back_to_onnxruntime_for_graphs_outside_the_engine(tmp_path: Path) -> None:
    """1-D activations have no blocked layout; ONNX Runtime runs them all the same."""
    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3, 5] x) => (float[N, 3, 5] y) { y = Relu(x) }'
    )
    path = tmp_path / "rank3.onnx"
    onnx.save(graph, path)
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    with engine.load(path, backend="auto") as session:
        assert session.describe().backend == "onnxruntime"
        np.testing.assert_array_equal(session.run(x), np.maximum(x, 0))
    with pytest.raises(engine.ModelError, match="the CPU engine runs"):
        engine.load(path, backend="cpu")
