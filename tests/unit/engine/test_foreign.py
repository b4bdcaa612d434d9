"""Graphs that other quantisers wrote run on our engine with ONNX Runtime's answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, QuantType

from tessera import engine
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tests.unit.engine.foreign_models import (
    SHAPE,
    quantised_by_onnxruntime,
    quantised_like_pytorch,
    residual_network,
)
from tests.unit.graph.onnx_models import build, node, normal, run_onnxruntime


@cache
def saturates() -> bool:
    """Whether ONNX Runtime's uint8 x int8 kernels cut 16-bit sums here, as they do on x86 without VNNI."""
    constants = {"one": np.float32(1), "large": np.float32(1e5), "u": np.uint8(0), "s": np.int8(0)}
    constants["w"] = np.full((64, 8), 127, np.int8)
    product = node("QLinearMatMul", ["x", "one", "u", "w", "one", "s", "large", "u"], "y")
    kinds = {"input_type": TensorProto.UINT8, "output_type": TensorProto.UINT8}
    graph = build([product], ["N", 64], constants, rank=2, **kinds)
    (row,) = run_onnxruntime(graph, {"x": np.full((1, 64), 255, np.uint8)})["y"]
    return bool((row != round(64 * 255 * 127 / 1e5)).any())


def check(path: Path, *, same: float = 0.9) -> engine.Session:
    """Runs a file natively and in ONNX Runtime: at least the share `same` of the logits agrees to float rounding."""
    x = normal(8, *SHAPE, seed=99)
    model = onnx.load(path)
    # Where ONNX Runtime itself is inexact, the plain numpy executor says what is right.
    feeds = {"x": x}
    expected = run_reference(convert_model(model), feeds) if saturates() else run_onnxruntime(model, feeds)
    session = engine.load(path, backend="cpu", threads=2)
    actual = session.run(x)
    scale = np.abs(expected["y"]).max()
    assert (np.abs(actual - expected["y"]) <= 1e-4 * scale).mean() >= same
    # A sum on the border of two quanta may round either way and then travel on: a few quanta of the logits.
    assert np.abs(actual - expected["y"]).max() <= 0.05 * scale
    return session


@settings(max_examples=24, suppress_health_check=list(HealthCheck))
@given(
    form=st.sampled_from([QuantFormat.QDQ, QuantFormat.QOperator]),
    types=st.sampled_from(
        [
            (QuantType.QUInt8, QuantType.QInt8),
            (QuantType.QUInt8, QuantType.QUInt8),
            (QuantType.QInt8, QuantType.QInt8),
        ]
    ),
    per_channel=st.booleans(),
    symmetric=st.booleans(),
    widths=st.sampled_from([(8, 12), (16, 32), (20, 36)]),
    seed=st.integers(0, 99),
    activation=st.sampled_from(["Relu", "Clip"]),
)
def test_onnxruntimes_quantiser(
    form: QuantFormat,
    types: tuple[QuantType, QuantType],
    per_channel: bool,
    symmetric: bool,
    widths: tuple[int, int],
    seed: int,
    activation: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = residual_network(widths, seed, activation)
    folder = tmp_path_factory.mktemp("foreign")
    path = quantised_by_onnxruntime(model, folder, form, *types, per_channel, symmetric)
    # One rounding that falls the other way early moves every logit of its image by a little.
    check(path, same=0.7).close()


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        (QuantType.QUInt8, QuantType.QInt8),
        (QuantType.QInt8, QuantType.QInt8),
        (QuantType.QUInt8, QuantType.QUInt8),
    ],
)
def test_foreign_convolutions_run_in_integers(
    form: QuantFormat, activations: QuantType, weights: QuantType, symmetric: bool, activation: str, tmp_path: Path
) -> None:
    """Unsigned weights are symmetric around 128 here; symmetric activations keep what a ReLU cuts off."""
    path = quantised_by_onnxruntime(
        residual_network(activation=activation),
        tmp_path,
        form,
        activations,
        weights,
        per_channel=weights != QuantType.QUInt8,
        symmetric=symmetric,
        symmetric_weights=True,
    )
    with check(path, same=0.7) as session:
        rows = session.profile(normal(1, *SHAPE), runs=1)
        assert session.describe().precision == "int8"
        assert session.describe().remark == ""
    kernels = [row.kernel for row in rows if row.op == "Conv"]
    assert len(kernels) == 6
    assert all("s8" in kernel for kernel in kernels)
    ops = [row.op for row in rows][:-2]  # the last two give floats to the caller
    assert not {"Quantise", "Convert"} & set(ops), ops
    # Where nothing stores what a Clip at 6 leaves, it is a number that no grid need hold.
    assert ops.count("Clip") <= (activation == "Clip" and form == QuantFormat.QOperator), ops


