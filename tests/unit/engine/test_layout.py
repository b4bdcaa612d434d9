"""The block is a matter of speed: whichever one the tensors have, the answers are the same to the bit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tessera import engine
from tessera.engine import _native
from tessera.engine.backends.cpu import session as cpu_session
from tessera.engine.backends.cpu.layout import lay_out
from tessera.engine.backends.cpu.plan import ExecutionPlan
from tessera.engine.backends.cpu.planner import plan_graph
from tessera.engine.backends.cpu.tensor import Blocks, Precision, Tensor
from tessera.engine.graph.passes import lower
from tessera.engine.graph.reader import read_model
from tessera.models.registry import Model, open_model
from tests.servers import CACHE
from tests.unit.engine.test_isa import levels
from tests.unit.graph.onnx_models import build, node, normal
from tests.unit.graph.random_networks import networks

SMALLEST: Blocks = dict.fromkeys((_native.U8, _native.BF16, _native.F32), _native.GROUP)
LARGER: list[Blocks] = [
    dict.fromkeys(SMALLEST, 32),
    dict.fromkeys(SMALLEST, 64),
    {_native.U8: 64, _native.BF16: 32, _native.F32: 16},
    {_native.U8: 48, _native.BF16: 16, _native.F32: 80},
]
PRECISIONS = ["int8", "bf16", "fp32"]


def answers(path: Path, batch: npt.NDArray[np.generic], precision: str, blocks: Blocks) -> npt.NDArray[np.float32]:
    """What a session answers whose program asks for these blocks."""

    def chosen(plan: ExecutionPlan, program: _native.Program) -> Blocks:
        return blocks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_session, "choose_blocks", chosen)
        with engine.load(path, backend="cpu", threads=2, precision=precision) as session:
            return session.run(batch)


def assert_blocks_do_not_matter(path: Path, batch: npt.NDArray[np.generic], precision: str) -> None:
    expected = answers(path, batch, precision, SMALLEST)
    for blocks in LARGER:
        np.testing.assert_array_equal(answers(path, batch, precision, blocks), expected, err_msg=f"{blocks}")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), precision=st.sampled_from(["auto", "bf16", "fp32"]))
def test_random_networks_answer_alike_in_every_block(data: st.DataObject, precision: str) -> None:
    model, batch = data.draw(networks(quantised=precision == "auto"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.save(model, path)
        try:
            assert_blocks_do_not_matter(path, batch, precision)
        except engine.ModelError:
            assume(False)


def wide_network(path: Path) -> Path:
    """More channels than a block, few of them multiples of one: all kinds of steps, groups, frames, residuals."""
    constants = {
        "w1": normal(40, 3, 3, 3, seed=1) * 0.3,
        "w2": normal(96, 40, 3, 3, seed=2) * 0.1,
        "w3": normal(96, 48, 3, 3, seed=3) * 0.1,
        "w4": normal(96, 96, 1, 1, seed=4) * 0.2,
        "w5": normal(72, 96, 3, 3, seed=5) * 0.1,
        "w6": normal(11, 72 * 9, seed=6) * 0.1,
    }
    nodes = [
        node("Conv", ["x", "w1"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1"),
        node("MaxPool", ["r1"], "p1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["p1", "w2"], "c2", pads=[1, 1, 1, 1]),
        node("Conv", ["c2", "w3"], "c3", pads=[1, 1, 1, 1], group=2),
        node("Conv", ["c3", "w4"], "c4"),
        node("Add", ["c4", "c2"], "a4"),
        node("Relu", ["a4"], "r4"),
        node("Add", ["r4", "c3"], "a5"),
        node("Add", ["a5", "c2"], "a6"),
        node("AveragePool", ["a6"], "p6", kernel_shape=[2, 2], strides=[1, 1]),
        node("Conv", ["p6", "w5"], "c7", strides=[3, 3], pads=[1, 1, 1, 1]),
        node("Flatten", ["c7"], "f8"),
        node("Gemm", ["f8", "w6"], "g9", transB=1),
        node("Softmax", ["g9"], "y", axis=1),
    ]
    onnx.save(build(nodes, ["N", 3, 15, 15], {k: v.astype(np.float32) for k, v in constants.items()}, rank=2), path)
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_of_many_channels_answers_alike_on_every_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    path, batch = wide_network(tmp_path / "float.onnx"), normal(5, 3, 15, 15, seed=9)
    if precision == "int8":
        engine.quantize(path, [normal(8, 3, 15, 15, seed=8)], tmp_path / "quantised.onnx")
        path = tmp_path / "quantised.onnx"
    for level in levels(monkeypatch):
        monkeypatch.setenv("TESSERA_ISA", level)
        assert_blocks_do_not_matter(path, batch, precision)


@pytest.fixture(scope="module")
def resnet() -> Model:
    return open_model(cache=CACHE)


@pytest.mark.parametrize(("variant", "precision"), [("optimised", "int8"), ("baseline", "bf16"), ("baseline", "fp32")])
def test_resnet50_answers_alike_in_every_block(resnet: Model, variant: str, precision: str) -> None:
    side = resnet.preprocessing.size
    batch = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    assert_blocks_do_not_matter(resnet.variants[variant].path, batch, precision)


def test_the_program_says_which_block_suits_its_convolutions(tmp_path: Path) -> None:
    """Only matrix units want more than one group."""
    plan = plan_graph(lower(read_model(wide_network(tmp_path / "wide.onnx"))), "fp32", None)
    if _native.isa() != "amx":
        assert cpu_session.choose_blocks(plan, _native.Program(1)) == SMALLEST


MATRIX_BLOCKS: Blocks = {_native.U8: 64, _native.BF16: 32, _native.F32: 16}


def in_phases(
    path: Path, precision: Precision, blocks: Blocks = MATRIX_BLOCKS, *, matrix_unit: bool = True
) -> dict[str, Tensor]:
    """The tensors of a plan that lie in phases, by the values they hold."""
    plan = plan_graph(lower(read_model(path)), precision, None)
    lay_out(plan, blocks, matrix_unit=matrix_unit)
    return {tensor.name: tensor for tensor in plan.tensors if tensor.phases}


@pytest.mark.parametrize(("variant", "precision"), [("optimised", "fp32"), ("baseline", "bf16")])
def test_only_a_matrix_unit_reads_phases(resnet: Model, variant: str, precision: Precision) -> None:
    """All of ResNet-50 that a stride of 2 reads, but for 3x3 at 14: as many tiles as rows, either way."""
    path = resnet.variants[variant].path
    chosen = in_phases(path, precision)
    assert [(tensor.channels, tensor.height, tensor.frame) for tensor in chosen.values()] == [
        (256, 56, (0, 0, 0, 0)),
        (128, 56, (1, 1, 0, 0)),
        (512, 28, (0, 0, 0, 0)),
        (1024, 14, (0, 0, 0, 0)),
        (512, 14, (1, 1, 0, 0)),
    ]
    assert not in_phases(path, precision, matrix_unit=False)
    assert not in_phases(path, precision, SMALLEST)


WINDOWS = {"strides": [2, 2], "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("size", "readers", "expected"),
    [
        (14, [("Conv", 3, WINDOWS)], True),
        (14, [("Conv", 1, {"strides": [2, 2]}), ("Conv", 1, {}), ("Conv", 3, WINDOWS)], True),
        (13, [("Conv", 3, WINDOWS)], True),
        (64, [("Conv", 3, WINDOWS)], False),  # rows of 32 fill their tiles
        (14, [("Conv", 3, WINDOWS), ("Conv", 3, {"pads": [1, 1, 1, 1]})], False),
        (14, [("Conv", 3, WINDOWS), ("MaxPool", 3, WINDOWS)], False),
        (14, [("Conv", 3, WINDOWS), ("Relu", 0, {})], False),
        (14, [("Conv", 3, {**WINDOWS, "strides": [2, 1]})], False),
        (14, [("Conv", 3, {**WINDOWS, "strides": [4, 4]})], False),
        (14, [("Conv", 3, {"strides": [2, 2], "pads": [2, 2, 2, 2], "dilations": [2, 2]})], False),
        (14, [("Conv", 3, {**WINDOWS, "group": 2})], False),
        (14, [("Conv", 1, {})], False),
    ],
)
def test_all_who_read_a_tensor_in_phases_can(
    tmp_path: Path, size: int, readers: list[tuple[str, int, dict[str, object]]], expected: bool
) -> None:
    constants = {"w": normal(64, 3, 1, 1, seed=1)}
    nodes = [node("Conv", ["x", "w"], "c")]
    for index, (op, kernel, attributes) in enumerate(readers):
        inputs = ["c"]
        if op == "Conv":
            groups = attributes.get("group", 1)
            assert isinstance(groups, int)
            constants[f"w{index}"] = normal(64, 64 // groups, kernel, kernel, seed=2)
            inputs.append(f"w{index}")
        elif kernel:
            attributes = {**attributes, "kernel_shape": [kernel, kernel]}
        nodes += [node(op, inputs, f"r{index}", **attributes), node("GlobalAveragePool", [f"r{index}"], f"g{index}")]
        nodes.append(node("Add", [f"g{index}", f"s{index - 1}" if index else "g0"], f"s{index}"))
    path = tmp_path / "readers.onnx"
    onnx.save(build(nodes, ["N", 3, size, size], constants, outputs=[nodes[-1].output[0]]), path)
    assert ("c" in in_phases(path, "bf16")) is expected
