"""ResNets from state dicts: the right graph, and clear words when a tensor is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tessera.engine.errors import ModelError
from tessera.models.formats.weights import read_weights
from tessera.models.registry import BUNDLED
from tessera.models.resnet import build_resnet
from tests.unit.models.tiny import LABELS, MEAN, SIZE, STD, State, tiny_images, tiny_model, tiny_state
from tests.unit.quantize.networks import run


def build(state: State) -> onnx.ModelProto:
    return build_resnet(state, name="tiny", size=SIZE, mean=MEAN, std=STD, labels=LABELS)


def test_bundled_weights_make_a_stock_resnet50() -> None:
    weights = read_weights(BUNDLED / "weights.safetensors")
    model = build_resnet(weights, name="r", size=224, mean=MEAN, std=STD)
    onnx.checker.check_model(model, full_check=True)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts == {
        "Conv": 53,
        "BatchNormalization": 53,
        "Relu": 49,
        "Add": 16,
        "MaxPool": 1,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    }
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    assert set(tensors) == set(weights)
    for key in ("conv1.weight", "layer4.2.bn3.running_var", "fc.weight"):
        assert np.array_equal(numpy_helper.to_array(tensors[key]), weights[key].astype(np.float32))
    (source,), (target,) = model.graph.input, model.graph.output
    assert (source.name, target.name) == ("input", "output")
    assert [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim] == ["N", 3, 224, 224]
    assert [d.dim_param or d.dim_value for d in target.type.tensor_type.shape.dim] == ["N", 10]
    assert model.opset_import[0].version == 17


def test_stride_of_a_bottleneck_is_on_its_3x3_convolution() -> None:
    strides = {
        node.name: list(attribute.ints)
        for node in tiny_model().graph.node
        for attribute in node.attribute
        if attribute.name == "strides"
    }
    assert strides["layer2.0.conv1"] == [1, 1]
    assert strides["layer2.0.conv2"] == [2, 2]
    assert strides["layer2.0.downsample.0"] == [2, 2]
    assert strides["layer1.0.conv2"] == [1, 1]


@pytest.mark.parametrize(("bottleneck", "blocks"), [(False, (2, 2, 2, 2)), (True, (3, 4, 6, 3)), (True, (1, 1, 1, 1))])
def test_depth_and_block_kind_follow_from_the_tensors(bottleneck: bool, blocks: tuple[int, ...]) -> None:
    model = build(tiny_state(bottleneck=bottleneck, blocks=blocks))
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "Add" for node in model.graph.node) == sum(blocks)
    logits = run(model, tiny_images(3))
    assert logits.shape == (3, 5)
    assert np.isfinite(logits).all()


def test_same_weights_give_the_same_bytes() -> None:
    first, second = (tiny_model().SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_metadata_says_how_pixels_are_normalised() -> None:
    metadata = {entry.key: entry.value for entry in tiny_model().metadata_props}
    assert metadata["tessera.mean"] == "[0.485, 0.456, 0.406]"
    assert metadata["tessera.std"] == "[0.229, 0.224, 0.225]"
    assert metadata["tessera.labels"].split("\n") == list(LABELS)


def test_training_counters_are_ignored() -> None:
    state = tiny_state()
    state["bn1.num_batches_tracked"] = np.array(7)
    build(state)


def drop(key: str) -> Callable[[State], None]:
    return lambda state: state.__delitem__(key)


def put(key: str, value: np.ndarray) -> Callable[[State], None]:
    return lambda state: state.update({key: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("conv1.weight"), "no 'conv1.weight'"),
        (drop("layer2.0.bn2.running_var"), "no 'layer2.0.bn2.running_var'"),
        (drop("layer1.0.downsample.0.weight"), "layer1.0"),
        (drop("fc.bias"), "no 'fc.bias'"),
        (put("layer1.0.extra", np.zeros(3, np.float32)), "'layer1.0.extra'"),
        (put("layer5.0.conv1.weight", np.zeros((1, 1, 1, 1), np.float32)), "layer5"),
        (put("layer1.3.conv1.weight", np.zeros((8, 32, 1, 1), np.float32)), "no 'layer1.2'"),
        (put("conv1.weight", np.zeros((8, 4, 7, 7), np.float32)), "'conv1.weight' has shape"),
        (put("conv1.weight", np.zeros((8, 3, 6, 6), np.float32)), "'conv1.weight' has shape"),
        (put("conv1.weight", np.zeros((8, 0, 7, 7), np.float32)), "'conv1.weight' has shape"),
        (put("bn1.bias", np.zeros(9, np.float32)), "'bn1.bias' has shape"),
        (put("bn1.bias", np.full(8, np.nan, np.float32)), "not finite"),
        (put("bn1.running_var", np.full(8, -1, np.float32)), "negative variance"),
        (put("bn1.bias", np.zeros(8, np.int32)), "int32"),
        (put("fc.weight", np.zeros((5, 7), np.float32)), "'fc.weight'"),
    ],
)
def test_wrong_tensors_are_named(damage: Callable[[State], None], message: str) -> None:
    state = tiny_state()
    damage(state)
    with pytest.raises(ModelError, match=message):
        build(state)


def test_empty_state_is_refused() -> None:
    with pytest.raises(ModelError, match=r"conv1\.weight"):
        build({})
