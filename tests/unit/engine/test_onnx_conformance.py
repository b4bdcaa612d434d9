"""ONNX's own node tests, for every operator that the engine claims."""

from __future__ import annotations

import warnings
from fnmatch import fnmatch
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase as NodeCase

from tessera.engine import onnx_backend
from tessera.engine.errors import InputError, ModelError, UnsupportedOperatorError
from tessera.engine.graph.operators import OPERATORS
from tessera.engine.graph.reader import NEWEST_OPSET
from tests.unit.graph.onnx_models import build, node, normal

# Every standard operator that the reader takes, so that none can be left out. Other domains have no node tests.
CLAIMED = {operator for operator in OPERATORS if "." not in operator}

_TYPES = "element types other than float32, and integers that store no real numbers"
_BATCH = "it would let the images of a batch influence each other, which a service must not"
_IMAGES = "images are two-dimensional"

# Outside the claimed forms. Each of these must be refused, by our engine and by its reference.
OUTSIDE = {
    "test_add_*int*": _TYPES,
    "test_mul_*int*": _TYPES,
    "test_averagepool_[13]d_*": _IMAGES,
    "test_maxpool_[13]d_*": _IMAGES,
    "test_batchnorm_*_training_mode": "training changes with the batch",
    "test_maxpool_with_argmax_*": "the second output of a pool is for training",
    "test_concat_*_axis_0": _BATCH,
    "test_concat_1d_axis_negative_1": _BATCH,
    "test_concat_2d_axis_negative_2": _BATCH,
    "test_concat_3d_axis_negative_3": _BATCH,
    "test_flatten_axis[023]": _BATCH,
    "test_flatten_negative_axis[124]": _BATCH,
    "test_gemm_default_matrix_bias": _BATCH,
    "test_gemm_transposeA": _BATCH,
    "test_gemm_all_attributes": _BATCH,
    "test_qlinearmatmul_3D_*_float32": _BATCH,
    "test_reduce_mean_*": "only means over the height and width of images",
    "test_reshape_reordered_all_dims": _BATCH,
    "test_reshape_one_dim": _BATCH,
    "test_reshape_negative_extended_dims": _BATCH,
    "test_reshape_allowzero_reordered": "empty tensors",
    "test_softmax_axis_0": _BATCH,
    "test_squeeze": _BATCH,
    "test_matmul_1d_*": "vectors have no batch",
    "test_matmul_4d_1d": "vectors have no batch",
    "test_*linear*_e4m3fn*": _TYPES,
    "test_*linear_e5m2": _TYPES,
    "test_*linear_*int16": _TYPES,
    "test_*linear_*int4": _TYPES,
    "test_*linear_*int2": _TYPES,
    "test_*linear_float4e2m1": _TYPES,
    "test_qlinearmatmul_*_float16": _TYPES,
    "test_*linear_blocked*": "scales per block of an axis",
    "test_identity_opt": "sequences and optional values",
    "test_identity_sequence": "sequences and optional values",
}


