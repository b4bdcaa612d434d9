"""Pruned blocks: which ones become zeros, and that the engine leaves them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tessera import engine
from tessera.engine.backends.cpu.session import CpuSession
from tessera.engine.errors import InputError, ModelError
from tessera.engine.pruning import Pruner, block_energies, prune, prune_for_photos
from tessera.engine.quantize import Gate
from tests.unit.engine.test_isa import levels
from tests.unit.quantize.networks import run

SIDE = 12
OUTPUTS, INPUTS = 64, 32


def network(kernel: int) -> onnx.ModelProto:
    """conv 3x3 from the image -> relu -> the convolution that is looked at -> global average."""
    random = np.random.default_rng(3)
    weights = {
        "stem": random.normal(size=(INPUTS, 3, 3, 3)),
        "w": random.normal(size=(OUTPUTS, INPUTS, kernel, kernel)),
    }
    pad = kernel // 2
    nodes = [
        helper.make_node("Conv", ["input", "stem"], ["c"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w"], ["m"], name="middle", pads=[pad] * 4),
        helper.make_node("GlobalAveragePool", ["m"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["output"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "pruned",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["N", OUTPUTS])],
        [numpy_helper.from_array((array * 0.1).astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def middle(model: onnx.ModelProto) -> np.ndarray:
    """Weights of the convolution, [outputs, inputs, height, width]."""
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return next(array for array in arrays if array.shape[:2] == (OUTPUTS, INPUTS))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


def test_the_blocks_that_carry_least_become_zeros() -> None:
    dense = network(3)
    pruned, before = middle(prune(dense, 0.5, block=(16, 4))), middle(dense)
    blocks = np.square(before.reshape(4, 16, 8, 4, 3, 3)).sum(axis=(1, 3))
    kept = blocks >= np.median(blocks)
    expected = before * np.repeat(np.repeat(kept, 16, axis=0), 4, axis=1)
    np.testing.assert_array_equal(pruned, expected)


@pytest.mark.parametrize(("evenly", "zeros"), [(True, 0.5), (False, 0.0)])
def test_few_blocks_that_carry_much_are_kept_unless_all_layers_lose_the_same(evenly: bool, zeros: float) -> None:
    pruned = prune(network(3), 0.5, block=(16, 3), evenly=evenly)
    stem = next(array for array in map(numpy_helper.to_array, pruned.graph.initializer) if array.shape[1:] == (3, 3, 3))
    assert np.mean(stem == 0) == zeros


def load(path: Path) -> CpuSession:
    session = engine.load(path, backend="cpu", threads=1)
    assert isinstance(session, CpuSession)
    return session


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_pruned_blocks_take_no_memory_and_no_answer_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: int, precision: str
) -> None:
    sizes: dict[str, dict[float, int]] = {}
    for share in (0.0, 0.75):
        model, path = prune(network(kernel), share), tmp_path / f"{share}.onnx"
        if precision == "int8":
            engine.quantize(model, [images(8)], path)
        else:
            onnx.save(model, path)
        monkeypatch.setenv("TESSERA_ISA", "scalar")
        expected = load(path).run(images(4))
        with engine.load(path, backend="onnxruntime") as peer:
            distance = np.linalg.norm(expected - peer.run(images(4)))
        assert distance < (0.02 if precision == "int8" else 1e-5) * np.linalg.norm(expected)
        for level in levels(monkeypatch):
            monkeypatch.setenv("TESSERA_ISA", level)
            session = load(path)
            assert session._program is not None
            sizes.setdefault(level, {})[share] = session._program.weight_bytes
            actual = session.run(images(4))
            if precision == "int8":
                np.testing.assert_array_equal(actual, expected, err_msg=level)
            else:
                np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=level)
    for level, bytes_of in sizes.items():
        if level != "amx":  # leaves out steps of 64 bytes of channels, which blocks are not
            assert bytes_of[0.75] < 0.7 * bytes_of[0.0], level


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ModelError, match="from 0 to 1"):
        prune(network(1), share)


def correlated(count: int) -> np.ndarray:
    """Images whose three colours are nearly one, as those of photos are."""
    random = np.random.default_rng(7)
    grey = random.normal(size=(count, 1, SIDE, SIDE))
    return (grey + 0.1 * random.normal(size=(count, 3, SIDE, SIDE))).astype(np.float32)


def zero_blocks(weights: np.ndarray) -> np.ndarray:
    zero: np.ndarray = block_energies(weights, (16, 4)) == 0
    return zero


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_the_multiplications_is_left_out_in_whole_blocks(kernel: int, share: float) -> None:
    pruner = Pruner(network(kernel), correlated(6), block=(16, 4))
    zeros = pruner.zeros(share)
    weights = middle(pruner.pruned(zeros))
    (flags,) = zeros.values()
    np.testing.assert_array_equal(zero_blocks(weights), flags)
    np.testing.assert_array_equal(weights == 0, np.repeat(np.repeat(flags, 16, axis=0), 4, axis=1))
    assert flags.mean() == pytest.approx(share, abs=1 / flags.size)


def test_nothing_pruned_changes_nothing() -> None:
    pruner = Pruner(network(3), correlated(4))
    np.testing.assert_allclose(run(pruner.pruned(pruner.zeros(0.0)), images(2)), run(network(3), images(2)), rtol=1e-5)


def test_photos_tell_better_what_can_go_than_weights_do() -> None:
    dense, unseen = network(3), correlated(64)[32:]
    wanted = run(dense, unseen)
    pruner = Pruner(dense, correlated(32), block=(16, 4))

    def lost(model: onnx.ModelProto) -> float:
        return float(np.square(run(model, unseen) - wanted).sum() / np.square(wanted).sum())

    assert lost(pruner.pruned(pruner.zeros(0.5))) < 0.5 * lost(prune(dense, 0.5, block=(16, 4), evenly=True))


def test_a_block_that_repeats_what_others_say_costs_nothing() -> None:
    """The second half of the channels is a copy of the first, so the weights of one half can take over the other's."""
    dense = network(1)
    stem = next(tensor for tensor in dense.graph.initializer if tensor.name == "stem")
    half = numpy_helper.to_array(stem)[: INPUTS // 2]
    stem.CopyFrom(numpy_helper.from_array(np.concatenate([half, half]), "stem"))
    result, report = prune_for_photos(dense, images(16), images(20)[16:], share=0.5, block=(16, 4))
    assert report.kept.sqnr > 25
    assert zero_blocks(middle(result)).mean() == pytest.approx(report.blocks)


def test_the_largest_share_that_meets_the_gate_is_found() -> None:
    gate = Gate(sqnr=12.0, agreement=0.0)
    result, report = prune_for_photos(network(3), correlated(24), correlated(32)[24:], gate=gate, block=(16, 4))
    assert report.kept.met
    assert report.kept.sqnr >= 12.0
    assert report.kept.share == max(attempt.share for attempt in report.attempts if attempt.met)
    assert all(attempt.share > report.kept.share for attempt in report.attempts if not attempt.met)
    assert zero_blocks(middle(result)).mean() == pytest.approx(report.blocks)


def test_a_gate_that_nothing_meets_is_told() -> None:
    _, report = prune_for_photos(network(3), images(8), images(10)[8:], gate=Gate(sqnr=200.0))
    assert not report.kept.met
    assert report.kept == report.attempts[-1]


@pytest.mark.parametrize("counts", [(0, 4), (4, 0)])
def test_no_images_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="no images"):
        prune_for_photos(network(1), images(counts[0]), images(counts[1]), share=0.5)


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="40 input channels"):
        prune(network(1), 0.5, block=(16, 40))
