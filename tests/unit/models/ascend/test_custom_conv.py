"""The operator's arithmetic against NumPy and our CPU engine; the device's code on emulated instructions."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tessera import engine
from tessera.engine.backends.ascend.chips import CHIPS
from tessera.models.ascend.custom_conv.tbe.geometry import (
    Buffers,
    Shape,
    Tile,
    choose_tile,
    fractal_z_shape,
    from_nc1hwc0,
    input_window,
    nc1hwc0_shape,
    to_fractal_z,
    to_nc1hwc0,
)
from tests.unit.models.ascend.convolutions import PACKAGE, STUBS, shapes

# Of the 310B; see CANN's platform files.
CORE = Buffers(l1=1 << 20, l0a=64 << 10, l0b=64 << 10, l0c=128 << 10)

# ResNet-50's 3x3 convolutions: channels in and out, size, stride.
RESNET = [(64, 64, 56, 1), (128, 128, 56, 2), (128, 128, 28, 1), (256, 256, 28, 2), (256, 256, 14, 1)]
RESNET += [(512, 512, 14, 2), (512, 512, 7, 1)]


def resnet_shape(channels: int, outputs: int, size: int, stride: int, batch: int = 1) -> Shape:
    return Shape(batch, channels // 16, size, size, outputs // 16, stride, stride, 1, 1, 1, 1)


def array(values: tuple[int, ...]) -> Any:
    return (ctypes.c_uint32 * len(values))(*values)


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The operator for the device, compiled for this machine."""
    library = tmp_path_factory.mktemp("kernel") / "kernel.so"
    flags = [
        "-std=c++17",
        "-O1",
        "-ftree-vectorize",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-parameter",
        "-fPIC",
        "-shared",
    ]
    command = [
        "c++",
        *flags,
        f"-I{STUBS}",
        f"-I{PACKAGE / 'ascendc'}",
        str(STUBS / "run_kernel.cpp"),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def on_device(
    kernel: ctypes.CDLL, shape: Shape, x: Any, weights: Any, bias: Any, buffers: Buffers = CORE, cores: int = 1
) -> Any:
    """Run the operator; arrays are NCHW and OIHW, the result NCHW in fp16."""
    tile = choose_tile(shape, buffers)
    blocked, filters = to_nc1hwc0(x.astype(np.float16)), to_fractal_z(weights.astype(np.float16))
    biases = np.zeros(shape.cout1 * 16, np.float32)
    biases[: len(bias)] = bias
    result = np.full((shape.batch, shape.cout1, shape.out_height, shape.out_width, 16), np.nan, np.float16)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (blocked, filters, biases, result)]
    kernel.run(array(shape), array(buffers), array(tile), cores, *pointers)
    assert not np.isnan(result).any(), "every element is written"
    return from_nc1hwc0(result, len(bias))