@cache
def cases() -> dict[str, NodeCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    return {
        case.name: case
        for case in collected
        if case.model is not None and len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in CLAIMED
    }


def reason(name: str) -> str | None:
    return next((why for pattern, why in OUTSIDE.items() if fnmatch(name, pattern)), None)


def model_of(case: NodeCase) -> onnx.ModelProto:
    """The case's model; written for an older opset where ONNX has only added element types since."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for entry in model.opset_import:
        entry.version = min(entry.version, NEWEST_OPSET)
    return model


def arrays(values: list[object]) -> list[np.ndarray]:
    return [numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value for value in values]


def answer(case: NodeCase, executor: str, inputs: list[np.ndarray]) -> tuple[np.ndarray, ...] | None:
    try:
        return onnx_backend.run_model(model_of(case), inputs, executor=executor)
    except ModelError:
        return None


def assert_right(case: NodeCase, results: tuple[np.ndarray, ...], expected: list[np.ndarray]) -> None:
    assert len(results) == len(expected), case.name
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype, case.name
        assert result.shape == wanted.shape, case.name
        np.testing.assert_allclose(result, wanted, rtol=case.rtol, atol=max(case.atol, 1e-6), err_msg=case.name)


@pytest.mark.parametrize("operator", sorted(CLAIMED))
def test_node_tests_of_claimed_operators(operator: str) -> None:
    chosen = [case for case in cases().values() if case.model.graph.node[0].op_type == operator]
    assert chosen
    for case in chosen:
        for given, expected in case.data_sets:
            if reason(case.name):
                continue
            inputs = arrays(given)
            reference, native = answer(case, "reference", inputs), answer(case, "cpu", inputs)
            assert reference is not None, f"{case.name} is refused, but not listed as outside the claimed forms"
            assert_right(case, reference, arrays(expected))
            if native is not None:
                assert_right(case, native, arrays(expected))


@pytest.mark.parametrize("pattern", sorted(OUTSIDE))
def test_forms_outside_are_refused(pattern: str) -> None:
    """Never a wrong answer; and a form that starts to work must leave the list."""
    matching = [case for name, case in cases().items() if fnmatch(name, pattern)]
    assert matching, "no node test has such a name: take the pattern out"
    for case in matching:
        inputs = arrays(case.data_sets[0][0])
        for executor in ("cpu", "reference"):
            assert answer(case, executor, inputs) is None, f"{case.name} is not refused by {executor}"


def test_many_node_tests_run_natively() -> None:
    """The tests above would pass if the engine refused everything."""
    ran = [name for name, case in cases().items() if answer(case, "cpu", arrays(case.data_sets[0][0])) is not None]
    assert len(ran) >= 45
    assert {cases()[name].model.graph.node[0].op_type for name in ran} >= {"Conv", "MaxPool", "BatchNormalization"}


def test_prepare_runs_natively_and_says_so() -> None:
    model = build([node("Conv", ["x", "w"], "y")], ["N", 3, 6, 6], {"w": normal(4, 3, 1, 1)})
    prepared = onnx_backend.prepare(model)
    x = normal(2, 3, 6, 6)
    (result,) = prepared.run([x])
    assert prepared.executor == "cpu"
    (expected,) = onnx_backend.run_model(model, [x], executor="onnxruntime")
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_fallback_to_onnxruntime_is_visible() -> None:
    prepared = onnx_backend.prepare(build([node("Sqrt", ["x"], "y")], ["N", 3], rank=2))
    (result,) = prepared.run([np.array([[1.0, 4.0, 9.0]], np.float32)])
    assert prepared.executor == "onnxruntime"
    np.testing.assert_array_equal(result, [[1, 2, 3]])


def test_weights_given_as_inputs_may_change_between_runs() -> None:
    model = build([node("Conv", ["x", "w"], "y")], ["N", 1, 2, 2], inputs={"w": [1, 1, 1, 1]})
    prepared = onnx_backend.prepare(model, executor="cpu")
    x = np.ones((1, 1, 2, 2), np.float32)
    for factor in (2.0, 3.0):
        (result,) = prepared.run([x, np.full((1, 1, 1, 1), factor, np.float32)])
        np.testing.assert_array_equal(result, factor * x)


def test_run_node() -> None:
    relu = onnx.helper.make_node("Relu", ["x"], ["y"])
    (result,) = onnx_backend.run_node(relu, [np.array([[-1.0, 2.0]], np.float32)], executor="cpu")
    np.testing.assert_array_equal(result, [[0, 2]])


def test_devices() -> None:
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("CUDA")
    assert not onnx_backend.supports_device("nonsense")
    with pytest.raises(ModelError, match="no device"):
        onnx_backend.prepare(build([node("Relu", ["x"], "y")], ["N", 3], rank=2), "CUDA")


def test_errors_are_the_engines() -> None:
    model = build([node("Sqrt", ["x"], "y")], ["N", 3], rank=2)
    with pytest.raises(UnsupportedOperatorError):
        onnx_backend.run_model(model, [np.ones((1, 3), np.float32)], executor="cpu")
    with pytest.raises(InputError, match="takes 1 input and"):
        onnx_backend.run_model(model, [])
    broken = build([node("Relu", ["nowhere"], "y")], ["N", 3], rank=2)
    with pytest.raises(ModelError, match="contradicts"):
        onnx_backend.prepare(broken)
