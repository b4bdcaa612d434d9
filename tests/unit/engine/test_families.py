"""Classifiers that are kin of ResNets, whole: our engine runs them itself, in fp32 and int8, as ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat, QuantType

from tessera import engine
from tessera.engine.quantize import calibrate, quantised_model
from tessera.engine.quantize.measures import sqnr
from tests.unit.engine.foreign_models import quantised_by_onnxruntime
from tests.unit.graph.onnx_models import normal
from tests.unit.models.families import NATIVE, SIZE, squeeze_excited

IMAGES = normal(24, 3, SIZE, SIZE)


def run(model: onnx.ModelProto, path: Path, backend: str, precision: str = "auto") -> tuple[np.ndarray, str]:
    path.write_bytes(model.SerializeToString())
    with engine.load(path, backend=backend, threads=2, precision=precision) as session:
        return session.run(IMAGES), session.describe().precision


@pytest.mark.parametrize("family", NATIVE)
def test_floats_are_those_of_onnx_runtime(family: str, tmp_path: Path) -> None:
    wanted, _ = run(NATIVE[family], tmp_path / "net.onnx", "onnxruntime")
    found, precision = run(NATIVE[family], tmp_path / "net.onnx", "cpu")
    assert precision == "fp32"
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # bfloat16, where it is run at all, is near.
    assert sqnr(wanted, run(NATIVE[family], tmp_path / "net.onnx", "cpu", "bf16")[0]) > 30.0


@pytest.mark.parametrize("family", NATIVE)
def test_quantised_they_run_in_integers_and_as_on_onnx_runtime(family: str, tmp_path: Path) -> None:
    model = NATIVE[family]
    quantised = quantised_model(model, calibrate(model, [IMAGES], fallback="none", threads=1)[0])
    wanted, _ = run(quantised, tmp_path / "net.onnx", "onnxruntime")
    found, precision = run(quantised, tmp_path / "net.onnx", "cpu")
    assert precision == "int8"
    assert sqnr(wanted, found) > 30.0  # a sum on the border of two quanta may fall either way
    assert sqnr(run(model, tmp_path / "net.onnx", "cpu")[0], found) > 20.0
    restored = {name for node in quantised.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in quantised.graph.node:
        if node.op_type == "Mul":
            assert restored.intersection(node.input)  # the image comes in eight bits; gates stay as they are


@pytest.mark.parametrize("form", QuantFormat)
def test_quantised_by_onnx_runtime_they_run_natively(form: QuantFormat, tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(squeeze_excited(), tmp_path, form, QuantType.QUInt8, QuantType.QInt8, True, False)
    model = onnx.load(path)
    wanted, _ = run(model, tmp_path / "net.onnx", "onnxruntime")
    found, precision = run(model, tmp_path / "net.onnx", "cpu")
    assert precision == "int8"
    assert sqnr(wanted, found) > 30.0


@pytest.mark.parametrize(("size", "batches"), [((160, 160), (1, 64)), ((224, 320), (1, 5)), ((384, 384), (2,))])
def test_any_size_and_any_batch_is_that_of_onnx_runtime(
    size: tuple[int, int], batches: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(squeeze_excited(size), path)
    with engine.load(path, backend="cpu") as ours, engine.load(path, backend="onnxruntime") as theirs:
        for batch in batches:
            images = normal(batch, 3, *size, seed=batch)
            np.testing.assert_allclose(ours.run(images), theirs.run(images), rtol=1e-4, atol=1e-5)