def test_weights_without_room_for_their_zero_point_are_told(tmp_path: Path) -> None:
    """ONNX Runtime's own default for unsigned weights."""
    path = quantised_by_onnxruntime(
        residual_network(), tmp_path, QuantFormat.QDQ, QuantType.QUInt8, QuantType.QUInt8, False, False
    )
    with check(path) as session:
        info = session.describe()
    assert info.precision == "fp32"  # most multiply-accumulates run in it
    assert "6 layers with integer weights" in info.remark
    assert "Quantise weights symmetrically" in info.remark


def test_weights_with_a_zero_point_far_from_the_middle_are_not_misread(tmp_path: Path) -> None:
    """u8 weights around 20 do not fit signed bytes once it is subtracted."""
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "ws": np.float32(0.02), "wz": np.uint8(20)}
    constants["w"] = np.random.default_rng(0).integers(0, 256, (8, 3, 3, 3), dtype=np.uint8)
    constants |= {"ys": np.float32(0.5), "yz": np.uint8(111), "b": np.arange(8, dtype=np.int32) * 100}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "ys", "yz", "b"], "c", pads=[1] * 4),
        node("DequantizeLinear", ["c", "ys", "yz"], "y"),
    ]
    path = tmp_path / "far.onnx"
    onnx.save(build(nodes, ["N", *SHAPE], constants), path)
    x = normal(3, *SHAPE) * 5
    with engine.load(path, backend="cpu") as session:
        difference = np.abs(session.run(x) - run_onnxruntime(onnx.load(path), {"x": x})["y"])
    assert difference.max() <= 0.5001
    assert (difference > 1e-4).mean() < 0.001


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_pytorchs_exporter(activation: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch.onnx"
    onnx.save(quantised_like_pytorch(residual_network(activation=activation)), path)
    with check(path, same=0.7) as session:
        rows = session.profile(normal(1, *SHAPE), runs=1)
    assert sum("s8" in row.kernel for row in rows if row.op == "Conv") == 5


@pytest.mark.filterwarnings("ignore")
def test_nncf(tmp_path: Path) -> None:
    nncf = pytest.importorskip("nncf", reason="NNCF is one of the peers, not a dependency (make peers installs it)")
    data = nncf.Dataset([{"x": normal(1, *SHAPE, seed=seed)} for seed in range(8)])
    model = residual_network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(nncf.quantize(model, data, subset_size=8), tmp_path / "nncf.onnx")
    quantised = onnx.load(tmp_path / "nncf.onnx")
    quantised.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(quantised, tmp_path / "nncf.onnx")
    # Its biases are float32 and count in whole quanta of the sums here: more sums round the other way.
    with check(tmp_path / "nncf.onnx", same=0.4) as session:
        rows = session.profile(normal(1, *SHAPE), runs=1)
    assert sum("s8" in row.kernel for row in rows if row.op == "Conv") >= 5


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.1), (0.02, 0.3)])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_addition_of_quantised_values_is_onnxruntimes(first: float, second: float, kind: type, tmp_path: Path) -> None:
    """Every pair of stored values, through the addition kernel of this machine."""
    low = 0 if kind is np.uint8 else -128
    constants = {"as": np.float32(first), "bs": np.float32(second), "ys": np.float32(0.17)}
    constants |= {"az": kind(low + 3), "bz": kind(low + 200), "yz": kind(low + 77)}
    nodes = [
        node("QuantizeLinear", ["x", "as", "az"], "a"),
        node("QuantizeLinear", ["x", "bs", "bz"], "b"),
        node("QLinearAdd", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], "c", domain="com.microsoft"),
        node("DequantizeLinear", ["c", "ys", "yz"], "y"),
    ]
    model = build(nodes, ["N", 5, 31, 17], constants)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "add.onnx")
    x = normal(3, 5, 31, 17) * np.float32(12)
    with engine.load(tmp_path / "add.onnx", backend="cpu") as session:
        difference = np.abs(session.run(x) - run_onnxruntime(model, {"x": x})["y"])
    assert difference.max() <= 0.1701
    assert (difference > 1e-4).mean() < 0.01