def reference(shape: Shape, x: Any, weights: Any, bias: Any) -> NDArray[np.float32]:
    """The convolution of our CPU engine in fp32, on values that fp16 holds, with bias and ReLU."""
    pads = [shape.pad_top, shape.pad_left, shape.pad_bottom, shape.pad_right]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=pads, strides=[shape.stride_h, shape.stride_w], name="c"),
        helper.make_node("Relu", ["c"], ["y"], name="r"),
    ]
    value = helper.make_tensor_value_info
    constants = [numpy_helper.from_array(np.asarray(a, np.float32), n) for a, n in ((weights, "w"), (bias, "b"))]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", *x.shape[1:]])],
        [value("y", TensorProto.FLOAT, ["N", len(bias), None, None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        Path(file.name).write_bytes(model.SerializeToString())
        with engine.load(file.name, backend="cpu", threads=1) as session:
            return session.run(np.ascontiguousarray(x, np.float32))


def random_case(shape: Shape, seed: int, trim: int = 0) -> tuple[Any, Any, Any]:
    """Image, weights and bias whose values fp16 holds; `trim` channels fewer than the blocks have."""
    random = np.random.default_rng(seed)
    channels, outputs = shape.c1 * 16 - trim, shape.cout1 * 16 - trim
    x = random.normal(0, 1, (shape.batch, channels, shape.height, shape.width)).astype(np.float16)
    weights = random.normal(0, (2 / (9 * channels)) ** 0.5, (outputs, channels, 3, 3)).astype(np.float16)
    return x.astype(np.float32), weights.astype(np.float32), random.normal(0, 0.5, outputs).astype(np.float32)


def agree(got: Any, wanted: Any) -> None:
    # Sums in fp32 in another order, then one rounding to fp16.
    np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=2e-3, atol=2e-3)


def test_the_layouts_are_those_of_the_documentation() -> None:
    x = np.arange(2 * 20 * 3 * 5).reshape(2, 20, 3, 5)
    blocked = to_nc1hwc0(x)
    assert blocked.shape == nc1hwc0_shape(x.shape) == (2, 2, 3, 5, 16)
    assert blocked[1, 1, 2, 4, 3] == x[1, 19, 2, 4]
    assert blocked[1, 1, 2, 4, 4] == 0, "channel 20 is padding"
    np.testing.assert_array_equal(from_nc1hwc0(blocked, 20), x)
    # CANN's example: HWCN (2, 2, 32, 32) in fp16 becomes (8, 2, 16, 16).
    weights = np.arange(32 * 32 * 4).reshape(32, 32, 2, 2)
    packed = to_fractal_z(weights)
    assert packed.shape == fractal_z_shape(weights.shape) == (8, 2, 16, 16)
    for o, i, h, w in ((0, 0, 0, 0), (17, 5, 1, 0), (31, 31, 1, 1), (3, 20, 0, 1)):
        assert packed[(i // 16 * 2 + h) * 2 + w, o // 16, o % 16, i % 16] == weights[o, i, h, w]


@given(shape=shapes, data=st.data())
def test_a_window_holds_exactly_the_rows_that_are_read(shape: Shape, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, shape.out_height - 1))
    rows = data.draw(st.integers(1, shape.out_height - first))
    read = {(first + r) * shape.stride_h - shape.pad_top + k for r in range(rows) for k in range(3)}
    window = input_window(shape, first, rows)
    inside = [row for row in read if 0 <= row < shape.height]
    assume(inside)
    assert window.first == min(inside)
    assert window.first + window.rows - 1 == max(inside)
    assert window.pad_top == max(0, -min(read))
    assert window.pad_bottom == max(0, max(read) - shape.height + 1)


@given(shape=shapes, l1=st.integers(8, 64))
def test_a_tile_fits_and_covers(shape: Shape, l1: int) -> None:
    buffers = Buffers(l1 * 1024, 8192, 8192, 16384)
    try:
        tile = choose_tile(shape, buffers)
    except ValueError:
        return
    weights = shape.c1 * 9 * tile.n1 * 512
    most = max(
        input_window(shape, row, min(tile.rows, shape.out_height - row)).rows
        for row in range(0, shape.out_height, tile.rows)
    )
    assert weights + most * shape.width * shape.c1 * 32 + tile.n1 * 64 <= buffers.l1
    assert 2 * tile.m * tile.k1 * 32 <= buffers.l0a
    assert 2 * tile.k1 * tile.n1 * 512 <= buffers.l0b
    assert tile.m * tile.n1 * 64 <= buffers.l0c
    assert tile.m % 16 == 0
    assert min(tile) >= 1


@pytest.mark.parametrize("layer", RESNET, ids=str)
def test_every_3x3_layer_of_resnet50_fits_a_core(layer: tuple[int, int, int, int]) -> None:
    for l1 in {chip.l1_bytes for chip in CHIPS.values()}:
        tile = choose_tile(resnet_shape(*layer), CORE._replace(l1=l1))
        assert tile.m >= 32
        assert tile.k1 * tile.n1 <= 255, "one LoadData repeats at most 255 times"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        choose_tile(resnet_shape(512, 512, 7, 1), Buffers(64 << 10, 65536, 65536, 131072))


@given(shape=shapes, l1=st.integers(8, 64), data=st.data())
def test_the_devices_arithmetic_is_the_same(kernel: ctypes.CDLL, shape: Shape, l1: int, data: st.DataObject) -> None:
    buffers, found = Buffers(l1 * 1024, 8192, 8192, 16384), array((0,) * 4)
    fits = kernel.choose_tile(array(shape), array(buffers), found)
    try:
        assert Tile(*found) == choose_tile(shape, buffers)
        assert fits
    except ValueError:
        assert not fits
    first = data.draw(st.integers(0, shape.out_height - 1))
    rows = data.draw(st.integers(1, shape.out_height - first))
    kernel.input_window(array(shape), first, rows, found)
    assert tuple(found) == tuple(value % 2**32 for value in input_window(shape, first, rows))


@given(shape=shapes, seed=st.integers(0, 99), trim=st.integers(0, 15), cores=st.integers(1, 3))
@settings(max_examples=40)
def test_the_kernel_computes_the_convolution(
    kernel: ctypes.CDLL, shape: Shape, seed: int, trim: int, cores: int
) -> None:
    small = Buffers(96 << 10, 4096, 8192, 8192)  # so that small shapes are cut as large ones are
    x, weights, bias = random_case(shape, seed, trim)
    agree(on_device(kernel, shape, x, weights, bias, small, cores), reference(shape, x, weights, bias))


@pytest.mark.parametrize("layer", [RESNET[0], RESNET[5]], ids=str)
def test_the_kernel_computes_layers_of_resnet50(kernel: ctypes.CDLL, layer: tuple[int, int, int, int]) -> None:
    shape = resnet_shape(*layer)
    x, weights, bias = random_case(shape, 1)
    agree(on_device(kernel, shape, x, weights, bias), reference(shape, x, weights, bias))


def test_sums_of_small_tiles_are_waited_for(kernel: ctypes.CDLL) -> None:
    """A tile of 32 pixels by 64 channels has 8 fractals; the last of a 512-channel layer's is of that kind."""
    shape = Shape(1, 2, 4, 8, 4, 1, 1, 1, 1, 1, 1)
    x, weights, bias = random_case(shape, 1)
    agree(on_device(kernel, shape, x, weights, bias), reference(shape, x, weights, bias))
    kernel.let_barriers_wait(0)
    try:
        with pytest.raises(AssertionError):
            agree(on_device(kernel, shape, x, weights, bias), reference(shape, x, weights, bias))
        large = resnet_shape(16, 64, 14, 1)
        x, weights, bias = random_case(large, 1)
        agree(on_device(kernel, large, x, weights, bias), reference(large, x, weights, bias))
    finally:
        kernel.let_barriers_wait(1)
