"""Graphs that other quantisers wrote run on our engine with ONNX Runtime's answers."""

from __future__ import annotations

import tempfile
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


def check_quanta(model: onnx.ModelProto, x: np.ndarray, quantum: np.ndarray) -> None:
    """One integer layer: equal to ONNX Runtime's but for sums on the border of two quanta, which are rare."""
    reference = run_reference(convert_model(model), {"x": x}) if saturates() else run_onnxruntime(model, {"x": x})
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "layer.onnx")
        with engine.load(Path(folder) / "layer.onnx", backend="cpu") as session:
            assert session.describe().precision == "int8"
            difference = np.abs(session.run(x) - reference["y"])
    assert difference.max() <= 1.0001 * quantum
    assert (difference > 0.001 * quantum).mean() < 0.001


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
    with check(path, same=0.7) as session:
        assert session.describe().precision == "int8"


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
    kernels = [row.kernel for row in rows if row.op == "Conv"]
    assert len(kernels) == 6
    assert all("s8" in kernel for kernel in kernels)
    ops = [row.op for row in rows][:-2]  # the last two give floats to the caller
    assert not {"Quantise", "Convert"} & set(ops), ops
    # Where nothing stores what a Clip at 6 leaves, it is a number that no grid need hold.
    assert ops.count("Clip") <= (activation == "Clip" and form == QuantFormat.QOperator), ops


@pytest.mark.parametrize("isa", [None, "avx2", "scalar"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_without_room_for_their_zero_point_run_in_integers(
    per_channel: bool, isa: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's own default for unsigned weights."""
    if isa:
        monkeypatch.setenv("TESSERA_ISA", isa)
    path = quantised_by_onnxruntime(
        residual_network(), tmp_path, QuantFormat.QDQ, QuantType.QUInt8, QuantType.QUInt8, per_channel, False
    )
    with check(path, same=0.7) as session:
        rows = session.profile(normal(1, *SHAPE), runs=1)
        assert session.describe().precision == "int8"
    kernels = [row.kernel for row in rows if row.op == "Conv"]
    assert len(kernels) == 6
    assert all("s8" in kernel for kernel in kernels)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.sampled_from([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]),
    channels=st.sampled_from([(3, 8, 1), (17, 33, 1), (40, 64, 1), (64, 32, 2), (12, 12, 12)]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    rare=st.sampled_from([0.0, 0.001, 0.1]),
    zeros=st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)),
    seed=st.integers(0, 99),
)
def test_any_zero_point_of_weights_is_onnxruntimes(
    kinds: tuple[type, type],
    channels: tuple[int, int, int],
    kernel: int,
    stride: int,
    rare: float,
    zeros: tuple[int, int, int],
    seed: int,
) -> None:
    """Weights up to 255 from their zero point: a few of them, or all. Real networks have few."""
    (inputs, outputs, groups), (x_kind, w_kind) = channels, kinds
    low = {np.uint8: 0, np.int8: -128}
    random = np.random.default_rng(seed)
    shape = (outputs, inputs // groups, kernel, kernel)
    anywhere = random.integers(0, 256, shape)
    near = np.clip(random.normal(zeros[1], 30, shape), 0, 255).astype(int)
    weights = np.where(random.random(shape) < rare, anywhere, near) if rare else anywhere
    constants: dict[str, np.ndarray] = {"xs": np.float32(0.04), "ws": np.float32(0.02)}
    constants |= {"ys": np.float32(0.01 * (inputs // groups * kernel**2) ** 0.5), "yz": x_kind(low[x_kind] + zeros[2])}
    constants |= {"xz": x_kind(low[x_kind] + zeros[0]), "wz": w_kind(low[w_kind] + zeros[1])}
    constants |= {"w": (weights + low[w_kind]).astype(w_kind), "b": random.integers(-5000, 5000, outputs, np.int32)}
    attributes = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": groups}
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], "q"),
        node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], "c", **attributes),
        node("DequantizeLinear", ["c", "ys", "yz"], "y"),
    ]
    check_quanta(build(nodes, ["N", inputs, 9, 9], constants), normal(3, inputs, 9, 9, seed=seed), constants["ys"])


@pytest.mark.parametrize("zero", [0, 20, 128, 255])
@pytest.mark.parametrize("transposed", [0, 1])
def test_linear_layers_with_any_zero_point_are_onnxruntimes(zero: int, transposed: int) -> None:
    random = np.random.default_rng(zero)
    constants: dict[str, np.ndarray] = {"xs": np.float32(0.04), "ws": np.float32(0.02), "ys": np.float32(0.1)}
    constants |= {"xz": np.uint8(99), "wz": np.uint8(zero), "yz": np.uint8(120)}
    constants["w"] = random.integers(0, 256, (37, 10) if not transposed else (10, 37), dtype=np.uint8)
    constants["b"] = random.integers(-5000, 5000, 10, np.int32)
    inputs = ["q", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"]
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], "q"),
        node("QGemm", inputs, "c", domain="com.microsoft", transB=transposed),
        node("DequantizeLinear", ["c", "ys", "yz"], "y"),
    ]
    model = build(nodes, ["N", 37], constants, rank=2)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    check_quanta(model, normal(16, 37), constants["ys"])


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
