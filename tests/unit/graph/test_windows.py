"""Convolutions and pools of every geometry give what ONNX Runtime gives, or are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera.engine.errors import ModelError, UnsupportedOperatorError
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import convert_model
from tessera.engine.graph.reference import run_reference
from tests.unit.graph.onnx_models import agree, build, node, normal

few = settings(max_examples=80)


@st.composite
def geometries(draw: st.DrawFn, *, pool: bool) -> tuple[tuple[int, int, int, int], dict[str, Any]]:
    """An image shape and window attributes that fit it, in any of the ways ONNX writes them."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    same = mode.startswith("SAME")
    longest = kernel if same else (4, 4)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": (draw(st.integers(1, longest[0])), draw(st.integers(1, longest[1]))),
    }
    dilations = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    if dilations != (1, 1) and not same:
        attributes["dilations"] = dilations
    pads = (0, 0, 0, 0)
    if mode == "NOTSET":
        limits = [size - 1 if pool else 5 for size in (*kernel, *kernel)]
        pads = tuple(draw(st.integers(0, limit)) for limit in limits)
        attributes["pads"] = pads
    else:
        attributes["auto_pad"] = mode
    sizes = []
    for axis in (0, 1):
        span = (kernel[axis] - 1) * attributes.get("dilations", (1, 1))[axis] + 1
        smallest = 1 if same else max(span - pads[axis] - pads[axis + 2], 1)
        if pool:
            smallest = max(smallest, dilations[axis])
        sizes.append(draw(st.integers(smallest, smallest + 9)))
    return (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *sizes), attributes


@few
@given(geometries(pool=False), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 2**16))
def test_conv(geometry: Any, groups: int, out_per_group: int, bias: bool, seed: int) -> None:
    (n, c, h, w), attributes = geometry
    constants = {"w": normal(groups * out_per_group, c, *attributes["kernel_shape"], seed=seed)}
    if bias:
        constants["b"] = normal(groups * out_per_group, seed=seed + 1)
    conv = node("Conv", ["x", *constants], "y", group=groups, **attributes)
    agree(build([conv], ["N", c * groups, h, w], constants), {"x": normal(n, c * groups, h, w, seed=seed + 2)})


@few
@given(geometries(pool=True), st.booleans(), st.integers(0, 2**16))
def test_max_pool(geometry: Any, ceil_mode: bool, seed: int) -> None:
    shape, attributes = geometry
    pool = node("MaxPool", ["x"], "y", ceil_mode=int(ceil_mode), **attributes)
    # Shifted below zero: padding with 0 instead of -inf would win.
    agree(build([pool], ["N", *shape[1:]]), {"x": normal(*shape, seed=seed) - 5})


@few
@given(geometries(pool=True), st.booleans(), st.booleans(), st.integers(0, 2**16))
def test_average_pool(geometry: Any, ceil_mode: bool, counted: bool, seed: int) -> None:
    shape, attributes = geometry
    opset = 19 if "dilations" in attributes else 11
    pool = node("AveragePool", ["x"], "y", ceil_mode=int(ceil_mode), count_include_pad=int(counted), **attributes)
    agree(build([pool], ["N", *shape[1:]], opset=opset), {"x": normal(*shape, seed=seed)})


def test_depthwise_conv_and_default_attributes() -> None:
    constants = {"w": normal(6, 1, 3, 2)}
    graph = agree(build([node("Conv", ["x", "w"], "y", group=6)], [2, 6, 5, 5], constants), {"x": normal(2, 6, 5, 5)})
    assert graph.nodes[0].attrs["kernel"] == (3, 2)
    assert graph.nodes[0].attrs["pads"] == (0, 0, 0, 0)


def test_asymmetric_padding_keeps_its_order() -> None:
    pool = node("MaxPool", ["x"], "y", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 2])
    graph = agree(build([pool], ["N", 2, 8, 9]), {"x": normal(1, 2, 8, 9)})
    assert graph.nodes[0].attrs["pads"] == (0, 1, 1, 2)


