"""The graphs that ATC gets compute what the model computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv import _conv_implementation
from onnxruntime import InferenceSession

from tessera.engine.errors import ModelError
from tessera.models.ascend.graphs import OPSET, for_atc, with_own_convolution
from tests.unit.graph.onnx_models import assert_close, build, node, normal, run_onnxruntime
from tests.unit.models.tiny import tiny_images, tiny_model


class ConvBiasRelu(OpRun):
    """The own operator as its README defines it."""

    op_domain = "tessera"

    def _run(
        self, x: NDArray[np.float32], w: NDArray[np.float32], b: NDArray[np.float32], strides: object, pads: object
    ) -> tuple[NDArray[np.float32]]:
        result = _conv_implementation(x, w, b, "NOTSET", [1, 1], 1, [3, 3], pads, strides)
        return (np.maximum(result, 0).astype(np.float32),)


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = ReferenceEvaluator(model, new_ops=[ConvBiasRelu]).run(None, {"input": images})[0]
    return result


@pytest.mark.parametrize("bottleneck", [True, False])
def test_the_own_operator_stands_for_convolution_batchnorm_and_relu(bottleneck: bool) -> None:
    model = tiny_model(bottleneck=bottleneck)
    changed = with_own_convolution(model)
    own = [node for node in changed.graph.node if node.op_type == "ConvBiasRelu"]
    # A basic block adds its input before the ReLU of its second convolution, which therefore stays as it is.
    assert len(own) == 5
    assert not [node for node in changed.graph.node if node.op_type == "BatchNormalization"]
    images = tiny_images(2)
    np.testing.assert_allclose(run(changed, images), run(model, images), rtol=2e-4, atol=2e-4)


def test_the_lowered_opset_changes_no_number() -> None:
    model = tiny_model()
    lowered = for_atc(model)
    assert [entry.version for entry in lowered.opset_import] == [OPSET]
    onnx.checker.check_model(lowered, full_check=True)
    images = tiny_images(2)
    answers = [
        InferenceSession(graph.SerializeToString()).run(None, {"input": images})[0] for graph in (lowered, model)
    ]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("axis", [-1, 2])
def test_operators_that_changed_are_written_as_opset_11_has_them_or_not_at_all(axis: int) -> None:
    nodes = [
        node("ReduceMean", ["x", "spatial"], "p"),
        node("Clip", ["p", "low"], "c"),
        node("Softmax", ["c"], "y", axis=axis),
    ]
    constants = {"spatial": np.array([2, 3]), "low": np.array(0.1, np.float32)}
    model = build(nodes, ["N", 3, 4, 5], constants, opset=18)
    lowered = for_atc(model)
    if axis == 2:
        assert lowered is model
        return
    assert (lowered.opset_import[0].version, lowered.ir_version) == (OPSET, 6)
    onnx.checker.check_model(lowered, full_check=True)
    feeds = {"x": normal(2, 3, 4, 5)}
    assert_close(run_onnxruntime(lowered, feeds), run_onnxruntime(model, feeds))


def test_a_graph_with_other_operators_keeps_its_opset() -> None:
    model = tiny_model()
    model.graph.node.append(helper.make_node("Erf", [model.graph.output[0].name], ["probabilities"], name="last"))
    assert for_atc(model) is model
    older = tiny_model()
    older.opset_import[0].version = 9
    assert for_atc(older) is older


def test_a_graph_without_3x3_convolutions_is_refused() -> None:
    model = with_own_convolution(tiny_model())
    plain = tiny_model()
    del plain.graph.node[:]
    plain.graph.node.append(helper.make_node("Flatten", ["input"], [plain.graph.output[0].name], name="flatten"))
    with pytest.raises(ModelError, match="no 3x3 convolution"):
        with_own_convolution(plain)
    assert model.graph.node