def test_addition_is_bit_equal_on_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quantised_by_onnxruntime(
        residual_network(), tmp_path, QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8, True, False
    )
    x = normal(4, *SHAPE, seed=7)
    results = []
    for level in ("scalar", None):
        if level:
            monkeypatch.setenv("TESSERA_ISA", level)
        else:
            monkeypatch.delenv("TESSERA_ISA")
        with engine.load(path, backend="cpu") as session:
            results.append(session.run(x))
    np.testing.assert_array_equal(*results)


def test_integers_that_store_no_real_numbers_are_refused(tmp_path: Path) -> None:
    """Different parameters before and after, and integers that a run would have to take as they are."""
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "s2": np.float32(0.2)}
    change = [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s2", "z"], "y")]
    given_integers = [node("DequantizeLinear", ["x", "s", "z"], "y")]
    models = (
        build(change, ["N", *SHAPE], constants),
        build(given_integers, ["N", *SHAPE], {"s": constants["s"], "z": constants["z"]}, input_type=TensorProto.UINT8),
    )
    for model in models:
        onnx.save(model, tmp_path / "integers.onnx")
        with pytest.raises(engine.ModelError, match="holds uint8 numbers as such"):
            engine.load(tmp_path / "integers.onnx", backend="cpu")


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_intel_neural_compressors_linear_layer(kind: type, tmp_path: Path) -> None:
    """It splits a Gemm into a product and the addition of a stored constant, and pools integers."""
    low, random = (0 if kind is np.uint8 else -128), np.random.default_rng(0)
    constants = {
        f"{name}s": np.float32(scale) for name, scale in zip("xgmby", (0.04, 0.01, 0.02, 0.01, 0.03), strict=True)
    }
    constants |= {"xz": kind(low + 120), "gz": kind(low + 5), "mz": kind(low + 130), "bz": np.int8(0)}
    constants |= {"yz": kind(low + 99), "ws": np.float32(0.01), "wz": np.int8(0)}
    constants["w"] = random.integers(-127, 128, (3, 10), dtype=np.int8)
    constants["b"] = random.integers(-127, 128, 10, dtype=np.int8)
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], "q"),
        node("QLinearGlobalAveragePool", ["q", "xs", "xz", "gs", "gz"], "g", domain="com.microsoft", channels_last=0),
        node("Flatten", ["g"], "f"),
        node("QLinearMatMul", ["f", "gs", "gz", "w", "ws", "wz", "ms", "mz"], "m"),
        node("QLinearAdd", ["m", "ms", "mz", "b", "bs", "bz", "ys", "yz"], "s", domain="com.microsoft"),
        node("DequantizeLinear", ["s", "ys", "yz"], "y"),
    ]
    if kind is np.uint8:  # both sides of an addition are of one type
        constants["bz"], constants["b"] = np.uint8(128), (constants["b"].astype(np.int16) + 128).astype(np.uint8)
    model = build(nodes, ["N", *SHAPE], constants, rank=2)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "inc.onnx")
    x = normal(16, *SHAPE)
    with engine.load(tmp_path / "inc.onnx", backend="cpu") as session:
        difference = np.abs(session.run(x) - run_onnxruntime(model, {"x": x})["y"])
    assert difference.max() <= 0.0301
    assert (difference > 1e-4).mean() < 0.02