def test_same_padding_of_a_dilated_convolution_keeps_the_size() -> None:
    # ONNX Runtime refuses this one; the same convolution with its padding spelled out is the witness.
    constants, x = {"w": normal(2, 3, 3, 3)}, normal(1, 3, 6, 7)
    results = []
    for form in ({"auto_pad": "SAME_UPPER"}, {"pads": [2, 2, 2, 2]}):
        model = build([node("Conv", ["x", "w"], "y", dilations=[2, 2], **form)], ["N", 3, 6, 7], constants)
        results.append(run_reference(convert_model(model), {"x": x})["y"])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_subsampling_pool_with_same_padding_takes_every_second_pixel(mode: str) -> None:
    # TensorFlow exports ResNet's shortcut this way; ONNX Runtime refuses it because its padding comes out as -1.
    pool = node("MaxPool", ["x"], "y", kernel_shape=[1, 1], strides=[2, 2], auto_pad=mode)
    x = normal(2, 3, 6, 6)
    y = run_reference(convert_model(build([pool], ["N", 3, 6, 6])), {"x": x})["y"]
    np.testing.assert_array_equal(y, x[:, :, ::2, ::2])


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [1, 1], "strides": [4, 4], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2, 2], "dilations": [9, 1], "pads": [1, 0, 1, 0]},
    ],
)
def test_pools_on_which_runtimes_disagree_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOperatorError, match="MaxPool node 'y_node'"):
        convert_model(build([node("MaxPool", ["x"], "y", **attributes)], ["N", 1, 8, 8]))


def test_same_padding_with_a_stride_far_beyond_the_kernel_is_refused() -> None:
    subsample = node("Conv", ["x", "w"], "y", strides=[4, 4], auto_pad="SAME_UPPER")
    with pytest.raises(UnsupportedOperatorError, match="auto_pad SAME_UPPER"):
        convert_model(build([subsample], ["N", 1, 8, 8], {"w": normal(1, 1, 1, 1)}))


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"kernel_shape": [9, 1]}, "does not fit"),
        ({"kernel_shape": [2, 2], "pads": [2, 0, 0, 0]}, "must be smaller than its kernel"),
        ({"kernel_shape": [2, 2], "pads": [0, 0, 0]}, "pads is"),
        ({"kernel_shape": [2, 2], "pads": [-1, 0, 0, 0]}, "pads is"),
        ({"kernel_shape": [2, 2], "strides": [0, 1]}, "strides is"),
        ({"kernel_shape": [2, 2], "dilations": [0, 1]}, "dilations is"),
        ({"kernel_shape": [2]}, "kernel_shape is"),
        ({"kernel_shape": [2, 2], "auto_pad": "SOME"}, "auto_pad 'SOME'"),
    ],
)
def test_impossible_windows_are_named(attributes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        convert_model(build([node("MaxPool", ["x"], "y", **attributes)], ["N", 1, 8, 8]))


@pytest.mark.parametrize("shape", [["N", 2, 8], ["N", 2, 8, 8, 8]])
def test_one_and_three_dimensional_convolutions_are_refused(shape: list[Any]) -> None:
    weights = normal(2, 2, *[3] * (len(shape) - 2))
    with pytest.raises(UnsupportedOperatorError, match=f"{len(shape) - 2}-dimensional") as caught:
        convert_model(build([node("Conv", ["x", "w"], "y")], shape, {"w": weights}, rank=len(shape)))
    assert (caught.value.operator, caught.value.node) == ("Conv", "y_node")


@pytest.mark.parametrize(
    ("constants", "attributes", "complaint"),
    [
        ({"w": normal(4, 2, 3, 3)}, {}, "its input has 3 channels"),
        ({"w": normal(4, 3, 3, 3)}, {"group": 3}, "cannot be divided"),
        ({"w": normal(4, 3, 3, 3)}, {"group": 0}, "cannot be divided"),
        ({"w": normal(4, 3, 3, 3)}, {"kernel_shape": [1, 1]}, "differs from its weights"),
        ({"w": normal(4, 3, 3, 3), "b": normal(5)}, {}, "bias"),
        ({"w": normal(4, 3, 3)}, {}, "weights have shape"),
    ],
)
def test_contradictory_convolutions_are_named(constants: Any, attributes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        convert_model(build([node("Conv", ["x", *constants], "y", **attributes)], ["N", 3, 8, 8], constants))


def test_convolution_with_computed_weights_is_refused() -> None:
    model = build([node("Conv", ["x", "v"], "y")], ["N", 3, 8, 8], inputs={"v": ["N", 3, 2, 2]})
    with pytest.raises(ModelError):
        lower(convert_model(model))
