"""Quantised files of other tools on ONNX Runtime: loaded, run and exact, whatever this CPU's integer kernels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

from tessera import engine
from tessera.engine.backends.onnxruntime.session import has_vnni
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tests.unit.engine.foreign_models import SHAPE, quantised_by_onnxruntime, residual_network
from tests.unit.graph.onnx_models import normal

PAIRS = ("QuantizeLinear", "DequantizeLinear")
U8S8, S8S8, U8U8 = (
    (QuantType.QUInt8, QuantType.QInt8),
    (QuantType.QInt8, QuantType.QInt8),
    (QuantType.QUInt8, QuantType.QUInt8),
)


def without_zero_points(model: onnx.ModelProto, *, named: bool = False) -> int:
    """Leave out the zero points that are 0, as several tools do; returns how many.

    Args:
        model: changed in place.
        named: an opset-21 `output_dtype` says what the zero point of a signed value would.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    removed = 0
    for made in model.graph.node:
        zero = constants.get(made.input[2]) if made.op_type in PAIRS and len(made.input) == 3 else None
        if zero is None or zero.any():
            continue
        if made.op_type == "QuantizeLinear" and zero.dtype == np.int8:
            if not named:
                continue
            made.attribute.append(onnx.helper.make_attribute("output_dtype", TensorProto.INT8))
        del made.input[2]
        removed += 1
    return removed


def name_types(model: onnx.ModelProto) -> None:
    """Write down an `output_dtype` that says what the zero point says too."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for made in model.graph.node:
        if made.op_type == "QuantizeLinear":
            made.attribute.append(onnx.helper.make_attribute("output_dtype", types[made.input[2]]))


def as_opset_21(model: onnx.ModelProto) -> None:
    model.ir_version = 10
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = 21


def check(model: onnx.ModelProto, path: Path) -> None:
    """Both backends give what the plain numpy executor gives, for large images too, where sums are largest."""
    onnx.save(model, path)
    x = normal(6, *SHAPE, seed=5) * np.float32(3)
    wanted = run_reference(convert_model(model), {"x": x})["y"]
    for backend in ("onnxruntime", "cpu"):
        with engine.load(path, backend=backend, threads=1) as session:
            difference = np.linalg.norm(session.run(x) - wanted) / np.linalg.norm(wanted)
        # A sum on the border of two quanta may round either way; saturated sums are off by 5 %.
        assert difference < 0.02, backend


@pytest.mark.parametrize("types", [U8S8, S8S8, U8U8], ids=lambda types: "-".join(kind.name for kind in types))
@pytest.mark.parametrize("form", list(QuantFormat))
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_pair_of_types_runs_exactly(
    form: QuantFormat, types: tuple[QuantType, QuantType], per_channel: bool, tmp_path: Path
) -> None:
    path = quantised_by_onnxruntime(
        residual_network((16, 64), 3), tmp_path, form, *types, per_channel, types is not U8S8
    )
    check(onnx.load(path), path)


@pytest.mark.parametrize("types", [U8S8, S8S8], ids=["u8s8", "s8s8"])
def test_zero_points_may_be_left_out(types: tuple[QuantType, QuantType], tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(residual_network((16, 64), 3), tmp_path, QuantFormat.QDQ, *types, True, True)
    model = onnx.load(path)
    assert without_zero_points(model) > 10
    check(model, path)


def test_opset_21_may_name_the_type_instead_of_a_zero_point(tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(residual_network((16, 64), 3), tmp_path, QuantFormat.QDQ, *S8S8, True, True)
    model = onnx.load(path)
    as_opset_21(model)
    assert without_zero_points(model, named=True) > 20
    check(model, path)


@pytest.mark.parametrize("types", [U8S8, S8S8], ids=["u8s8", "s8s8"])
def test_opset_21_may_name_the_type_beside_the_zero_point(types: tuple[QuantType, QuantType], tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(residual_network((16, 64), 3), tmp_path, QuantFormat.QDQ, *types, True, False)
    model = onnx.load(path)
    as_opset_21(model)
    name_types(model)
    check(model, path)


def test_a_type_that_contradicts_the_zero_point_or_is_no_byte_is_refused(tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(residual_network(), tmp_path, QuantFormat.QDQ, *U8S8, True, False)
    for kind, words in (
        (TensorProto.INT8, "zero point is uint8 but its output_dtype is int8"),
        (21, "output_dtype is 21"),
    ):
        model = onnx.load(path)
        as_opset_21(model)
        first = next(made for made in model.graph.node if made.op_type == "QuantizeLinear")
        first.attribute.append(onnx.helper.make_attribute("output_dtype", kind))
        onnx.save(model, path.with_name("wrong.onnx"))
        with pytest.raises(engine.ModelError, match=words):
            engine.load(path.with_name("wrong.onnx"), backend="cpu")


def test_profiles_of_rewritten_files_are_of_the_file_that_runs(tmp_path: Path) -> None:
    path = quantised_by_onnxruntime(residual_network((16, 64), 3), tmp_path, QuantFormat.QDQ, *U8S8, True, True)
    model = onnx.load(path)
    assert without_zero_points(model)
    onnx.save(model, path)
    with engine.load(path, backend="onnxruntime", threads=1) as session:
        assert sum("Conv" in row.op for row in session.profile(normal(1, *SHAPE), runs=1)) >= 5


@pytest.mark.parametrize(
    ("flags", "has"),
    [("fpu avx2 avx_vnni", True), ("avx512f avx512_vnni", True), ("fpu avx2 avx512f", False), ("", False)],
)
def test_vnni_is_read_from_the_flags_of_the_cpu(flags: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: x\nflags\t\t: {flags} sse\n", encoding="utf-8")
    assert has_vnni(tmp_path / "cpuinfo") is has
    assert not has_vnni(tmp_path / "gone")


@pytest.mark.parametrize("fixed", [1, 3])
def test_a_file_of_one_batch_size_answers_any_number_of_images(fixed: int, tmp_path: Path) -> None:
    model = residual_network()
    onnx.save(model, tmp_path / "any.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
    onnx.save(model, tmp_path / "fixed.onnx")
    images = normal(4, *SHAPE)
    with engine.load(tmp_path / "any.onnx", backend="onnxruntime") as session:
        wanted = session.run(images)
    with engine.load(tmp_path / "fixed.onnx", backend="onnxruntime") as session:
        for count in (1, 2, 3, 4):
            np.testing.assert_allclose(session.run(images[:count]), wanted[:count], rtol=1e-4, atol=1e-4)


def test_more_images_than_the_file_can_take_are_an_engine_error(tmp_path: Path) -> None:
    model = residual_network()
    flatten = next(made for made in model.graph.node if made.op_type == "Flatten")
    flatten.op_type = "Reshape"
    flatten.input.append("one")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 32]), "one"))
    onnx.save(model, tmp_path / "one.onnx")
    with (
        engine.load(tmp_path / "one.onnx", backend="onnxruntime") as session,
        pytest.raises(engine.ModelError, match="cannot run"),
    ):
        session.run(normal(2, *SHAPE))
